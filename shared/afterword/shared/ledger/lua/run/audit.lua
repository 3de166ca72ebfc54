-- Note what an operator did.
--   ARGV[2] token of this note  [3] who  [4] what  [5] more, JSON
-- Answers ok. Asked twice, it is noted once.
local AGAIN = 100                   -- entries looked through for one that was confirmed too late
for _, entry in ipairs(redis.call('XREVRANGE', AUDIT, '+', '-', 'COUNT', AGAIN)) do
  if entry[2][6] == ARGV[2] then return answer('ok') end
end
note_audit_entry(ARGV[3], ARGV[4], ARGV[2], ARGV[5])
return answer('ok')
