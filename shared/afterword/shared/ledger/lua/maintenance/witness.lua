-- Compare the ledger with what a witness saw of it; if it is older, say so in it and skip the numbers
-- that were given out since, so that no fence is given twice.
---@param witness string   what a machine that watches this ledger is called
---@param seen integer     the newest number that it saw, 0 if none
---@param margin integer   numbers that are skipped beyond: others may have been given out
-- Answers the newest number as found and as it is now, and 1 if the ledger is older than was seen.
local found = tonumber(redis.call('GET', SEQUENCE) or 0)
-- Only witnesses write here: a ledger that producers fill after it was put back shows it all the same.
local left = tonumber(redis.call('ZSCORE', WITNESSES, witness) or 0)
local full = redis.call('ZCARD', WITNESSES) >= MOST_WITNESSES
local older = found < seen or (left < seen and not full)
local newest = found
if older then
  redis.call('SET', PUT_BACK, found)
  newest = redis.call('INCRBY', SEQUENCE, math.max(seen - found, 0) + margin)
end
redis.call('ZADD', WITNESSES, newest, witness)
redis.call('ZREMRANGEBYRANK', WITNESSES, 0, -MOST_WITNESSES - 1)
return answer(found, newest, older and 1 or 0)
