-- Record that a worker is alive, its version, and its periodic tasks that fail or are late.
---@param worker string   '<queue> <worker>'
---@param status string   its version and those tasks as JSON
-- Answers ok.
local SEEN = 3600000                -- ms that a worker is remembered
local GONE = 100                    -- most workers that one heartbeat forgets
redis.call('ZADD', WORKERS, now, worker)
redis.call('HSET', WORKER_STATUS, worker, status)
local gone = redis.call('ZRANGEBYSCORE', WORKERS, '-inf', now - SEEN, 'LIMIT', 0, GONE)
for _, name in ipairs(gone) do
  redis.call('ZREM', WORKERS, name)
  redis.call('HDEL', WORKER_STATUS, name)
end
return answer('ok')
