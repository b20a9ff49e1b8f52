-- Twin of the notes' pool of three: `map`, one `apply_async`, and a list of
-- them.

local mp = require "mp"

local function job(x)
    return x * x
end

local function multi_core()
    local pool <close> = mp.Pool{processes = 3}
    local result = pool:map(job, mp.range(10))
    print("[" .. table.concat(result, ", ") .. "]")
    local result2 = pool:apply_async(job, {2})
    print(result2:get())
    local multi_result = {}
    for i = 0, 9 do
        multi_result[i + 1] = pool:apply_async(job, {i})
    end
    for i, single in ipairs(multi_result) do
        multi_result[i] = single:get()
    end
    print("[" .. table.concat(multi_result, ", ") .. "]")
end

multi_core()
