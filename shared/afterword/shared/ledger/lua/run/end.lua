-- Say that a run is done, or why it stopped.
--   ARGV[2] run  [3] token of its driver  [4] done | stopped | aborted  [5] why, or ''  [6] who
--   [7] lifetime, ms
-- Answers ok | lost (someone else drives it now). Asked twice, it is done once.
local run = ARGV[2]
if not drives(run, ARGV[3]) then return answer('lost') end
if redis.call('HGET', run_key(run), 'state') == 'running' then
  end_run(run, ARGV[4], ARGV[5], ARGV[6])
  keep_run(run, ARGV[7])
end
return answer('ok')
