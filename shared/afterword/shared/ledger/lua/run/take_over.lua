-- Take a run over: whoever drove it is refused from now on.
--   ARGV[2] run  [3] token of the new driver  [4] who  [5] lifetime, ms  [6] newest version we know
--   [7] resume | abort
-- Answers gone | held (of a newer version) | done | ok. Asked twice by one driver, it is done once.
local run, token, who = ARGV[2], ARGV[3], ARGV[4]
local record = redis.call('HMGET', run_key(run), 'state', 'driver', 'v')
if not record[1] then return answer('gone') end
if tonumber(record[3]) > tonumber(ARGV[6]) then return answer('held') end
if record[2] == token then return answer('ok') end
if record[1] == 'done' then return answer('done') end
redis.call('HSET', run_key(run), 'driver', token, 'seen', now)
if ARGV[7] == 'abort' then
  end_run(run, 'aborted', 'by ' .. who, who)
else
  redis.call('HSET', run_key(run), 'state', 'running', 'reason', '')
  note_audit_entry(who, 'resume', run, '{}')
end
keep_run(run, ARGV[5])
return answer('ok')
