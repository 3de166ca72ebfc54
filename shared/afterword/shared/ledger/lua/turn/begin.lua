-- Record the intent to store a batch, before mem0 is called.
---@param lane string
---@param fence string
---@param worker string  who stores it
---@param ids string[]   the turns of the batch, oldest first
-- Answers lost | regrouped (the batch was begun with other turns), or clear | unknown (an earlier attempt
--   may have stored it).
if not holds_lane(lane, fence) then return answer('lost') end
local id, batch = ids[1], table.concat(ids, ' ')
local turn = redis.call('HMGET', job_key(id), 'turn', 'turn_fence', 'turn_intent', 'event', 'batch',
  'sequence')
if turn[5] and turn[5] ~= batch then return answer('regrouped') end
if turn[2] == fence and turn[1] == 'writing' then
  return answer(turn[3] == 'repeated' and 'unknown' or 'clear')
end
local unknown = turn[3] == 'first' or turn[3] == 'repeated' or may_be_stored_since(turn[6])
local attempt = redis.call('HINCRBY', job_key(id), 'turn_attempts', 1)
redis.call('HSET', job_key(id), 'turn_fence', fence, 'turn_intent', unknown and 'repeated' or 'first',
  'batch', batch)
-- An earlier writer without an event may still add it: it can be paused, its call be on its way.
if unknown and not turn[4] then redis.call('HSET', job_key(id), 'turn_doubtful', 1) end
for _, each in ipairs(ids) do
  local record = redis.call('HMGET', job_key(each), 'turn', 'tenant', 'story')
  redis.call('HSET', job_key(each), 'story',
    with_step(record[3], 'store', attempt, worker, #ids, each == id and '-' or id))
  if record[1] ~= 'writing' then set_turn_state(each, record[2], record[1], 'writing') end
end
return answer(unknown and 'unknown' or 'clear')
