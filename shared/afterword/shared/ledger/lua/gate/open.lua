-- Open a gate by hand, whoever shut it. Calls begin slowly, as after a canary's success.
---@param gate string
---@param by string        operator
---@param token string     names this entry of the audit
---@param details string   JSON for the audit
-- Answers 1 if it was shut, else 0; audited if it was. Repeated, it is audited once.
local record = gate_record(gate)
if not record['until'] or record.opened then return answer(0) end
begin_slow_start(gate)
redis.call('DEL', gate_failures_key(gate))
audit_once(token, by, 'gate_open', details)
return answer(1)
