--- The fork server under bad luck: what it is to preload fails, it is killed,
-- it is stopped. Each in a program of its own, which says at its end what it
-- left behind.

local helper = require "spec.helper"
local start = require "spec.start_tools"

-- `server()`: the pid of the server, the only child that was started with
-- these words.
local HEAD <const> = [[
    local core = require "mp.core"
    local function read(path)
        local file <close> = io.open(path)
        return file and file:read("a") or ""
    end
    local function server()
        for _, pid in ipairs(core.debug.children()) do
            if read("/proc/" .. pid .. "/cmdline"):find("\0-E\0-e\0", 1, true)
                and not read("/proc/" .. pid .. "/stat"):find("%) Z") then
                return pid
            end
        end
    end
    local function signal(pid, name)
        os.execute("kill -" .. name .. " " .. pid)
    end
    -- How many children are left, and whether more bytes than at the last
    -- call: when nothing changes any more. (A server lets go of what it had
    -- of a child after it has told of its end.)
    local before
    local function tidy()
        local last, n, bytes = mp.monotonic() + 5
        repeat
            mp.sleep(0.02)
            collectgarbage()
            collectgarbage()
            n, bytes = #core.debug.children(), core.debug.arena_bytes()
        until n <= 1 and (not before or bytes <= before)
            or mp.monotonic() > last
        local more = before and bytes - before or 0
        before = bytes
        return n, more > 0 and more or "nothing more"
    end
]]

--- The lines that a script prints behind the head; its arguments are `...`.
local function lines(text, args)
    return start.lines("forkserver", HEAD .. text, args, {timeout = 60})
end

describe("a preload", function()
    local FAILED <const> =
        "failed StateError: cannot start a process: the fork server cannot "
        .. "preload: "
    local ENDED <const> =
        "failed StateError: cannot start a process: /proc/self/exe ended "
    -- What a module says, and what start() says to that (a pattern).
    local BAD <const> = {
        ["is not there"] = {false, FAILED .. "module 'bad' not found:"},
        ["does not compile"] = {"x = = 1",
            FAILED .. "error loading module 'bad' from file '[^']*':"},
        ["raises a text"] = {"error('boom')",
            FAILED .. "[^\n]*bad.lua:1: boom"},
        ["raises a table"] = {"error({})", FAILED .. "table: 0x%x+"},
        ["raises nil"] = {"error(nil)", FAILED .. "nil"},
        ["raises what cannot be described"] = {
            "error(setmetatable({}, {__tostring = error}))",
            FAILED .. "%(error object is no string%)"},
        ["raises a long text"] = {"error(('y'):rep(100000), 0)",
            FAILED .. "y+"},
        ["exits"] = {"os.exit(3)",
            ENDED .. "with exit code 3 before it was ready"},
        ["exits well"] = {"os.exit(true, true)",
            ENDED .. "with exit code 0 before it was ready"},
        ["is killed"] = {"local f = io.open('/proc/self/stat') "
            .. "os.execute('kill -9 ' .. f:read('n')) while true do end",
            ENDED .. "by signal 9 before it was ready"},
    }
    for what, case in pairs(BAD) do
        it("that " .. what .. " is an error of start(), and no more",
            function()
            local dir = helper.tmpdir()
            if case[1] then
                local file <close> = assert(io.open(dir .. "/bad.lua", "w"))
                file:write(case[1])
            end
            local list, told = lines([[
                package.path = ... .. "/?.lua;" .. package.path
                mp.set_forkserver_preload{"bad"}
                try(run)
                try(run)
                try(function() local pool <close> = ctx.Pool(1) end)
                print((server()))
                mp.set_forkserver_preload{}
                try(run)
                print((tidy()))]], {dir})
            assert.matches("^" .. case[2], list[1])
            assert.are.equal((list[1]:gsub("0x%x+", "")),
                (list[2]:gsub("0x%x+", "")))
            assert.matches("^failed StateError: Pool: cannot start the "
                .. "workers: ", list[3])
            assert.are.same({"nil", "ok true 7", "1", n = nil},
                {table.unpack(list, 4)})
            assert.are.equal("", told)
        end)
    end

    it("may use mp as it likes", function()
        local dir = helper.tmpdir()
        do
            local file <close> = assert(io.open(dir .. "/good.lua", "w"))
            file:write([[
                local mp = require "mp"
                local pool = mp.Pool(2)
                local sum = pool:apply(math.abs, {-4})
                local p <close> = mp.Process{target = os.exit, args = {5}}
                p:start()
                p:join()
                local t <close> = mp.get_context("thread").Process{
                    target = os.exit, args = {6}}
                t:start()
                t:join()
                return {sum, p.exitcode, t.exitcode}]])
        end
        local list, told = lines([[
            package.path = ... .. "/?.lua;" .. package.path
            mp.set_forkserver_preload{"good"}
            try(run, {target = function()
                local good = package.loaded.good
                print(table.unpack(good))
                local here = require "mp"
                print(here.current_process().name, #here.active_children(),
                    here.parent_process().pid == here.getppid())
            end})
            try(run)]], {dir})
        assert.are.same({"4\t5\t6", "Process-1\t0\tfalse", "ok true 0",
            "ok true 7"}, list)
        assert.are.equal("", told)
    end)

    it("has to be a list of names", function()
        local list = lines([[
            for _, value in ipairs{1, "x", {1}, {a = "b"}, {"a", {}}} do
                try(mp.set_forkserver_preload, value)
            end
            try(mp.set_forkserver_preload)]])
        for i = 1, 6 do
            assert.matches("^failed TypeError: .*module_names must be a list",
                list[i])
        end
    end)
end)

describe("a server that is killed", function()
    it("is replaced at the next start, and leaves nothing", function()
        local list = lines([[
            run()
            tidy()
            for _ = 1, 20 do
                signal(server(), "KILL")
                local ended, code = run()
                assert(ended and code == 7)
            end
            print(tidy())]])
        assert.are.same({"1\tnothing more"}, list)
    end)

    it("takes its children along, and is told of", function()
        local list = lines([[
            run()
            tidy()
            local list = {}
            for i = 1, 5 do
                list[i] = ctx.Process{target = mp.sleep, args = {60}}
                list[i]:start()
            end
            local pid = server()
            signal(pid, "KILL")
            for i = 1, 5 do
                print(list[i]:join(10), list[i].exitcode)
                list[i]:close()
            end
            list = nil
            try(run)
            print(tidy())
            print(server() ~= pid)]])
        assert.are.same({"true\t-9", "true\t-9", "true\t-9", "true\t-9",
            "true\t-9", "ok true 7", "1\tnothing more", "true"}, list)
    end)

    it("again and again, in the middle of starts, keeps nobody waiting",
        function()
        local list = lines([[
            run()
            tidy()
            local stop = mp.Event()
            local parent = mp.getpid()
            local killer = mp.get_context("fork").Process{target = function()
                local path = ("/proc/%d/task/%d/children"):format(parent,
                    parent)
                while not stop:wait(0.003) do
                    for pid in read(path):gmatch("%d+") do
                        if read("/proc/" .. pid .. "/cmdline"):find(
                            "\0-E\0-e\0", 1, true) then
                            signal(pid, "KILL")
                        end
                    end
                end
            end}
            killer:start()
            local born, refused = 0, 0
            for _ = 1, 300 do
                local p = ctx.Process{target = os.exit, args = {7}}
                local ok, e = pcall(p.start, p)
                if ok then
                    assert(p:join(20), "it hangs")
                    assert(p.exitcode == 7 or p.exitcode == -9, p.exitcode)
                    born = born + 1
                else
                    assert(mp.iserror(e, "StateError"), tostring(e))
                    refused = refused + 1
                end
                p:close()
            end
            stop:set()
            killer:join()
            killer:close()
            stop, killer = nil, nil
            print(born + refused, born > 0)
            try(run)
            print(tidy())]])
        assert.are.same({"300\ttrue", "ok true 7", "1\tnothing more"}, list)
    end)

    it("takes the crew of its pool along, which goes on with a new one",
        function()
        local list = lines([[
            local pool <close> = ctx.Pool(2)
            try(pool.apply, pool, math.abs, {-1})
            local begun <close> = mp.Value("i", 0)
            local r = pool:map_async(function()
                begun:add(1)
                mp.sleep(60)
            end, {1, 2}, {chunksize = 1})
            while begun.value < 2 do mp.sleep(0.001) end
            signal(server(), "KILL")
            local ok, e = pcall(r.get, r, 20)
            print(e.kind)
            try(pool.apply, pool, math.abs, {-2})]])
        assert.are.same({"ok 1", "WorkerLost", "ok 2"}, list)
    end)
end)

describe("a server that is stopped", function()
    it("is waited for", function()
        local list = lines([[
            run()
            local pid = server()
            local waker = mp.get_context("fork").Process{target = function()
                mp.sleep(0.3)
                signal(pid, "CONT")
            end}
            waker:start()
            signal(pid, "STOP")
            try(run)
            print(server() == pid)
            waker:join()]])
        assert.are.same({"ok true 7", "true"}, list)
    end)

    it("tells of the ends of its children when it goes on", function()
        local list = lines([[
            local go = mp.Event()
            local p <close> = ctx.Process{target = function()
                go:wait()
                os.exit(6)
            end}
            p:start()
            local pid = server()
            signal(pid, "STOP")
            go:set()
            print(p:join(0.3))
            signal(pid, "CONT")
            print(p:join(20), p.exitcode)]])
        assert.are.same({"false", "true\t6"}, list)
    end)

    it("goes with its owner all the same", function()
        local list = lines([[
            run()
            signal(server(), "STOP")
            print("end")]])
        assert.are.same({"end"}, list)
    end)
end)
