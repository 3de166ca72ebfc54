-- Set this shard's part of a tenant's cap on running jobs, in a balance of all shards.
---@param tenant string
---@param most integer     most running jobs of a tenant, unless an operator ordered another number
---@param shards integer
---@param turn integer     number of this balance: once a later one has begun here, it is refused
---@param part integer     the new part; -1 to begin: it stays as it is; -2 to forget it if it is an equal one
-- Answers 'set', cap, part, running, waiting | older | uncapped | forgotten.
local cap = (tenant_limits(tenant) or {}).most_running or most
if cap == 0 then
  redis.call('HDEL', CAP_PARTS, tenant)
  return answer('uncapped')
end
local before, newest = cap_part(tenant, cap, shards)
if turn < newest or (part ~= -1 and turn ~= newest) then return answer('older') end
if part == -2 and before == equal_part(cap, shards) then
  redis.call('HDEL', CAP_PARTS, tenant)
  return answer('forgotten')
end
if part < 0 then part = before end
redis.call('HSET', CAP_PARTS, tenant, string.format('%.0f %.0f %.0f', part, cap, turn))
local MOST_LET_IN = 100             -- at once; each that ends lets in another
for _ = 1, math.min(part - before, MOST_LET_IN) do
  if not redis.call('ZSCORE', AT_CAP, ':' .. tenant) then break end
  let_in(':' .. tenant)
end
local waiting = redis.call('ZCARD', capped_key(':' .. tenant))
for _, agenda in ipairs(REPLIES) do waiting = waiting + redis.call('ZCARD', share_queue_key(agenda, tenant)) end
return answer('set', cap, part, tonumber(redis.call('HGET', COUNTS, 'job:running:' .. tenant) or 0), waiting)
