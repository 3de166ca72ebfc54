-- Let go of a lane; if it holds more that can be written, it is hinted, at once or after a while.
--   ARGV[2] lane id  [3] fence  [4] delay, ms, or 0
-- Answers ok | lost.
local lane, fence = ARGV[2], ARGV[3]
if not holds_lane(lane, fence) then return answer('lost') end
redis.call('HDEL', FENCES, lane)
local oldest = redis.call('ZRANGE', lane_key(lane), 0, 0)[1]
local turn = oldest and redis.call('HGET', job_key(oldest), 'turn')
if not turn or turn == 'awaited' then
  strike(LANES, lane)
elseif tonumber(ARGV[4]) > 0 then
  put('waiting', LANES, lane, now + ARGV[4])
else
  hint(LANES, lane)
end
return answer('ok')
