-- Begin to erase a user: a worker that holds their lane is fenced, and the lane does nothing else
-- until the user is erased (I12).
---@param lane string
---@param version integer   version of the record
---@param by string         operator
-- Answers asked, or open (it was requested before and is not done).
local state = redis.call('HGET', erasure_key(lane), 'state')
if state and state ~= 'erased' then return answer('open') end
redis.call('DEL', erasure_key(lane))
redis.call('HSET', erasure_key(lane), 'version', version, 'state', 'asked', 'asked', now, 'due', now,
  'by', by, 'sequence', next_sequence())
redis.call('ZADD', ERASURES, now, lane)
redis.call('HDEL', FENCES, lane)
redis.call('PUBLISH', FENCED, lane)
hint(LANES, lane)
return answer('asked')
