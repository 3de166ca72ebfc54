-- In front of a step that one command can take many times (batched.lua), where it is taken once:
-- everything is written at once. Answers what the step answers.
local open
local function count_open()
  open = redis.call('ZCARD', OPEN)
  return open
end
local later, write_kept, next_of_many = redis.call, function() end, next_number
local function tally_later(name) redis.call('HINCRBY', COUNTS, name, 1) end
