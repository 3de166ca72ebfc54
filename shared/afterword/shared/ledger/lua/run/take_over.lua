-- Take a replay run over: the driver it had is refused from now on.
---@param run string
---@param token string            names the new driver
---@param by string               operator
---@param action string           resume | abort
---@param known_version integer   newest version of records that the caller knows
---@param lifetime_ms integer
-- Answers gone | held (of a newer version) | done | ok. Repeated by the same driver, it is done once.
local record = redis.call('HMGET', run_key(run), 'state', 'driver', 'version')
if not record[1] then return answer('gone') end
if tonumber(record[3]) > known_version then return answer('held') end
if record[2] == token then return answer('ok') end
if record[1] == 'done' then return answer('done') end
redis.call('HSET', run_key(run), 'driver', token, 'updated', now)
if action == 'abort' then
  end_run(run, 'aborted', 'by ' .. by, by)
else
  redis.call('HSET', run_key(run), 'state', 'running', 'reason', '')
  add_audit_entry(by, 'resume', run, '{}')
end
retain_run(run, lifetime_ms)
return answer('ok')
