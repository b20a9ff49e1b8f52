-- fsck: mp.debug.fsck, and mplua --fsck on programs that run.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local kill, soon_gone = tools.kill, tools.soon_gone

local function getpid()
    return require "mp".getpid()
end

--- `mplua --fsck words...`
local function look(...)
    return helper.run {"--fsck", ...}
end

local function assert_clean(result, pid)
    assert.are.equal("", result.stderr)
    assert.truthy(result.stdout:match("^" .. pid ..
        ": clean %(%d+ participants, %d+ objects, %d+ bytes in use%)\n$"),
        result.stdout)
    assert.are.equal(0, result.code)
end

local function assert_cannot_look(result, pid, why)
    assert.are.equal("", result.stdout)
    assert.are.equal(helper.mplua .. ": cannot check '" .. pid .. "': " ..
        why .. "\n", result.stderr)
    assert.are.equal(2, result.code)
end

--- The file that the arena is, opened for what only a spec does.
local function open_arena()
    local lfs = require "lfs"
    for name in lfs.dir("/proc/self/fd") do
        local path = "/proc/self/fd/" .. name
        if lfs.symlinkattributes(path, "target") ==
            "/memfd:mplua (deleted)" then
            return assert(io.open(path, "r+b"))
        end
    end
end

--- Runs f with the number of spare units wrong (a hint of the heap, at 72
-- bytes: no harm comes of it).
local function with_damage(f)
    local file <close> = open_arena()
    local function write(bytes)
        assert(file:seek("set", 72))
        assert(file:write(bytes))
        assert(file:flush())
    end
    assert(file:seek("set", 72))
    local old = file:read(8)
    write(string.pack("<i8", 123456))
    local _ <close> = setmetatable({}, {__close = function()
        write(old)
    end})
    f()
end

local function end_now(process)
    process:kill()
    process:join()
    process:close()
end

describe("mp.debug.fsck", function()
    it("says true of an arena in order", function()
        local queue <close> = mp.Queue()
        local lock <close> = mp.Lock()
        queue:put({lock, ("x"):rep(100000)})
        assert.is_true(mp.debug.fsck())
        queue:get()
    end)

    it("says true as often as asked while a pool works", function()
        local pool <close> = mp.Pool(3)
        local queue <close> = mp.Queue(50)
        local result = pool:map_async(function(x)
            local text = ("x"):rep(x % 5000)
            queue:put({queue, text})
            queue:get()
            return {text}
        end, mp.range(2000))
        local times = 0
        repeat
            assert.are.same({true}, {mp.debug.fsck()})
            times = times + 1
        until result:ready()
        assert.is_true(times > 10)
        assert.are.equal(2000, #result:get())
    end)

    it("says what is wrong, where, and what was expected", function()
        local _ <close> = mp.Lock()
        with_damage(function()
            local ok, findings = mp.debug.fsck()
            assert.is_false(ok)
            assert.are.equal(1, #findings)
            assert.truthy(findings[1]:match("^super block: spare is 123456, " ..
                "expected %d+ free units with pages$"), findings[1])
        end)
        assert.is_true(mp.debug.fsck())
    end)
end)

describe("mplua --fsck", function()
    it("looks at a program that works, by any of its processes", function()
        local pool <close> = mp.Pool(3)
        local pids = pool._core:pids()
        pids[#pids + 1] = mp.getpid()
        local done = 0
        local result = pool:map_async(function(x)
            return ("x"):rep(x % 3000)
        end, mp.range(60000), {callback = function() done = done + 1 end})
        for _ = 1, 3 do
            for _, pid in ipairs(pids) do
                assert_clean(look(pid), pid)
            end
        end
        assert.are.equal(60000, #result:get())
        assert.are.equal(1, done)
    end)

    it("looks at a program whose workers are killed", function()
        local pool <close> = mp.Pool(2)
        for _ = 1, 10 do
            local list = pool:map(function(x)
                if x == 50 then kill {getpid()} end
            end, mp.range(100), {on_error = "collect"})
            assert.is_true(mp.iserror(list[51], "WorkerLost"))
            assert_clean(look(mp.getpid()), mp.getpid())
        end
    end)

    it("says what is wrong, and so by its exit code", function()
        local _ <close> = mp.Lock()
        with_damage(function()
            local result = look(mp.getpid())
            assert.truthy(result.stdout:match("^" .. mp.getpid() ..
                ": super block: spare is 123456, expected %d+ free units " ..
                "with pages\n$"), result.stdout)
            assert.are.equal("", result.stderr)
            assert.are.equal(1, result.code)
        end)
    end)

    it("writes nothing into what it looks at", function()
        local _ <close> = mp.Lock()
        local file <close> = open_arena()
        local function head()
            file:seek("set", 0)
            return file:read(65536 + 3 * 1024)
        end
        local before = head()
        assert_clean(look(mp.getpid()), mp.getpid())
        assert.are.equal(before, head())
    end)

    it("cannot look at what is no process", function()
        for _, word in ipairs {"x", "0", "-1", "1e3", "", "99999999999"} do
            assert_cannot_look(look(word), word,
                "not the number of a process")
        end
    end)

    it("cannot look at a process that has ended", function()
        local process = mp.Process {target = function() end}
        process:start()
        process:join()
        assert_cannot_look(look(process.pid), process.pid, "no such process")
        process:close()
    end)

    it("cannot look at a process that is not ours", function()
        local shell = helper.tmpfile('echo $$ && exec "$1" --fsck $PPID $$')
        local result = helper.run({shell, helper.mplua}, {program = "/bin/sh"})
        local pid = result.stdout:match("^%d+")
        assert.truthy(result.stderr:find("cannot check '" .. pid ..
            "': not a process that uses mplua's shared memory", 1, true))
        assert.are.equal(2, result.code)
    end)

    it("cannot look at a program that was killed", function()
        local queue <close> = mp.Queue()
        local process = mp.Process {target = function()
            -- A family of its own: another program.
            local pipe = assert(io.popen(helper.quote(helper.mplua) .. " -e " ..
                helper.quote [[
                    local mp = require "mp"
                    local pool = mp.Pool(2)
                    print(mp.getpid())
                    print(pool._core:pids()[1])
                    io.stdout:flush()
                    mp.sleep(60)]]))
            queue:put(pipe:read("n"))
            queue:put(pipe:read("n"))
            mp.sleep(60)
        end}
        process:start()
        local caller, worker = queue:get(true, 10), queue:get(true, 10)
        assert_clean(look(caller), caller)
        assert_clean(look(worker), worker)
        kill {caller}
        soon_gone {caller, worker}
        for _, pid in ipairs {caller, worker} do
            assert_cannot_look(look(pid), pid, "no such process")
        end
        end_now(process)
    end)

    it("looks at several, and wants one at least", function()
        local pid = mp.getpid()
        local _ <close> = mp.Lock()
        local result = look(pid, "x", pid)
        local _, lines = result.stdout:gsub("clean", "")
        assert.are.equal(2, lines)
        assert.are.equal(2, result.code)
        result = look()
        assert.truthy(result.stderr:find("'--fsck' needs argument", 1, true))
        assert.are.equal(1, result.code)
    end)
end)
