-- Twin of the reference notes' `map_async`: like `map`, but it comes back at
-- once with something to get the results from.

local mp = require "mp"

local function f(a)
    return a * a
end

local pool = mp.Pool()
local result = pool:map_async(f, {1, 2, 3, 4}):get()
pool:close()
pool:join()
print("[" .. table.concat(result, ", ") .. "]")
