-- Publish the reply and put the turn into its lane, in one step (I2, I3).
--   ARGV[2] job id  [3] fence  [4] reply, JSON  [5] what becomes of the turn: pending | skipped
--   [6] why, if skipped  [7] conversation turn, JSON, or ''  [8] turns a conversation keeps
--   [9] lifetime of a conversation, ms  [10] retention, ms  [11] stream retention, ms
--   [12] number of the last delta  [13] its text, or '' if all text was published before
--   [14] lifetime of a user's sums of usage, ms  then what is added: name, tokens, ...
-- Answers ok | lost. Asked twice by the same attempt, it is done once.
local id, fence = ARGV[2], ARGV[3]
local job = redis.call('HMGET', job_key(id), 'state', 'fence', 'tenant', 'agenda', 'lane', 'turn',
  'attempts', 'talk', 'seq', 'created')
if job[1] == 'succeeded' and job[2] == fence then return answer('ok') end
if job[1] ~= 'running' or job[2] ~= fence then return answer('lost') end

redis.call('HSET', job_key(id), 'reply', ARGV[4], 'ended', now)
redis.call('HDEL', job_key(id), 'token', 'code')
set_job(id, job[3], 'running', 'succeeded')
if ARGV[13] ~= '' then
  emit(id, fence .. '-' .. ARGV[12], 'type', 'delta', 'attempt', job[7], 'text', ARGV[13])
end
emit(id, fence .. '-*', 'type', 'final', 'attempt', job[7])
close_job(id, job[4], job[8], ARGV[11])

local remembered = job[6] == 'awaited' and ARGV[5] == 'pending'
if remembered then
  set_turn(id, job[3], 'awaited', 'pending')
  enter_lane(job[5], id, job[3], job[9], job[10])
  nudge(job[5])
else
  if job[6] == 'awaited' then
    set_turn(id, job[3], 'awaited', 'skipped')
    redis.call('HSET', job_key(id), 't_code', ARGV[6])
    redis.call('ZREM', lane_key(job[5]), id)
    if redis.call('EXISTS', lane_key(job[5])) == 1 then nudge(job[5]) end
  end
  retain(id, ARGV[10])
end

if job[8] and ARGV[7] ~= '' then
  redis.call('RPUSH', talk_key(job[8]), ARGV[7])
  redis.call('LTRIM', talk_key(job[8]), -ARGV[8], -1)
  redis.call('PEXPIRE', talk_key(job[8]), ARGV[9])
end

for _, sums in ipairs({ tenant_usage_key(job[3]), usage_key(job[5]) }) do
  for i = 15, #ARGV, 2 do redis.call('HINCRBY', sums, ARGV[i], ARGV[i + 1]) end
end
redis.call('PEXPIRE', usage_key(job[5]), ARGV[14])
return answer('ok')
