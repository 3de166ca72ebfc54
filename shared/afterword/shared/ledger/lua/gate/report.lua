-- Say what came of asking a provider; whoever is the canary opens or shuts the gate.
--   ARGV[2] gate  [3] token of this asker  [4] worked | failed (counted) | shut (at once) | left
--   [5] code  [6] whose failure it was  [7] pause the provider asks for, ms, or 0
--   [8] shortest and [9] longest pause of ours, ms  [10] octave, ms
--   [11] 1 if calls of this process worked since its last report
-- Answers open | doubted | opening, or: shut, ms until to come back, code, 1 if that is news.
-- Told twice by the same asker, it counts once.
local name, token, verdict, octave = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[10])
local code, fault, asked = ARGV[5], ARGV[6], tonumber(ARGV[7])
end_slow_start(name, octave)
local gate = redis.call('HMGET', gate_key(name), 'until', 'opened', 'canary', 'pause', 'fault', 'code')
local shut_until, opened, is_canary = tonumber(gate[1] or 0), gate[2], gate[3] == token
local is_shut = gate[1] and not opened

local function stand()
  if is_shut then return 'shut', comeback(name, octave), gate[6], 0 end
  return opened and 'opening' or 'open'
end

local function shut()
  local pause = math.min(gate[4] and gate[4] * 2 or tonumber(ARGV[8]), tonumber(ARGV[9]))
  if asked == 0 then redis.call('HSET', gate_key(name), 'pause', pause) end
  local bound = math.max(shut_until, now + (asked > 0 and asked or pause))
  redis.call('HSET', gate_key(name), 'until', bound, 'code', code, 'fault', fault)
  redis.call('HSETNX', gate_key(name), 'since', now)
  redis.call('HDEL', gate_key(name), 'opened', 'canary', 'lease')
  redis.call('PEXPIRE', gate_key(name), GATE_LIFE)
  redis.call('DEL', failures_key(name))
  redis.call('SADD', GATES, name)
  if not is_shut then redis.call('PUBLISH', NEWS, 'shut ' .. name) end
  local news = not gate[1] or (fault == 'operator' and gate[5] ~= fault)
  return 'shut', comeback(name, octave), code, news and 1 or 0
end

local function worked()
  redis.call('DEL', failures_key(name))
  if not is_shut then return stand() end
  redis.call('HSET', gate_key(name), 'opened', now, 'granted', 0)
  redis.call('HDEL', gate_key(name), 'canary', 'lease', 'next')
  return 'opening'
end

local function left()
  redis.call('HDEL', gate_key(name), 'canary', 'lease')
  return stand()
end

local function failed()
  if ARGV[11] == '1' then redis.call('DEL', failures_key(name)) end
  redis.call('SADD', failures_key(name), token)
  redis.call('PEXPIRE', failures_key(name), GATE_LIFE)
  local failures = redis.call('SCARD', failures_key(name))
  if failures >= MOST_FAILURES then return shut() end
  if failures == DOUBT then redis.call('PUBLISH', NEWS, 'doubted ' .. name) end
  return opened and 'opening' or 'doubted'
end

-- Who was asked before the gate was shut can make its pause longer, but not open it.
local function too_late()
  local worse = fault == 'operator' and gate[5] ~= fault or now + asked > shut_until
  if verdict == 'shut' and asked > 0 and worse then return shut() end
  return stand()
end

if is_shut and not is_canary then return answer(too_late()) end
if verdict == 'worked' then return answer(worked()) end
if verdict == 'left' then return answer(left()) end
if verdict == 'shut' or is_canary then return answer(shut()) end
return answer(failed())
