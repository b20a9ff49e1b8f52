-- Twin of the reference notes' `starmap`: each input is a list of arguments;
-- waiting for the results, or getting them later.

local mp = require "mp"

local function f(a, b)
    return a .. b
end

local pool = mp.Pool()
local result = pool:starmap(f, {{"a", 0}, {"b", 1}})
print("[" .. table.concat(result, ", ") .. "]")
result = pool:starmap_async(f, {{"c", 2}, {"d", 3}}):get()
print("[" .. table.concat(result, ", ") .. "]")
pool:close()
pool:join()
