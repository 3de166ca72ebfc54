-- Say what some tenants have spent in the running period, and what they may spend in it here.
---@param tenants {name: string, budgets: string}[]   see `budgets_in_force`
-- Answers ms when the period ends, its name, {{spent, tokens, most, most tokens}, ...}: '' for no budget.
local found, ends, name = {}, 0, ''
for i, tenant in ipairs(tenants) do
  local most, kind = budgets_in_force(tenant.name, tenant.budgets)
  name, ends = period_now(kind)
  local key, row = spent_in_key(':' .. tenant.name, name), {}
  row[1], row[2] = redis.call('GET', key) or '0', redis.call('GET', key .. '/tokens') or '0'
  for at, budget in ipairs({ 'tenant_usd', 'tenant_tokens' }) do
    row[at + 2] = most[budget] and string.format('%.0f', most[budget]) or ''
  end
  found[i] = row
end
return answer(ends, name, found)
