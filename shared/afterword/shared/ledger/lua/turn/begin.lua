-- Record the intent to store a batch, before mem0 is asked to.
--   ARGV[2] lane id  [3] fence  [4] first turn of the batch  then its others
-- Answers lost | regrouped (it was begun with other turns), or: clear | unknown (an earlier attempt
--   may have stored it).
local lane, fence, id = ARGV[2], ARGV[3], ARGV[4]
if not holds_lane(lane, fence) then return answer('lost') end
local batch = table.concat(ARGV, ' ', 4)
local turn = redis.call('HMGET', job_key(id), 'turn', 't_fence', 't_open', 'event', 'batch')
if turn[5] and turn[5] ~= batch then return answer('regrouped') end
if turn[2] == fence and turn[1] == 'writing' then return answer(turn[3] == '2' and 'unknown' or 'clear') end
local unknown = turn[3] == '1' or turn[3] == '2'
redis.call('HINCRBY', job_key(id), 't_attempts', 1)
redis.call('HSET', job_key(id), 't_fence', fence, 't_open', unknown and '2' or '1', 'batch', batch)
-- Who followed no event may have added, and may yet: a writer can be paused, its add be on its way.
if unknown and not turn[4] then redis.call('HSET', job_key(id), 't_doubt', '1') end
for i = 4, #ARGV do
  local each = redis.call('HMGET', job_key(ARGV[i]), 'turn', 'tenant')
  if each[1] ~= 'writing' then set_turn(ARGV[i], each[2], each[1], 'writing') end
end
return answer(unknown and 'unknown' or 'clear')
