--- Start methods with bad input: methods that do not exist, programs that are
-- no Lua 5.4, jobs that cannot be had where they are to run, children that die
-- at once. Errors say what is wrong, nothing hangs, and what is done rightly
-- afterwards works.

local helper = require "spec.helper"
local mp = require "mp"
local start = require "spec.start_tools"

start.start_server()

local METHODS <const>, each <const> = start.METHODS, start.each
local FRESH <const> = {"spawn", "forkserver"} -- by a program

local failure, lines = helper.failure, start.lines

--- Is there such a program?
local function find(name)
    return (os.execute("command -v " .. name .. " >/dev/null"))
end

describe("a start method", function()
    it("that does not exist is refused by name", function()
        for value, shown in pairs{
            nope = "'nope'", [""] = "''", FORK = "'FORK'",
            [3] = "3", [false] = "false"} do
            assert.are.equal("cannot find context for " .. shown,
                failure("ValueError", mp.get_context, value))
            assert.are.equal("cannot find context for " .. shown,
                failure("ValueError", mp.set_start_method, value, true))
        end
    end)

    each("that is set twice stays what it was", function(_, method)
        local list = lines(method, [[
            mp.set_start_method(METHOD)
            try(mp.set_start_method, "fork")
            try(mp.set_start_method, "spawn")
            try(mp.set_start_method, "nope")
            print(mp.get_start_method())]])
        local again = "failed StateError: context has already been set"
        assert.are.same({again, again, again, method}, list)
    end)
end)

describe("an executable", function()
    -- path, what start() says
    local WRONG <const> = {
        {"/nonexistent/lua", "OSError: cannot start a process: "
            .. "/nonexistent/lua: No such file or directory"},
        {"nonexistent-lua", "OSError: cannot start a process: "
            .. "nonexistent-lua: No such file or directory"},
        {"/tmp", "OSError: cannot start a process: /tmp: Permission denied"},
        {"/dev/null",
            "OSError: cannot start a process: /dev/null: Permission denied"},
        {"/" .. ("x"):rep(5000), "OSError: cannot start a process: /"
            .. ("x"):rep(149) .. ": File name too long"},
        {"/bin/true", "StateError: cannot start a process: /bin/true ended "
            .. "with exit code 0: it is no Lua 5.4 that can require mp"},
        {"/bin/cat", "StateError: cannot start a process: /bin/cat ended "
            .. "with exit code 1: it is no Lua 5.4 that can require mp"},
    }
    for _, name in ipairs{"lua5.2", "lua5.3"} do
        if find(name) then
            local version = name:sub(4)
            WRONG[#WRONG + 1] = {name, "StateError: cannot start a process: "
                .. name .. " cannot take part: Lua " .. version
                .. ", not Lua 5.4"}
        end
    end
    if find("lua5.1") then -- it does not understand -E
        WRONG[#WRONG + 1] = {"lua5.1", "StateError: cannot start a process: "
            .. "lua5.1 ended with exit code 1: it is no Lua 5.4 that can "
            .. "require mp"}
    end

    for _, method in ipairs(FRESH) do
        for _, wrong in ipairs(WRONG) do
            local path, problem = table.unpack(wrong)
            it(("that will not do is refused by name: %s, by %s"):format(
                path:sub(1, 20), method), function()
                local list = lines(method, [[
                    mp.set_executable(...)
                    try(run, exit)
                    try(pool)
                    mp.set_executable("/proc/self/exe")
                    try(run, exit)
                    try(pool)]], {path})
                assert.are.same({"failed " .. problem, "failed "
                    .. problem:gsub("cannot start a process",
                        "Pool: cannot start the workers"), "ok true 7",
                    "ok 3"}, list)
            end)
        end

        it("that has no x is refused by name, by " .. method, function()
            local path = helper.tmpfile("#!/bin/sh\nexit 0\n")
            local list = lines(method,
                "mp.set_executable(...) try(run, exit)", {path})
            assert.are.same({"failed OSError: cannot start a process: "
                .. path .. ": Permission denied"}, list)
        end)

        it("that is killed is told with its signal, by " .. method, function()
            local path = helper.tmpfile("#!/bin/sh\nkill -9 $$\n")
            os.execute("chmod +x " .. path)
            local list = lines(method,
                "mp.set_executable(...) try(run, exit)", {path})
            assert.are.same({"failed StateError: cannot start a process: "
                .. path .. " ended by signal 9 before it took part"}, list)
        end)

        it("that leads to a good one will do, by " .. method, function()
            local path = helper.tmpfile("#!/bin/sh\nexec "
                .. helper.mplua:gsub("^build", "$PWD/build") .. ' "$@"\n')
            os.execute("chmod +x " .. path)
            local list = lines(method,
                "mp.set_executable(...) try(run, exit) try(pool)", {path})
            assert.are.same({"ok true 7", "ok 3"}, list)
        end)

        it("that lacks mp is told so, by " .. method, function()
            if helper.sanitized or not find("lua5.4") then
                return
            end
            local list, told = lines(method, [[
                package.path, package.cpath = "/nowhere/?.lua", ""
                mp.set_executable("lua5.4")
                try(run, exit)]])
            assert.are.same({"failed StateError: cannot start a process: "
                .. "lua5.4 cannot take part: module 'mp.core' not found:"},
                list)
            assert.matches("no file '/nowhere/mp/core.lua'", told)
        end)

        it("may be a stock Lua that finds mp where its parent does, by "
            .. method, function()
            if helper.sanitized or not find("lua5.4") then
                return
            end
            local list = lines(method, [[
                mp.set_executable("lua5.4")
                try(run, exit)
                try(pool)]], nil, {env = {
                    LUA_PATH = "lua/?.lua;lua/?/init.lua;;",
                    LUA_CPATH = helper.build .. "/?.so;;"}})
            assert.are.same({"ok true 7", "ok 3"}, list)
        end)
    end

    it("has to be a path", function()
        for _, value in ipairs{5, {}, true} do
            assert.matches("argument 'path': string expected",
                failure("TypeError", mp.set_executable, value))
        end
        failure("TypeError", mp.set_executable)
        assert.are.equal("set_executable: argument 'path': '' is no path",
            failure("ValueError", mp.set_executable, ""))
        assert.matches("is no path",
            failure("ValueError", mp.set_executable, "/bin/true\0"))
    end)

    for _, method in ipairs(METHODS) do
        it("is known to children, too, by " .. method, function()
            local list = lines(method, [[
                run() -- a server that runs does not preload any more
                mp.set_executable("/proc/./self/exe")
                mp.set_forkserver_preload{"a", "b"}
                run{target = function()
                    local program = require "mp.program"
                    print(program._argv()[1],
                        table.concat(program._preload(), "+"))
                end}]])
            assert.are.same({"/proc/./self/exe\ta+b"}, list)
        end)
    end
end)

describe("a job", function()
    local NOT_FOUND <const> = "PicklingError: cannot load module 'lfs': "
        .. "module 'lfs' not found:"

    for _, method in ipairs{"spawn", "forkserver", "thread"} do
        it("whose module cannot be had there is told, by " .. method,
            function()
            local list, told = lines(method, [[
                local lfs = require "lfs"
                package.cpath = "/nowhere/?.so"
                try(run, {target = lfs.dir, args = {"/"}, name = "bee"})
                try(run, {target = function() lfs.dir "/" end})
                try(run, exit)]])
            assert.are.same({"ok true 1", "ok true 1", "ok true 7"}, list)
            assert.are.equal(2, select(2, told:gsub(NOT_FOUND, "")))
            assert.matches("^Process bee:\n[^\n]*" .. NOT_FOUND, told)
            assert.matches("\nProcess Process%-2:\n[^\n]*" .. NOT_FOUND, told)
        end)

        it("whose module cannot be had in a worker is that task's error, by "
            .. method, function()
            local list, told = lines(method, [[
                local lfs = require "lfs"
                package.cpath = "/nowhere/?.so"
                local pool <close> = ctx.Pool(2)
                try(pool.apply, pool, lfs.dir, {"/"})
                try(pool.apply, pool, function() lfs.dir "/" end)
                local list = pool:map(type, {1, lfs.dir, "a"},
                    {on_error = "collect", chunksize = 1})
                try(function() return list[1], list[2], list[3] end)
                try(pool.apply, pool, math.abs, {-4})
                try(function()
                    local other <close> = ctx.Pool(1, lfs.dir, {"/"})
                    other:apply(math.abs, {-1})
                end)]])
            local remote = "RemoteError: " .. NOT_FOUND
            assert.are.same({"failed " .. remote, "failed " .. remote,
                "ok number " .. remote, "ok 4",
                "failed BrokenPool: the initializer failed: " .. NOT_FOUND},
                list)
            assert.are.equal("", told)
        end)
    end

    for _, method in ipairs(METHODS) do
        it("that requires what is not there is told, by " .. method,
            function()
            local list, told = lines(method, [[
                local function job() return require "no.such.module" end
                try(run, {target = job, name = "bee"})
                local pool <close> = ctx.Pool(1)
                try(pool.apply, pool, job)
                try(pool.apply, pool, math.abs, {-4})]])
            assert.are.equal("ok true 1", list[1])
            assert.matches("^failed RemoteError: .*module 'no.such.module' "
                .. "not found:$", list[2])
            assert.are.equal("ok 4", list[3])
            assert.matches("^Process bee:\n[^\n]*module 'no.such.module' not "
                .. "found:", told)
        end)
    end

    each("may be a C function", function(context)
        for code, opts in pairs{
            [7] = {target = os.exit, args = {7}},
            [0] = {target = math.abs, args = {-1}},
        } do
            local p <close> = context.Process(opts)
            p:start()
            assert.is_true(p:join(20))
            assert.are.equal(code, p.exitcode)
        end
    end)

    each("may be big", function(context)
        local p <close> = context.Process{target = function(s)
            os.exit(#s % 251)
        end, args = {("x"):rep(50000000)}}
        p:start()
        assert.is_true(p:join(30))
        assert.are.equal(50000000 % 251, p.exitcode)
    end)

    -- What cannot travel is refused before anything is sent.
    for _, method in ipairs{"spawn", "forkserver", "thread"} do
        it("that cannot travel is refused with the path, by " .. method,
            function()
            local context = mp.get_context(method)
            local co = coroutine.create(print)
            local callable = setmetatable({}, {__call = print})
            for path, opts in pairs{
                ["a coroutine: args%[1%]"] = {target = print, args = {co}},
                ["a coroutine: target, upvalue 'co'"] = {target = function()
                    return co
                end},
                ["a table with a metatable: .*target"] = {target = callable},
            } do
                local p <close> = context.Process(opts)
                assert.matches("^cannot pickle " .. path,
                    failure("PicklingError", p.start, p))
                assert.is_nil(p.pid)
            end
        end)
    end

    each("may take its os.exit from where it was defined",
        function(_, method)
        -- Whatever os.exit was in the process that forks, in the child it
        -- ends the child.
        for _, inner in ipairs{"fork", "spawn", "thread"} do
            local list = lines(method, [[
                local inner = ...
                try(run, {target = function(inner)
                    local here = require "mp"
                    here.log_to_stderr(50)
                    local exit = os.exit
                    local p = here.get_context(inner).Process{
                        target = function() exit(5) end}
                    p:start()
                    p:join(20)
                    os.exit(p.exitcode + 40)
                end, args = {inner}})]], {inner})
            assert.are.same({"ok true 45"}, list)
        end
    end)
end)

describe("a child", function()
    each("that is killed at once is dead, and that is all",
        function(context, method)
        for _ = 1, helper.sanitized and 20 or 100 do
            local p <close> = context.Process{target = mp.sleep, args = {60}}
            p:start()
            p:kill()
            assert.is_true(p:join(20))
            assert.are.equal(-9, p.exitcode, method)
        end
    end)

    each("may have a long name, and a name with zeros",
        function(_, method)
        local list, told = lines(method, [[
            try(run, {target = error, name = ("n"):rep(10000)})
            try(run, {target = error, name = "a\0b"})]])
        assert.are.same({"ok true 1", "ok true 1"}, list)
        assert.matches("^Process " .. ("n"):rep(10000) .. ":\n", told)
        assert.matches("\nProcess a%zb:\n", told)
    end)
end)
