-- In front of a script that can be batched (batched.lua) when it runs once: writes happen at once.
-- Answers what the script answers.
local open
local function count_open()
  open = redis.call('ZCARD', OPEN)
  return open
end
local write_later, flush_writes, next_batch_sequence = redis.call, function() end, next_sequence
local function open_counts_of(owners)
  return redis.call('HMGET', OPEN_COUNTS, unpack(owners))
end
local function set_open_counts(updates)
  redis.call('HSET', OPEN_COUNTS, unpack(updates))
end
local function count_later(name) redis.call('HINCRBY', COUNTS, name, 1) end
