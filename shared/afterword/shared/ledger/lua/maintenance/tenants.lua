-- Say for which of some tenants jobs wait here, since when, and what limits them.
---@param tenants string[]
-- Answers now, {{tenant, when the longest waiting of its first jobs was submitted or '', weight or '',
--   most running jobs or '', 1 if its cap lets jobs wait now}, ...}; weight and cap are an operator's.
local LOOKED_AT = 3                 -- first jobs of a list, in case that some have ended

local function submitted_first(list)
  for _, id in ipairs(redis.call('ZRANGE', list, 0, LOOKED_AT - 1)) do
    local job = redis.call('HMGET', job_key(id), 'state', 'queued', 'created')
    if job[1] == 'queued' then return tonumber(job[2] or job[3]) end
  end
end

local found = {}
for _, tenant in ipairs(tenants) do
  local oldest = submitted_first(capped_key(':' .. tenant)) or math.huge
  for _, agenda in ipairs(REPLIES) do
    oldest = math.min(oldest, submitted_first(share_queue_key(agenda, tenant)) or math.huge)
  end
  local limits = tenant_limits(tenant) or {}
  found[#found + 1] = { tenant, oldest < math.huge and string.format('%.0f', oldest) or '', limits.weight or '',
    limits.most_running or '', redis.call('ZSCORE', AT_CAP, ':' .. tenant) and 1 or 0 }
end
return answer(now, found)
