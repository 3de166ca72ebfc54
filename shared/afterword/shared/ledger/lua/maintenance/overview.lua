-- Count what is open, late and dead.
---@param retention_ms integer   for how long a failed job can be replayed
---@param recent_ms integer      for how long a dead letter counts as recent
---@param limit integer          most workers
-- Answers {field, value, ...}. Its workers are {'<queue> <worker>', last heartbeat, ...}; its
--   worker_status {'<queue> <worker>', JSON, ...}; its agendas {{name, hinted, waiting, leased, since when
--   the oldest is ready or '', messages, held}, ...}, where messages is -1 if the broker is another server.
local agendas = {}

-- A job whose own hint was used up for another tenant's stands at a newer one, and is ready since its own.
local LOOKED_AT = 20
local function ready_since(agenda)
  local hinted, displaced, oldest = place_key('hinted', agenda), displaced_key(agenda), math.huge
  local function look(list, other, is_ready)
    local found = redis.call('ZRANGE', list, 0, LOOKED_AT - 1, 'WITHSCORES')
    for i = 1, #found, 2 do
      if (redis.call('ZSCORE', other, found[i]) ~= false) == is_ready then
        oldest = math.min(oldest, tonumber(found[i + 1]))
        break
      end
    end
  end
  look(hinted, displaced, false)
  look(displaced, hinted, true)
  return oldest < math.huge and string.format('%.0f', oldest) or ''
end

for _, agenda in ipairs({ 'replies.0', 'replies.3', 'replies.6', LANES }) do
  local messages = broker == '-' and -1 or redis.call('LLEN', (queue_key(agenda)))
  agendas[#agendas + 1] = { agenda, redis.call('ZCARD', place_key('hinted', agenda)),
    redis.call('ZCARD', place_key('waiting', agenda)), redis.call('ZCARD', place_key('leased', agenda)),
    ready_since(agenda), messages, redis.call('ZCOUNT', place_key('held', agenda), now - LISTED, '+inf') }
end
local workers, status = redis.call('ZREVRANGE', WORKERS, 0, limit - 1, 'WITHSCORES'), {}
for i = 1, #workers, 2 do
  status[i], status[i + 1] = workers[i], redis.call('HGET', WORKER_STATUS, workers[i]) or '{}'
end
local found = { 'at', now, 'open_jobs', redis.call('ZCARD', OPEN),
  'dead_turns', redis.call('ZCARD', DEAD_TURNS),
  'failed_jobs', redis.call('ZCOUNT', FAILED_JOBS, now - retention_ms, '+inf'),
  'recent_dead_letters', redis.call('ZCOUNT', DEAD_TURNS, now - recent_ms, '+inf')
    + redis.call('ZCOUNT', FAILED_JOBS, now - recent_ms, '+inf'),
  'workers', workers, 'worker_status', status, 'agendas', agendas,
  'newest_version', redis.call('GET', NEWER_VERSION) or 0 }
return answer(found)
