-- Twin of the introduction's merged program: `map`, one `apply_async`, and
-- a list of ten of them, whose results are got one by one.

local mp = require "mp"

local function job(x)
    return x * x
end

local function multicore()
    local pool <close> = mp.Pool()
    local res = pool:map(job, mp.range(10))
    print("[" .. table.concat(res, ", ") .. "]")
    res = pool:apply_async(job, {2})
    print(res:get())
    local multi_res = {}
    for i = 0, 9 do
        table.insert(multi_res, pool:apply_async(job, {i}))
    end
    local values = {}
    for _, result in ipairs(multi_res) do
        table.insert(values, result:get())
    end
    print("[" .. table.concat(values, ", ") .. "]")
end

multicore()
