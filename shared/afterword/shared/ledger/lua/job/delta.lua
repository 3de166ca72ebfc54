-- Append a piece of the reply to the job's stream.
--   ARGV[2] job id  [3] fence  [4] number of the delta in this attempt, from 1  [5] attempt  [6] text
-- Answers ok | lost. The same delta twice stands once.
local id, fence = ARGV[2], ARGV[3]
if not holds_job(id, fence) then return answer('lost') end
local last = redis.call('XREVRANGE', events_key(id), '+', '-', 'COUNT', 1)[1]
if not last or last[1] ~= fence .. '-' .. ARGV[4] then
  emit(id, fence .. '-' .. ARGV[4], 'type', 'delta', 'attempt', ARGV[5], 'text', ARGV[6])
end
return answer('ok')
