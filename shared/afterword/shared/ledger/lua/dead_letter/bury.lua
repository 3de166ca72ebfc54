-- Make a turn a dead letter: give up, keep everything, say why.
--   ARGV[2] lane id  [3] fence  [4] job id of the turn  [5] code  [6] whose failure it was
--   [7] version of the worker
-- Answers ok | lost. Asked twice by the same writer, it is done once.
local lane, fence, id = ARGV[2], ARGV[3], ARGV[4]
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 't_fence')
if turn[1] == 'dead' and turn[3] == fence then return answer('ok') end
if not holds_lane(lane, fence) or turn[1] ~= 'writing' then return answer('lost') end
set_turn(id, turn[2], 'writing', 'dead')
redis.call('HSET', job_key(id), 't_code', ARGV[5], 't_fault', ARGV[6], 't_worker', ARGV[7], 't_ended', now)
redis.call('HSETNX', job_key(id), 't_first_failed', now)
leave_lane(lane, id, turn[2])
redis.call('ZADD', DEAD, now, id)
return answer('ok')
