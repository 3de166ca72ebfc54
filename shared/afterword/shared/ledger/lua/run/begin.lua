-- Begin a replay run over the dead letters that were chosen for it (run/choose.lua).
---@param run string
---@param version integer       version of the record
---@param by string             operator
---@param filter string         JSON
---@param pace string           JSON
---@param token string          names the driver of the run
---@param lifetime_ms integer
-- Answers ok | lost (what was chosen has expired). Repeated, it is done once.
if redis.call('EXISTS', run_key(run)) == 1 then return answer('ok') end
local chosen = redis.call('ZCARD', todo_key(run))
if chosen == 0 then return answer('lost') end
redis.call('HSET', run_key(run), 'version', version, 'by', by, 'started', now, 'updated', now,
  'filter', filter, 'pace', pace, 'driver', token, 'state', 'running', 'dead_letters', chosen)
redis.call('ZREMRANGEBYSCORE', REPLAY_RUNS, '-inf', now - lifetime_ms)
redis.call('ZADD', REPLAY_RUNS, now, run)
retain_run(run, lifetime_ms)
add_audit_entry(by, 'replay', run, '{"filter":' .. filter .. ',"dead_letters":' .. chosen .. '}')
return answer('ok')
