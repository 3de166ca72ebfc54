-- Keep mem0's event id of a turn that is being stored, so that nobody adds it again.
--   ARGV[2] lane id  [3] fence  [4] job id of the turn  [5] event id
-- Answers ok | lost.
if not holds_lane(ARGV[2], ARGV[3]) then return answer('lost') end
redis.call('HSET', job_key(ARGV[4]), 'event', ARGV[5])
return answer('ok')
