-- Give a running job back, to be taken on again later.
--   ARGV[2] job id  [3] fence  [4] delay, ms  [5] 1 if the attempt counts (retry), 0 if not (snooze)
--   [6] code of what went wrong, or ''  [7] 1 if it was tried: pauses grow with that, not with waits
-- Answers ok | lost. Asked twice by the same attempt, it is done once.
local id, fence, delay = ARGV[2], ARGV[3], tonumber(ARGV[4])
local job = redis.call('HMGET', job_key(id), 'state', 'fence', 'tenant', 'agenda', 'attempts')
if job[1] == 'queued' and job[2] == fence then return answer('ok') end
if not holds_job(id, fence) then return answer('lost') end

set_job(id, job[3], 'running', 'queued')
redis.call('HDEL', job_key(id), 'token')
if ARGV[5] == '0' then
  redis.call('HSET', job_key(id), 'attempts', job[5] - 1)
  if ARGV[7] == '1' then redis.call('HINCRBY', job_key(id), 'snoozes', 1) end
end
if ARGV[6] ~= '' then
  redis.call('HSET', job_key(id), 'code', ARGV[6])
  redis.call('HSETNX', job_key(id), 'first_failed', now)
end
if delay > 0 then put('waiting', job[4], id, now + delay) else hint(job[4], id) end
return answer('ok')
