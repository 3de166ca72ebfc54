-- Keep what was extracted from a batch that is being stored, so that no later attempt pays for it again.
--   ARGV[2] lane id  [3] fence  [4] first turn of the batch  [5] facts
-- Answers ok | lost.
if not holds_lane(ARGV[2], ARGV[3]) then return answer('lost') end
redis.call('HSET', job_key(ARGV[4]), 'facts', ARGV[5])
return answer('ok')
