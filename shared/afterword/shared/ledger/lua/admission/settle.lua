-- Say what became of reservations, and what the provider told of its limit.
---@param quota string       names the limit
---@param number integer     call whose answer told it; 0 if that had no reservation
---@param told string        '<name> <limit> <remaining> <ms to refill all of it>' for each part, or ''
---@param changes {slot: string, name: string, less: string, back: string}[]
-- Of each part: what is no longer open of the reservations of a slot, and what was not used after all.
-- Answers unknown | settled | synced. The newest call that told something counts. Repeated, it settles
-- twice; the next headers put that right.
local key, levels = quota_key(quota), quota_levels(quota)
if not next(levels) and told == '' then return answer('unknown') end
for _, change in ipairs(changes) do
  local one = levels[change.name]
  if one then
    one.level = math.min(one.limit, one.level + change.back)
    redis.call('HINCRBY', key, 'open:' .. change.slot .. ':' .. change.name, -change.less)
  end
end

-- What was reserved and may not be counted yet by the provider. An answer comes little by little: the
-- older its reservation, the less of it is still to come.
local function still_open()
  local sums, fields = {}, redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local slot, name = string.match(fields[i], '^open:(%d+):(%a+)$')
    local young = slot and 1 - math.max(0, now - slot * QUOTA_SLOT) / QUOTA_SLOT_LIFE
    if slot and young <= 0 then
      redis.call('HDEL', key, fields[i])
    elseif slot then
      sums[name] = (sums[name] or 0) + young * math.max(0, fields[i + 1])
    end
  end
  return sums
end

local function sync()
  local sums, found = still_open(), {}
  for name, limit, remaining, refill in string.gmatch(told, '(%a+) (%d+) (%d+) (%d+)') do
    found[name] = { limit = tonumber(limit), refill = tonumber(refill),
      level = math.min(limit, remaining) - (sums[name] or 0) }
    redis.call('HSET', key, 'limit:' .. name, limit, 'refill:' .. name, refill)
  end
  for name in pairs(levels) do
    if not found[name] then redis.call('HDEL', key, 'limit:' .. name) end
  end
  redis.call('HSET', key, 'newest', number)
  return found
end

local is_newest = told ~= '' and number >= tonumber(redis.call('HGET', key, 'newest') or 0)
if is_newest then levels = sync() end
write_quota_levels(quota, levels)
return answer(is_newest and 'synced' or 'settled')
