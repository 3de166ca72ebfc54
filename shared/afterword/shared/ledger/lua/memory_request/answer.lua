-- Answer a request about memories, for whoever waits for it.
---@param id string
---@param fence string
---@param result string         JSON
---@param lifetime_ms integer   lifetime of the answer
-- Answers ok | lost (withdrawn, expired, or answered by another worker). Repeated by the same one, it is
--   done once.
local request = redis.call('HMGET', memory_request_key(id), 'lane', 'fence')
if request[2] == fence then return answer('ok') end
if not holds_lane(id, fence) then return answer('lost') end
end_memory_request(id)
if not request[1] then return answer('lost') end
redis.call('HSET', memory_request_key(id), 'answer', result, 'fence', fence)
redis.call('HDEL', memory_request_key(id), 'arguments')
redis.call('PEXPIRE', memory_request_key(id), lifetime_ms)
return answer('ok')
