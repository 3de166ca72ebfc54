-- Say what a tenant or a user has spent, and whether a share of a budget is spent.
---@param tenant string
---@param lane string        of the user, or '' for the whole tenant
---@param period string      day | month
---@param budgets string     see `over_budget`, or '' without any
---@param percent integer    the share of a budget that may be spent
-- Answers spent in all, spent in this period, ms when it ends, whose budget is spent so far: tenant, user or ''.
local name, ends = period_now(period)
local owner = lane == '' and ':' .. tenant or lane
local in_all, in_period = redis.call('GET', spent_key(owner)), redis.call('GET', spent_in_key(owner, name))
local whose = over_budget(tenant, lane == '' and owner or lane, budgets, percent / 100)
return answer(in_all or '0', in_period or '0', ends, whose or '')
