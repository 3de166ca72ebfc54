-- Record how far an erasure has come, and release the lane: until it is due again, or for good.
---@param lane string
---@param fence string
---@param state string         asked | forgotten | erased
---@param delay_ms integer     until it is due again
---@param receipt_ms integer   lifetime of the receipt
---@param aof string           whether Redis rewrites its append-only file, or ''
---@param memory string        what became of the memories, or ''
---@param command_log string   whether Redis forgot the slow commands, or ''
-- Answers ok | lost. Repeated by the same worker, it is done once.
if redis.call('HGET', erasure_key(lane), 'fence') == fence then return answer('ok') end
if not holds_lane(lane, fence) then return answer('lost') end
redis.call('HSET', erasure_key(lane), 'state', state, 'due', now + delay_ms, 'fence', fence, state, now)
if aof ~= '' then redis.call('HSET', erasure_key(lane), 'aof', aof) end
if command_log ~= '' then redis.call('HSET', erasure_key(lane), 'command_log', command_log) end
if memory ~= '' then redis.call('HSET', erasure_key(lane), 'memory', memory) end
redis.call('HDEL', FENCES, lane)
if state ~= 'erased' then
  move_to('waiting', LANES, lane, now + delay_ms)
  return answer('ok')
end
redis.call('ZREM', ERASURES, lane)
redis.call('PEXPIRE', erasure_key(lane), receipt_ms)
remove_from_agenda(LANES, lane)
if redis.call('EXISTS', lane_key(lane)) == 1 then hint_idle_lane(lane) end
return answer('ok')
