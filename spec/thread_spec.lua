-- The start method "thread": a child is a thread of this process, with a Lua
-- state of its own. (What all methods have in common: methods_spec.)

local helper = require "spec.helper"
local mp = require "mp"

local threads = mp.get_context("thread")

--- Runs code in a program of its own.
local function run(code, opts)
    return helper.run({"-e", code}, opts)
end

--- A thread that has ended.
local function ended(target, ...)
    local p = threads.Process{target = target, args = table.pack(...)}
    p:start()
    assert.is_true(p:join(10))
    return p
end

describe("a thread as a child", function()
    it("runs in this process, in a state of its own", function()
        local q = mp.Queue()
        local p = ended(function(out)
            local core = require "mp.core"
            out:put({core.getpid(), package.loaded.busted == nil})
        end, q)
        assert.are.same({mp.getpid(), true}, q:get(true, 10))
        assert.are.equal(mp.getpid(), p.pid)
        assert.are.equal(0, p.exitcode)
        assert.is_false(p:is_alive())
    end)

    it("shares what mp shares, and copies the rest", function()
        local q, v, list = mp.Queue(), mp.Value("i", 1), {1}
        ended(function(shared, copied, out)
            shared:add(41)
            copied[1] = 2
            out:put(copied)
        end, v, list, q)
        assert.are.equal(42, v.value)
        assert.are.same({2}, q:get(true, 10))
        assert.are.same({1}, list)
    end)

    it("ends alone by os.exit, wherever that is called", function()
        assert.are.equal(7, ended(function() os.exit(7) end).exitcode)
        assert.are.equal(0, ended(function() os.exit(true) end).exitcode)
        assert.are.equal(1, ended(function() os.exit(false) end).exitcode)
        assert.are.equal(4, ended(function() os.exit(260, true) end).exitcode)
        assert.are.equal(3, ended(function()
            coroutine.wrap(function()
                pcall(table.sort, {1, 2}, function() os.exit(3) end)
            end)()
        end).exitcode)
    end)

    it("closes its state at an os.exit: what it held is free", function()
        local lock, q = mp.Lock(), mp.Queue()
        local p = ended(function(l, out)
            local closed <close> = setmetatable({}, {__close = function()
                out:put("closed")
            end})
            l:acquire()
            os.exit(2)
        end, lock, q)
        assert.are.equal(2, p.exitcode)
        assert.are.equal("closed", q:get(true, 10))
        assert.are.same({true, "abandoned"}, {lock:acquire(true, 5)})
        lock:release()
    end)

    it("ends by an error, which is told; the program goes on", function()
        local r = run [[
            local mp = require "mp"
            local P = mp.get_context("thread").Process
            local function job() error("no luck") end
            local p = P{target = job, name = "worker"}
            p:start()
            p:join()
            print(p.exitcode)]]
        assert.are.equal("1\n", r.stdout)
        assert.matches("^Process worker:\n.*no luck\nstack traceback:\n",
            r.stderr)
    end)

    it("has stack overflow and want of memory as its errors", function()
        local r = run([[
            local mp = require "mp"
            local P = mp.get_context("thread").Process
            local function deep() return 1 + deep() end
            local function wide()
                local s = ("x"):rep(1 << 20)
                return #s:rep(1 << 50)
            end
            local function c_deep()
                return (string.gsub("x", "x", c_deep))
            end
            for _, job in ipairs{deep, wide, c_deep} do
                local p = P{target = job}
                p:start()
                p:join()
                print(p.exitcode)
            end]], {timeout = 60})
        assert.are.equal("1\n1\n1\n", r.stdout)
        assert.matches("stack overflow", r.stderr)
    end)

    it("is asked to end: its next wait raises Interrupted", function()
        local q, event = mp.Queue(), mp.Event()
        for code, job in pairs{
            [-15] = function(out, e) out:put(1) e:wait() end,
            [-9] = function(out, _) out:put(1) require("mp").sleep(100) end,
        } do
            local p = threads.Process{target = job, args = {q, event}}
            p:start()
            q:get(true, 10)
            assert.is_false(p:join(0))
            p[code == -9 and "kill" or "terminate"](p)
            assert.is_true(p:join(5))
            assert.are.equal(code, p.exitcode)
        end
    end)

    it("may catch that, and end as it wants to", function()
        local q = mp.Queue()
        local p = threads.Process{target = function(out)
            out:put(1)
            local ok, e = pcall(require("mp").sleep, 100)
            out:put(e.kind)
        end, args = {q}}
        p:start()
        q:get(true, 10)
        p:terminate()
        assert.is_true(p:join(5))
        assert.are.equal("Interrupted", q:get(true, 10))
        assert.are.equal(0, p.exitcode)
    end)

    it("that heeds nothing is left alone when the program ends", function()
        local begin = mp.monotonic()
        local r = run [[
            local mp = require "mp"
            local P = mp.get_context("thread").Process
            P{target = function() while true do end end, daemon = true}:start()
            mp.sleep(0.05)
            print("end")]]
        assert.are.equal("end\n", r.stdout)
        assert.are.equal(0, r.code)
        assert.is_true(mp.monotonic() - begin < 5)
    end)

    it("is awaited at the program's end unless it is a daemon", function()
        local r = run [[
            local mp = require "mp"
            local P = mp.get_context("thread").Process
            P{target = function()
                require("mp").sleep(0.1)
                print("done")
            end}:start()]]
        assert.are.equal("done\n", r.stdout)
    end)

    it("has a sentinel that mp's processes can wait for", function()
        local p = threads.Process{target = function() end}
        p:start()
        assert.is_true(p.sentinel > 2)
        assert.is_true(p:join(5))
        p:close()
    end)

    it("seeds math.random anew, however fast they follow", function()
        local q, seen = mp.Queue(), {}
        for _ = 1, 20 do
            ended(function(out) out:put(math.random(0)) end, q)
            local n = q:get(true, 10)
            assert.is_nil(seen[n])
            seen[n] = true
        end
    end)

    it("starts threads and processes of its own", function()
        local q = mp.Queue()
        ended(function(out)
            local mp = require "mp"
            for _, method in ipairs{"thread", "fork"} do
                local P = mp.get_context(method).Process
                local p = P{target = function(o) o:put(method) end,
                            args = {out}}
                p:start()
                p:join()
                out:put(p.exitcode)
            end
        end, q)
        assert.are.same({"thread", 0, "fork", 0},
            {q:get(true, 10), q:get(true, 10), q:get(true, 10), q:get(true, 10)})
    end)

    it("opens mp's core late: what its job was given works before", function()
        local lock, q = mp.Lock(), mp.Queue()
        local _, e = pcall(mp.Queue, -1, 2, 3)
        local p = ended(function(l, out)
            do
                local held <close> = l:guard()
                out:put(l:acquire(false))
            end
            out:put(l:acquire(false))
            l:release()
        end, lock, q)
        assert.are.equal(0, p.exitcode)
        assert.is_false(q:get(true, 10))
        assert.is_true(q:get(true, 10))
        assert.are.equal(9, ended(function(problem, kind)
            os.exit(problem.kind == kind and tostring(problem):find(kind, 1,
                true) == 1 and 9 or 8)
        end, e, e.kind).exitcode)
        assert.are.equal(9, ended(function(name)
            local core = package.loaded["mp.core"]
            local value = core.Value("i", 8)
            os.exit(core[name] == nil and getmetatable(core) == nil
                and value.value + 1)
        end, "no such field").exitcode)
    end)

    it("has memory for objects of all sizes, one thread after another",
        function()
            local function job(n, limit)
                local lists, sum = {}, 0
                for i = 1, n do
                    local list = {}
                    for j = 1, i % 70 do
                        list[j] = ("x"):rep(j * 9) .. i
                    end
                    lists[i % 40 + 1] = list
                end
                for _, list in ipairs(lists) do
                    for j, text in ipairs(list) do
                        sum = sum + #text - j * 9
                    end
                end
                collectgarbage()
                assert(collectgarbage("count") < limit)
                os.exit(sum % 251)
            end
            -- Texts end in their list's number, of which three digits count.
            local sum = 0
            for i = 961, 1000 do
                sum = sum + i % 70 * #tostring(i)
            end
            for _ = 1, 4 do
                assert.are.equal(sum % 251, ended(job, 1000, 4000).exitcode)
            end
        end)

    it("collects its garbage as its program does", function()
        local r = run([[
            local mp = require "mp"
            local function job(q)
                local most = 0
                for i = 1, 300000 do
                    local t = {i, {}}
                    if i % 1000 == 0 then
                        most = math.max(most, collectgarbage("count"))
                    end
                end
                q:put(most)
                q:put(collectgarbage("incremental"))
            end
            local q = mp.Queue()
            local p = mp.get_context("thread").Process{target = job,
                args = {q}}
            p:start()
            print(q:get() < 2000, q:get() == collectgarbage("incremental"))
            p:join()
        ]])
        assert.are.equal("true\ttrue\n", r.stdout, r.stderr)
    end)

    it("leaves nothing, two hundred times", function()
        for _ = 1, 200 do
            ended(function() end)
        end
        assert.is_true(mp.debug.fsck())
    end)

    it("passes items with processes, through the same lock and queue",
    function()
        local q, lock, n = mp.Queue(), mp.Lock(), mp.Value("i", 0)
        local function work(out, l, sum)
            for i = 1, 200 do
                out:put(i)
                l:acquire()
                sum.value = sum.value + 1
                l:release()
            end
        end
        local list = {}
        for i = 1, 4 do
            local P = i % 2 == 0 and threads.Process
                or mp.get_context("fork").Process
            list[i] = P{target = work, args = {q, lock, n}}
            list[i]:start()
        end
        local total = 0
        for _ = 1, 800 do
            total = total + q:get(true, 10)
        end
        for i = 1, 4 do
            assert.is_true(list[i]:join(10))
        end
        assert.are.equal(4 * 100 * 201, total)
        assert.are.equal(800, n.value)
    end)

    it("may read a file for ever: its process ends all the same", function()
        local r = run([[
            local mp = require "mp"
            local function begin_to_read()
                local mp = require "mp"
                local path, reads = os.tmpname(), mp.Event()
                os.remove(path)
                os.execute("mkfifo " .. path)
                local p = mp.get_context("thread").Process{daemon = true,
                    target = function(name, event)
                        local file = io.open(name, "r+")
                        event:set()
                        file:read()
                    end, args = {path, reads}}
                p:start()
                reads:wait(10)
                mp.sleep(0.05) -- until it does read
                os.remove(path)
                io.write("ends ")
            end
            local p = mp.get_context("spawn").Process{target = begin_to_read}
            p:start()
            io.write(p:join(10) and p.exitcode or "hangs", " ")
            begin_to_read()
        ]], {timeout = 15})
        assert.are.equal("ends 0 ends ", r.stdout)
        assert.are.equal(0, r.code)
    end)

    it("keeps its code when the state that loaded it is closed", function()
        if helper.sanitized then
            return -- core.so does not load into a plain Lua
        end
        -- What lua_close does with the C libraries of a state.
        local r = run([[
            local mp = require "mp"
            local beats = mp.RawValue("q", 0)
            local p = mp.get_context("thread").Process{daemon = true,
                target = function(n)
                    while true do
                        n.value = n.value + 1
                        require("mp").sleep(0.001)
                    end
                end, args = {beats}}
            p:start()
            local libraries = debug.getregistry()._CLIBS
            getmetatable(libraries).__gc(libraries)
            local last = os.time() + 10
            local seen = beats.value
            repeat until beats.value > seen + 5 or os.time() > last
            io.write(beats.value > seen + 5 and "goes on" or "stands")
        ]], {program = "lua5.4", env = {
            LUA_PATH = "lua/?.lua;lua/?/init.lua",
            LUA_CPATH = helper.build .. "/?.so"}})
        assert.are.equal("goes on", r.stdout)
        assert.are.equal(0, r.code)
    end)
end)

describe("a program with threads that is killed", function()
    it("takes them all along; what they held is free", function()
        local lock, ready = mp.Lock(), mp.Event()
        local p = mp.get_context("fork").Process{target = function()
            local P = mp.get_context("thread").Process
            for _ = 1, 3 do
                P{target = function(l, e)
                    l:acquire()
                    e:set()
                    while true do end
                end, args = {lock, ready}}:start()
            end
            mp.sleep(100)
        end}
        p:start()
        assert.is_true(ready:wait(10))
        p:kill()
        assert.is_true(p:join(5))
        assert.are.same({true, "abandoned"}, {lock:acquire(true, 5)})
        lock:release()
        assert.is_true(mp.debug.fsck())
    end)
end)
