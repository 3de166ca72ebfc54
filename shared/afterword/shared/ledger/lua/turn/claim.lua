-- Claim a user's lane under a new fence, with its oldest turns. The turns of a batch that was begun
-- come together, whatever was put back between them.
---@param lane string
---@param token string            names this claim: repeated with it, the same claim is granted
---@param lease_ms integer
---@param max_turns integer       most turns, unless a batch that was begun has more
---@param known_version integer   newest version of records that the caller knows
---@param batch_ms integer        how long a lane waits whose oldest turn waits for a message batch
-- Answers a status: taken | empty | held | blocked (its oldest job has not ended yet) | parked (an
--   operator's order lets it wait; an erasure goes on) | batched (its oldest turn waits for a message
--   batch, which wakes it), or
--   'erase', fence, state: the user is to be erased, which comes first; or
--   'claimed', fence, turns, each {field, value, ...}.
local leased = tonumber(redis.call('ZSCORE', place_key('leased', LANES), lane) or 0)
local fence = redis.call('HGET', FENCES, lane)
local mine = fence and string.sub(fence, -#token) == token
if leased > now and fence and not mine then return answer('taken') end
if not mine and redis.call('EXISTS', mending_key(lane)) == 1 then
  move_to('waiting', LANES, lane, now + 500) -- a change of its user's comes first
  return answer('held')
end

local function grant()
  if not mine then
    if fence then lose_extraction(redis.call('ZRANGE', lane_key(lane), 0, 0)[1], fence, known_version) end
    fence = next_sequence() .. '.' .. token
    redis.call('HSET', FENCES, lane, fence)
  end
  lease(LANES, lane, lease_ms)
end

local erasure = redis.call('HMGET', erasure_key(lane), 'state', 'due', 'version')
if erasure[1] and erasure[1] ~= 'erased' then
  if tonumber(erasure[3]) > known_version or tonumber(erasure[2]) > now then
    move_to('waiting', LANES, lane, math.max(tonumber(erasure[2]), now + 1000))
    return answer('held')
  end
  grant()
  return answer('erase', fence, erasure[1])
end

local stopped_by = not mine and park_lane(lane)
if stopped_by then
  tell(redis.call('ZRANGE', lane_key(lane), 0, 0)[1], known_version, 'park', stopped_by)
  return answer('parked')
end

local turns, given, held, batched, bytes = {}, {}, false, false, 0
local MOST_BYTES = 1000000          -- once so much is given, the rest comes with the next claim

-- Returns true if this caller may store a turn now. One whose record is gone is dropped.
local function is_ready(id)
  local turn = redis.call('HMGET', job_key(id), 'turn', 'version')
  if not turn[1] then
    redis.call('ZREM', lane_key(lane), id)
    given[id] = true
    return true
  end
  held = tonumber(turn[2]) > known_version and turn[2] -- left to a worker that knows its version (I13)
  batched = message_batch_of(id)
  return not held and not batched and (turn[1] == 'pending' or turn[1] == 'writing')
end

local function give(id)
  if given[id] then return end
  given[id] = true
  local turn = redis.call('HMGET', job_key(id), 'created', 'turn_attempts', 'turn_snoozes', 'event',
    'event_at', 'body', 'reply', 'facts', 'batch', 'sequence', 'imported', 'trace', 'message_batch')
  -- What else was in its batch, if it had one, is not known: each is looked for by itself.
  local batch = turn[9] or (may_be_stored_since(turn[10]) and id) or ''
  bytes = bytes + #(turn[6] or '') + #(turn[7] or '')
  turns[#turns + 1] = { 'id', id, 'created', turn[1], 'age_ms', now - turn[1],
    'attempts', turn[2] or 0, 'snoozes', turn[3] or 0,
    'event', turn[4] or '', 'event_age_ms', now - (turn[5] or now), 'body', turn[6], 'reply', turn[7] or '',
    'facts', turn[8] or '', 'batch', batch,
    'imported', turn[11] or 0, 'trace', turn[12] or '', 'alone', turn[13] == 'alone' and 1 or 0 }
end

local function give_batch(id)
  local batch = batch_of(id)
  for _, each in ipairs(batch) do
    if not is_ready(each) then return false end
  end
  for _, each in ipairs(batch) do give(each) end
  return true
end

for _, id in ipairs(redis.call('ZRANGE', lane_key(lane), 0, max_turns - 1)) do
  if bytes > MOST_BYTES then break end
  if not given[id] and not give_batch(id) then break end
end
if #turns == 0 then
  redis.call('HDEL', FENCES, lane)
  if held then
    hold(LANES, lane, held)
    return answer('held')
  end
  if batched then
    move_to('waiting', LANES, lane, now + batch_ms)
    return answer('batched')
  end
  remove_from_agenda(LANES, lane)
  return answer(redis.call('EXISTS', lane_key(lane)) == 1 and 'blocked' or 'empty')
end
grant()
return answer('claimed', fence, turns)
