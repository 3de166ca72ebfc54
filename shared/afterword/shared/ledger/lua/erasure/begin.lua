-- Begin to erase a user: whoever writes for them is fenced, and their lane does nothing else (I12).
--   ARGV[2] lane id  [3] version  [4] who asks
-- Answers asked, or open (it was asked before and is not done).
local lane = ARGV[2]
local state = redis.call('HGET', erasure_key(lane), 'state')
if state and state ~= 'erased' then return answer('open') end
redis.call('DEL', erasure_key(lane))
redis.call('HSET', erasure_key(lane), 'v', ARGV[3], 'state', 'asked', 'asked', now, 'due', now,
  'by', ARGV[4], 'seq', next_number())
redis.call('ZADD', ERASURES, now, lane)
redis.call('HDEL', FENCES, lane)
redis.call('PUBLISH', root .. ':fenced', lane)
hint(LANES, lane)
return answer('asked')
