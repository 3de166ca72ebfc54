-- Take an operator's order back.
---@param name string   what and whom, see `order_in`
-- Answers 1 if it was in force, else 0.
return answer(end_order(name) and 1 or 0)
