-- Twin of the notes' comparison, of which they show the output only: the
-- sum of i + i^2, a million terms, twice; by itself and by two processes.

local mp = require "mp"

local function sum()
    local result = 0
    for i = 0, 999999 do
        result = result + i + i * i
    end
    return result
end

local function job(q)
    q:put(sum())
end

local function normal()
    local result = 0
    for _ = 1, 2 do
        result = result + sum()
    end
    return result
end

local function multi_core()
    local q = mp.Queue()
    local p1 = mp.Process{target = job, args = {q}}
    local p2 = mp.Process{target = job, args = {q}}
    p1:start()
    p2:start()
    p1:join()
    p2:join()
    return q:get() + q:get()
end

local function row(name, title, f)
    local start = mp.time()
    local result = f()
    print(name .. " Using Time: " .. mp.time() - start)
    print(title .. ": " .. result)
end

row("Normal", "Normal", normal)
row("MultCore", "MultiCore", multi_core)
