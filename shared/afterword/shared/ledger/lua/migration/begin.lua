-- Begin a migration of memories, or go on with one; only one process at a time works at it.
---@param name string        names where memories come from and where they go
---@param token string       names the process
---@param lease_ms integer
-- Answers ok, how far it has come ('' at its beginning); or busy: another process works at it.
local migration = redis.call('HMGET', migration_key(name), 'driver', 'until', 'progress')
if migration[1] and migration[1] ~= token and tonumber(migration[2]) > now then return answer('busy') end
redis.call('HSET', migration_key(name), 'driver', token, 'until', now + lease_ms)
redis.call('PEXPIRE', migration_key(name), MIGRATION_LIFE)
return answer('ok', migration[3] or '')
