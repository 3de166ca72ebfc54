-- Put a turn back to pending and let go of its lane until later.
--   ARGV[2] lane id  [3] fence  [4] job id of the turn  [5] delay, ms
--   [6] 1 if the attempt counts (retry), 0 if not (snooze)  [7] code  [8] 1 if it may be stored
-- Answers ok | lost. Asked twice by the same writer, it is done once.
local lane, fence, id = ARGV[2], ARGV[3], ARGV[4]
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 't_fence')
if turn[1] == 'pending' and turn[3] == fence then return answer('ok') end
if not holds_lane(lane, fence) or turn[1] ~= 'writing' then return answer('lost') end
set_turn(id, turn[2], 'writing', 'pending')
redis.call('HSET', job_key(id), 't_code', ARGV[7])
if ARGV[6] == '0' then
  redis.call('HINCRBY', job_key(id), 't_attempts', -1)
  redis.call('HINCRBY', job_key(id), 't_snoozes', 1)
end
if ARGV[8] ~= '1' then redis.call('HDEL', job_key(id), 't_open', 'event', 't_event_at') end
redis.call('HDEL', FENCES, lane)
put('waiting', LANES, lane, now + ARGV[5])
return answer('ok')
