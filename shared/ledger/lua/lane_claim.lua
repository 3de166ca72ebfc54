-- Take on a user's lane, under a new fence, with its oldest turns.
--   ARGV[2] lane id  [3] token of this claim: asked twice, it is granted once  [4] lease, ms
--   [5] most turns  [6] newest version we know
-- Answers taken | empty | held | blocked (its oldest job has not ended yet), or
--   erase, fence, state, if the user is to be erased, which comes before all else, or: claimed, fence,
--   {turn: id, created, attempts, snoozes, event id, age of the event in ms, body, reply, facts, ...}
local lane, token = ARGV[2], ARGV[3]
local leased = tonumber(redis.call('ZSCORE', place('leased', LANES), lane) or 0)
local fence = redis.call('HGET', FENCES, lane)
local mine = fence and string.sub(fence, -#token) == token
if leased > now and fence and not mine then return answer('taken') end

local function grant()
  if not mine then
    fence = next_number() .. '.' .. token
    redis.call('HSET', FENCES, lane, fence)
  end
  lease(LANES, lane, ARGV[4])
end

local erasure = redis.call('HMGET', erasure_key(lane), 'state', 'due', 'v')
if erasure[1] and erasure[1] ~= 'erased' then
  if tonumber(erasure[3]) > tonumber(ARGV[6]) or tonumber(erasure[2]) > now then
    put('waiting', LANES, lane, math.max(tonumber(erasure[2]), now + 1000))
    return answer('held')
  end
  grant()
  return answer('erase', fence, erasure[1])
end

local turns, held = {}, false
for _, id in ipairs(redis.call('ZRANGE', lane_key(lane), 0, ARGV[5] - 1)) do
  local turn = redis.call('HMGET', job_key(id), 'turn', 'created', 't_attempts', 't_snoozes', 'event', 'body',
    'reply', 'v', 't_event_at', 'facts')
  if not turn[1] then
    redis.call('ZREM', lane_key(lane), id)
  elseif tonumber(turn[8]) > tonumber(ARGV[6]) then
    held = true -- for a worker that knows its version (I13)
    break
  elseif turn[1] == 'pending' or turn[1] == 'writing' then
    for _, field in ipairs({ id, turn[2], turn[3] or '0', turn[4] or '0', turn[5] or '',
      now - (turn[9] or now), turn[6], turn[7], turn[10] or '' }) do
      turns[#turns + 1] = field
    end
  else
    break
  end
end
if #turns == 0 then
  redis.call('HDEL', FENCES, lane)
  if held then
    put('waiting', LANES, lane, now + 60000)
    return answer('held')
  end
  strike(LANES, lane)
  return answer(redis.call('EXISTS', lane_key(lane)) == 1 and 'blocked' or 'empty')
end
grant()
return answer('claimed', fence, turns)
