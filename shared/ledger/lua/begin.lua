-- Record the intent to store a turn, before mem0 is asked to.
--   ARGV[2] lane id  [3] fence  [4] job id of the turn
-- Answers lost, or: clear | unknown (an earlier attempt may have stored it).
local lane, fence, id = ARGV[2], ARGV[3], ARGV[4]
if not holds_lane(lane, fence) then return answer('lost') end
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 't_fence', 't_open', 'event')
if turn[3] == fence and turn[1] == 'writing' then return answer(turn[4] == '2' and 'unknown' or 'clear') end
local unknown = turn[4] == '1' or turn[4] == '2'
redis.call('HINCRBY', job_key(id), 't_attempts', 1)
redis.call('HSET', job_key(id), 't_fence', fence, 't_open', unknown and '2' or '1')
-- Who followed no event may have added, and may yet: a writer can be paused, its add be on its way.
if unknown and not turn[5] then redis.call('HSET', job_key(id), 't_doubt', '1') end
if turn[1] ~= 'writing' then set_turn(id, turn[2], turn[1], 'writing') end
return answer(unknown and 'unknown' or 'clear')
