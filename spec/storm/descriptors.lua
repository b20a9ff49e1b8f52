--- The descriptor table is full, in the caller and in crews: what needs a
-- descriptor is an error that says so, what exists goes on, and workers that
-- are killed are replaced all the same. With room again all is well.

local mp = require "mp"
local tools = require "spec.storm.tools"

--- Sets the soft limit of descriptors of a process that runs.
local function limit(pid, n)
    return os.execute(("prlimit --pid %d --nofile=%d:"):format(pid, n))
end

local function soft_limit()
    return math.tointeger(tonumber(tools.read("/proc/self/limits")
        :match("Max open files%s+(%d+)")))
end

--- Fills the table, but for `free` places; returns what gives them back.
local function fill(storm, free)
    local held = {}
    repeat
        local file = io.open("/dev/null")
        held[#held + 1] = file
    until not file
    for _ = 1, math.min(free, #held) do
        table.remove(held):close()
    end
    storm:count("descriptors held", #held)
    return function()
        for _, file in ipairs(held) do
            file:close()
        end
    end
end

--- Makes one of everything; each is made, or refused for the right reason.
local function make_all(storm)
    local makers = {
        pool = function()
            local pool <close> = mp.Pool(2)
            storm:check(pool:apply(math.abs, {-3}) == 3, "a new pool")
        end,
        process = function()
            local p <close> = mp.Process{target = os.exit, args = {3}}
            p:start()
            storm:check(p:join(tools.PATIENCE) and p.exitcode == 3,
                "a new process ended with %s", p.exitcode)
        end,
        sentinel = function()
            local p <close> = mp.Process{target = function() end}
            p:start()
            storm:check(p.sentinel >= 0, "a sentinel")
        end,
        queue = function()
            local q <close> = mp.Queue()
            q:put{1}
            storm:check(q:get()[1] == 1, "a new queue")
        end,
        array = function()
            local a <close> = mp.Array("d", 100000)
            a[1] = 1
        end,
    }
    for name, make in pairs(makers) do
        storm:progress("making a " .. name)
        local ok, e = pcall(make)
        storm:check(ok or mp.iserror(e, "OSError") and e.code == "EMFILE",
            "%s: %s", name, tostring(e))
        storm:count(ok and "made" or "refused", 1)
    end
end

--- What exists goes on, also when its workers are killed.
local function use(storm, pool, q, p)
    storm:progress("using what exists")
    storm:check(p:is_alive(), "a process is gone")
    q:put("ping")
    local shell = tools.signaller()
    for _, pid in ipairs(pool._core:pids()) do
        shell.send("KILL", pid)
    end
    shell.close()
    local list = pool:map(function(x) return x * x end, mp.range(1, 201),
        {on_error = "collect"})
    for i, v in ipairs(list) do
        storm:check(v == i * i or mp.iserror(v, "WorkerLost"), "item %d: %s",
            i, tostring(v))
    end
    storm:check(q:get(true, tools.PATIENCE) == "ping", "the queue")
    storm:count("workers killed", #pool._core:pids())
end

tools.run("descriptors", function(storm)
    local before, most = tools.footprint(), soft_limit()
    repeat
        do
            local pool, q = mp.Pool(2), mp.Queue()
            local halt = mp.Event()
            local p = mp.Process{target = function() halt:wait() end}
            p:start()
            local crew = tools.parent_of(pool._core:pids()[1])
            limit(crew, math.random(8, 12))
            limit(mp.getpid(), math.random(20, 40))
            local free = math.random(0, 4)
            local give_back = fill(storm, free)
            make_all(storm)
            -- A signaller needs two for its pipe.
            give_back()
            use(storm, pool, q, p)
            limit(mp.getpid(), most)
            make_all(storm)
            halt:set()
            storm:check(p:join(tools.PATIENCE), "a process does not end")
            p:close()
            pool:close()
            pool:join()
        end
        storm:progress("the look at what is left")
        storm:nothing_left(before)
    until not storm:goes_on()
end)
