-- Give up a dead letter for good.
--   ARGV[2] job id of the turn  [3] retention, ms
-- Answers gone | refused (it is no dead letter) | discarded.
local id = ARGV[2]
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant')
if not turn[1] then return answer('gone') end
if turn[1] ~= 'dead' then return answer('refused') end
set_turn(id, turn[2], 'dead', 'skipped')
redis.call('HSET', job_key(id), 't_code', 'discarded')
redis.call('HDEL', job_key(id), 'facts')
redis.call('ZREM', DEAD, id)
retain(id, ARGV[3])
return answer('discarded')
