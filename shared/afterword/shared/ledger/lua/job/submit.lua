-- Accept a job: its record, its place in the lane, its idempotency key and its hint, at once; many
-- of them in one command (batched.lua).
--   ARGV[2] job id  [3] lane id  [4] tenant  [5] body, JSON  [6] lifetime, ms
--   [7] fingerprint of the body  [8] idempotency key, hashed, or ''  [9] its lifetime, ms
--   [10] turn state to begin with: awaited | none  [11] agenda  [12] most open jobs  [13] version
--   [14] conversation it belongs to, or ''  [15] if that has open jobs: enqueue | reject | interrupt
--   [16] retention, ms  [17] stream retention, ms, of those interrupted
--   then, if it is a replay: [18] the failed job  [19] the run that replays it
-- Answers new | same | reused | full | busy, then the job id; of a failed job that is not replayed
--   gone | erased (or about to be) | refused (it is no dead letter any more).
local id, lane, tenant, turn, talk = ARGV[2], ARGV[3], ARGV[4], ARGV[10], ARGV[14]
local idem = root .. ':idem:' .. ARGV[8]

if redis.call('EXISTS', job_key(id)) == 1 then return answer('same', id) end
if talk ~= '' or ARGV[18] then write_kept() end
local failed, said = ARGV[18], now
if failed then
  local letter = redis.call('HMGET', job_key(failed), 'state', 'body', 'created', 'replayed_as', 'run',
    'discarded')
  if not letter[1] then return answer('gone', id) end
  if newer(failed, ARGV[13]) then return answer('refused', id) end
  if letter[4] then return answer(letter[5] == ARGV[19] and 'same' or 'refused', letter[4]) end
  if letter[1] ~= 'failed' or letter[6] then return answer('refused', id) end
  if not letter[2] or is_being_erased(lane) then return answer('erased', id) end
  said = letter[3]
end
if ARGV[8] ~= '' then
  local known = redis.call('HMGET', idem, 'job', 'fingerprint')
  if known[1] then return answer(known[2] == ARGV[7] and 'same' or 'reused', known[1]) end
end
if count_open() >= tonumber(ARGV[12]) then return answer('full', id) end
if ARGV[15] == 'reject' and first_in_line(talk, 'inf') then return answer('busy', id) end
if ARGV[15] == 'interrupt' then
  for _, other in ipairs(redis.call('ZRANGE', line_key(talk), 0, -1)) do
    if is_open(other) and newer(other, ARGV[13]) then return answer('busy', id) end
  end
  -- The newest first: none is told that it may run, only to be ended too.
  for _, other in ipairs(redis.call('ZREVRANGE', line_key(talk), 0, -1)) do
    if is_open(other) then stop_job(other, 'interrupted', ARGV[16], ARGV[17]) end
  end
end

local seq, deadline = next_of_many(), now + ARGV[6]
redis.call('HSET', job_key(id), 'v', ARGV[13], 'state', 'queued', 'turn', turn, 'tenant', tenant,
  'lane', lane, 'agenda', ARGV[11], 'body', ARGV[5], 'seq', seq, 'created', said,
  'deadline', deadline, 'attempts', 0)
later('ZADD', OPEN, deadline, id)
open = open + 1
if talk ~= '' then
  redis.call('HSET', job_key(id), 'talk', talk, 'lined', 1)
  redis.call('ZADD', line_key(talk), seq, id)
end
tally_later('job:queued:' .. tenant)
tally_later('turn:' .. turn .. ':' .. tenant)
if turn == 'awaited' then redis.call('ZADD', lane_key(lane), seq, id) end
if ARGV[8] ~= '' then
  redis.call('HSET', idem, 'job', id, 'fingerprint', ARGV[7])
  redis.call('PEXPIRE', idem, ARGV[9])
  redis.call('HSET', job_key(id), 'idem', ARGV[8])
end
if failed then
  redis.call('HSET', job_key(id), 'replay_of', failed, 'queued', now)
  redis.call('HSET', job_key(failed), 'replayed_as', id, 'run', ARGV[19])
  redis.call('ZREM', FAILED, failed)
end
if talk == '' or not steps_aside(id, ARGV[11], talk, seq) then
  later('ZADD', place('hinted', ARGV[11]), now, id)  -- it was in no other place before
  push(ARGV[11], id, seq, later)
end
return answer('new', id)
