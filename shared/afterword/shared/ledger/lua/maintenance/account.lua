-- Account for every job and turn there was, and for the users whose memory lags behind.
---@param late_ms integer   a user is late once their oldest waiting turn is this old
-- Answers now, {count name, value, ...}, {{tenant, users behind, users late, oldest turn or ''}, ...}.
local counts, tenants = redis.call('HGETALL', COUNTS), {}
local seen = {}
for i = 1, #counts, 2 do
  local tenant = string.match(counts[i], '^%a+:%a+:(.*)$')
  if tenant and not seen[tenant] then
    seen[tenant] = true
    local behind = behind_key(tenant)
    local oldest = redis.call('ZRANGE', behind, 0, 0, 'WITHSCORES')
    tenants[#tenants + 1] = { tenant, redis.call('ZCARD', behind),
      redis.call('ZCOUNT', behind, '-inf', now - late_ms), oldest[2] or '' }
  end
end
return answer(now, counts, tenants)
