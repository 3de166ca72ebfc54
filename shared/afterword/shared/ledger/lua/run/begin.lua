-- Begin a run over what was chosen for it.
--   ARGV[2] run  [3] version  [4] who  [5] filter, JSON  [6] pace, JSON  [7] token of its driver
--   [8] lifetime, ms
-- Answers ok | lost (what was chosen is not there any more). Asked twice, it is done once.
local run, who = ARGV[2], ARGV[4]
if redis.call('EXISTS', run_key(run)) == 1 then return answer('ok') end
local letters = redis.call('ZCARD', todo_key(run))
if letters == 0 then return answer('lost') end
redis.call('HSET', run_key(run), 'v', ARGV[3], 'by', who, 'at', now, 'seen', now, 'filter', ARGV[5],
  'pace', ARGV[6], 'driver', ARGV[7], 'state', 'running', 'letters', letters)
redis.call('ZREMRANGEBYSCORE', RUNS, '-inf', now - ARGV[8])
redis.call('ZADD', RUNS, now, run)
keep_run(run, ARGV[8])
note_audit_entry(who, 'replay', run, '{"filter":' .. ARGV[5] .. ',"dead_letters":' .. letters .. '}')
return answer('ok')
