--- There is not enough memory: for a worker, for the caller, for the arena,
-- for the control group. Each item has its result or one error that says
-- so; afterwards the pool goes on as before, and nothing is left.
--
-- Each try is a program of its own (TRY below) under a limit that is set
-- before it starts, or by prlimit(1) while it runs.

local mp = require "mp"
local tools = require "spec.storm.tools"

--- Allocates in the workers, then in the caller; ends with 0 and "right".
-- ITEMS: sizes to allocate (MiB).  OWN: MiB that the caller tries to have.
-- LIMIT: the command that limits a process that runs, or nil.  GROUP: is it
-- the group's memory that is limited?
local TRY <const> = [[
    local mp = require "mp"
    local core = require "mp.core"
    local MIB = 1 << 20

    --- An error of this kind, for this reason.
    local function expected(e)
        local text = tostring(e)
        if not mp.iserror(e) then
            return text:find("not enough memory", 1, true)
        end
        return text:find("not enough memory", 1, true) or
            text:find("cannot allocate", 1, true) or
            e.kind == "WorkerLost" and (e.signal == 9 or e.exitcode == 1) or
            e.kind == "OSError" and (e.code == "ENOMEM" or e.code == "EFBIG")
    end
    local function expect(e)
        if not expected(e) then
            error(e, 0)
        end
        return e
    end

    -- A worker that may have no more than it has can lack what it takes to
    -- do this, and even to say so. It is lost once; the next has no limit.
    local function right(pool)
        local ok, list
        for _ = 0, 2 do
            ok, list = pcall(pool.map, pool, function(x) return x * x end,
                mp.range(1, 101))
            if ok then
                break
            end
            expect(list)
        end
        assert(ok, list)
        for i, v in ipairs(list) do
            assert(v == i * i)
        end
    end

    local function counts()
        collectgarbage()
        collectgarbage()
        return core.debug.arena_bytes(), core.debug.objects()
    end

    -- In a group the kernel is to choose a worker, not the caller, which
    -- would take all along.
    local pool = mp.Pool{processes = 2, initializer = GROUP and function()
        local file = assert(io.open("/proc/self/oom_score_adj", "w"))
        file:write("1000")
        assert(file:close())
    end or nil}
    right(pool)
    local function limit(pid)
        if LIMIT then
            assert(os.execute(LIMIT:format(pid)))
        end
    end
    for _, pid in ipairs(pool._core:pids()) do
        limit(pid)
    end

    -- In the workers: what they make, and what they return.
    local failed, done = 0, 0
    local list = pool:map(function(n)
        local text = ("x"):rep(n * MIB)
        return not GROUP and n % 2 == 0 and text or #text
    end, ITEMS, {on_error = "collect", chunksize = 1})
    for i, v in ipairs(list) do
        local n = ITEMS[i] * MIB
        if v == n or type(v) == "string" and #v == n then
            done = done + 1
        else
            expect(v)
            failed = failed + 1
        end
    end
    list = nil
    right(pool)

    -- In the caller: what it makes, puts and gives to the pool.
    limit(mp.getpid())
    local q = mp.Queue()
    local kept = {}
    for i = 1, OWN do
        local ok, e = pcall(function()
            kept[i] = ("y"):rep(MIB) .. i
            q:put(kept[i])
        end)
        if not ok then
            expect(e)
            failed = failed + 1
            break
        end
        done = done + 1
    end
    local n = q:qsize()
    local ok, e = pcall(pool.map, pool, function(s) return #s end, kept)
    if not ok then
        expect(e)
        failed = failed + 1
    end
    for i = 1, n do
        local ok, s = pcall(q.get, q)
        if ok then
            assert(s == kept[i])
        else
            expect(s)
        end
    end
    kept = nil
    collectgarbage()
    right(pool)
    q:close()
    pool:close()
    pool:join()
    pool = nil
    local bytes, objects = counts()
    assert(bytes < 1 << 18 and objects < 8, bytes .. " bytes are left")
    assert(#core.debug.children() == 0)
    print(("right %d done %d failed"):format(done, failed))
]]

--- Runs TRY behind `command`; `runtime`: a limit for processes that run.
-- Returns how many allocations were done, and how many failed.
local function try(storm, name, command, choice)
    storm:progress(name)
    local items = {}
    for i = 1, 6 do
        items[i] = math.random(0, choice.most)
    end
    local text = ("ITEMS = {%s} OWN = %d GROUP = %s LIMIT = %s "):format(
        table.concat(items, ", "), choice.own, choice.group or false,
        choice.runtime and ("%q"):format(choice.runtime) or "nil") .. TRY
    local pipe <close> = assert(io.popen(("timeout 60 %s %s -e %s 2>&1")
        :format(command, tools.quote(tools.mplua), tools.quote(text))))
    local out = pipe:read("a")
    local ok, how, code = pipe:close()
    storm:check(ok, "%s: %s %s: %s", name, how, code, out)
    local done, failed = out:match("right (%d+) done (%d+) failed\n$")
    storm:check(done, "%s: %s", name, out)
    storm:progress()
    storm:count("allocations", tonumber(done))
    storm:count("refusals", tonumber(failed))
    return tonumber(failed)
end

--- A memory group inside of our own, or nil and why not.
local function new_group(mib)
    local own = tools.read("/proc/self/cgroup")
    local path = own:match("%d+:memory:(/[^\n]*)")
    local base, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
    if not path then
        path = own:match("0::(/[^\n]*)")
        base, file = "/sys/fs/cgroup", "memory.max"
    end
    path = ("%s%s/storm-%d"):format(base, path or "", mp.getpid())
    if not os.execute(("mkdir %s 2>/dev/null"):format(path)) then
        return nil, "no memory group can be made"
    end
    local limit = io.open(path .. "/" .. file, "w")
    if not limit or not limit:write(mib << 20) or not limit:close() then
        os.execute("rmdir " .. path)
        return nil, "no limit of memory can be set"
    end
    return path
end

local function in_group(storm)
    local path, why = new_group(48)
    if not path then
        return why
    end
    local _ <close> = setmetatable({}, {__close = function()
        -- The last of its processes may not be buried yet.
        storm:check(tools.eventually(5, function()
            return os.execute(("rmdir %s 2>/dev/null"):format(path))
        end), "%s is not empty", path)
    end})
    local failed = try(storm, "a memory group of 48 MiB",
        ("sh -c 'echo $$ >%s/cgroup.procs && exec \"$@\"' sh"):format(path),
        {most = 60, own = 4, group = true})
    return ("%d refused in a memory group"):format(failed)
end

-- The programs it runs have limits of their own.
tools.PATIENCE = math.max(tools.PATIENCE, 300)

tools.run("memory", function(storm)
    local before = tools.footprint()
    local group
    repeat
        local mib = math.random(30, 70)
        try(storm, "an address space", ("prlimit --as=%d"):format(
            mib + 60 << 20), {most = mib, own = mib})
        try(storm, "data", ("prlimit --data=%d"):format(mib << 20),
            {most = mib + 40, own = mib})
        -- From 16 MiB on the arena fits.
        try(storm, "a file's size", ("prlimit --fsize=%d"):format(
            math.random(30, 50) << 20), {most = 40, own = 60})
        -- Of processes that run already: less than they have.
        for _, what in ipairs{"as", "data"} do
            try(storm, "a running process's " .. what, "", {
                most = 40, own = 40,
                runtime = ("prlimit --pid %%d --%s=%d:"):format(what,
                    math.random(1, 40) << 20),
            })
        end
        group = group or in_group(storm)
    until not storm:goes_on()
    print(group)
    storm:progress("the look at what is left")
    storm:nothing_left(before)
end)
