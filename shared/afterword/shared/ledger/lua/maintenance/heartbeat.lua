-- Record that a worker is alive, and which of its periodic tasks fail or are late.
---@param worker string   '<queue> <worker>'
---@param tasks string    those tasks as JSON, or '' if all is well
-- Answers ok.
local SEEN = 3600000                -- ms that a worker is remembered
redis.call('ZADD', WORKERS, now, worker)
redis.call('ZREMRANGEBYSCORE', WORKERS, '-inf', now - SEEN)
if tasks == '' then
  redis.call('HDEL', WORKER_TASKS, worker)
else
  redis.call('HSET', WORKER_TASKS, worker, tasks)
  redis.call('PEXPIRE', WORKER_TASKS, SEEN)
end
return answer('ok')
