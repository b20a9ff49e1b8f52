-- Ctrl-C and SIGTERM, in programs that run in sessions of their own: wherever
-- a program waits or computes, the first Ctrl-C is one Interrupted, and what
-- it started is gone a second after its end.

local system = require "system"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local read = helper.read

--- Seconds that all may take to go.
local WITHIN <const> = helper.sanitized and 4 or 1

-- Programs -------------------------------------------------------------------

-- What all scripts begin with, in a line: `say(word)` tells the spec;
-- `stubborn(begun)` catches each Ctrl-C from when it calls begun on. The outer
-- pcall is for one that comes between two of the inner.
local HEAD <const> = ([[
    local mp = require "mp"
    local function say(...)
        io.stdout:write(table.concat({...}, " "), "\n")
        io.stdout:flush()
    end
    local function busy() while true do end end
    local function stubborn(begun)
        local function go_on()
            if begun then begun() begun = nil end
            while true do pcall(mp.sleep, 60) end
        end
        while true do pcall(go_on) end
    end
]]):gsub("\n%s*", " ")

--- A program in a session of its own: its process id, which is that of its
-- group, `line()`, `signal(name [, pid])` to all of it, `finish()`.
local Program = {}
Program.__index = Program

--- What fails leaves nobody behind.
function Program:__close()
    if self.pipe and self.pid then
        os.execute(("kill -KILL -%d 2>/dev/null"):format(self.pid))
        self.pipe:close()
    end
end

--- Starts a script, which says "ready" first.
-- @param opts table {program =, args = list, env = words, head = text}
local function start(text, opts)
    opts = opts or {}
    local path = helper.tmpfile((opts.head or HEAD) .. text, ".lua")
    local self = setmetatable({stderr = helper.tmpname(), path = path,
        stdout = helper.tmpname(), read = 0}, Program)
    local words = {}
    for i, word in ipairs(opts.args or {}) do
        words[i] = helper.quote(word)
    end
    self.pipe = assert(io.popen(("echo $$ >%s; exec env --default-signal=INT "
        .. "%s setsid %s %s %s >>%s 2>%s"):format(self.stdout, opts.env or "",
        helper.quote(opts.program or helper.mplua), path,
        table.concat(words, " "), self.stdout, self.stderr)))
    self.pid = tonumber(self:line())
    return self
end

--- Its next line.
function Program:line()
    local line, gone
    pcall(helper.eventually, function()
        gone = self.pid and helper.is_gone(self.pid)
        line = read(self.stdout):match("^([^\n]*)\n", self.read + 1)
        return line or gone
    end, 10)
    assert.is_truthy(line, "no line came: " .. read(self.stderr))
    self.read = self.read + #line + 1
    return line
end

--- Sends a signal, by default to all, as a terminal does.
function Program:signal(name, pid)
    assert(os.execute(("kill -%s %d"):format(name, pid or -self.pid)))
end

--- Waits until it has the Ctrl-C: one more before that would be none.
function Program:has_it()
    helper.eventually(function()
        local pending = read(("/proc/%d/status"):format(self.pid))
            :match("ShdPnd:%s*(%x+)")
        return not pending or tonumber(pending, 16) & 2 == 0
    end, 10)
end

--- Lets it begin to wait. (If it should not yet, the signal comes earlier.)
function Program:settle()
    if not self.family then
        assert.are.equal("ready", self:line())
    end
    system.sleep(helper.sanitized and 0.05 or 0.02)
    self.family = helper.family(self.pid)
end

--- Demands that it ends, and its family with it, in time.
-- @return string "exit" or "signal", integer, string what it said on stderr
function Program:finish()
    local family = self.family
    local gone = pcall(helper.eventually, function()
        return tools.all_gone(family)
    end, WITHIN)
    if not gone then
        os.execute("kill -KILL -" .. self.pid)
    end
    local pipe = self.pipe
    self.pipe = nil
    local _, how, code = pipe:close()
    assert.is_true(gone, "it, or its children, went on: "
        .. read(self.stderr))
    return how, code, read(self.stderr)
end

local function report_of(self, program)
    return "^" .. (program or helper.mplua):gsub("%p", "%%%0") .. ": "
        .. self.path:gsub("%p", "%%%0") .. ":%d+: Interrupted: Ctrl%-C\n$"
end

--- Demands that Ctrl-C has ended it, with that report.
local function check_interrupted(p)
    local how, code, said = p:finish()
    assert.matches(report_of(p), said)
    assert.are.equal("exit 130", how .. " " .. code)
end

-- Waiting --------------------------------------------------------------------

-- Each goes on for ever. What is made outside is used twice.
local PLACES <const> = {
    computing = [[while true do end]],
    in_a_string = [[local t = {} while true do t[#t % 9 + 1] = ("x"):rep(99)
        end]],
    sleep = [[mp.sleep(60)]],
    map = [[pool:map(busy, {1, 2, 3, 4, 5})]],
    map_of_an_iterator = [[pool:map(math.abs, busy)]],
    starmap = [[pool:starmap(busy, {{}, {}, {}})]],
    apply = [[pool:apply(busy)]],
    get = [[pool:apply_async(busy):get()]],
    map_async_get = [[pool:map_async(busy, {1, 2, 3}):get(60)]],
    wait = [[pool:apply_async(busy):wait()]],
    imap = [[for _ in pool:imap(busy, {1, 2, 3}) do end]],
    imap_next = [[select(4, pool:imap(busy, {1, 2})):next()]],
    imap_unordered = [[for _ in pool:imap_unordered(busy, mp.range(9)) do
        end]],
    pool_join = [[local p = mp.Pool(1) p:apply_async(busy) p:close()
        p:join()]],
    pool_close = [[local p <close> = mp.Pool(2) p:map_async(busy, {1, 2})]],
    thread_pool = [[local p <close> = mp.ThreadPool(1)
        p:apply(mp.sleep, {60})]],
    callback = [[local p <close> = mp.Pool(1)
        p:apply_async(math.abs, {1}, nil, busy):wait() mp.sleep(0)
        repeat p:poll() until false]],
    process_join = [[child:join()]],
    process_close = [[local p <close> = child]],
    lock = [[lock:acquire()]],
    guard = [[local held <close> = lock:guard()]],
    value = [[value:get_lock():acquire()]],
    semaphore = [[semaphore:acquire(true, 60)]],
    condition = [[local c <close> = condition:guard() condition:wait()]],
    wait_for = [[local c <close> = condition:guard()
        condition:wait_for(function() return false end)]],
    event = [[event:wait()]],
    barrier = [[mp.Barrier(2):wait()]],
    queue_get = [[queue:get()]],
    queue_get_many = [[queue:get_many(5)]],
    queue_put = [[full:put(2)]],
    queue_join = [[joinable:join()]],
    coroutine = [[coroutine.wrap(function() queue:get() end)()]],
    connection = [[local a, b = mp.Pipe() a:recv()]],
    connection_poll = [[local a, b = mp.Pipe() a:poll(60)]],
    mp_wait = [[local a, b = mp.Pipe()
        mp.wait({a, event, queue}, 60)]],
}

local SCRIPT <const> = [[
    local lock, semaphore, event = mp.Lock(), mp.Semaphore(0), mp.Event()
    local condition, queue, full = mp.Condition(), mp.Queue(), mp.Queue(1)
    local joinable, value = mp.JoinableQueue(), mp.Value("i", 0)
    local begun = mp.Event()

    value:get_lock()
    local child = mp.Process{target = function()
        lock:acquire()
        value:get_lock():acquire()
        stubborn(function() begun:set() end)
    end, daemon = true}
    child:start()
    begun:wait()
    local pool = ([==[PLACE]==]):find("pool:", 1, true) and mp.Pool(2)
    full:put(1)
    joinable:put(1)
    local function place() PLACE end
    say "ready"
    local ok, e = pcall(place)
    say(tostring(ok), mp.iserror(e) and e.kind or tostring(e), e.where or "")
    mp.sleep(0.001) -- nothing is left of it
    place()
]]

local function with(place)
    local text = SCRIPT:gsub("PLACE", function() return PLACES[place] end)
    return (text:gsub("%-%-[^\n]*", ""):gsub("\n%s*", " "))
end

--- By name, so that the order is always the same.
local function sorted(t)
    local names = {}
    for name in pairs(t) do
        names[#names + 1] = name
    end
    table.sort(names)
    return names
end

describe("Ctrl-C", function()
    for _, place in ipairs(sorted(PLACES)) do
        it("PAIN-12 is one Interrupted that can be caught, then ends the "
            .. "program: " .. place, function()
            local p <close> = start(with(place))
            p:settle()
            p:signal("INT")
            assert.are.equal("false Interrupted " .. p.path .. ":1:",
                p:line())
            p:settle()
            p:signal("INT")
            check_interrupted(p)
        end)
    end

    it("PAIN-12 at the end of a slice names the user's line, too", function()
        -- Sent while the wait calls its empty function for the hooks.
        local p <close> = start([[
            say "ready"
            debug.sethook(function()
                if debug.getinfo(2, "S").source == "=(mp waits)" then
                    debug.sethook()
                    io.popen("kill -INT $PPID"):close()
                end
            end, "c")
            local ok, e = pcall(mp.sleep, 60)
            say(tostring(ok), e.kind, e.where)]])
        assert.are.equal("ready", p:line())
        assert.are.equal("false Interrupted " .. p.path .. ":8:", p:line())
        p.family = {}
        assert.are.same({"exit", 0, ""}, {p:finish()})
    end)

    it("PAIN-12 leaves a pool that is used again", function()
        local p <close> = start[[
            local pool <close> = mp.Pool(2)
            say "ready"
            local ok, e = pcall(pool.map, pool, mp.sleep, {0.1, 0.1, 60}, 1)
            print(ok, e.kind, e.index)
            pool:terminate()
            local other <close> = mp.Pool(2)
            print(#other:map(math.abs, mp.range(100)))]]
        p:settle()
        p:signal("INT")
        assert.are.equal("false\tInterrupted\tnil", p:line())
        assert.are.equal("100", p:line())
        assert.are.same({"exit", 0, ""}, {p:finish()})
    end)

    it("PAIN-12 ends the workers of a pool whose end it breaks off",
        function()
        local p <close> = start[[
            pcall(function()
                local pool <close> = mp.Pool(2)
                pool:map_async(busy, {1, 2})
                say "ready"
            end)
            say "caught"
            mp.sleep(60)]]
        p:settle()
        assert.are.equal(4, #p.family)
        p:signal("INT")
        assert.are.equal("caught", p:line())
        local workers = table.move(p.family, 2, 4, 1, {})
        helper.eventually(function() return tools.all_gone(workers) end,
            WITHIN)
        p:signal("INT")
        assert.are.equal("exit", (p:finish()))
    end)

    it("reaches workers' programs, and leaves none", function()
        local p <close> = start[[
            local pool <close> = mp.Pool(2)
            say "ready"
            pool:map(os.execute, {"exec sleep 60", "exec sleep 60"})]]
        helper.eventually(function()
            p:settle()
            return #p.family == 6 -- main, crew, 2 workers, 2 programs
        end)
        p:signal("INT")
        check_interrupted(p)
    end)

    it("PRC-08 is told by each process in a line, with exit code 1",
        function()
        local p <close> = start[[
            local list, born = {}, mp.Semaphore(0)
            local function sleep() born:release() mp.sleep(60) end
            for i = 1, 3 do
                list[i] = mp.Process{target = sleep}
                list[i]:start()
            end
            local other = mp.Process{target = function()
                born:release()
                busy()
            end}
            other:start()
            local inner = mp.Process{target = function()
                born:release()
                coroutine.wrap(busy)()
            end}
            coroutine.wrap(function() inner:start() end)()
            for _ = 1, 5 do born:acquire() end
            say "ready"
            list[4] = other
            for i = 1, 4 do while not pcall(list[i].join, list[i]) do end end
            inner:kill()
            for i = 1, 4 do say(tostring(list[i].exitcode)) end]]
        p:settle()
        p:signal("INT")
        for _ = 1, 4 do
            assert.are.equal("1", p:line())
        end
        local how, code, said = p:finish()
        assert.are.equal("exit 0", how .. " " .. code)
        local n
        said, n = said:gsub("Process Process%-[1-4]: [^\n]*Interrupted: "
            .. "Ctrl%-C\n", "")
        assert.are.same({"", 4}, {said, n})
    end)

    it("reaches a process that was started in a coroutine", function()
        local p <close> = start[[
            coroutine.wrap(function()
                local p = mp.Process{target = function()
                    say "ready"
                    busy()
                end}
                p:start()
                while not pcall(p.join, p) do end
                os.exit(p.exitcode + 7)
            end)()]]
        p:settle()
        p:signal("INT")
        local how, code, said = p:finish()
        assert.are.equal("exit 8", how .. " " .. code)
        assert.matches("^Process Process%-1: [^\n]*Interrupted: Ctrl%-C\n$",
            said)
    end)

    it("is the caller's, not that of a callback or a result's rebuilding",
        function()
        local p <close> = start[[
            local Slow = {__name = "Slow"}
            function Slow.__reduce(s)
                return function() busy() end
            end
            local pool <close> = mp.Pool(1)
            say "ready"
            print(select(2, pcall(pool.apply, pool, function()
                return setmetatable({}, Slow)
            end)).kind)
            say("again")
            pool:apply_async(math.abs, {1}, nil, busy):get()]]
        p:settle()
        p:signal("INT")
        assert.are.equal("Interrupted", p:line())
        assert.are.equal("again", p:line())
        p:settle()
        p:signal("INT")
        check_interrupted(p)
    end)

    it("brings the user's own hook back", function()
        local p <close> = start[[
            local calls = 0
            local function hook() calls = calls + 1 end
            debug.sethook(hook, "c")
            say "ready"
            pcall(mp.sleep, 60)
            local f, mask = debug.gethook()
            local before = calls
            tostring(1)
            print(f == hook, mask, calls > before)]]
        p:settle()
        p:signal("INT")
        assert.are.equal("true\tc\ttrue", p:line())
        assert.are.same({"exit", 0, ""}, {p:finish()})
    end)

    for _, how in ipairs{"spawn", "forkserver", "thread"} do
        it("PAIN-12 ends a pool that was started by " .. how, function()
            -- A busy thread may take a second: it cannot be killed.
            local p <close> = start(([[
                local pool <close> = mp.get_context(%q).Pool(2)
                pool:map(math.abs, {1, 2})
                say "ready"
                pool:map(%s, {60, 60, 60})]]):format(how,
                how == "thread" and "mp.sleep" or "busy"))
            p:settle()
            p:signal("INT")
            check_interrupted(p)
        end)
    end

    -- One that comes early ---------------------------------------------------

    for _, method in ipairs{"fork", "forkserver"} do
        it("PAIN-12 before a child of " .. method .. " has begun is the "
            .. "child's: it closes nothing of its parent's", function()
            local p <close> = start(([[
                local owner = mp.getpid()
                local mine <close> = setmetatable({}, {__close = function()
                    if mp.getpid() ~= owner then say "closed in a child" end
                end})
                say "ready"
                for i = 1, 20 do
                    local p = mp.get_context("%s").Process{target = mp.sleep,
                        args = {60}, name = "early"}
                    p:start() p:interrupt() p:join()
                    say(p.exitcode)
                end]]):format(method))
            assert.are.equal("ready", p:line())
            for _ = 1, 20 do
                assert.are.equal("1", p:line())
            end
            p.family = {}
            local how, code, err = p:finish()
            assert.are.same({"exit", 0}, {how, code})
            for line in err:gmatch("Process[^\n]*") do
                assert.is_truthy(line:find("^Process early"), line)
            end
        end)
    end

    it("PAIN-12 as a sleep begins is seen at the end of a slice", function()
        -- It cannot be sent just then. So: does a sleep look at all, by what
        -- it calls for hooks?
        for _, opened in ipairs{"", "mp.Lock()"} do
            local result = helper.run({"-"}, {stdin = [[
                local mp = require "mp"
                ]] .. opened .. [[

                local looks = 0
                debug.sethook(function()
                    if debug.getinfo(2, "S").source == "=(mp waits)" then
                        looks = looks + 1
                    end
                end, "c")
                mp.sleep(1) -- ten slices; where others compute, fewer
                debug.sethook()
                print(looks)]]})
            assert.is_true(tonumber(result.stdout) >= 1, result.stdout
                .. result.stderr)
        end
    end)

    -- The second one --------------------------------------------------------

    it("PAIN-12 a second time ends what the first has not yet ended",
        function()
        local p <close> = start[[
            local pool = mp.Pool(2)
            pool:map_async(busy, {1, 2})
            local begun = mp.Event()
            mp.Process{target = stubborn,
                args = {function() begun:set() end}}:start()
            begun:wait()
            local slow <close> = setmetatable({}, {__close = function()
                say "closing"
                mp.sleep(60)
            end})
            say "ready"
            mp.sleep(60)]]
        p:settle()
        p:signal("INT")
        assert.are.equal("closing", p:line())
        p:settle()
        p:signal("INT")
        assert.are.same({"signal", 2, ""}, {p:finish()})
    end)

    it("a second time ends code that never comes back", function()
        local p <close> = start[[
            local pool = mp.Pool(1)
            say "ready"
            ;("a"):rep(60):find(("a*"):rep(30) .. "b")]]
        p:settle()
        p:signal("INT")
        p:has_it()
        p:signal("INT")
        assert.are.same({"signal", 2, ""}, {p:finish()})
    end)

    it("at the program's end waits for its processes, which have it, too",
        function()
        local p <close> = start[[
            mp.Process{target = function()
                pcall(function()
                    say "ready"
                    mp.sleep(60)
                end)
                mp.sleep(0.1)
                say "tidied"
            end}:start()]]
        p:settle()
        p:signal("INT")
        assert.are.equal("tidied", p:line())
        local how, code, said = p:finish()
        assert.are.equal("exit 130", how .. " " .. code)
        assert.are.equal(helper.mplua .. ": Interrupted: Ctrl-C\n", said)
    end)

    it("at the program's end a second time waits for nobody", function()
        local p <close> = start[[
            mp.Process{target = function()
                stubborn(function() say "ready" end)
            end}:start()]]
        p:settle()
        p:signal("INT")
        p:has_it()
        p:signal("INT")
        assert.are.same({"signal", 2, ""}, {p:finish()})
    end)
end)

-- Other hosts ----------------------------------------------------------------

-- A C host, by what it does at SIGINT: nothing (the default), "flag": its
-- handler sets a hook that raises a text. It runs its script twice, to show
-- that it can go on.
local HOST <const> = [[
#include <lauxlib.h>
#include <lualib.h>
#include <mplua.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static lua_State *L;
static int count;

static void raise_it(lua_State *from, lua_Debug *ar) {
    (void)ar;
    lua_sethook(from, NULL, 0, 0);
    luaL_error(from, "the host's word");
}

static void on_sigint(int sig) {
    (void)sig;
    count++;
    lua_sethook(L, raise_it, LUA_MASKCALL | LUA_MASKCOUNT, 1);
}

int main(int argc, char **argv) {
    struct sigaction mine = {.sa_handler = on_sigint}, now;
    if (argc > 2) sigaction(SIGINT, &mine, NULL);
    L = mplua_newstate();
    for (int i = 0; i < 2; i++)
        if (luaL_dofile(L, argv[1])) {
            printf("%s\n", lua_tostring(L, -1));
            fflush(stdout);
            lua_settop(L, 0);
        }
    lua_close(L);
    sigaction(SIGINT, NULL, &now);
    printf("%d %s\n", count,
           now.sa_handler == mine.sa_handler ? "kept" : "changed");
    return 0;
}
]]


local EMBEDDED <const> = [[
    local pool <close> = mp.Pool(2)
    say "ready"
    pool:map(busy, {1, 2, 3})]]

describe("Ctrl-C in another host", function()
    it("is what its handler makes of it, wherever mp waits; without one it "
        .. "ends it, and its workers", function()
        local host = helper.build_host(helper.tmpdir(), HOST)
        local p <close> = start(EMBEDDED, {program = host})
        p:settle()
        assert.are.equal(4, #p.family)
        p:signal("INT")
        assert.are.same({"signal", 2, ""}, {p:finish()})

        local own <close> = start(EMBEDDED, {program = host, args = {"flag"}})
        own:settle()
        own:signal("INT")
        assert.are.equal("the host's word", own:line():match("[^:]*$"))
        assert.are.equal("ready", own:line())
        own:settle()
        assert.are.equal(4, #own.family)
        own:signal("INT")
        assert.are.equal("the host's word", own:line():match("[^:]*$"))
        assert.are.equal("2 kept", own:line())
        assert.are.same({"exit", 0, ""}, {own:finish()})
    end)

    it("is lua5.4's own error there", function()
        if helper.sanitized then
            pending("needs a plain build")
        end
        local p <close> = start(EMBEDDED, {program = "lua5.4",
            env = ("'LUA_PATH=lua/?.lua;lua/?/init.lua' LUA_CPATH=%s/?.so")
                :format(helper.quote(helper.build))})
        p:settle()
        p:signal("INT")
        local how, code, said = p:finish()
        assert.are.equal("exit 1", how .. " " .. code)
        assert.matches(": interrupted!\n", said)
        assert.are.equal(1, select(2, said:gsub("stack traceback", "")))
    end)
end)

describe("Ctrl-C at a terminal", function()
    --- What a session shows, given the keys; each follows when its word has
    -- been shown.
    local function session(...)
        local out, keys = helper.tmpname(), helper.tmpname()
        assert(os.execute("rm " .. keys .. " && mkfifo " .. keys))
        local pipe = assert(io.popen(("exec timeout -s KILL 30 script -qec "
            .. "%s /dev/null <%s >%s"):format(
            helper.quote(helper.mplua .. " -i"), keys, out)))
        local file = assert(io.open(keys, "w"))
        local at = 0
        for _, step in ipairs{...} do
            local ok = pcall(helper.eventually, function()
                local shown = read(out):gsub("\r", "")
                local _, to = shown:find(step[1], at + 1, true)
                at = to or at
                return to
            end, 10)
            if not ok then break end
            file:write(step[2]):flush()
        end
        file:close()
        pipe:close()
        return (read(out):gsub("\r", ""):sub(at + 1))
    end

    it("stops the evaluation, and not the session nor its pools", function()
        local rest = session(
            {"> ", "mp = require 'mp' pool = mp.Pool(2)\n"},
            {"> ", "io.write('no', 'w\\n') while true do end\n"},
            {"now\n", "\3"},
            {"Interrupted: Ctrl-C", ""},
            {"> ", "io.write('no', 'w\\n') pool:map(mp.sleep, {60}, 1)\n"},
            {"now\n", "\3"},
            {"Interrupted: Ctrl-C", ""},
            {"> ", "pool:apply(math.abs, {-41})\n"},
            {"\n41\n", ""},
            {"> ", ""})
        assert.are.equal("\n", rest)
    end)

    it("breaks off a line that is asked for", function()
        local rest = session(
            {"> ", "function f()\n"},
            {">> ", "\3"},
            {"\n> ", "\3"},
            {"\n> ", "print(\n"},
            {">> ", "42)\n"},
            {"\n42\n", ""},
            {"> ", ""})
        assert.are.equal("\n", rest)
    end)
end)

describe("SIGTERM", function()
    it("ends program, workers and processes, without a word", function()
        for _, whom in ipairs{"all", "main"} do
            local p <close> = start[[
                local pool <close> = mp.Pool(2)
                pool:map_async(busy, {1, 2})
                mp.Process{target = stubborn}:start()
                mp.get_context("spawn").Process{target = mp.sleep,
                    args = {60}}:start()
                mp.get_context("forkserver").Process{target = mp.sleep,
                    args = {60}}:start()
                say "ready"
                pool:map(busy, {1, 2})]]
            p:settle()
            assert.is_true(#p.family >= 1 + 3 + 1 + 1 + 2)
            p:signal("TERM", whom == "main" and p.pid or nil)
            assert.are.same({"signal", 15, ""}, {p:finish()})
        end
    end)
end)
