-- Read dead letters; ids that are no dead letter are left out.
---@param content boolean   whether to read the message and the reply, too
---@param ids string[]      jobs
-- Answers a list of dead letters, each {field, value, ...}; a field without a value is left out.
local NAMES = { 'failed', 'buried', 'code', 'fault', 'attempts', 'snoozes', 'worker', 'replays', 'event' }
local FIELDS = {
  memory = { 'turn_first_failed', 'turn_ended', 'turn_code', 'turn_fault', 'turn_attempts', 'turn_snoozes',
    'turn_worker', 'replays', 'event' },
  reply = { 'first_failed', 'ended', 'code', 'fault', 'attempts', 'snoozes', 'worker' },
}
local BOTH, CONTENT = { 'lane', 'version', 'created', 'replayed_as' }, { 'body', 'reply' }

local function kind_of(id)
  local job = redis.call('HMGET', job_key(id), 'turn', 'state', 'discarded')
  if job[1] == 'dead' then return 'memory' end
  local whole = job[2] == 'failed' and not job[3] and redis.call('HEXISTS', job_key(id), 'body') == 1
  return whole and 'reply' or nil
end

local function read(letter, id, names, fields)
  for i, value in ipairs(redis.call('HMGET', job_key(id), unpack(fields))) do
    if value then
      letter[#letter + 1] = names[i]
      letter[#letter + 1] = value
    end
  end
end

local letters = {}
for _, id in ipairs(ids) do
  local kind = kind_of(id)
  if kind then
    local size = redis.call('HSTRLEN', job_key(id), 'body') + redis.call('HSTRLEN', job_key(id), 'reply')
    local letter = { 'id', id, 'kind', kind, 'size', size }
    read(letter, id, BOTH, BOTH)
    read(letter, id, NAMES, FIELDS[kind])
    if content then read(letter, id, CONTENT, CONTENT) end
    letters[#letters + 1] = letter
  end
end
return answer(letters)
