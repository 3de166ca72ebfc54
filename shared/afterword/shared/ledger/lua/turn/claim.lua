-- Take on a user's lane, under a new fence, with its oldest turns; the turns of a batch that was
-- begun come together, whatever was put back between them.
--   ARGV[2] lane id  [3] token of this claim: asked twice, it is granted once  [4] lease, ms
--   [5] most turns, if no batch goes beyond  [6] newest version we know
-- Answers taken | empty | held | blocked (its oldest job has not ended yet), or
--   erase, fence, state, if the user is to be erased, which comes before all else, or: claimed, fence,
--   {turn: id, created, attempts, snoozes, event id, age of the event in ms, body, reply, facts,
--   batch that it was begun in, or '', ...}
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

local turns, given, held = {}, {}, false

-- True if a turn may be written by us now; one whose record is gone is passed over.
local function ready(id)
  local turn = redis.call('HMGET', job_key(id), 'turn', 'v')
  if not turn[1] then
    redis.call('ZREM', lane_key(lane), id)
    given[id] = true
    return true
  end
  held = tonumber(turn[2]) > tonumber(ARGV[6]) and turn[2] -- for who knows its version (I13)
  return not held and (turn[1] == 'pending' or turn[1] == 'writing')
end

local function give(id)
  if given[id] then return end
  given[id] = true
  local turn = redis.call('HMGET', job_key(id), 'created', 't_attempts', 't_snoozes', 'event', 't_event_at',
    'body', 'reply', 'facts', 'batch', 't_fence')
  local batch = turn[9] or turn[10] and id or '' -- who knew no batches begins none
  for _, field in ipairs({ id, turn[1], turn[2] or '0', turn[3] or '0', turn[4] or '',
    now - (turn[5] or now), turn[6], turn[7], turn[8] or '', batch }) do
    turns[#turns + 1] = field
  end
end

local function give_batch(id)
  local batch = batch_of(id)
  for _, each in ipairs(batch) do
    if not ready(each) then return false end
  end
  for _, each in ipairs(batch) do give(each) end
  return true
end

for _, id in ipairs(redis.call('ZRANGE', lane_key(lane), 0, ARGV[5] - 1)) do
  if not given[id] and not give_batch(id) then break end
end
if #turns == 0 then
  redis.call('HDEL', FENCES, lane)
  if held then
    hold(LANES, lane, held)
    return answer('held')
  end
  strike(LANES, lane)
  return answer(redis.call('EXISTS', lane_key(lane)) == 1 and 'blocked' or 'empty')
end
grant()
return answer('claimed', fence, turns)
