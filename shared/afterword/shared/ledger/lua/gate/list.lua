-- List the gates that are not open.
---@param octave_ms integer
-- Answers a list of gates, each {name, shut | opening, code, fault, since, until, untested, by,
-- reason}. untested is for how many ms a call could have tested whether the provider is back, and
-- none did; by and reason are those of the operator who shut it; until is '' if that has no end.
local gates = {}
for _, name in ipairs(redis.call('SMEMBERS', GATES)) do
  local record = gate_record(name)
  local bound = tonumber(record['until'])
  local opened_by = record.opened and record.opened + OCTAVES * octave_ms
  local state = opened_by and 'opening' or 'shut'
  local untested = bound and math.max(0, now - math.max(bound, tonumber(record.lease or 0)))
  if bound and (not opened_by or now < opened_by) then
    local ends = opened_by or bound < FOREVER and bound or ''
    gates[#gates + 1] = { name, state, record.code, record.fault, record.since, ends,
      opened_by and 0 or untested, record.by or '', record.reason or '' }
  end
end
return answer(gates)
