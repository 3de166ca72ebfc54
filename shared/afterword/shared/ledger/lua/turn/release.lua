-- Release a lane. If it holds more that can be stored, it is hinted, at once or after a delay.
---@param lane string
---@param fence string
---@param delay_ms integer   0 to hint it at once
---@param code string        why it waits, or ''
-- Answers ok | lost.
if not holds_lane(lane, fence) then return answer('lost') end
redis.call('HDEL', FENCES, lane)
local oldest = redis.call('ZRANGE', lane_key(lane), 0, 0)[1]
local turn = oldest and redis.call('HGET', job_key(oldest), 'turn')
if not turn or turn == 'awaited' then
  remove_from_agenda(LANES, lane)
elseif delay_ms > 0 then
  move_to('waiting', LANES, lane, now + delay_ms)
  if code ~= '' then add_step(oldest, 'wait', code) end
else
  hint(LANES, lane)
end
return answer('ok')
