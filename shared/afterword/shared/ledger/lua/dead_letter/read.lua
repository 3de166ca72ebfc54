-- Read what is known of dead letters, without what was said unless it is asked for.
--   ARGV[2] 1 to read what was said, too  then job ids; those that are no dead letter are passed over
-- Answers {id, kind, size, field, ...}, ...: a letter's fields in the order given here.
local BOTH = { 'tenant', 'lane', 'v', 'created', 'replayed_as' }
local OF = {
  memory = { 't_first_failed', 't_ended', 't_code', 't_fault', 't_attempts', 't_snoozes', 't_worker',
    'replays', 'event' },
  reply = { 'first_failed', 'ended', 'code', 'fault', 'attempts', 'snoozes', 'worker' },
}

local function kind_of(id)
  local job = redis.call('HMGET', job_key(id), 'turn', 'state', 'discarded')
  if job[1] == 'dead' then return 'memory' end
  local whole = job[2] == 'failed' and not job[3] and redis.call('HEXISTS', job_key(id), 'body') == 1
  return whole and 'reply' or nil
end

local function size(id)
  return redis.call('HSTRLEN', job_key(id), 'body') + redis.call('HSTRLEN', job_key(id), 'reply')
end

local function letter(id, kind)
  local found = { id, kind, size(id), redis.call('HMGET', job_key(id), unpack(BOTH)),
    redis.call('HMGET', job_key(id), unpack(OF[kind])) }
  if ARGV[2] == '1' then found[6] = redis.call('HMGET', job_key(id), 'body', 'reply') end
  return found
end

local letters = {}
for i = 3, #ARGV do
  local kind = kind_of(ARGV[i])
  if kind then letters[#letters + 1] = letter(ARGV[i], kind) end
end
return answer(unpack(letters))
