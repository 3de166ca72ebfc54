-- List the gates that are not open.
---@param octave_ms integer
-- Answers a list of gates, each {name, shut | opening, code, fault, since, until, untested}: untested
-- is for how many ms a call could have tested whether the provider is back, and none did.
local gates = {}
for _, name in ipairs(redis.call('SMEMBERS', GATES)) do
  local gate = redis.call('HMGET', gate_key(name), 'until', 'opened', 'code', 'fault', 'since', 'lease')
  local opened_by = gate[2] and gate[2] + OCTAVES * octave_ms
  if opened_by and now < opened_by then
    gates[#gates + 1] = { name, 'opening', gate[3], gate[4], gate[5], opened_by, 0 }
  elseif gate[1] and not opened_by then
    local untested = now - math.max(gate[1], gate[6] or 0)
    gates[#gates + 1] = { name, 'shut', gate[3], gate[4], gate[5], gate[1], math.max(untested, 0) }
  end
end
return answer(gates)
