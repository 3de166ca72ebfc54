-- Do what time has made due: expire, wake, take back, hint again. Bounded, safe to run anywhere.
--   ARGV[2] most of each sort  [3] grace, ms: how old a hint must be to count as lost
--   [4] retention, ms  [5] stream retention, ms  [6] '<queue> <worker>' that sweeps, or ''
--   [7] newest version we know
-- Answers expired, woken, taken back, hinted again.
local limit, grace = ARGV[2], tonumber(ARGV[3])
local expired, woken, taken, again = 0, 0, 0, 0

local OVERDUE = 12                  -- graces

local function due(zset, bound, most)
  return redis.call('ZRANGEBYSCORE', zset, '-inf', bound, 'LIMIT', 0, most)
end

local function expire(id)
  if newer(id, ARGV[7]) then return redis.call('ZADD', OPEN, now + HOLD, id) end
  local job = redis.call('HMGET', job_key(id), 'state', 'code')
  if not job[1] then return redis.call('ZREM', OPEN, id) end
  end_job(id, 'expired', job[2] or 'deadline', ARGV[4], ARGV[5])
  if job[1] == 'running' then redis.call('PUBLISH', root .. ':fenced', id) end
  expired = expired + 1
end

for _, id in ipairs(due(OPEN, now, limit)) do expire(id) end

local function take_back(agenda, id)
  if agenda == LANES then
    redis.call('HDEL', FENCES, id)
  else
    local version = newer(id, ARGV[7])
    if version then return hold(agenda, id, version) end
    local tenant = redis.call('HGET', job_key(id), 'tenant')
    if not tenant then return strike(agenda, id) end
    set_job(id, tenant, 'running', 'queued')
  end
  hint(agenda, id)
end

-- A record that is gone, whoever removed it, is not hinted for ever.
local function hint_again(agenda, id)
  if agenda ~= LANES and redis.call('EXISTS', job_key(id)) == 0 then return strike(agenda, id) end
  hint(agenda, id)
end

-- Of a lane it is the oldest turn that may be held; whoever takes it on looks for themselves.
local function is_held(agenda, id)
  local head = agenda ~= LANES and id or redis.call('ZRANGE', lane_key(id), 0, 0)[1]
  local version = head and newer(head, ARGV[7])
  if version then list_held(agenda, id, version) end
  return version
end

local function wake(agenda, id)
  if is_held(agenda, id) then return hint(agenda, id) end
  local job = agenda ~= LANES and redis.call('HMGET', job_key(id), 'talk', 'seq')
  if job and steps_aside(id, agenda, job[1], job[2]) then return end
  hint_again(agenda, id)
end

-- Hints that nobody will take up. A broker elsewhere cannot be looked into: there the oldest one
-- that is long overdue goes out again, and once it is taken up, it moves the mark past the rest.
local function lost(agenda)
  local bound = tonumber(redis.call('GET', mark_key(agenda)) or 0) - grace
  if broker ~= '-' and redis.call('LLEN', (queue_key(agenda))) == 0 then bound = now end
  local ids = due(place('hinted', agenda), math.min(bound, now - grace), limit)
  if broker ~= '-' or #ids > 0 then return ids end
  return due(place('hinted', agenda), now - OVERDUE * grace, 1)
end

for _, agenda in ipairs({ 'replies.0', 'replies.3', 'replies.6', LANES }) do
  for _, id in ipairs(due(place('waiting', agenda), now, limit)) do
    wake(agenda, id)
    woken = woken + 1
  end
  for _, id in ipairs(due(place('leased', agenda), now, limit)) do
    take_back(agenda, id)
    taken = taken + 1
  end
  for _, id in ipairs(lost(agenda)) do
    hint_again(agenda, id)
    again = again + 1
  end
  redis.call('ZREMRANGEBYSCORE', place('held', agenda), '-inf', now - LISTED)
end

if ARGV[6] ~= '' then
  redis.call('ZADD', WORKERS, now, ARGV[6])
  redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now - 3600000)
end
return answer(expired, woken, taken, again)
