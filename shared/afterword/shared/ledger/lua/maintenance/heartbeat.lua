-- Record that a worker is alive, its version, and its periodic tasks that fail or are late.
---@param worker string   '<queue> <worker>'
---@param status string   its version and those tasks as JSON
---@param instance string   tells this process from a later one of the same name
---@param leaving boolean   whether it has ended
-- Answers drain if an operator ordered this very process to end, otherwise ok.
local SEEN = 3600000                -- ms that a worker is remembered
local GONE = 100                    -- most workers that one heartbeat forgets
local order_name = 'drain ' .. string.match(worker, ' (.*)$')
if leaving then
  redis.call('ZREM', WORKERS, worker)
  redis.call('HDEL', WORKER_STATUS, worker)
  end_order(order_name)
  return answer('ok')
end
redis.call('ZADD', WORKERS, now, worker)
redis.call('HSET', WORKER_STATUS, worker, status)
local gone = redis.call('ZRANGEBYSCORE', WORKERS, '-inf', now - SEEN, 'LIMIT', 0, GONE)
for _, name in ipairs(gone) do
  redis.call('ZREM', WORKERS, name)
  redis.call('HDEL', WORKER_STATUS, name)
end
local order = first_order({ order_name })
return answer(order and order.instance == instance and 'drain' or 'ok')
