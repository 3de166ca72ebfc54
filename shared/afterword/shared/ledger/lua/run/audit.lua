-- Add an entry to the audit of what operators did.
---@param token string     names this entry, in place of a run
---@param by string        operator
---@param action string
---@param details string   JSON
-- Answers ok. Repeated, it is done once.
audit_once(token, by, action, details)
return answer('ok')
