-- Claim a request about memories under a new fence.
---@param id string
---@param token string            names this claim: repeated with it, the same claim is granted
---@param lease_ms integer
---@param known_version integer   newest version of records that the caller knows
-- Answers gone (answered, withdrawn or expired) | taken | held (of a newer version), or
--   'claimed', fence, lane, action, arguments, milliseconds for which somebody waits for the answer.
local request = redis.call('HMGET', memory_request_key(id), 'version', 'lane', 'action', 'arguments',
  'until', 'answer')
if not request[1] or request[6] then
  end_memory_request(id)
  return answer('gone')
end
if tonumber(request[1]) > known_version then
  move_to('waiting', LANES, id, now + 1000)
  return answer('held')
end
local fence = claim_lease(id, token, lease_ms)
if not fence then return answer('taken') end
redis.call('HSET', memory_request_key(id), 'begun', 1)
return answer('claimed', fence, request[2], request[3], request[4], request[5] - now)
