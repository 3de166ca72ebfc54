-- Record how far a migration of memories has come, and go on holding it, or leave it.
---@param name string
---@param token string
---@param lease_ms integer   0: it is left, and anybody may go on with it at once
---@param progress string    JSON
-- Answers ok | lost.
if redis.call('HGET', migration_key(name), 'driver') ~= token then return answer('lost') end
redis.call('HSET', migration_key(name), 'until', now + lease_ms, 'progress', progress)
redis.call('PEXPIRE', migration_key(name), MIGRATION_LIFE)
return answer('ok')
