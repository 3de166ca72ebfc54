-- Count what is open, late and dead.
---@param retention_ms integer   for how long a failed job can be replayed
---@param recent_ms integer      for how long a dead letter counts as recent
---@param limit integer          most workers
-- Answers {field, value, ...}. Its workers are {'<queue> <worker>', last heartbeat, ...}; its
--   worker_status {'<queue> <worker>', JSON, ...}; its agendas {{name, hinted, waiting, leased, oldest
--   hint, messages, held}, ...}, where messages is -1 if the broker is another server.
local agendas = {}
for _, agenda in ipairs({ 'replies.0', 'replies.3', 'replies.6', LANES }) do
  local oldest = redis.call('ZRANGE', place_key('hinted', agenda), 0, 0, 'WITHSCORES')
  local messages = broker == '-' and -1 or redis.call('LLEN', (queue_key(agenda)))
  agendas[#agendas + 1] = { agenda, redis.call('ZCARD', place_key('hinted', agenda)),
    redis.call('ZCARD', place_key('waiting', agenda)), redis.call('ZCARD', place_key('leased', agenda)),
    oldest[2] or '', messages, redis.call('ZCOUNT', place_key('held', agenda), now - LISTED, '+inf') }
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
