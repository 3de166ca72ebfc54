-- End a running job without a reply; it becomes a dead letter.
---@param id string                job
---@param fence string
---@param code string
---@param fault string             whose failure it was: provider | operator | request
---@param worker string            version of the worker
---@param retention_ms integer
---@param stream_ms integer        retention of the stream
---@param note string              what the attempt did, JSON, or ''
-- Answers ok | lost. Repeated by the same attempt, it is done once.
local job = redis.call('HMGET', job_key(id), 'state', 'fence', 'attempts', 'story')
if job[1] == 'failed' and job[2] == fence then return answer('ok') end
if not holds_job(id, fence) then return answer('lost') end
redis.call('HSET', job_key(id), 'fault', fault, 'worker', worker,
  'story', with_step(job[4], 'fail', job[3], fault, code, or_dash(note)))
redis.call('HSETNX', job_key(id), 'first_failed', now)
redis.call('HDEL', job_key(id), 'token')
end_job(id, 'failed', code, retention_ms, stream_ms)
return answer('ok')
