-- Note a queue message that was no hint. The newest notes are kept; every message is counted.
---@param token string     names this note
---@param keep integer     how many notes to keep
---@param queue string
---@param reason string
---@param size integer     bytes
---@param sha256 string
---@param task string      name of the task, '' if it must not be shown or there is none
-- Answers nothing. Repeated, it is done once.
local RECENT = 100                  -- notes searched for one whose reply was lost
for _, note in ipairs(redis.call('XREVRANGE', QUARANTINE, '+', '-', 'COUNT', RECENT)) do
  if note[2][2] == token then return answer() end
end
redis.call('XADD', QUARANTINE, 'MAXLEN', keep, '*', 'token', token, 'queue', queue,
  'reason', reason, 'size', size, 'sha256', sha256, 'task', task)
redis.call('HINCRBY', QUARANTINED, reason, 1)
return answer()
