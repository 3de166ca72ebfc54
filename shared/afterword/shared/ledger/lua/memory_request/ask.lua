-- Ask a memory worker something about the memories of a user. The record expires by itself.
---@param id string               request
---@param lane string             its user's
---@param version integer         version of the record
---@param action string
---@param arguments string        JSON
---@param until_ms integer        for how long somebody waits for the answer
---@param lifetime_ms integer     lifetime of the record
---@param max_open integer        most requests of this shard that may have no answer yet
-- Answers asked | full | erasing (its user is about to be erased).
if redis.call('EXISTS', memory_request_key(id)) == 1 then return answer('asked') end
for _, other in ipairs(redis.call('ZRANGEBYSCORE', MEMORY_REQUESTS, '-inf', now, 'LIMIT', 0, 10)) do
  end_memory_request(other)
end
if redis.call('ZCARD', MEMORY_REQUESTS) >= max_open then return answer('full') end
if is_being_erased(lane) then return answer('erasing') end
redis.call('HSET', memory_request_key(id), 'version', version, 'lane', lane, 'action', action,
  'arguments', arguments, 'until', now + until_ms)
redis.call('PEXPIRE', memory_request_key(id), lifetime_ms)
redis.call('ZADD', MEMORY_REQUESTS, now + lifetime_ms, id)
hint_ahead(id)
return answer('asked')
