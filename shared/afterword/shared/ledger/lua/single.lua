-- In front of a script that can be batched (batched.lua) when it runs once: writes happen at once.
-- Answers what the script answers.
local open
local function count_open()
  open = redis.call('ZCARD', OPEN)
  return open
end
local write_later, flush_writes, next_batch_sequence = redis.call, function() end, next_sequence
local function open_counts_of(owners)
  local counts = redis.call('HMGET', OPEN_COUNTS, unpack(owners))
  for i, text in ipairs(counts) do counts[i] = parse_count(text) end
  return counts
end
local function write_open_counts(owners, counts)
  local updates = {}
  for i, owner in ipairs(owners) do updates[2 * i - 1], updates[2 * i] = owner, count_text(counts[i]) end
  redis.call('HSET', OPEN_COUNTS, unpack(updates))
end
local enter_shares_once = enter_shares
local function count_later(name) redis.call('HINCRBY', COUNTS, name, 1) end
