-- Accept a job: its record, its place in the lane, its idempotency key and its hint, at once.
--   ARGV[2] job id  [3] lane id  [4] tenant  [5] body, JSON  [6] lifetime, ms
--   [7] fingerprint of the body  [8] idempotency key, hashed, or ''  [9] its lifetime, ms
--   [10] turn state to begin with: awaited | none  [11] agenda  [12] most open jobs  [13] version
--   [14] conversation it belongs to, or ''
-- Answers new | same | reused | full, then the job id.
local id, lane, tenant, turn = ARGV[2], ARGV[3], ARGV[4], ARGV[10]
local idem = root .. ':idem:' .. ARGV[8]

if redis.call('EXISTS', job_key(id)) == 1 then return answer('same', id) end
if ARGV[8] ~= '' then
  local known = redis.call('HMGET', idem, 'job', 'fingerprint')
  if known[1] then return answer(known[2] == ARGV[7] and 'same' or 'reused', known[1]) end
end
if redis.call('ZCARD', OPEN) >= tonumber(ARGV[12]) then return answer('full', id) end

local seq, deadline = next_number(), now + ARGV[6]
redis.call('HSET', job_key(id), 'v', ARGV[13], 'state', 'queued', 'turn', turn, 'tenant', tenant,
  'lane', lane, 'agenda', ARGV[11], 'body', ARGV[5], 'seq', seq, 'created', now,
  'deadline', deadline, 'attempts', 0)
redis.call('ZADD', OPEN, deadline, id)
if ARGV[14] ~= '' then redis.call('HSET', job_key(id), 'talk', ARGV[14]) end
tally('job', tenant, nil, 'queued')
tally('turn', tenant, nil, turn)
if turn == 'awaited' then redis.call('ZADD', lane_key(lane), seq, id) end
if ARGV[8] ~= '' then
  redis.call('HSET', idem, 'job', id, 'fingerprint', ARGV[7])
  redis.call('PEXPIRE', idem, ARGV[9])
end
hint(ARGV[11], id)
return answer('new', id)
