-- In front of a script that can be batched (batched.lua) when it runs once: writes happen at once.
-- Answers what the script answers.
local open
local function count_open()
  open = redis.call('ZCARD', OPEN)
  return open
end
local write_later, flush_writes, next_batch_sequence = redis.call, function() end, next_sequence
local function count_later(name) redis.call('HINCRBY', COUNTS, name, 1) end
