-- Do what time has made due: expire jobs, end orders, wake what waited, take back leases that ran out,
-- hint again what was lost. Bounded; any worker may run it at any time.
---@param limit integer           most records of all sorts together
---@param grace_ms integer        how old a hint must be to count as lost
---@param retention_ms integer
---@param stream_ms integer       retention of streams
---@param known_version integer   newest version of records that the caller knows
-- Answers how many were: expired, woken, taken back, hinted again.
local expired, woken, taken_back, hinted_again = 0, 0, 0, 0

local OVERDUE = 12                  -- graces

local left = limit
local function due(zset, bound, most)
  local ids = redis.call('ZRANGEBYSCORE', zset, '-inf', bound, 'LIMIT', 0, math.min(left, most or left))
  left = left - #ids
  return ids
end

local function expire(id)
  if newer_version(id, known_version) then return redis.call('ZADD', OPEN, now + HOLD, id) end
  local job = redis.call('HMGET', job_key(id), 'state', 'code')
  if not job[1] then return redis.call('ZREM', OPEN, id) end
  end_job(id, 'expired', job[2] or 'deadline', retention_ms, stream_ms)
  if job[1] == 'running' then redis.call('PUBLISH', FENCED, id) end
  expired = expired + 1
end

local function expire_due()
  for _, id in ipairs(due(OPEN, now)) do expire(id) end
end

local function take_back(agenda, id)
  if agenda == LANES then
    local fence = redis.call('HGET', FENCES, id)
    local head = fence and redis.call('ZRANGE', lane_key(id), 0, 0)[1]
    redis.call('HDEL', FENCES, id)
    lose_extraction(head, fence, known_version)
    tell(head, known_version, 'lost')
    return hint(agenda, id)
  end
  local version = newer_version(id, known_version)
  if version then return hold(agenda, id, version) end
  local tenant = redis.call('HGET', job_key(id), 'tenant')
  if not tenant then return remove_from_agenda(agenda, id) end
  take_back_job(agenda, id, tenant)
end

-- A job whose record was deleted is not hinted again.
local function hint_again(agenda, id)
  if agenda == LANES then return hint(agenda, id) end
  local tenant = redis.call('HGET', job_key(id), 'tenant')
  if not tenant then return remove_from_agenda(agenda, id) end
  hint_job(agenda, id, tenant)
end

-- A lane is held if its oldest turn is; whoever claims it checks again.
local function is_held(agenda, id)
  local head = agenda ~= LANES and id or redis.call('ZRANGE', lane_key(id), 0, 0)[1]
  local version = head and newer_version(head, known_version)
  if version then list_held(agenda, id, version) end
  return version
end

local function wake(agenda, id)
  if is_held(agenda, id) then return hint(agenda, id) end
  local job = agenda ~= LANES and redis.call('HMGET', job_key(id), 'conversation', 'sequence')
  if job and set_aside(id, agenda, job[1], job[2]) then return end
  hint_again(agenda, id)
end

-- Returns hints that nobody will take up. A broker on another server cannot be looked into: there the
-- oldest hint that is long overdue is sent again; once taken up, it moves the mark past the rest.
local function lost(agenda)
  local bound = tonumber(redis.call('GET', mark_key(agenda)) or 0) - grace_ms
  if broker ~= '-' and redis.call('LLEN', (queue_key(agenda))) == 0 then bound = now end
  local ids = due(place_key('hinted', agenda), math.min(bound, now - grace_ms))
  if broker ~= '-' or #ids > 0 then return ids end
  return due(place_key('hinted', agenda), now - OVERDUE * grace_ms, 1)
end

local function wake_due(agenda)
  for _, id in ipairs(due(place_key('waiting', agenda), now)) do
    wake(agenda, id)
    woken = woken + 1
  end
end

local function take_back_due(agenda)
  for _, id in ipairs(due(place_key('leased', agenda), now)) do
    take_back(agenda, id)
    taken_back = taken_back + 1
  end
end

local function hint_lost(agenda)
  for _, id in ipairs(lost(agenda)) do
    hint_again(agenda, id)
    if agenda ~= LANES then tell(id, known_version, 'again') end
    hinted_again = hinted_again + 1
  end
end

local function end_due_orders()
  for _, name in ipairs(due(ORDER_ENDS, now)) do
    end_order(name)
    woken = woken + 1
  end
end

-- Wakes what waits for an order that has ended, unless it waits for something else by now.
local function wake_parked()
  local order = redis.call('ZRANGE', ENDED_ORDERS, 0, 0)[1]
  if not order then return end
  local parked = redis.call('ZRANGE', parked_key(order), 0, left - 1, 'WITHSCORES')
  for i = 1, #parked, 2 do
    local agenda, id = string.match(parked[i], '^(%S+) (.+)$')
    redis.call('ZREM', parked_key(order), parked[i])
    if redis.call('ZSCORE', place_key('waiting', agenda), id) == parked[i + 1] then wake(agenda, id) end
    left, woken = left - 1, woken + 1
  end
  if #parked > 0 then return end
  redis.call('ZREM', ENDED_ORDERS, order)
  redis.call('HDEL', SLOTS, order)
end

-- In case that their caps were raised, or a job of theirs was ended by an older version.
local MOST_AT_CAP = 5
local function let_in_due()
  for _, owner in ipairs(due(AT_CAP, now, MOST_AT_CAP)) do let_in(owner) end
end

-- Jobs that ended, or wait for something else, are no longer ready.
local MOST_DISPLACED = 20           -- looked at; a claim takes its own out
local function forget_displaced(agenda)
  for _, id in ipairs(redis.call('ZRANGE', displaced_key(agenda), 0, MOST_DISPLACED - 1)) do
    if not redis.call('ZSCORE', place_key('hinted', agenda), id) then
      redis.call('ZREM', displaced_key(agenda), id)
    end
  end
end

-- A flood of one sort does not keep the others waiting: each sweep begins with another sort.
local sorts = { { expire_due }, { end_due_orders }, { wake_parked }, { let_in_due } }
for _, agenda in ipairs({ LANES, unpack(REPLIES) }) do
  for _, sort in ipairs({ wake_due, take_back_due, hint_lost }) do sorts[#sorts + 1] = { sort, agenda } end
  forget_older(place_key('held', agenda), now - LISTED)
  forget_displaced(agenda)
end
for turn = now, now + #sorts - 1 do
  local sort = sorts[turn % #sorts + 1]
  if left > 0 then sort[1](sort[2]) end
end

-- A count can be wrong only if another program deleted a record: it is right again when all is over.
local function forget_shares(agenda)
  for _, tenant in ipairs(redis.call('ZRANGE', share_key(agenda), 0, 9)) do
    redis.call('DEL', share_queue_key(agenda, tenant))
    redis.call('ZREM', share_key(agenda), tenant)
  end
end
if redis.call('EXISTS', OPEN) == 0 then
  redis.call('DEL', OPEN_COUNTS)
  for _, agenda in ipairs(REPLIES) do forget_shares(agenda) end
end

return answer(expired, woken, taken_back, hinted_again)
