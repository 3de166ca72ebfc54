-- Put a batch back to pending and let go of its lane until later.
--   ARGV[2] lane id  [3] fence  [4] first turn of the batch  [5] delay, ms
--   [6] 1 if the attempt counts (retry), 0 if not (snooze)  [7] code  [8] 1 if it may be stored
--   [9] 1 if each of its turns is a batch of its own from now on, with all attempts before it
-- Answers ok | lost. Asked twice by the same writer, it is done once.
local lane, fence, id = ARGV[2], ARGV[3], ARGV[4]
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 't_fence')
if turn[1] == 'pending' and turn[3] == fence then return answer('ok') end
if not holds_lane(lane, fence) or turn[1] ~= 'writing' then return answer('lost') end
local apart = ARGV[9] == '1'
local failed = ARGV[7] ~= 'storing' and ARGV[7] ~= 'drained'
for _, each in ipairs(batch_of(id)) do
  set_turn(each, turn[2], 'writing', 'pending')
  redis.call('HSET', job_key(each), 't_code', ARGV[7])
  if failed then redis.call('HSETNX', job_key(each), 't_first_failed', now) end
  if apart then redis.call('HSET', job_key(each), 'batch', each) end
end
if ARGV[6] == '0' then
  redis.call('HINCRBY', job_key(id), 't_attempts', -1)
  if failed then redis.call('HINCRBY', job_key(id), 't_snoozes', 1) end
end
if ARGV[8] ~= '1' or apart then redis.call('HDEL', job_key(id), 't_open', 'event', 't_event_at') end
if apart then
  redis.call('HSET', job_key(id), 't_attempts', 0)
  redis.call('HDEL', job_key(id), 'facts')
  if ARGV[8] == '1' then redis.call('HSET', job_key(id), 't_doubt', '1') end
end
redis.call('HDEL', FENCES, lane)
put('waiting', LANES, lane, now + ARGV[5])
return answer('ok')
