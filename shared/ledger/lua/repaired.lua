-- Say that a turn stands in mem0 once, and as which memories.
--   ARGV[2] job id of the turn  [3] memory ids, JSON
-- Answers ok.
local id = ARGV[2]
redis.call('ZREM', REPAIRS, id)
if redis.call('EXISTS', job_key(id)) == 1 then redis.call('HSET', job_key(id), 'memory_ids', ARGV[3]) end
return answer('ok')
