-- Count the users of some tenants whose memory lags behind.
---@param late_ms integer     a user is late once their oldest waiting turn is this old
---@param tenants string[]
-- Answers now, {{tenant, users behind, users late, oldest turn or ''}, ...}.
local found = {}
for _, tenant in ipairs(tenants) do
  local behind = behind_key(tenant)
  local oldest = redis.call('ZRANGE', behind, 0, 0, 'WITHSCORES')
  found[#found + 1] = { tenant, redis.call('ZCARD', behind),
    redis.call('ZCOUNT', behind, '-inf', now - late_ms), oldest[2] or '' }
end
return answer(now, found)
