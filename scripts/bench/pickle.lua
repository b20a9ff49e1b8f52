-- What pickling costs: nanoseconds per element, out and in.
-- Usage: mplua scripts/bench/pickle.lua [seconds per row]
local pickle = require "mp.pickle"

local seconds = tonumber(arg and arg[1]) or 0.5

--- Runs f until `seconds` have gone by; the best time of one call.
---@param f function
---@return number seconds
local function best(f)
    local least, stop = math.huge, os.clock() + seconds
    repeat
        local start = os.clock()
        f()
        least = math.min(least, os.clock() - start)
    until os.clock() > stop
    return least
end

---@param n integer
---@param make function i -> item
---@return table
local function list(n, make)
    local t = {}
    for i = 1, n do t[i] = make(i) end
    return t
end

---@param name string
---@param count integer elements in the value
---@param value any
---@param times integer calls per measurement
local function row(name, count, value, times)
    local s = pickle.dumps(value)
    collectgarbage()
    local out = best(function()
        for _ = 1, times do pickle.dumps(value) end
    end)
    collectgarbage()
    local back = best(function()
        for _ = 1, times do pickle.loads(s) end
    end)
    local scale = 1e9 / (count * times)
    print(("%-16s dumps %8.1f ns  loads %8.1f ns  %8.1f bytes"):format(
        name, out * scale, back * scale, #s / count))
end

local function job(x) return x * x end

print "per element (args, function: per call)"
row("ints", 1e6, list(1000000, function(i) return i end), 1)
row("doubles", 1e6, list(1000000, function(i) return i + 0.5 end), 1)
row("short strings", 1e5, list(100000, function(i) return "s" .. i end), 1)
row("records", 1e5, list(100000, function(i)
    return { id = i, name = "name" .. i, value = i * 0.5, ok = i % 2 == 0 }
end), 1)
row("long string", 1, ("x"):rep(1 << 20), 50)
row("integer", 1, 42, 10000)
row("args", 1, { 1, "abc", 3.5 }, 10000)
row("function", 1, job, 10000)
