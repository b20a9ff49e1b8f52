-- mp.shared_memory: segments, who takes their names away, and the manager.

local helper = require "spec.helper"
local lfs = require "lfs"
local mp = require "mp"

local memory = mp.shared_memory
local SharedMemory = memory.SharedMemory
local SharedMemoryManager = memory.SharedMemoryManager

--- Is there a file of this name in /dev/shm?
local function exists(name)
    return lfs.symlinkattributes("/dev/shm/" .. name, "mode") ~= nil
end

--- What the links in a directory say; none if it is none, or just went.
local function targets_in(path)
    local list = {}
    pcall(function()
        for link in lfs.dir(path) do
            list[#list + 1] = lfs.symlinkattributes(path .. "/" .. link,
                "target")
        end
    end)
    return list
end

--- Does a family's registry name this file?
local function is_registered(name)
    for registry in lfs.dir("/dev/shm") do
        local path = "/dev/shm/" .. registry
        local known = registry:match("^%.mplua%-") and targets_in(path) or {}
        for _, target in ipairs(known) do
            if target:match("/(.*)$") == name then
                return true
            end
        end
    end
    return false
end

--- Nothing is left of it.
local function is_gone(name)
    return not exists(name) and not is_registered(name)
end

--- A start of mp, once all of the family are dead that were killed.
local function next_start_clears(name)
    helper.eventually(function()
        assert.are.equal(0, helper.run({"-e", "require 'mp'"}).code)
        return is_gone(name)
    end)
end

--- A name that nobody else uses.
local count = 0
local function new_name()
    count = count + 1
    return ("mplua_spec_%d_%d"):format(mp.getpid(), count)
end

--- A segment that goes with the spec.
local function scratch(size)
    local s = SharedMemory(nil, true, size or 100)
    finally(function()
        s:close()
        pcall(s.unlink, s)
    end)
    return s
end

local function run(f, ...)
    local p = mp.Process{target = f, args = {...}}
    p:start()
    p:join()
    local code = p.exitcode
    p:close()
    return code
end

local function fails_with(code, f, ...)
    local message, e = helper.failure("OSError", f, ...)
    assert.are.equal(code, e.code)
    return message
end

describe("shared_memory: SharedMemory", function()
    it("SHM-01 makes one under a new name, for its owner alone", function()
        local s = scratch(100)
        assert.truthy(s.name:match("^psm_%x%x%x%x%x%x%x%x$"))
        local file = lfs.attributes("/dev/shm/" .. s.name)
        assert.are.equal("rw-------", file.permissions)
        assert.are.equal(100, file.size)
    end)

    it("SHM-01 makes one of a given name, once", function()
        local name = new_name()
        local s <close> = SharedMemory(name, true, 10)
        local message = fails_with("EEXIST", SharedMemory, name, true, 10)
        assert.are.equal("SharedMemory: '" .. name .. "': File exists",
            message)
        s:unlink()
        local again <close> = SharedMemory{name = "/" .. name, create = true,
            size = 20}
        assert.are.equal(name, again.name)
        again:unlink()
    end)

    it("SHM-01 T-M-03 new memory is zero, and has the size asked for",
        function()
        local s = scratch(5000)
        s.buf:fill(255)
        s:unlink()
        local t <close> = SharedMemory(s.name, true, 5000)
        assert.are.equal(("\0"):rep(5000), t.buf:read())
        t:unlink()
    end)

    it("SHM-01 refuses sizes that are none", function()
        local text = helper.failure("ValueError", SharedMemory, "x", true, -1)
        assert.truthy(text:find("'size' must be a positive integer", 1, true))
        text = helper.failure("ValueError", SharedMemory, "x", true)
        assert.truthy(text:find(
            "'size' must be a positive number different from zero", 1, true))
        helper.failure("ValueError", SharedMemory, "x", true, 1.5)
        text = helper.failure("TypeError", SharedMemory, "x", true, "big")
        assert.truthy(text:find("integer expected, got 'big'", 1, true))
        fails_with("ENOSPC", SharedMemory, nil, true, 1 << 60)
    end)

    it("SHM-01 refuses names that are none", function()
        local text = helper.failure("ValueError", SharedMemory)
        assert.are.equal("SharedMemory: 'name' can only be nil if create is "
            .. "true", text)
        text = helper.failure("ValueError", SharedMemory, "a\0b", true, 1)
        assert.are.equal("SharedMemory: embedded null character", text)
        fails_with("ENAMETOOLONG", SharedMemory, ("n"):rep(256), true, 1)
        for _, name in ipairs{"", "/", ".", "..", "a/b"} do
            fails_with("EINVAL", SharedMemory, name, true, 1)
        end
        fails_with("ENOENT", SharedMemory, new_name())
        helper.failure("TypeError", SharedMemory, 5)
    end)

    it("SHM-01 refuses arguments that it does not know", function()
        helper.failure("TypeError", SharedMemory, "x", "yes", 1)
        helper.failure("TypeError", SharedMemory, {name = "x", sise = 1})
        helper.failure("TypeError", SharedMemory, "x", true, 1, {trak = true})
        helper.failure("TypeError", SharedMemory, "x", true, 1, true)
        helper.failure("TypeError", SharedMemory, {name = "x"}, true)
    end)

    it("SHM-01 opens no directory, link, pipe or empty file", function()
        fails_with("EINVAL", SharedMemory, ".")
        local name = new_name()
        local path = "/dev/shm/" .. name
        finally(function() os.remove(path) end)
        assert(lfs.link("/etc/passwd", path, true))
        fails_with("EINVAL", SharedMemory, name)
        os.remove(path)
        os.execute("mkfifo " .. path)
        fails_with("EINVAL", SharedMemory, name)
        os.remove(path)
        io.open(path, "w"):close()
        helper.failure("ValueError", SharedMemory, name)
    end)

    it("SHM-03 an opened one has name and size from the file", function()
        local s = scratch(300)
        local t <close> = SharedMemory(s.name, false, 5)
        assert.are.equal(s.name, t.name)
        assert.are.equal(300, t.size)
        assert.are.equal("SharedMemory('" .. s.name .. "', size=300)",
            tostring(t))
        helper.failure("TypeError", function() t.size = 5 end)
    end)
end)

describe("shared_memory: its bytes", function()
    it("SHM-02 are integers, from 1", function()
        local s = scratch(3)
        local b = s.buf
        b[1], b[3] = 255, 7
        assert.are.equal(3, #b)
        assert.are.same({255, 0, 7}, {b[1], b[2], b[3]})
        local seen = {}
        for i, byte in ipairs(b) do seen[i] = byte end
        assert.are.same({255, 0, 7}, seen)
        seen = {}
        for i, byte in pairs(b) do seen[i] = byte end
        assert.are.same({255, 0, 7}, seen)
    end)

    it("SHM-02 E: outside of it, of another type, out of range", function()
        local b = scratch(3).buf
        for _, i in ipairs{0, 4, -1, 1.5, math.maxinteger} do
            helper.failure("IndexError", function() return b[i] end)
            helper.failure("IndexError", function() b[i] = 1 end)
        end
        assert.are.equal("invalid index 4 (1 to 3)",
            helper.failure("IndexError", function() return b[4] end))
        helper.failure("ValueError", function() b[1] = 256 end)
        helper.failure("ValueError", function() b[1] = -1 end)
        helper.failure("TypeError", function() b[1] = "a" end)
        helper.failure("TypeError", function() b.x = 1 end)
        assert.is_nil(b.x)
    end)

    it("SHM-02 go in and out as lists and strings", function()
        local b = scratch(6).buf
        b:set(1, {1, 2, 3})
        b:set(4, "abc")
        assert.are.same({1, 2, 3, 97, 98, 99}, b:slice())
        assert.are.same({3, 97}, b:slice(3, 4))
        b:fill(9, 2, 3)
        assert.are.equal("\1\9\9abc", b:read())
        helper.failure("IndexError", b.set, b, 6, "ab")
        helper.failure("ValueError", b.set, b, 1, {1, 300})
        helper.failure("IndexError", b.slice, b, 0, 3)
        helper.failure("IndexError", b.fill, b, 1, 5, 7)
        assert.are.equal("\1\9\9abc", b:read())
    end)

    it("SHM-02 are read and written at offsets, from 0", function()
        local b = scratch(10).buf
        b:write(8, "xy")
        assert.are.equal("xy", b:read(8))
        assert.are.equal("x", b:read(8, 1))
        assert.are.equal("", b:read(10))
        for _, place in ipairs{{-1, 1}, {11, 0}, {9, 2}, {0, -1}} do
            helper.failure("IndexError", b.read, b, place[1], place[2])
        end
        helper.failure("IndexError", b.write, b, 9, "ab")
        helper.failure("TypeError", b.write, b, 0, 5)
        helper.failure("ValueError", b.read, b, 0.5)
        helper.failure("IndexError", b.read, b, math.mininteger)
        helper.failure("IndexError", b.read, b, math.maxinteger)
    end)

    it("SHM-02 are packed and unpacked", function()
        local b = scratch(1000).buf
        assert.are.equal(17, b:pack(2, "<i4 z d", -5, "zz", 1.5))
        assert.are.same({-5, "zz", 1.5, 17}, {b:unpack(2, "<i4 z d")})
        local long = ("x"):rep(700)
        b:pack(0, "<s4", long)
        assert.are.same({long, 704}, {b:unpack(0, "<s4")})
        helper.failure("ValueError", b.pack, b, 0, "<i1", 300)
        helper.failure("ValueError", b.unpack, b, 990, "<s4 i8")
        helper.failure("IndexError", b.unpack, b, 998, "<i4")
        assert.are.equal("pack: 4 bytes at offset 998 are out of range "
            .. "(1000 bytes)",
            helper.failure("IndexError", b.pack, b, 998, "<i4", 1))
        assert.are.equal("unpack: 4 bytes at offset 998 are out of range "
            .. "(1000 bytes)",
            helper.failure("IndexError", b.unpack, b, 998, "<i4"))
    end)

    it("SHM-02 E: packed at no place, by no format", function()
        local b = scratch(1000).buf
        for _, name in ipairs{"pack", "unpack"} do
            local f = b[name]
            assert.are.equal(name .. ": argument 'offset': integer expected, "
                .. "got string", helper.failure("TypeError", f, b, "0", "b", 1))
            helper.failure("TypeError", f, b, nil, "b", 1)
            helper.failure("ValueError", f, b, 0.5, "b", 1)
            helper.failure("IndexError", f, b, -1, "b", 1)
            helper.failure("IndexError", f, b, math.mininteger, "b", 1)
            helper.failure("ValueError", f, b, 0, "i4 ?", 1)
            helper.failure("ValueError", f, b, 0, nil, 1)
            assert.are.equal(name .. ": argument 'self': SharedMemoryBuffer "
                .. "expected, got string (use ':')",
                helper.failure("TypeError", f, "b", 1))
        end
        assert.are.equal(0, b[1])
    end)

    it("SHM-02 have an address for C", function()
        local s = scratch(10)
        assert.are.equal("userdata", type(s.buf:pointer()))
        assert.are.equal(s.buf:pointer(), s.buf:pointer())
        assert.is_nil((pcall(mp.pickle.dumps, s.buf)) or nil)
    end)

    it("PAIN-20 what a stranger cuts short is an error, not a crash",
        function()
        local result = helper.run({"-e", [[
            local mp = require "mp"
            local s = mp.shared_memory.SharedMemory(nil, true, 20000)
            s.buf:pointer()
            os.execute("truncate -s 10 /dev/shm/" .. s.name)
            print(#s.buf:read(0, 10), pcall(s.buf.read, s.buf))
            print(pcall(function() s.buf[20000] = 1 end))
            print(pcall(function() return s.buf[11] end))
            s:unlink()]]})
        assert.are.equal("", result.stderr)
        assert.are.equal(0, result.code)
        assert.truthy(result.stdout:match("^10\tfalse\tOSError: read: the "
            .. "shared memory was cut short"))
        local _, n = result.stdout:gsub("false\tOSError", "")
        assert.are.equal(3, n)
    end)
end)

describe("shared_memory: closing", function()
    it("is told to who reads or writes when a finalizer does it", function()
        local s <close> = SharedMemory{create = true, size = 1 << 20}
        finally(function() s:unlink() end)
        local array = mp.Array("B", 1 << 20)
        local function buffer()
            return SharedMemory(s.name).buf
        end
        for _, f in ipairs{
            function(buf) buf:read() end,
            function(buf) buf:slice(1, 10000) end,
            function(buf) buf:set(1, array) end,
        } do
            helper.closed_in(buffer, f,
                "StateError: SharedMemoryBuffer is closed")
        end
    end)

    it("SHM-04 T-M-05 views end with it; again is no error", function()
        local s = scratch()
        local b = s.buf
        s:close()
        s:close()
        assert.is_nil(s.buf)
        helper.failure("TypeError", s.close, {})
        helper.failure("TypeError", s.close)
        assert.are.equal("SharedMemoryBuffer is closed",
            helper.failure("StateError", function() return b[1] end))
        helper.failure("StateError", b.read, b)
        helper.failure("StateError", function() return #b end)
        assert.is_true(exists(s.name))
        local t <close> = SharedMemory(s.name)
        assert.are.equal(100, #t.buf)
    end)

    it("SHM-05 T-M-05 unlink takes the name, once; the bytes stay",
        function()
        local s <close> = SharedMemory(nil, true, 10)
        local t <close> = SharedMemory(s.name)
        s:unlink()
        assert.is_false(exists(s.name))
        t.buf[1] = 5
        assert.are.equal(5, s.buf[1])
        fails_with("ENOENT", s.unlink, s)
        fails_with("ENOENT", t.unlink, t)
        fails_with("ENOENT", SharedMemory, s.name)
    end)

    it("SHM-05 does not take the name of another that came later", function()
        local s = SharedMemory(nil, true, 10)
        s:unlink()
        local t <close> = SharedMemory(s.name, true, 10)
        fails_with("ENOENT", s.unlink, s)
        s:close()
        assert.is_true(exists(t.name))
        t:unlink()
    end)

    it("SHM-05 works when closed, and in another process", function()
        local s = SharedMemory(nil, true, 10)
        s:close()
        assert.are.equal(0, run(function(name)
            mp.shared_memory.SharedMemory(name):unlink()
        end, s.name))
        assert.is_true(is_gone(s.name))
        fails_with("ENOENT", s.unlink, s)
        s = SharedMemory(nil, true, 10)
        s:close()
        s:unlink()
        assert.is_true(is_gone(s.name))
    end)

    it("leaves nothing in memory of a thousand", function()
        local before = mp.debug.arena_bytes()
        for _ = 1, 1000 do
            local s <close> = SharedMemory(nil, true, 10)
            s:unlink()
        end
        assert.is_true(mp.debug.arena_bytes() <= before + 65536)
    end)
end)

describe("shared_memory: crossing", function()
    it("SHM-07 as argument, item and result, by each start method",
        function()
        local result = helper.run({"-e", [[
            local mp = require "mp"
            local s = mp.shared_memory.SharedMemory(nil, true, 10)
            for i, method in ipairs{"fork", "forkserver", "spawn",
                                    "thread"} do
                local p = mp.get_context(method).Process{
                    target = function(t)
                        t.buf[i] = i
                        t:close()
                    end, args = {s}}
                p:start()
                p:join()
                print(p.exitcode, s.buf[i])
            end
            local pool <close> = mp.Pool(1)
            local t = pool:apply(function(n)
                local t = mp.shared_memory.SharedMemory(nil, true, n)
                t.buf[n] = n
                return t
            end, {5})
            print(t.size, t.buf[5])]]})
        assert.are.equal("", result.stderr)
        assert.are.equal("0\t1\n0\t2\n0\t3\n0\t4\n5\t5\n", result.stdout)
    end)

    it("SHM-07 E: unpickled after unlink", function()
        local s <close> = SharedMemory(nil, true, 10)
        local bytes = mp.pickle.dumps(s)
        s:unlink()
        fails_with("ENOENT", mp.pickle.loads, bytes)
        local t = SharedMemory(nil, true, 10)
        bytes = mp.pickle.dumps(t)
        t:unlink()
        t:close()
        fails_with("ENOENT", mp.pickle.loads, bytes)
        helper.failure("PicklingError", mp.pickle.dumps, t)
    end)

    it("PAIN-20 stays while only a queue holds it", function()
        local q = mp.Queue()
        finally(function() q:close() end)
        assert.are.equal(0, run(function()
            local s = mp.shared_memory.SharedMemory(nil, true, 10)
            s.buf:write(0, "hello")
            q:put(s)
        end))
        -- Nobody has it open; another family's start must not take it.
        assert.are.equal(0, helper.run({"-e", "require 'mp'"}).code)
        local s = q:get()
        assert.are.equal("hello", s.buf:read(0, 5))
        local name = s.name
        s:close()
        assert.is_false(exists(name))
    end)
end)

describe("shared_memory: the end of its holders", function()
    it("SHM-11 PAIN-20 goes when who made it is killed", function()
        local q = mp.Queue()
        finally(function() q:close() end)
        local p = mp.Process{target = function()
            q:put(mp.shared_memory.SharedMemory(nil, true, 10).name)
            mp.sleep(30)
        end}
        p:start()
        local name = q:get()
        assert.is_true(exists(name))
        p:kill()
        p:join()
        p:close()
        helper.eventually(function() return is_gone(name) end)
    end)

    it("SHM-11 stays while another of the family has it open", function()
        local q = mp.Queue()
        finally(function() q:close() end)
        local p = mp.Process{target = function()
            q:put(mp.shared_memory.SharedMemory(nil, true, 10).name)
            mp.sleep(30)
        end}
        p:start()
        local s = SharedMemory(q:get())
        p:kill()
        p:join()
        p:close()
        assert.is_true(exists(s.name))
        s:close()
        assert.is_false(exists(s.name))
    end)

    it("SHM-11 goes with a program that ends without unlink", function()
        for _, ending in ipairs{"", "os.exit(0)", "error('x')",
                                "os.exit(true, true)",
                                "POOL = mp.Pool(2) os.exit(0)"} do
            local name = new_name()
            helper.run({"-e", ([[
                local mp = require "mp"
                local s = mp.shared_memory.SharedMemory(%q, true, 10)
                local q = mp.Queue()
                q:put(s) %s]]):format(name, ending)})
            assert.is_true(is_gone(name), ending)
        end
    end)

    it("SHM-11 PAIN-20 of a family killed as one goes at the next start",
        function()
        local name = new_name()
        finally(function() os.remove("/dev/shm/" .. name) end)
        local result = helper.run({"-e", ([[
            local mp = require "mp"
            local s = mp.shared_memory.SharedMemory(%q, true, 10)
            local e = mp.Event()
            local p = mp.Process{target = function()
                mp.shared_memory.SharedMemory(%q)
                e:set()
                mp.sleep(30)
            end}
            p:start()
            e:wait()
            os.execute("setsid sleep 0.5 &") -- it has nothing of ours
            os.execute("kill -9 0")]]):format(name, name)})
        assert.are_not.equal(0, result.code)
        next_start_clears(name)
    end)

    it("SHM-11 of programs killed at any moment the next start leaves nothing",
        function()
        local name = new_name()
        local script = helper.tmpfile(([[
            local mp = require "mp"
            while true do
                local s <close> = mp.shared_memory.SharedMemory(%q, true, 10)
                s:unlink()
            end]]):format(name))
        for i = 1, 12 do
            os.execute(("timeout -s KILL 0.0%d %s %s 2>/dev/null"):format(
                20 + 3 * i, helper.mplua, script))
            next_start_clears(name)
        end
    end)

    it("SHM-11 T-M-07 an unrelated program that ends changes nothing",
        function()
        local s = scratch()
        local script = ([[
            local mp = require "mp"
            local s = mp.shared_memory.SharedMemory(%q)
            s.buf[1] = s.buf[1] + 1
            %%s]]):format(s.name)
        for _, ending in ipairs{"", "os.execute('kill -9 0')", "s:close()"} do
            helper.run({"-e", script:format(ending)})
        end
        assert.is_true(exists(s.name))
        assert.are.equal(3, s.buf[1])
    end)

    it("SHM-06 track = false: stays until somebody unlinks it", function()
        local name = new_name()
        finally(function() os.remove("/dev/shm/" .. name) end)
        local result = helper.run({"-e", ([[
            local mp = require "mp"
            local s = mp.shared_memory.SharedMemory(%q, true, 10,
                {track = false})
            s.buf[1] = 7
            s:close()]]):format(name)})
        assert.are.equal("", result.stderr)
        helper.run({"-e", "require 'mp'"})
        local s <close> = SharedMemory(name)
        assert.are.equal(7, s.buf[1])
        assert.are.equal(7, mp.pickle.loads(mp.pickle.dumps(s)).buf[1])
        s:unlink()
        assert.is_false(exists(name))
    end)

    it("SHM-11 does not touch what it did not make", function()
        local name = new_name()
        local dir = "/dev/shm/.mplua-" .. ("0"):rep(32) .. "-spec"
            .. mp.getpid()
        local open = dir .. "-open"
        finally(function()
            os.execute("rm -rf " .. dir .. " " .. open)
            os.remove("/dev/shm/" .. name)
        end)
        io.open("/dev/shm/" .. name, "w"):close()
        local ino = lfs.symlinkattributes("/dev/shm/" .. name, "ino")
        -- Another file of that name, no number, paths that lead elsewhere.
        os.execute("mkdir -m 700 " .. dir)
        lfs.link(("1.0/%s"):format(name), ("%s/%x"):format(dir, ino + 1), true)
        lfs.link("1.0/" .. name, dir .. "/name", true)
        lfs.link("1.0/../shm/" .. name, ("%s/%x"):format(dir, ino), true)
        helper.run({"-e", "require 'mp'"})
        assert.is_true(exists(name))
        -- A registry that others may write to is not ours.
        os.execute(("mkdir %s && chmod 777 %s"):format(open, open))
        lfs.link("1.0/" .. name, ("%s/%x"):format(open, ino), true)
        helper.run({"-e", "require 'mp'"})
        assert.is_true(exists(name))
        -- Then it is. (Others that start may be at it already.)
        os.execute("chmod 700 " .. open)
        helper.eventually(function()
            helper.run({"-e", "require 'mp'"})
            return not exists(name)
        end)
    end)
end)

describe("shared_memory: SharedMemoryManager", function()
    it("SHM-10 unlinks all that it made", function()
        local a, b
        do
            local manager <close> = SharedMemoryManager()
            a = manager:SharedMemory(10)
            b = manager:ShareableList{1, "two"}
            assert.is_true(exists(a.name) and exists(b.shm.name))
        end
        assert.is_false(exists(a.name) or exists(b.shm.name))
        assert.are.equal("two", b[2])
        a:close()
        b.shm:close()
    end)

    it("SHM-10 is one of the managers", function()
        assert.are.equal(SharedMemoryManager,
            require("mp.managers").SharedMemoryManager)
    end)

    it("SHM-10 starts, and ends, once", function()
        local manager = SharedMemoryManager()
        manager:start()
        assert.are.equal("Already started SharedMemoryServer",
            helper.failure("StateError", manager.start, manager))
        assert.are.equal("Already started SharedMemoryServer",
            helper.failure("StateError", manager.get_server, manager))
        manager:shutdown()
        manager:shutdown()
        assert.truthy(helper.failure("StateError", manager.SharedMemory,
            manager, 10):find("Manager has shut down", 1, true))
        helper.failure("StateError", manager.ShareableList, manager, {1})
        helper.failure("StateError", manager.start, manager)
    end)

    it("SHM-10 a copy in a child ends nothing", function()
        local manager <close> = SharedMemoryManager()
        local a <close> = manager:SharedMemory(10)
        assert.are.equal(0, run(function() manager:shutdown() end))
        assert.is_true(exists(a.name))
        helper.failure("PicklingError", mp.pickle.dumps, manager)
    end)

    it("SHM-10 goes with its collection, and with a killed maker", function()
        local name = SharedMemoryManager():SharedMemory(10).name
        collectgarbage()
        collectgarbage()
        assert.is_false(exists(name))
        local q = mp.Queue()
        finally(function() q:close() end)
        run(function()
            local manager = mp.shared_memory.SharedMemoryManager()
            q:put(manager:SharedMemory(10).name)
            os.execute("kill -9 " .. mp.getpid())
        end)
        local made = q:get()
        helper.eventually(function() return not exists(made) end)
    end)
end)
