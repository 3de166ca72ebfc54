-- Append a piece of the reply to the job's stream.
---@param id string          job
---@param fence string
---@param number integer     of the delta in this attempt, from 1
---@param attempt integer
---@param text string
---@param recalled string    what the attempt was given by memory, JSON; '' for all deltas but the first
-- Answers ok | lost. The same delta sent twice is appended once.
if not holds_job(id, fence) then return answer('lost') end
local event = after_recall(fence, number)
local last = redis.call('XREVRANGE', events_key(id), '+', '-', 'COUNT', 1)[1]
if not last or last[1] ~= event then
  emit(id, event, 'type', 'delta', with_recalled(recalled, 'attempt', attempt, 'text', text))
end
return answer('ok')
