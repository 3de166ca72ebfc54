-- Shut a gate by hand: nobody calls the provider, and no canary tests it, until the time is over.
---@param gate string
---@param by string        operator
---@param reason string
---@param for_ms integer   for how long, 0 until it is opened by hand
---@param token string     names this entry of the audit
---@param details string   JSON for the audit
-- Answers ok. Repeated, it is audited once.
local bound = for_ms > 0 and now + for_ms or FOREVER
shut_gate(gate, { 'until', bound, 'code', 'shut_by_hand', 'fault', 'operator', 'since', now })
redis.call('HSET', gate_key(gate), 'by', by, 'reason', reason)
redis.call('PERSIST', gate_key(gate))
redis.call('PUBLISH', GATE_NEWS, 'shut ' .. gate)
audit_once(token, by, 'gate_shut', details)
return answer('ok')
