-- Make a turn that waits to be stored a dead letter, because an operator says so: its lane goes on
-- without it.
---@param id string               job
---@param worker string           version of the operator's program
---@param known_version integer   newest version of records that the caller knows
-- Answers gone | held | erased (or about to be) | busy (a writer has the lane) | begun (it goes with other
--   turns, as they were begun) | ok | its state, in which nobody buries it. Repeated, it is done once.
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'lane', 'sequence', 'turn_code')
local state, lane = turn[1], turn[3]
if not state then return answer('gone') end
if newer_version(id, known_version) then return answer('held') end
if state == 'dead' and turn[5] == 'buried_by_hand' then return answer('ok') end
if state ~= 'pending' then return answer(state) end
if is_being_erased(lane) then return answer('erased') end
if redis.call('HEXISTS', FENCES, lane) == 1 then return answer('busy') end

-- Its batch is listed by the oldest turn of it, which may be before it.
for _, each in ipairs(redis.call('ZREVRANGEBYSCORE', lane_key(lane), turn[4], '-inf', 'LIMIT', 0, MAX_AHEAD)) do
  local batch = batch_of(each)
  for _, other in ipairs(batch) do
    if other == id and #batch > 1 then return answer('begun') end
  end
end

set_turn_state(id, turn[2], 'pending', 'dead')
redis.call('HSET', job_key(id), 'turn_code', 'buried_by_hand', 'turn_fault', 'operator',
  'turn_worker', worker, 'turn_ended', now)
redis.call('HSETNX', job_key(id), 'turn_first_failed', now)
add_step(id, 'bury', 'operator', 'buried_by_hand')
leave_lane(lane, { id }, turn[2])
redis.call('ZADD', DEAD_TURNS, now, id)
return answer('ok')
