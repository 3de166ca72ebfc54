-- Forget that tenants have spent something, once the other shards were told; not of one that has spent since.
---@param told {tenant: string, when: string}[]   as they stood among the spenders
-- Answers ok.
for _, one in ipairs(told) do
  if tonumber(redis.call('ZSCORE', SPENDERS, one.tenant) or 0) <= tonumber(one.when) then
    redis.call('ZREM', SPENDERS, one.tenant)
  end
end
return answer('ok')
