-- Twin of the introduction's pool with a chosen number of workers: three,
-- however many CPUs there are.

local mp = require "mp"

local function job(x)
    return x * x
end

local function multicore()
    local pool <close> = mp.Pool{processes = 3}
    local res = pool:map(job, mp.range(10))
    print("[" .. table.concat(res, ", ") .. "]")
end

multicore()
