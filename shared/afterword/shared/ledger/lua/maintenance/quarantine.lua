-- Note a message that was no hint; the newest ones are kept, all are counted.
--   ARGV[2] token of this note  [3] how many to keep  [4] queue  [5] reason
--       [6] size  [7] sha256  [8] name of the task, '' if it has none to be shown
-- Answers nothing.
local AGAIN = 100                   -- notes looked through for one that was confirmed too late
for _, note in ipairs(redis.call('XREVRANGE', QUARANTINE, '+', '-', 'COUNT', AGAIN)) do
  if note[2][2] == ARGV[2] then return answer() end
end
redis.call('XADD', QUARANTINE, 'MAXLEN', ARGV[3], '*', 'token', ARGV[2], 'queue', ARGV[4],
  'reason', ARGV[5], 'size', ARGV[6], 'sha256', ARGV[7], 'task', ARGV[8])
redis.call('HINCRBY', COUNTS, 'quarantined:' .. ARGV[5] .. ':' .. ARGV[4], 1)
return answer()
