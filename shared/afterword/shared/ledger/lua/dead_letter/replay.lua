-- Put a dead letter back into its lane, at the place it had there; a run does it once.
--   ARGV[2] job id of the turn  [3] run  [4] how often it was replayed before the run chose it
--   [5] newest version we know
-- Answers gone | erased (or about to be) | refused (it is no dead letter, another one by now, or newer) |
--   waiting (it is in its lane, or was put there by this run before).
local id, run = ARGV[2], ARGV[3]
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'lane', 'seq', 'created', 'replays', 'run')
if not turn[1] then return answer('gone') end
if newer(id, ARGV[5]) then return answer('refused') end
if turn[1] == 'erased' then return answer('erased') end
if turn[7] == run then return answer('waiting') end
if turn[1] ~= 'dead' or (turn[6] or '0') ~= ARGV[4] then return answer('refused') end
if is_being_erased(turn[3]) then return answer('erased') end
set_turn(id, turn[2], 'dead', 'pending')
redis.call('HSET', job_key(id), 't_attempts', 0, 'run', run)
redis.call('HINCRBY', job_key(id), 'replays', 1)
redis.call('ZREM', DEAD, id)
enter_lane(turn[3], id, turn[2], turn[4], turn[5])
nudge(turn[3])
return answer('waiting')
