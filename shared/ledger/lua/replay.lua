-- Put a dead letter back into its lane, at the place it had there.
--   ARGV[2] job id of the turn
-- Answers gone | refused (it is no dead letter) | replayed.
local id = ARGV[2]
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'lane', 'seq', 'created')
if not turn[1] then return answer('gone') end
if turn[1] ~= 'dead' then return answer('refused') end
set_turn(id, turn[2], 'dead', 'pending')
redis.call('HSET', job_key(id), 't_attempts', 0)
redis.call('HINCRBY', job_key(id), 'replays', 1)
redis.call('ZREM', DEAD, id)
enter_lane(turn[3], id, turn[2], turn[4], turn[5])
nudge(turn[3])
return answer('replayed')
