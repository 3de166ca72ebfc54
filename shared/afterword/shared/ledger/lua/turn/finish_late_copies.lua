-- Record that a mended turn has the memories that the ledger has on record, and no others.
---@param id string   first turn of its batch
-- Answers ok.
redis.call('ZREM', LATE_COPIES, id)
return answer('ok')
