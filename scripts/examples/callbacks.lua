-- Twin of the reference notes' callbacks: a function that is called here
-- with the result, and another that is called with the error. They run
-- inside calls that wait, as `join` does.

local mp = require "mp"

local function f(a, b)
    if b == 0 then
        error("divided by zero", 0)
    end
    return a // b
end

local function callback(value)
    print("result: " .. value)
end

local function error_callback(err)
    print("error: " .. err.message)
end

local pool = mp.Pool(2)
pool:apply_async(f, {12, 3}, nil, callback, error_callback):wait()
pool:apply_async(f, {12, 0}, nil, callback, error_callback):wait()
pool:map_async(function(x) return x + 1 end, {1, 2, 3}, {
    callback = function(list)
        print("results: " .. table.concat(list, " "))
    end,
})
pool:close()
pool:join()
