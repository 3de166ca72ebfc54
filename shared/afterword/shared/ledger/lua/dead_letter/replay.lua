-- Put a dead turn back into its lane, at the place it had there. A replay run does it once.
---@param id string               job
---@param run string
---@param replays integer         how often it was replayed before the run chose it
---@param known_version integer   newest version of records that the caller knows
-- Answers gone | erased (or about to be) | refused (it is no dead letter, was buried again since, or is
--   newer) | waiting (it is in its lane, or this run put it there before).
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'lane', 'sequence', 'created', 'replays',
  'run')
if not turn[1] then return answer('gone') end
if newer_version(id, known_version) then return answer('refused') end
if turn[1] == 'erased' then return answer('erased') end
if turn[7] == run then return answer('waiting') end
if turn[1] ~= 'dead' or tonumber(turn[6] or 0) ~= replays then return answer('refused') end
if is_being_erased(turn[3]) then return answer('erased') end
set_turn_state(id, turn[2], 'dead', 'pending')
redis.call('HSET', job_key(id), 'turn_attempts', 0, 'run', run)
redis.call('HINCRBY', job_key(id), 'replays', 1)
add_step(id, 'replay', run)
redis.call('ZREM', DEAD_TURNS, id)
enter_lane(turn[3], id, turn[2], turn[4], turn[5])
hint_idle_lane(turn[3])
return answer('waiting')
