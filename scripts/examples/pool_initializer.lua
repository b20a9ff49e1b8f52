-- Twin of the reference notes' options of a pool: a function that each
-- worker calls at its start, and a number of tasks after which a worker
-- gives way to a new one.

local mp = require "mp"

local function initializer(started, greeting)
    started:add(1)
    mp.worker.state.greeting = greeting
end

local function f(name)
    return mp.worker.state.greeting .. " " .. name .. " " .. mp.getpid()
end

local started = mp.Value("i", 0)
local pool = mp.Pool{processes = 2, initializer = initializer,
                     initargs = {started, "hello"}, maxtasksperchild = 2}
local pids, count = {}, 0
for _, line in ipairs(pool:map(f, {"a", "b", "c", "d", "e", "f"}, 1)) do
    local greeting, pid = line:match("^(%a+ %a) (%d+)$")
    print(greeting)
    count = count + (pids[pid] and 0 or 1)
    pids[pid] = true
end
pool:close()
pool:join()
print("three workers at least:", count >= 3)
print("each of them started once:", started.value >= count)
