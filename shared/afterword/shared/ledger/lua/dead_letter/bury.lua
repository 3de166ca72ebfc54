-- Make a turn a dead letter: nothing is deleted, and the reason is kept.
---@param lane string
---@param fence string
---@param id string       job
---@param code string
---@param fault string    whose failure it was: provider | operator | request
---@param worker string   version of the worker
---@param paid string   what the attempt has paid for facts so far, see `count_extraction`, or ''
-- Answers ok | lost. Repeated by the same writer, it is done once.
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'turn_fence')
if turn[1] == 'dead' and turn[3] == fence then return answer('ok') end
if not holds_lane(lane, fence) or turn[1] ~= 'writing' then return answer('lost') end
count_extraction(id, turn[2], lane, fence, paid)
set_turn_state(id, turn[2], 'writing', 'dead')
redis.call('HSET', job_key(id), 'turn_code', code, 'turn_fault', fault, 'turn_worker', worker,
  'turn_ended', now)
redis.call('HSETNX', job_key(id), 'turn_first_failed', now)
add_step(id, 'bury', fault, code)
leave_lane(lane, { id }, turn[2])
redis.call('ZADD', DEAD_TURNS, now, id)
return answer('ok')
