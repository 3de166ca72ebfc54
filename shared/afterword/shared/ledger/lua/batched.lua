-- Around a script that runs many times in one command, each time with its own arguments and at the
-- same time of the clock. Writes to keys that all runs share are collected: one command per key.
--   ARGV[2] number of runs, then the arguments of each run, equally many
-- Answers a list: one reply per run. An error is the reply of its run; the others go on.
local runs = tonumber(ARGV[2])

local collected, collected_keys = {}, {}
local function write_later(command, key, ...)
  if not collected[key] then
    collected[key] = { command, key }
    collected_keys[#collected_keys + 1] = key
  end
  for _, value in ipairs({ ... }) do table.insert(collected[key], value) end
end

local counts, count_names = {}, {}
local function count_later(name)
  if not counts[name] then count_names[#count_names + 1] = name end
  counts[name] = (counts[name] or 0) + 1
end

local entered = {}
local function enter_shares_once(agenda, tenant)
  local name = agenda .. tenant
  if not entered[name] then enter_shares(agenda, tenant) end
  entered[name] = true
end

local open
local function count_open()
  open = open or redis.call('ZCARD', OPEN)
  return open
end

local open_counts, changed_counts = {}, {}
local function open_counts_of(owners)
  local unknown, found = {}, {}
  for _, owner in ipairs(owners) do
    if not open_counts[owner] then unknown[#unknown + 1] = owner end
  end
  if #unknown > 0 then
    for i, text in ipairs(redis.call('HMGET', OPEN_COUNTS, unpack(unknown))) do
      open_counts[unknown[i]] = parse_count(text)
    end
  end
  for i, owner in ipairs(owners) do found[i] = open_counts[owner] end
  return found
end

local function write_open_counts(owners)
  for _, owner in ipairs(owners) do
    if not changed_counts[owner] then changed_counts[#changed_counts + 1] = owner end
    changed_counts[owner] = true
  end
end

-- A run that reads or changes more than the record of its own job must call this first.
local function flush_writes()
  for _, owner in ipairs(changed_counts) do 
    write_later('HSET', OPEN_COUNTS, owner, count_text(open_counts[owner]))
  end
  for _, key in ipairs(collected_keys) do redis.call(unpack(collected[key])) end
  for _, name in ipairs(count_names) do redis.call('HINCRBY', COUNTS, name, counts[name]) end
  collected, collected_keys, counts, count_names, open = {}, {}, {}, {}, nil
  open_counts, changed_counts, entered = {}, {}, {}
end

local last, granted = 0, 0
local function next_batch_sequence()
  if last == granted then
    granted = redis.call('INCRBY', SEQUENCE, runs)
    last = granted - runs
  end
  last = last + 1
  return last
end

local function run_once(ARGV)
  --<< the script
end

local replies, each = {}, (#ARGV - 2) / runs
for number = 1, runs do
  local first = 3 + (number - 1) * each
  unsent = {}
  local done, reply = pcall(run_once, { broker, unpack(ARGV, first, first + each - 1) })
  replies[number] = done and reply or { err = type(reply) == 'table' and reply.err or reply }
end
flush_writes()
return replies
