-- Executors: everything that a call can do wrong, in every place where the
-- user's code runs: {error, exit, crash} x {task packed, task rebuilt, run,
-- result packed, result rebuilt}, and workers that die otherwise. Always an
-- error of that one future, never a hang, and the next call works.
--
-- (The same of pools: pool_matrix_spec.)

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local futures = mp.futures
local failure, ways = tools.failure, tools.ways
local square, sleep = tools.square, tools.sleep

-- What goes wrong, and where -------------------------------------------------

local main <const> = mp.getpid()

--- A class of objects that do `way` where they are packed ("out") or rebuilt
-- ("in"), in the caller (`here`) or in a worker. It must exist before the
-- executor does.
local function new_class(name, where, here, way)
    local class = {__name = name}
    local function pass(place)
        if place == where and (mp.getpid() == main) == here then
            way()
        end
    end
    mp.pickle.register(name, class, function(object)
        pass("out")
        return object.i
    end, function(i)
        pass("in")
        return setmetatable({i = i}, class)
    end)
    return function(i)
        return setmetatable({i = i}, class)
    end
end

--- Each place: how the argument is made, and what the job does with it.
local function places(name)
    local way = ways[name]
    local plain = new_class("futures.plain." .. name)
    local task_in = new_class("futures.task_in." .. name, "in", false, way)
    local task_out = new_class("futures.task_out." .. name, "out", true, way)
    local result_out =
        new_class("futures.result_out." .. name, "out", false, way)
    local result_in = new_class("futures.result_in." .. name, "in", true, way)
    local function number_of(object)
        return object.i
    end
    return {
        ["task packed"] = {task_out, number_of},
        ["task rebuilt"] = {task_in, number_of},
        ["run"] = {plain, function(object)
            way()
            return object.i
        end},
        ["result packed"] = {plain, function(object)
            return result_out(object.i)
        end},
        ["result rebuilt"] = {plain, function(object)
            return result_in(object.i)
        end},
    }
end

--- Demands what belongs to that way to fail.
local function check(name, e)
    if name == "error" then
        assert.are.equal("bad luck", e.value)
    elseif name == "exit" then
        assert.are.same({"WorkerLost", 7}, {e.kind, e.exitcode})
    else
        assert.are.same({"WorkerLost", 11}, {e.kind, e.signal})
    end
end

--- The error of a submitted call, wherever it is raised.
local function of_submit(ex, f, object)
    local ok, e = pcall(function()
        local future = ex:submit(f, object)
        assert.is_not_nil(future:exception(20))
        return future:result()
    end)
    assert.is_false(ok)
    return e
end

--- The error of a map over the one object, among good ones.
local function of_map(ex, f, object)
    local it = ex:map(function(x)
        return type(x) == "number" and x or f(x)
    end, {1, object, 3}, {chunksize = 1})
    assert.are.same({1, 1}, {it:next(20)})
    local ok, e = pcall(it.next, it, 20)
    assert.is_false(ok)
    assert.is_nil(it())
    return e
end

local cases = {}
for name in pairs(ways) do
    cases[name] = places(name)
end

for _, name in ipairs {"error", "exit", "crash"} do
    for place, case in pairs(cases[name]) do
        local inside = place ~= "task packed" and place ~= "result rebuilt"
        if inside then
            it(("T-F-01 FUT-13 PAIN-03 %s, %s"):format(name, place), function()
                if helper.sanitized and name == "crash" then
                    pending("a sanitizer makes an exit of it")
                    return
                end
                local ex <close> = futures.ProcessPoolExecutor(2)
                check(name, of_submit(ex, case[2], case[1](1)))
                check(name, of_map(ex, case[2], case[1](1)))
                assert.are.equal(9, ex:submit(square, 3):result())
            end)
        end
    end
end

it("T-F-01 error, task packed: submit raises it", function()
    local ex <close> = futures.ProcessPoolExecutor(2)
    local make, f = table.unpack(cases.error["task packed"])
    local object = make(1)
    assert.are.same({false, "bad luck"}, {pcall(ex.submit, ex, f, object)})
    assert.are.equal("bad luck", of_map(ex, f, object))
    assert.are.equal(9, ex:submit(square, 3):result())
end)

it("T-F-01 PAIN-07 error, result rebuilt: it is that future's", function()
    local ex <close> = futures.ProcessPoolExecutor(2)
    local make, f = table.unpack(cases.error["result rebuilt"])
    local good, bad = ex:submit(sleep, 0.05), ex:submit(f, make(1))
    for _ = 1, 2 do
        local e = failure("PicklingError", bad.result, bad)
        assert.are.equal("bad luck", e.value)
    end
    assert.are.equal("bad luck", of_map(ex, f, make(1)).value)
    assert.are.equal(0.05, good:result())
    assert.are.equal(9, ex:submit(square, 3):result())
end)

for _, name in ipairs {"exit", "crash"} do
    it("T-F-01 " .. name .. " in the caller takes the workers along",
    function()
        if helper.sanitized and name == "crash" then
            pending("a sanitizer makes an exit of it")
            return
        end
        for _, place in ipairs {"out", "in"} do
            local path = helper.tmpname()
            local run = tools.script(([[
                local mp = require "mp"
                local class, main = {}, mp.getpid()
                local function pass(place)
                    if place == %q and mp.getpid() == main then
                        if %q == "exit" then os.exit(7) end
                        os.execute("kill -SEGV " .. main)
                        mp.sleep(10)
                    end
                end
                mp.pickle.register("Class", class, function()
                    pass("out")
                    return 1
                end, function()
                    pass("in")
                    return setmetatable({}, class)
                end)
                local ex = mp.futures.ProcessPoolExecutor(2)
                local file = assert(io.open(%q, "w"))
                file:write(table.concat(ex._pool._core:pids(), " "))
                file:close()
                ex:submit(mp.sleep, 60)
                ex:submit(function(x) return x end, setmetatable({}, class))
                    :result()
                os.exit(99)
            ]]):format(place, name, path), {timeout = 20})
            assert.are.equal(name == "exit" and 7 or 128 + 11,
                run.signal and 128 + run.signal or run.code)
            local file <close> = assert(io.open(path))
            local pids = {}
            for pid in file:read("a"):gmatch("%d+") do
                pids[#pids + 1] = pid
            end
            assert.are.equal(2, #pids)
            tools.soon_gone(pids)
        end
    end)
end

-- Workers that die otherwise --------------------------------------------------

it("PAIN-03 FUT-13 a killed worker costs its own future only", function()
    local ex <close> = futures.ProcessPoolExecutor(2)
    local pid <close> = mp.Value("i", 0)
    local good = ex:submit(sleep, 0.1)
    local victim = ex:submit(function()
        local m = require "mp"
        pid.value = m.getpid()
        m.sleep(60)
    end)
    local queued = {}
    for i = 1, 20 do
        queued[i] = ex:submit(square, i)
    end
    helper.eventually(function() return pid.value ~= 0 end)
    tools.kill({pid.value})
    for f in futures.as_completed({good, victim, table.unpack(queued)}, 20)
    do
        assert.are.equal(f == victim, f:exception() ~= nil)
    end
    local e = failure("WorkerLost", victim.result, victim)
    assert.are.same({9, pid.value}, {e.signal, e.pid})
    for i = 1, 20 do
        assert.are.equal(i * i, queued[i]:result())
    end
    assert.are.equal(9, ex:submit(square, 3):result())
end)

it("PAIN-03 idle workers that are killed cost nothing", function()
    local ex <close> = futures.ProcessPoolExecutor(2)
    assert.are.equal(4, ex:submit(square, 2):result())
    tools.kill(ex._pool._core:pids())
    for i = 1, 10 do
        assert.are.equal(i * i, ex:submit(square, i):result(20))
    end
end)

it("FUT-13 PAIN-09 a failing initializer breaks it, with its error", function()
    local ex = futures.ProcessPoolExecutor(2, nil, function()
        error("no luck today", 0)
    end)
    local ok, f = pcall(ex.submit, ex, square, 1)
    local e = ok and failure("BrokenPool", f.result, f) or f
    assert.matches("no luck today", e.message, 1, true)
    helper.eventually(function()
        return not pcall(ex.submit, ex, square, 1)
    end)
    failure("BrokenPool", ex.submit, ex, square, 1)
    failure("BrokenPool", ex.map, ex, square, {1})
    ex:shutdown()
end)

it("FUT-13 a result too large for a pipe comes, or is lost whole", function()
    local ex <close> = futures.ProcessPoolExecutor(2)
    local big = ex:submit(string.rep, "x", 1 << 20)
    local lost = ex:submit(function(text)
        os.exit(#text > 5 and 3 or 4)
    end, ("y"):rep(1 << 20))
    assert.are.equal(1 << 20, #big:result(20))
    assert.are.equal(3, failure("WorkerLost", lost.result, lost).exitcode)
end)
