-- Say that a batch stands in mem0 once, and as which memories.
--   ARGV[2] first turn of the batch  [3] memory ids, JSON
-- Answers ok.
local id = ARGV[2]
redis.call('ZREM', REPAIRS, id)
for _, each in ipairs(batch_of(id)) do
  if redis.call('HEXISTS', job_key(each), 'memory_ids') == 1 then
    redis.call('HSET', job_key(each), 'memory_ids', ARGV[3])
  end
end
return answer('ok')
