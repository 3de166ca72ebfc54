-- Hold a user's lane as a writer does, to change memories of theirs: nobody stores a turn meanwhile.
---@param lane string
---@param token string       names this hold: repeated with it, the same one is granted
---@param lease_ms integer
-- Answers taken (who stores turns leaves the lane to the caller next) | erasing, or
--   'holding', fence, milliseconds after which the lane was due, its oldest turn or ''.
if is_being_erased(lane) then return answer('erasing') end
local due = tonumber(redis.call('ZSCORE', place_key('waiting', LANES), lane) or now)
-- What it waits for may end while it is held, unless that is the pause before its oldest turn is tried again.
local head = redis.call('ZRANGE', lane_key(lane), 0, 0)[1]
local told = head and redis.call('HGET', job_key(head), 'story') or ''
local newest = string.match(string.sub(told, -200), '[^\n]*$')
if not string.find(newest, ' postpone ', 1, true) then due = math.min(due, now + 60000) end
local fence = claim_lease(lane, token, lease_ms)
if not fence then
  redis.call('SET', mending_key(lane), token, 'PX', 2000)
  return answer('taken')
end
redis.call('DEL', mending_key(lane))
return answer('holding', fence, math.max(due - now, 0), head or '')
