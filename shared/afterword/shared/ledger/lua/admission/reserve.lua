-- Reserve what a call will probably use of a provider's rate limit, or say when to ask again.
---@param quota string         names the limit, see `Quotas`
---@param input integer        estimated input tokens that count
---@param output integer       estimated output tokens
---@param reply boolean        whether a reply needs it: all else leaves a share of the limit to those
---@param returning boolean    whether the caller has waited before: others then queue behind it
-- Answers unknown (no limit that a call can wait for: nobody told one, or it takes longer than
--   LONGEST_REFILL until it has room, which is an outage and the gate's to say), or: admitted, number
--   of the call, slot, percent left; or: refused, ms until the caller's own time to ask again.
-- Repeated, it reserves twice; the next headers put that right.
local key, levels = quota_key(quota), quota_levels(quota)
if not next(levels) then return answer('unknown') end
local amounts = { requests = 1, input = input, output = output, tokens = input + output }
local queue = redis.call('HMGET', key, 'fresh', 'returning', 'memory')
local is_queued = tonumber(queue[1] or 0) > now

local kept = 0
if not reply then kept = KEPT_FOR_REPLIES elseif is_queued and not returning then kept = KEPT_FOR_WAITING end

-- What is more than the limit can ever hold is admitted once as much is there as there can be.
local wait, each, left = 0, 0, 1
for name, one in pairs(levels) do
  local need = math.min(amounts[name], one.limit * (1 - KEPT_FOR_REPLIES))
  local takes = (need - one.level) * one.refill / one.limit
  if one.refill > LONGEST_REFILL and takes > LONGEST_REFILL then return answer('unknown') end
  wait = math.max(wait, (need + kept * one.limit - one.level) * one.refill / one.limit)
  each = math.max(each, need * one.refill / one.limit)
  left = math.min(left, (one.level - need) / one.limit)
end

-- Each caller that is refused gets a time of its own, one after the other, as fast as the limit refills.
local function own_time()
  local line = not reply and 'memory' or returning and 'returning' or 'fresh'
  local last = tonumber(queue[not reply and 3 or returning and 2 or 1] or 0)
  local at = math.max(last, now + math.max(wait, reply and SHORTEST_WAIT or SHORTEST_WAIT_OF_MEMORY))
  if at > now + LONGEST_WAIT_FOR_QUOTA then
    local part = redis.call('HINCRBY', key, 'refused', 1) % 64 / 64
    at = now + LONGEST_WAIT_FOR_QUOTA * (1 + part) / 2
  else
    redis.call('HSET', key, line, at + each)
  end
  return math.ceil(at - now)
end

if wait > 0 then return answer('refused', own_time()) end
local slot = math.floor(now / QUOTA_SLOT)
for name, one in pairs(levels) do
  one.level = one.level - amounts[name]
  redis.call('HINCRBY', key, 'open:' .. slot .. ':' .. name, amounts[name])
end
write_quota_levels(quota, levels)
return answer('admitted', redis.call('HINCRBY', key, 'calls', 1), slot, math.floor(left * 100))
