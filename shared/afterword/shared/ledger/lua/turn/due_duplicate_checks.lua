-- Give out the turns that are due to be looked at for doubles; each comes back after a while,
-- until it is said to be repaired.
--   ARGV[2] most turns  [3] ms after which one comes back  [4] newest version we know
-- Answers turn id, lane id, memory ids (JSON), ...
local due = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', REPAIRS, '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local turn = redis.call('HMGET', job_key(id), 'turn', 'lane', 'memory_ids')
  if newer(id, ARGV[4]) then
    redis.call('ZADD', REPAIRS, now + ARGV[3], id)
  elseif turn[1] == 'stored' then
    redis.call('ZADD', REPAIRS, now + ARGV[3], id)
    for _, field in ipairs({ id, turn[2], turn[3] }) do due[#due + 1] = field end
  else
    redis.call('ZREM', REPAIRS, id) -- erased, or its record is gone
  end
end
return answer(unpack(due))
