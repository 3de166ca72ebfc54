-- Add an entry to the audit of what operators did.
---@param token string     names this entry, in place of a run
---@param by string        operator
---@param action string
---@param details string   JSON
-- Answers ok. Repeated, it is done once.
local RECENT = 100                  -- entries searched for one whose reply was lost
for _, entry in ipairs(redis.call('XREVRANGE', AUDIT, '+', '-', 'COUNT', RECENT)) do
  if entry[2][6] == token then return answer('ok') end
end
add_audit_entry(by, action, token, details)
return answer('ok')
