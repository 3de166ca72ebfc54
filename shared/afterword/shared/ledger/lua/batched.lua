-- Around a step that one command takes many times, each with its own arguments, at the same time by
-- the clock. What they all write to the same keys is kept back, and written with one command a key.
--   ARGV[2] how many times  then the arguments of each, as many for all
-- Answers as often as it is taken; what fails is the answer to that one, and the others go on.
local times = tonumber(ARGV[2])

local kept, keys_kept = {}, {}
local function later(command, key, ...)
  if not kept[key] then
    kept[key] = { command, key }
    keys_kept[#keys_kept + 1] = key
  end
  for _, value in ipairs({ ... }) do table.insert(kept[key], value) end
end

local tallies, names = {}, {}
local function tally_later(name)
  if not tallies[name] then names[#names + 1] = name end
  tallies[name] = (tallies[name] or 0) + 1
end

local open
local function count_open()
  open = open or redis.call('ZCARD', OPEN)
  return open
end

-- Whoever reads or changes more than the record of his own job must call it first.
local function write_kept()
  for _, key in ipairs(keys_kept) do redis.call(unpack(kept[key])) end
  for _, name in ipairs(names) do redis.call('HINCRBY', COUNTS, name, tallies[name]) end
  kept, keys_kept, tallies, names, open = {}, {}, {}, {}, nil
end

local last, granted = 0, 0
local function next_of_many()
  if last == granted then
    granted = redis.call('INCRBY', SEQUENCE, times)
    last = granted - times
  end
  last = last + 1
  return last
end

local function once(ARGV)
  --<< the step
end

local answers, each = {}, (#ARGV - 2) / times
for number = 1, times do
  local first = 3 + (number - 1) * each
  unsent = {}
  local done, told = pcall(once, { broker, unpack(ARGV, first, first + each - 1) })
  answers[number] = done and told or { err = type(told) == 'table' and told.err or told }
end
write_kept()
return answers
