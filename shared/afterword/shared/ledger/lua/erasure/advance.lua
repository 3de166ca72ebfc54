-- Say how far an erasure has come, and let go of the lane: until it is due again, or for good.
--   ARGV[2] lane id  [3] fence  [4] state: asked | forgotten | erased  [5] delay, ms
--   [6] lifetime of the receipt, ms  [7] whether Redis' log is written anew, or ''
--   [8] what became of the memories, or ''
-- Answers ok | lost. Asked twice by the same worker, it is done once.
local lane, fence, state = ARGV[2], ARGV[3], ARGV[4]
if redis.call('HGET', erasure_key(lane), 'fence') == fence then return answer('ok') end
if not holds_lane(lane, fence) then return answer('lost') end
redis.call('HSET', erasure_key(lane), 'state', state, 'due', now + ARGV[5], 'fence', fence, state, now)
if ARGV[7] ~= '' then redis.call('HSET', erasure_key(lane), 'log', ARGV[7]) end
if ARGV[8] ~= '' then redis.call('HSET', erasure_key(lane), 'memory', ARGV[8]) end
redis.call('HDEL', FENCES, lane)
if state ~= 'erased' then
  put('waiting', LANES, lane, now + ARGV[5])
  return answer('ok')
end
redis.call('ZREM', ERASURES, lane)
redis.call('PEXPIRE', erasure_key(lane), ARGV[6])
strike(LANES, lane)
if redis.call('EXISTS', lane_key(lane)) == 1 then nudge(lane) end
return answer('ok')
