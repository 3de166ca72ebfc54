-- Record that a replay run is done, or why it stopped.
---@param run string
---@param token string          names the driver of the run
---@param state string          done | stopped | aborted
---@param reason string         why, or ''
---@param by string             operator
---@param lifetime_ms integer
-- Answers ok | lost (another driver has taken the run over). Repeated, it is done once.
if not drives_run(run, token) then return answer('lost') end
if redis.call('HGET', run_key(run), 'state') == 'running' then
  end_run(run, state, reason, by)
  retain_run(run, lifetime_ms)
end
return answer('ok')
