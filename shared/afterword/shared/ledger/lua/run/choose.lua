-- Keep what a run is to replay, before there is a run; without one it is forgotten.
--   ARGV[2] run  [3] lifetime, ms  then place, letter, ...
-- Answers ok.
redis.call('ZADD', todo_key(ARGV[2]), unpack(ARGV, 4))
redis.call('PEXPIRE', todo_key(ARGV[2]), ARGV[3])
return answer('ok')
