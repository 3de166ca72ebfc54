-- Give a running job back, to be claimed again later.
---@param id string          job
---@param fence string
---@param delay_ms integer   0 to hint it at once
---@param counted boolean    whether the attempt counts: a retry if so, otherwise a snooze
---@param code string        what went wrong, or ''
---@param tried boolean      whether the provider was called: only those snoozes make pauses grow
---@param note string        what the attempt did, JSON, or ''
-- Answers ok | lost. Repeated by the same attempt, it is done once.
local job = redis.call('HMGET', job_key(id), 'state', 'fence', 'tenant', 'agenda', 'attempts',
  'story')
if job[1] == 'queued' and job[2] == fence then return answer('ok') end
if not holds_job(id, fence) then return answer('lost') end

set_job_state(id, job[3], 'running', 'queued')
redis.call('HDEL', job_key(id), 'token')
local kind = counted and 'retried' or tried and 'snoozed' or 'released'
redis.call('HSET', job_key(id), 'story',
  with_step(job[6], 'snooze', job[5], kind, delay_ms, or_dash(code), or_dash(note)))
if not counted then
  redis.call('HSET', job_key(id), 'attempts', job[5] - 1)
  if tried then redis.call('HINCRBY', job_key(id), 'snoozes', 1) end
end
if code ~= '' then
  redis.call('HSET', job_key(id), 'code', code)
  redis.call('HSETNX', job_key(id), 'first_failed', now)
end
if delay_ms > 0 then move_to('waiting', job[4], id, now + delay_ms) else hint_job(job[4], id, job[3]) end
return answer('ok')
