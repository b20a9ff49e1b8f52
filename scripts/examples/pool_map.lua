-- Twin of the introduction's first pool: as many workers as there are
-- CPUs, and `map` gives the results in the order of the inputs.

local mp = require "mp"

local function job(x)
    return x * x
end

local function multicore()
    local pool <close> = mp.Pool()
    local res = pool:map(job, mp.range(10))
    print("[" .. table.concat(res, ", ") .. "]")
end

multicore()
