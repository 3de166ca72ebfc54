-- Hold a user's lane as a writer does, to change memories of theirs: nobody stores a turn meanwhile.
---@param lane string
---@param token string       names this hold: repeated with it, the same one is granted
---@param lease_ms integer
-- Answers taken (who stores turns leaves the lane to the caller next) | erasing, or
--   'holding', fence, milliseconds after which the lane was due.
if is_being_erased(lane) then return answer('erasing') end
local due = tonumber(redis.call('ZSCORE', place_key('waiting', LANES), lane) or now)
due = math.min(due, now + 60000)    -- the order that it waits for may end while it is held
local fence = claim_lease(lane, token, lease_ms)
if not fence then
  redis.call('SET', mending_key(lane), token, 'PX', 2000)
  return answer('taken')
end
redis.call('DEL', mending_key(lane))
return answer('holding', fence, math.max(due - now, 0))
