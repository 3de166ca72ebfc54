-- Account for every job and turn there was, and for the users whose memory lags behind.
--   ARGV[2] age in ms from which a user counts as late
-- Answers now, {count name, value, ...}, {tenant, users behind, users late, oldest turn or '', ...}
local counts, tenants = redis.call('HGETALL', COUNTS), {}
local seen = {}
for i = 1, #counts, 2 do
  local tenant = string.match(counts[i], '^%a+:%a+:(.*)$')
  if tenant and not seen[tenant] then
    seen[tenant] = true
    local behind = behind_key(tenant)
    local oldest = redis.call('ZRANGE', behind, 0, 0, 'WITHSCORES')
    for _, field in ipairs({ tenant, redis.call('ZCARD', behind),
      redis.call('ZCOUNT', behind, '-inf', now - ARGV[2]), oldest[2] or '' }) do
      tenants[#tenants + 1] = field
    end
  end
end
return answer(now, counts, tenants)
