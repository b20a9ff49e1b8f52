-- Wrong calls: each raises an error object that names the function, the value
-- and what was expected, at the caller's line; nothing is dropped silently.

local helper = require "spec.helper"
local mp = require "mp"

local NAN <const>, INF <const> = 0 / 0, 1 / 0

--- Runs f and demands an error of this kind, placed in this file, whose
-- message has these pieces.
local function refused(kind, pieces, f, ...)
    local ok, e = pcall(f, ...)
    assert.is_false(ok, "accepted")
    assert.is_true(mp.iserror(e), tostring(e))
    assert.are.equal(kind, e.kind, tostring(e))
    assert.matches("misuse_spec.lua:%d+:$", e.where)
    for _, piece in ipairs(pieces) do
        assert.is_truthy(e.message:find(piece, 1, true),
            ("%q is not in %q"):format(piece, e.message))
    end
end

describe("a method without its object", function()
    it("says what it wants, and how", function()
        finally(collectgarbage)
        local pool <close> = mp.Pool(1)
        local result = pool:apply_async(math.abs, {-1})
        result:get()
        for _, case in ipairs{
            {mp.Lock(), "Lock", "acquire"}, {mp.Queue(), "Queue", "get"},
            {mp.Event(), "Event", "set"}, {mp.Value("i"), "Value", "add"},
            {mp.Process(), "Process", "start", "join", "is_alive", "kill",
             "run", "close", "terminate", "interrupt"},
            {pool, "Pool", "map", "imap", "apply", "apply_async", "close",
             "join", "terminate", "poll"},
            {result, "AsyncResult", "get", "try_get", "wait", "ready",
             "successful"},
        } do
            local object, class = case[1], case[2]
            for i = 3, #case do
                local method = case[i]
                for _, self in ipairs{5, "x", io.stdout, {}, mp.Barrier(1)} do
                    refused("TypeError", {class .. " expected", "use ':'"},
                        object[method], self)
                end
                local ok, e = pcall(function() return object[method]() end)
                assert.is_false(ok)
                assert.are.equal("TypeError", mp.iserror(e) and e.kind)
                assert.matches("misuse_spec.lua:%d+:$", e.where)
            end
        end
        refused("TypeError", {"acquire: argument 'self': Lock expected"},
            function()
                local acquire = mp.Lock().acquire
                acquire()
            end)
    end)
end)

describe("where an error is", function()
    it("is a line of the user's, whatever the file's directory", function()
        local lfs = require "lfs"
        local dir = helper.tmpdir()
        for _, name in ipairs{"/mp", "/lua", "/lua/mp"} do
            assert(lfs.mkdir(dir .. name))
        end
        for _, path in ipairs{"mp/app.lua", "lua/mp/app.lua"} do
            local file <close> = assert(io.open(dir .. "/" .. path, "w"))
            file:write("local mp = require 'mp'\n",
                "local _, e = pcall(mp.range, 'x')\n",
                "io.write(e.where)\n",
                "_, e = pcall(mp.Lock, 1)\nio.write(e.where)\n")
            file:close()
            for _, script in ipairs{path, dir .. "/" .. path} do
                local program = helper.mplua:match("^/") and helper.mplua or
                    lfs.currentdir() .. "/" .. helper.mplua
                local result = helper.run({"-c", ("cd %s && exec %s %s")
                    :format(helper.quote(dir), helper.quote(program),
                    helper.quote(script))}, {program = "sh"})
                assert.matches("app.lua:2:.*app.lua:4:", result.stdout)
            end
        end
    end)

    it("is where a task's result was asked for", function()
        local pool <close> = mp.Pool(1)
        local function bad() error("no") end
        refused("RemoteError", {"no"}, pool.map, pool, bad, {1})
        refused("RemoteError", {"no"}, pool.apply, pool, bad)
        refused("RemoteError", {"no"}, function()
            pool:apply_async(bad):get()
        end)
        refused("RemoteError", {"no"}, function()
            for _ in pool:imap(bad, {1}) do end
        end)
    end)
end)

describe("Process", function()
    it("refuses what it cannot run", function()
        refused("TypeError", {"Process: target must be callable", "'x'"},
            mp.Process, {target = "x"})
        refused("TypeError", {"Process: args must be a list"},
            mp.Process, {args = {a = 1}})
        refused("ValueError", {"Process: args.n is -1"},
            mp.Process, {args = {n = -1}})
        refused("ValueError", {"Process: args.n is nan"}, function()
            mp.Process{args = {n = math.abs(NAN)}}
        end)
        refused("TypeError", {"Process: too many arguments (7, at most 6)"},
            mp.Process, nil, print, nil, nil, nil, nil, 7)
        refused("TypeError", {"Process: nothing can follow"},
            mp.Process, {}, print)
        local callable = setmetatable({}, {__call = function() end})
        assert.is_truthy(mp.Process{target = callable})
    end)
end)

describe("Pool", function()
    it("takes the arguments that it has, and no others", function()
        refused("ValueError", {"Pool: Number of processes", "0"}, mp.Pool, 0)
        refused("TypeError", {"Pool: context", "'bogus'"},
            mp.Pool, {processes = 1, context = "bogus"})
        refused("TypeError", {"Pool: context", "'bogus'"},
            mp.Pool, 1, nil, nil, nil, "bogus")
        refused("TypeError", {"Pool: too many arguments (6, at most 5)"},
            mp.Pool, 1, nil, nil, nil, nil, "bogus")
        refused("TypeError", {"Pool: nothing can follow"},
            mp.Pool, {processes = 1}, print)
        refused("ValueError", {"Pool: initargs", "-1"},
            mp.Pool, {processes = 1, initializer = print,
                      initargs = {n = -1}})
        local pool <close> = mp.Pool{processes = 1,
            context = mp.get_context("fork")}
        assert.are.equal(2, pool:apply(math.abs, {-2}))
    end)

    it("is said to be another process's, in a child", function()
        local pool <close> = mp.Pool(1)
        local q <close> = mp.SimpleQueue()
        local p <close> = mp.Process{target = function()
            q:put(select(2, pcall(pool.map, pool, math.abs, {1})))
            local _ <close> = pool
        end}
        p:start()
        p:join()
        local e = q:get(true, 5)
        assert.are.equal("StateError", e.kind)
        assert.matches("map: this Pool belongs to the process", e.message)
        assert.are.equal(0, p.exitcode)
    end)

    it("drops no argument of a call", function()
        local pool <close> = mp.Pool(1)
        local abs = math.abs
        for _, n in ipairs{-1, 1.5, INF, NAN} do
            refused("ValueError", {"map: a list's n must be an integer"},
                pool.map, pool, abs, {n = n})
        end
        refused("TypeError", {"map: a list's n", "'x'"},
            pool.map, pool, abs, {n = "x"})
        refused("TypeError", {"map: too many arguments (6, at most 5)"},
            pool.map, pool, abs, {1}, nil, nil, nil, 5)
        refused("TypeError", {"map_async: nothing can follow a table"},
            pool.map_async, pool, abs, {1}, {}, print)
        refused("TypeError", {"map: chunksize is given twice"},
            pool.map, pool, abs, {1}, 1, {chunksize = 2})
        refused("TypeError", {"imap: unknown option 'callback'"},
            pool.imap, pool, abs, {1}, 1, print)
        refused("TypeError", {"apply_async: unknown option 'on_error'"},
            pool.apply_async, pool, abs, {1}, nil, {on_error = "collect"})
        refused("TypeError", {"starmap: func must be a callable", "'f'"},
            pool.starmap, pool, "f", {{1}})
        refused("TypeError", {"get", "timeout", "boolean"}, function()
            pool:apply_async(abs, {1}):try_get(false)
        end)
        local n = 0
        for _ in pool:imap(string.len, io.lines("LICENSE")) do n = n + 1 end
        assert.is_true(n > 5)
        pool:close()
        refused("TypeError", {"join: too many arguments"}, pool.join, pool, 5)
    end)
end)

describe("shared objects", function()
    it("take no positions behind a table of names", function()
        for name, given in pairs{
            Value = {typecode = "i"}, RawValue = {typecode = "i"},
            Array = {typecode = "i", size_or_list = 2}, Barrier = {parties = 1},
            RawArray = {typecode = "i", size_or_list = 2},
        } do
            refused("TypeError", {name .. ": nothing can follow"},
                mp[name], given, 5)
        end
        refused("TypeError", {"range: too many arguments (4, at most 3)"},
            mp.range, 1, 2, 3, 4)
    end)
end)

describe("a list", function()
    it("is one, and its n is a number of items", function()
        local q, a = mp.Queue(), mp.Array("i", 3)
        for _, n in ipairs{-1, 1.5, INF, NAN} do
            local list = {n = n}
            refused("ValueError", {"put_many: a list's n"}, q.put_many, q,
                list)
            refused("ValueError", {"Array: a list's n"}, mp.Array, "i", list)
            refused("ValueError", {"set: a list's n"}, a.set, a, 1, list)
        end
        for _, list in ipairs{{n = "x"}, {a = 1}} do
            refused("TypeError", {"put_many: "}, q.put_many, q, list)
            refused("TypeError", {"RawArray: "}, mp.RawArray, "i", list)
            refused("TypeError", {"set: "}, a.set, a, 1, list)
        end
        refused("TypeError", {"an integer is required"}, mp.Array, "i",
            {n = 3})
        assert.are.equal(0, q:qsize())
        q:put_many({nil, 2, n = 2})
        q:put_many(mp.range(2))
        q:put_many({})
        assert.are.equal(4, q:qsize())
        assert.are.same({4}, mp.Array("i", {4, 5, n = 1}):slice())
        assert.are.equal(0, #mp.Array("i", mp.range(0)))
    end)

    it("that does not fit says where", function()
        local q = mp.Queue(1)
        refused("Full", {"put_many"}, q.put_many, q, {1, 2}, 0)
    end)
end)

describe("a guard", function()
    it("takes no timeout that it would not keep", function()
        local lock = mp.Lock()
        refused("TypeError", {"guard", "5"}, lock.guard, lock, 5)
        assert.is_false(lock:locked())
    end)
end)

-- Interrupts ------------------------------------------------------------------

--- Runs f, which an error ends after so many instructions, as Ctrl-C would.
local function interrupted(step, f)
    local armed = false
    local function hook()
        debug.sethook()
        if armed then
            armed = false
            error("interrupted", 0)
        end
    end
    return pcall(function()
        armed = true
        debug.sethook(hook, "", step)
        local value = f()
        armed = false
        debug.sethook()
        return value
    end)
end

describe("an interrupt", function()
    it("loses no result, wherever it comes", function()
        local pool <close> = mp.Pool(1)
        local function check(make, ask)
            for step = 1, 150 do
                local result = make()
                local ok, e = interrupted(step, function()
                    return ask(result)
                end)
                assert.are.equal(ok and 3 or "interrupted", e)
                assert.are.equal(3, ask(result))
            end
        end
        check(function() return pool:apply_async(math.abs, {-3}) end,
            function(r) return r:get() end)
        check(function() return pool:map_async(math.abs, {-3}) end,
            function(r) return r:get()[1] end)
        check(function()
            local r = pool:apply_async(math.abs, {-3})
            r:wait()
            return r
        end, function(r) return select(2, r:try_get()) end)
    end)

    it("stops no later callback", function()
        local stderr = io.stderr
        io.stderr = {write = function() end} -- where callbacks' errors go
        finally(function() io.stderr = stderr end)
        local pool <close> = mp.Pool(1)
        for step = 1, 120, 3 do
            local silent = pool:apply_async(math.abs, {-3}, nil,
                function() end)
            silent:wait()
            interrupted(step, function() pool:poll() end)
            local called = false
            pool:apply_async(math.abs, {-3}, nil, function()
                called = true
            end):get()
            pool:poll()
            assert.is_true(called, step)
        end
    end)
end)

describe("a callback that yields", function()
    it("is an error of its own, and stops no other", function()
        local text = helper.run({"-e", [[
            local mp = require "mp"
            local pool <close> = mp.Pool(1)
            coroutine.wrap(function()
                pool:apply_async(math.abs, {-1}, nil, coroutine.yield):wait()
                pool:poll()
            end)()
            pool:apply_async(math.abs, {-2}, nil, print):get()
            pool:poll()
        ]]})
        assert.are.equal("2\n", text.stdout)
        assert.matches("error in a callback.*yield", text.stderr)
    end)
end)
