--- What every spec in Lua stands on: the leak law, and a few tools.
--
-- busted loads this file before the specs (.busted names it). After every
-- it() it demands that the spec left the process as it found it: no child,
-- no descriptor, no byte in the arena, same signal mask, same directory.
-- What is not so fails the spec. Cleaning up belongs into the it() itself
-- (<close>, or busted's finally); after_each runs after the judgement.

local lfs = require "lfs"
local system = require "system"
local busted = require "busted"
local assert = require "luassert"

local M = {}
package.loaded["spec.helper"] = M

--- Seconds that children that were told to go, and what the dead held, may
-- take.
local GRACE <const> = tonumber(os.getenv("SPEC_GRACE")) or 2

--- The program under test, and where it was built.
M.mplua = os.getenv("MPLUA") or "build/mplua"
M.build = os.getenv("MPLUA_BUILD") or M.mplua:match("^(.*)/") or "."

--- Built with sanitizers? (Limits of address space do not work then, and
-- core.so does not load into a plain Lua.)
M.sanitized = M.build:match("/san$") ~= nil

-- Looking at the process ----------------------------------------------------

local function read(path)
    local file = io.open(path, "r")
    local text = file and file:read("a") or ""
    if file then
        file:close()
    end
    return text
end

local PID <const> = read("/proc/self/stat"):match("^%d+")

--- The fields of mp.core.debug, where it exists: exact, and cheaper.
local function probe(name)
    local core = package.loaded["mp.core"]
    return core and core.debug and core.debug[name]
end

--- Pids of this process's children, zombies too.
local function children()
    if probe("children") then
        return probe("children")()
    end
    local list = {}
    for task in lfs.dir("/proc/self/task") do
        local path = string.format("/proc/self/task/%s/children", task)
        for pid in read(path):gmatch("%d+") do
            list[#list + 1] = math.tointeger(pid)
        end
    end
    return list
end

--- Open descriptors: {number = what it is}, without the one that looks.
local function descriptors()
    local found = {}
    for name in lfs.dir("/proc/self/fd") do
        local path = "/proc/self/fd/" .. name
        local target = lfs.symlinkattributes(path, "target") or "closed"
        if name:match("%d") and target ~= "/proc/" .. PID .. "/fd" then
            found[name] = target
        end
    end
    return found
end

local function blocked_signals()
    return read("/proc/thread-self/status"):match("SigBlk:%s*(%x+)")
end

local function arena_bytes()
    local bytes = probe("arena_bytes")
    return bytes and bytes() or 0
end

local function look()
    collectgarbage()
    collectgarbage()
    local known = {}
    for _, pid in ipairs(children()) do
        known[pid] = true
    end
    return {
        children = known,
        descriptors = descriptors(),
        arena = arena_bytes(),
        signals = blocked_signals(),
        directory = lfs.currentdir(),
    }
end

-- Judging -------------------------------------------------------------------

local function describe_process(pid)
    local state = read("/proc/" .. pid .. "/stat"):match("%) (%a)") or "gone"
    local words = read("/proc/" .. pid .. "/cmdline"):gsub("%z", " ")
    return string.format("%d (state %s) %s", pid, state, words)
end

--- What `now` has that `before` had not, as a list of complaints.
local function compare(before, now)
    local list = {}
    local function complain(...)
        list[#list + 1] = string.format(...)
    end
    for pid in pairs(now.children) do
        if not before.children[pid] then
            complain("left a child: %s", describe_process(pid))
        end
    end
    for fd, target in pairs(now.descriptors) do
        if not before.descriptors[fd] then
            complain("left descriptor %s open: %s", fd, target)
        end
    end
    for fd, target in pairs(before.descriptors) do
        if not now.descriptors[fd] then
            complain("closed descriptor %s: %s", fd, target)
        end
    end
    if now.arena > before.arena then
        complain("left %d bytes in the arena", now.arena - before.arena)
    end
    if now.signals ~= before.signals then
        complain("signal mask: %s, was %s", now.signals, before.signals)
    end
    if now.directory ~= before.directory then
        complain("working directory: %s, was %s", now.directory,
            before.directory)
    end
    table.sort(list)
    return list
end

--- Complaints that still stand after the grace.
local function compare_patiently(before)
    local last = system.monotime() + GRACE
    while true do
        local list = compare(before, look())
        if #list == 0 or system.monotime() > last then
            return list
        end
        system.sleep(0.01)
    end
end

--- Undoes what the next spec would stumble over.
local function restore(before)
    lfs.chdir(before.directory)
end

-- Around each spec ----------------------------------------------------------

local temporary = {} -- files of the running spec

local function remove(path)
    if lfs.symlinkattributes(path, "mode") == "directory" then
        for name in lfs.dir(path) do
            if name ~= "." and name ~= ".." then
                remove(path .. "/" .. name)
            end
        end
    end
    os.remove(path)
end

local function remove_temporary()
    for _, path in ipairs(temporary) do
        remove(path)
    end
    temporary = {}
end

--- Tells scripts/spec what runs, in case it never ends.
local function announce(name)
    local path = os.getenv("SPEC_RUNNING")
    local file = path and io.open(path, "w")
    if file then
        file:write(name, "\n")
        file:close()
    end
end

local function full_name(element, parent)
    local name = tostring(element.name)
    while parent and parent.name and parent.descriptor ~= "file" do
        name = parent.name .. " " .. name
        parent = busted.parent(parent)
    end
    return name
end

--- The spec's function with the law behind it. busted runs finally() after
-- the function; here it must run before the judgement, so it is caught. An
-- error is not: it goes on to busted, and only the cleaning up is done.
local function under_the_law(element, run)
    return function(...)
        local finally
        element.env.finally = function(f)
            finally = f
        end
        local before = look()
        local function clean()
            local f = finally
            finally = nil
            remove_temporary()
            if f then
                f()
            end
        end
        local _ <close> = setmetatable({}, {__close = function(_, problem)
            if problem ~= nil then
                clean()
            end
            restore(before)
        end})
        run(...)
        clean()
        local complaints = compare_patiently(before)
        if #complaints > 0 then
            busted.fail("the spec left something behind:\n  " ..
                table.concat(complaints, "\n  "))
        end
    end
end

local lawful = setmetatable({}, {__mode = "k"})
local counts = {success = 0, failure = 0, error = 0, pending = 0}

busted.subscribe({"test", "start"}, function(element, parent)
    announce(full_name(element, parent))
    if element.run and not lawful[element] then
        lawful[element] = true
        element.run = under_the_law(element, element.run)
    end
    return nil, true
end)

busted.subscribe({"test", "end"}, function(_, _, status)
    counts[status] = counts[status] + 1
    return nil, true
end)

--- Errors outside of it(): in loading a file, in setup and the like.
busted.subscribe({"error"}, function(element)
    if element.descriptor ~= "it" then
        counts.error = counts.error + 1
    end
    return nil, true
end)

--- After busted's own summary: the line that scripts/spec adds up.
busted.subscribe({"exit"}, function()
    announce("the end of the file")
    io.write(string.format("%d passed, %d failed\n", counts.success,
        counts.failure + counts.error))
    return nil, true
end)

-- Tools for specs -----------------------------------------------------------

--- A name for a file that is removed after the spec.
-- @param suffix string, "" by default
function M.tmpname(suffix)
    local path = os.tmpname()
    temporary[#temporary + 1] = path
    if suffix then
        path = path .. suffix
        temporary[#temporary + 1] = path
    end
    return path
end

--- A file with this text, removed after the spec.
-- @param text string
-- @param suffix string, "" by default
-- @return string its path
function M.tmpfile(text, suffix)
    local path = M.tmpname(suffix)
    local file <close> = assert(io.open(path, "w"))
    file:write(text)
    return path
end

--- An empty directory, removed with all that is in it after the spec.
-- @return string its path, without a slash at the end
function M.tmpdir()
    local path = M.tmpname("_dir")
    assert(lfs.mkdir(path))
    return path
end

--- A word for the shell that means just this text.
function M.quote(text)
    return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

local function quote_all(words)
    local list = {}
    for i, word in ipairs(words) do
        list[i] = M.quote(word)
    end
    return table.concat(list, " ")
end

--- The word that runs a command with these variables changed.
local function environment(env)
    local words = {}
    for name, value in pairs(env or {}) do
        if value then
            table.insert(words, name .. "=" .. value)
        else
            table.insert(words, 1, "--unset=" .. name)
        end
    end
    return words[1] and "env " .. quote_all(words) .. " " or ""
end

local function slurp(path)
    local file <close> = assert(io.open(path, "rb"))
    return file:read("a")
end

--- Runs the program under test and waits for its end.
-- @param args list of its arguments
-- @param opts table {stdin = text ("" by default), timeout = seconds (30),
--   env = {NAME = text, or false to unset}, program = path}
-- @return table {code = number or nil, signal = number or nil,
--   stdout = text, stderr = text, timed_out = boolean}
function M.run(args, opts)
    opts = opts or {}
    local out, err = os.tmpname(), os.tmpname()
    local input = os.tmpname()
    do
        local file <close> = assert(io.open(input, "wb"))
        file:write(opts.stdin or "")
    end
    local _, kind, number = os.execute(string.format(
        "exec %stimeout -k 2 %s %s %s <%s >%s 2>%s",
        environment(opts.env), opts.timeout or 30,
        M.quote(opts.program or M.mplua), quote_all(args), input, out, err))
    local result = {
        code = kind == "exit" and number or nil,
        signal = kind == "signal" and number or nil,
        stdout = slurp(out),
        stderr = slurp(err),
    }
    result.timed_out = number == 124 or number == 137 or result.signal == 9
    os.remove(input)
    os.remove(out)
    os.remove(err)
    return result
end

--- Builds a C host: links the text of a program with libmplua.
-- @param dir string where "host.c" and "host" go
-- @return string the program's path
function M.build_host(dir, text)
    do
        local file <close> = assert(io.open(dir .. "/host.c", "w"))
        file:write(text)
    end
    local flags = M.sanitized and "-fsanitize=address,undefined" or ""
    assert(os.execute(([[
        for p in lua5.4 lua-5.4 lua54 lua; do
            pkg-config --exists $p && break
        done
        cc -g -Ilua $(pkg-config --cflags $p) -o DIR/host DIR/host.c FLAGS \
            %s/libmplua.a $(pkg-config --libs $p) -lm -ldl -pthread]]):format(
        M.build):gsub("DIR", dir):gsub("FLAGS", flags)))
    return dir .. "/host"
end

--- Waits until fn() is true: for what has nothing of its own to wait on.
-- @param fn function
-- @param seconds number (20)
-- @return what fn returned; fails the spec when the time is up
function M.eventually(fn, seconds)
    seconds = seconds or 20
    local last = system.monotime() + seconds
    repeat
        local result = table.pack(fn())
        if result[1] then
            return table.unpack(result, 1, result.n)
        end
        system.sleep(0.005)
    until system.monotime() > last
    busted.fail(string.format("not so within %g s", seconds), 2)
end

--- Demands that `f(...)` raises an error object of this kind.
-- @return string its message
-- @return table the object
function M.failure(kind, f, ...)
    local ok, e = pcall(f, ...)
    assert.is_false(ok)
    assert.are.equal(kind, type(e) == "table" and e.kind or tostring(e))
    return e.message, e
end

--- The text of a file, "" when there is none.
-- @param path string
M.read = read

--- Starts f(...) in a child.
-- @return the process
function M.start(f, ...)
    local p = require("mp").Process{target = f, args = table.pack(...)}
    p:start()
    return p
end

--- Demands that such a child ends well, and closes it.
function M.finish(p)
    assert.is_true(p:join(60))
    assert.are.equal(0, p.exitcode)
    p:close()
end

--- Calls f once, at the end of the first slice of a wait: there an empty
--- function is called, for the hooks. (Ends with debug.sethook(), too.)
function M.at_a_slice(f)
    debug.sethook(function()
        if debug.getinfo(2, "S").source == "=(mp waits)" then
            debug.sethook()
            f()
        end
    end, "c")
end

--- Calls f(object), while a finalizer closes the object: in the collector's
--- work that comes after `delay` others, each as f asks for memory.
-- @return nil, or the error that f raised
function M.close_in_call(object, f, delay)
    local armed = false
    local function lie_in_wait()
        setmetatable({}, {__gc = function()
            if armed and delay == 0 then
                debug.getmetatable(object).__close(object)
                return
            end
            delay = armed and delay - 1 or delay
            lie_in_wait()
        end})
    end
    lie_in_wait()
    collectgarbage("incremental", 1, 1000, 100) -- works at each allocation
    collectgarbage()
    armed = true
    local ok, e = pcall(f, object)
    armed = false
    return not ok and e or nil
end

--- Whenever a finalizer closes the object that f(object) works with, f raises
--- that, unless it was done by then; the first one comes in time. (In a child:
--- the collector is set for it, and f may crash.)
-- @param expected string of the error
function M.closed_in(make, f, expected)
    M.finish(M.start(function()
        pcall(f, make()) -- loads what it needs
        for delay = 0, 30 do
            local e = M.close_in_call(make(), f, delay)
            assert.are.equal(expected, e and tostring(e)
                or delay > 0 and expected)
        end
    end))
end

--- Runs f(...) in `n` children at the same time; each must end well.
function M.run_processes(n, f, ...)
    local list = {}
    for i = 1, n do
        list[i] = M.start(f, ...)
    end
    for _, p in ipairs(list) do
        M.finish(p)
    end
end

--- A process and all below it (of threads: below their first one).
-- @return list of their ids, `pid` first
function M.family(pid)
    local list = {pid}
    local path = ("/proc/%d/task/%d/children"):format(pid, pid)
    for child in read(path):gmatch("%d+") do
        local below = M.family(tonumber(child))
        table.move(below, 1, #below, #list + 1, list)
    end
    return list
end

--- Is there no process of this id (a zombie is none)?
function M.is_gone(pid)
    local state = read("/proc/" .. pid .. "/stat"):match("%) (%a)")
    return not state or state == "Z" or state == "X"
end

-- The arena and the descriptor it lives on are there for good once they
-- are there: open them before the first spec looks.
local ok, mp = pcall(require, "mp")
if ok and mp.Lock then
    mp.Lock()
end

return M
