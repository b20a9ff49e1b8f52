-- Twin of the introduction's `apply_async` program: `map` for many inputs,
-- then one call of one worker, whose value `get` waits for.

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
end

multicore()
