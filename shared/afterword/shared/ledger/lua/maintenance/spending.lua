-- Say what a tenant or a user has spent, what they may spend, and whether a share of a budget is spent.
---@param tenant string
---@param lane string        of the user, or '' for the whole tenant
---@param budgets string     see `budgets_in_force`
---@param percent integer    the share of a budget that may be spent
-- Answers spent in all, in this period, tokens of this period, its name, ms when it ends, whose budget is spent so far
--   (tenant, user or ''), and most of the tenant, of a user, tokens of the tenant, of a user, '' for none.
local owner = lane == '' and ':' .. tenant or lane
local most, kind = budgets_in_force(tenant, budgets)
local name, ends = period_now(kind)
local key = spent_in_key(owner, name)
local whose = lane ~= '' and over_budget(tenant, lane, budgets, percent / 100)
local amounts = {}
for i, budget in ipairs(BUDGETS) do amounts[i] = most[budget] and string.format('%.0f', most[budget]) or '' end
local in_all, in_period = redis.call('GET', spent_key(owner)), redis.call('GET', key)
local tokens = redis.call('GET', key .. '/tokens')
return answer(in_all or '0', in_period or '0', tokens or '0', name, ends, whose or '', unpack(amounts))
