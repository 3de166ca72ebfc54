-- Take a request back that nobody waits for any longer.
---@param id string
-- Answers withdrawn (no worker has begun it, and none will) | begun | gone, or 'answered', answer.
local request = redis.call('HMGET', memory_request_key(id), 'version', 'answer', 'begun')
if request[2] then return answer('answered', request[2]) end
redis.call('DEL', memory_request_key(id))
redis.call('ZREM', MEMORY_REQUESTS, id)
if request[3] then return answer('begun') end
end_memory_request(id)
return answer(request[1] and 'withdrawn' or 'gone')
