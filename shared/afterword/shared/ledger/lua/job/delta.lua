-- Append a piece of the reply to the job's stream.
---@param id string          job
---@param fence string
---@param number integer     of the delta in this attempt, from 1
---@param attempt integer
---@param text string
-- Answers ok | lost. The same delta sent twice is appended once.
if not holds_job(id, fence) then return answer('lost') end
local event = fence .. '-' .. number
local last = redis.call('XREVRANGE', events_key(id), '+', '-', 'COUNT', 1)[1]
if not last or last[1] ~= event then
  emit(id, event, 'type', 'delta', 'attempt', attempt, 'text', text)
end
return answer('ok')
