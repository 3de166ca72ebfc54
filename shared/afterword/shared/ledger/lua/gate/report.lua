-- Report the outcome of calling a provider. The canary's outcome opens or shuts the gate.
---@param gate string
---@param token string         names the caller
---@param outcome string       worked | failed (counted) | shut (at once) | left
---@param code string
---@param fault string         whose failure it was: provider | operator | request
---@param pause_ms integer     pause that the provider asks for, or 0
---@param cap_ms integer       longest pause that one answer can impose
---@param first_ms integer     our shortest pause
---@param longest_ms integer   our longest pause
---@param octave_ms integer
---@param worked boolean       whether other calls of this process worked since its last report
---@param age_ms integer       how long ago this call began
-- Answers open | doubted | opening, or: shut, ms until to retry, code, 1 if that is news.
-- Repeated with the same token, it counts once.
end_slow_start(gate, octave_ms)
local record = gate_record(gate)
local is_canary = record.canary == token
local is_shut = record['until'] and not record.opened
-- What works although it began after the gate was shut has tested the provider, too: its process did
-- not know. The second is for the way from there to Redis.
local is_witness = is_shut and outcome == 'worked' and now - age_ms - 1000 > tonumber(record.shut or 0)

local function decision()
  if is_shut then return 'shut', retry_after_ms(gate, octave_ms), record.code, 0 end
  return record.opened and 'opening' or 'open'
end

-- A provider that asks for a long pause is asked again after the cap: one answer may be wrong, and
-- would stop the whole fleet. What the canary then asks for is believed.
local function believed_pause()
  local asked_before = tonumber(record.asked or 0)
  if fault == 'operator' or (is_canary and asked_before > cap_ms) then return pause_ms end
  return math.min(pause_ms, cap_ms)
end

-- Pauses double while nothing works. Each octave for which the gate has been opening takes one doubling
-- back: what fails in a moment of its own is not an outage that goes on.
local function next_pause()
  if not record.pause then return first_ms end
  local octaves = record.opened and math.floor((now - record.opened) / octave_ms) or 0
  return math.max(first_ms, math.min(record.pause * 2 / 2 ^ octaves, longest_ms))
end

local function shut()
  local pause = next_pause()
  if pause_ms == 0 then redis.call('HSET', gate_key(gate), 'pause', pause) end
  if pause_ms > 0 then pause = believed_pause() end
  local bound = math.max(tonumber(record['until'] or 0), now + pause)
  shut_gate(gate, { 'until', bound, 'code', code, 'fault', fault, 'asked', pause_ms })
  redis.call('HSETNX', gate_key(gate), 'since', now)
  redis.call('PEXPIRE', gate_key(gate), GATE_LIFE)
  if not is_shut then redis.call('PUBLISH', GATE_NEWS, 'shut ' .. gate) end
  local known = record['until'] and not record.by
  local news = not known or (fault == 'operator' and record.fault ~= fault)
  return 'shut', retry_after_ms(gate, octave_ms), code, news and 1 or 0
end

local function on_success()
  redis.call('DEL', gate_failures_key(gate))
  if not is_shut then return decision() end
  begin_slow_start(gate)
  return 'opening'
end

local function on_leaving()
  redis.call('HDEL', gate_key(gate), 'canary', 'lease')
  return decision()
end

local function on_failure()
  if worked then redis.call('DEL', gate_failures_key(gate)) end
  redis.call('SADD', gate_failures_key(gate), token)
  redis.call('PEXPIRE', gate_failures_key(gate), GATE_LIFE)
  local failures = redis.call('SCARD', gate_failures_key(gate))
  if failures >= MAX_FAILURES then return shut() end
  if failures == DOUBT then redis.call('PUBLISH', GATE_NEWS, 'doubted ' .. gate) end
  return record.opened and 'opening' or 'doubted'
end

-- A call that began before the gate was shut can lengthen its pause, but not open it.
local function too_late()
  local longer = now + believed_pause() > tonumber(record['until'])
  local worse = fault == 'operator' and record.fault ~= fault or longer
  if outcome == 'shut' and pause_ms > 0 and worse then return shut() end
  return decision()
end

if is_shut_by_hand(record) then return answer(decision()) end
if is_shut and not is_canary and not is_witness then return answer(too_late()) end
if outcome == 'worked' then return answer(on_success()) end
if outcome == 'left' then return answer(on_leaving()) end
if outcome == 'shut' or is_canary then return answer(shut()) end
return answer(on_failure())
