-- Count the tokens of an attempt that gave no reply, as far as the provider told them.
---@param id string          job
---@param fence string       the attempt
---@param tenant string
---@param usage_ms integer   lifetime of a user's sums of usage
---@param cost integer       what the attempt cost, in millionths of a US dollar
---@param period string      of budgets, see `add_spending`
---@param usage {name: string, amount: string}[]   what the attempt used
-- Answers ok | gone. Repeated for the same attempt, it is done once. An erased user has no sums: then
-- only the tenant's grow.
local job = redis.call('HMGET', job_key(id), 'state', 'fence', 'lane', 'counted')
if not job[1] then return answer('gone') end
redis.call('ZREM', LOST_ATTEMPTS, id .. ' ' .. fence)
if job[2] == fence then redis.call('ZREM', LOST_ATTEMPTS, id) end
if job[4] == fence then return answer('ok') end
if redis.call('HSETNX', job_key(id), 'counted:' .. fence, 1) == 0 then return answer('ok') end
if job[1] == 'succeeded' and job[2] == fence then return answer('ok') end  -- its reply counted them

local lane = job[3]
redis.call('HSET', job_key(id), 'counted', fence)
local spent = 0
for _, added in ipairs(usage) do
  spent = spent + added.amount
  redis.call('HINCRBY', job_key(id), 'used:' .. added.name, added.amount)
  redis.call('HINCRBY', tenant_usage_key(tenant), added.name, added.amount)
end
local is_kept = lane and not is_being_erased(lane)
add_spending({ ':' .. tenant, is_kept and lane or nil }, period, cost, spent, usage_ms)
if is_kept then
  for _, added in ipairs(usage) do redis.call('HINCRBY', usage_key(lane), added.name, added.amount) end
  redis.call('PEXPIRE', usage_key(lane), usage_ms)
end
return answer('ok')
