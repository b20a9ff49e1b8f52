--- What the storms share: their frame with its watchdog, a killer of
-- processes, and the demand that nothing is left.
--
-- A storm is a program: `mplua spec/storm/NAME.lua [SECONDS [SEED]]` (or
-- STORM_SECONDS, STORM_SEED), from the project's root. It ends with 0 and a
-- line of facts, or otherwise with what is wrong. The seed decides what is
-- tried in which order; what meets what is up to the machine.
--
-- The main process is the watchdog. The storm's body runs in a child of it,
-- so that all that the storm starts are descendants of the body, and go with
-- it. The body says what it is doing and that it goes on; when it has not
-- done so for some time, the watchdog prints what it sees and ends it.

local mp = require "mp"
local core = require "mp.core"

local M = {}

--- Seconds without progress that count as a hang.
M.PATIENCE = tonumber(os.getenv("STORM_PATIENCE")) or 20

--- Seconds that the dead may take to be noticed, once all is over.
local GRACE <const> = 5

--- More shared objects than a storm has at a time.
local MANY_OBJECTS <const> = 1 << 15

--- The program that runs this.
M.mplua = os.getenv("MPLUA") or arg and arg[-1] or "build/mplua"

-- Looking at processes ------------------------------------------------------

--- The text of a file, "" when it cannot be read.
---@param path string
---@return string
function M.read(path)
    local file <close> = io.open(path, "rb")
    return file and file:read("a") or ""
end

--- Pids of the children of a process, of all of its threads.
---@param pid integer|string
---@return integer[]
function M.children(pid)
    local list = {}
    local path = ("/proc/%s/task/%s/children"):format(pid, pid)
    for number in M.read(path):gmatch("%d+") do
        list[#list + 1] = math.tointeger(number)
    end
    return list
end

--- The state letter of a process, and its parent; nil when it is gone.
---@param pid integer
---@return string|nil, integer|nil
function M.state(pid)
    local letter, parent =
        M.read("/proc/" .. pid .. "/stat"):match("%) (%a) (%d+)")
    return letter, math.tointeger(parent)
end

--- The parent of a process: of a worker, its crew.
---@param pid integer
---@return integer|nil
function M.parent_of(pid)
    return (select(2, M.state(pid)))
end

--- A word for the shell that means just this text.
---@param text string
function M.quote(text)
    return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

--- One line of what the kernel says of a process.
local function describe(pid, depth)
    local base = "/proc/" .. pid .. "/"
    local stack = M.read(base .. "stack"):gsub("%[<0>%] ", "")
        :gsub("%+0x%x+/0x%x+", ""):gsub("\n", " < ")
    return ("%s%d state %s, waits in %s, call %s%s"):format(
        ("    "):rep(depth), pid, M.state(pid) or "gone",
        M.read(base .. "wchan"), M.read(base .. "syscall"):gsub("\n", ""),
        stack ~= "" and "\n" .. ("    "):rep(depth) .. "  " .. stack or "")
end

--- Writes what the descendants of a process are doing.
---@param pid integer
---@param depth integer|nil
function M.describe_tree(pid, depth)
    depth = depth or 1
    io.stderr:write(describe(pid, depth), "\n")
    for _, child in ipairs(M.children(pid)) do
        M.describe_tree(child, depth + 1)
    end
end

--- What the checker of the arena says of the family, if this program has it.
local function describe_arena(pid)
    local pipe <close> = io.popen(("timeout 20 %s --fsck %d 2>&1"):format(
        M.quote(M.mplua), pid))
    io.stderr:write("what --fsck says:\n", pipe:read("a"))
end

-- The frame -----------------------------------------------------------------

---@class Storm
---@field seconds number how long it is to last
---@field seed integer
---@field worst number longest time between two signs of progress (s)
local Storm = {}
Storm.__index = Storm

--- Is there time left?
---@return boolean
function Storm:goes_on()
    return mp.monotonic() < self._end
end

--- A sign of progress, and what comes next (as the watchdog will print it).
---@param what string|nil
function Storm:progress(what)
    local now = mp.monotonic()
    if now - self._last > self.worst then
        self.worst, self.worst_at = now - self._last, self._doing
    end
    self._last = now
    self._beat:add(1)
    if what then
        self._doing = what
        self._what.value = what:sub(1, 99)
    end
end

--- Adds to the facts that are printed at the end.
---@param name string
---@param n number
function Storm:count(name, n)
    if not self._facts[name] then
        self._facts[name] = 0
        table.insert(self._facts, name)
    end
    self._facts[name] = self._facts[name] + n
end

--- How much was counted of it.
---@param name string
---@return number
function Storm:counted(name)
    return self._facts[name] or 0
end

--- Fails the storm unless `ok`.
---@param ok any
---@param ... any of string.format
function Storm:check(ok, ...)
    if not ok then
        error(select("#", ...) > 1 and string.format(...) or (...), 2)
    end
    return ok
end

--- What this process has: arena bytes, shared objects, descriptors, children.
---@return table
function M.footprint()
    collectgarbage()
    collectgarbage()
    return {
        bytes = core.debug.arena_bytes(), objects = core.debug.objects(),
        descriptors = #core.debug.fds(), children = #core.debug.children(),
    }
end

--- Demands that the arena is sound; also while all goes on.
function Storm:check_arena()
    local sound, findings = core.debug.fsck()
    if not sound then
        error("the arena is damaged:\n" .. table.concat(findings, "\n"), 2)
    end
    self:count("arena checks", 1)
end

--- Demands that the process has no more than it had before, and that the
-- arena is sound. What the dead held is noticed by whoever looks, so there is
-- a time of grace.
---@param before table of footprint()
---@param slack table|nil how much more may be there, by the same names
function Storm:nothing_left(before, slack)
    local last = mp.monotonic() + GRACE
    local complaints
    repeat
        local now = M.footprint()
        complaints = {}
        for name, n in pairs(now) do
            if n > before[name] + (slack and slack[name] or 0) then
                table.insert(complaints, ("%d %s"):format(n - before[name],
                    name))
            end
        end
        if complaints[1] then
            mp.sleep(0.01)
        end
    until not complaints[1] or mp.monotonic() > last
    if complaints[1] then
        M.describe_tree(mp.getpid())
        error("left " .. table.concat(complaints, ", "), 2)
    end
    self:check_arena()
end

--- Makes the table of shared objects as long as it will get: it never
-- shrinks, which would look like a leak.
---@param n integer objects at a time
function M.grow_objects(n)
    local list = {}
    for i = 1, n do
        list[i] = mp.RawValue("i")
    end
    list = nil
    collectgarbage()
    collectgarbage()
end

local function facts_of(storm)
    local words = {}
    for i, name in ipairs(storm._facts) do
        local n = storm._facts[name]
        words[i] = (math.type(n) == "integer" and "%d %s" or "%.1f %s")
            :format(n, name)
    end
    words[#words + 1] = ("worst stall %.0f ms (%s)"):format(
        storm.worst * 1e3, storm.worst_at)
    return table.concat(words, ", ")
end

--- The child in which the storm rages.
local function start_body(name, seconds, seed, body, beat, what)
    local p = mp.Process{name = name, target = function()
        math.randomseed(seed)
        local now = mp.monotonic()
        local storm = setmetatable({
            seconds = seconds, seed = seed, worst = 0, worst_at = "start",
            _end = now + seconds, _last = now, _facts = {}, _beat = beat,
            _what = what, _doing = "start",
        }, Storm)
        local ok, e = xpcall(body, function(e)
            local text = mp.iserror(e) and e.kind .. ": " .. e.message
                or tostring(e)
            return debug.traceback(text, 2)
        end, storm)
        if not ok then
            io.stderr:write("FAIL ", name, " while ", storm._doing, ": ", e,
                "\n")
            os.exit(1)
        end
        storm:progress()
        print(storm.skipped or facts_of(storm))
        os.exit(0)
    end}
    p:start()
    return p
end

local function complain(name, p, what)
    io.stderr:write(("FAIL %s: no progress for %g s, while %s\n"):format(name,
        M.PATIENCE, what.value))
    M.describe_tree(p.pid)
    describe_arena(p.pid)
    M.describe_tree(p.pid)
end

--- The time and the seed to take: arguments, variables, or by chance.
local function choices()
    local seconds = tonumber(arg[1] or os.getenv("STORM_SECONDS")) or 4
    local seed = tonumber(arg[2] or os.getenv("STORM_SEED"))
    return seconds, math.tointeger(seed) or math.random(1 << 30)
end

--- Runs a storm, as the program's main process: does not return.
---@param name string
---@param body fun(storm: Storm)
function M.run(name, body)
    local seconds, seed = choices()
    io.stdout:setvbuf("line")
    print(("%s: %g s, seed %d"):format(name, seconds, seed))
    M.grow_objects(MANY_OBJECTS)
    local beat, what = mp.RawValue("q", 0), mp.RawArray("c", 100)
    what.value = "start"
    local p = start_body(name, seconds, seed, body, beat, what)
    local seen, since = -1, mp.monotonic()
    while not p:join(0.25) do
        local now = mp.monotonic()
        if beat.value ~= seen then
            seen, since = beat.value, now
        elseif now - since > M.PATIENCE then
            complain(name, p, what)
            p:kill()
            p:join()
            os.exit(1)
        end
    end
    if p.exitcode < 0 then
        io.stderr:write(("FAIL %s: killed by signal %d while %s\n"):format(
            name, -p.exitcode, what.value))
    end
    os.exit(p.exitcode == 0)
end

--- The storm has no ground here: it ends, well.
---@param why string
function Storm:skip(why)
    self.skipped = "skipped: " .. why
end

-- Sums ----------------------------------------------------------------------

--- The sum of a shared array.
---@param array table
---@return number
function M.sum_of(array)
    local sum = 0
    for _, n in ipairs(array:slice()) do
        sum = sum + n
    end
    return sum
end

--- Demands that as many were counted as there were steps, and at the most one
-- more for each who has died between a count and the end of its step.
---@param counted number
---@param steps number
---@param deaths integer
function Storm:check_count(counted, steps, deaths)
    self:check(counted >= steps and counted <= steps + deaths,
        "%d steps, but %d counted, %d deaths", steps, counted, deaths)
end

-- What a lock guards --------------------------------------------------------

--- A step inside a lock, by user k: takes no module along. Two of the cells
-- are equal but in the midst of a step, the third one is who is inside.
---@param cells table three cells of shared memory
---@param wrong table [1]: times that two were inside, [2]: half a step
---@param k integer
---@param abandoned boolean|nil did who was here before die inside?
function M.step_inside(cells, wrong, k, abandoned)
    if abandoned then
        cells[2] = cells[1]
    elseif cells[3] ~= 0 then
        wrong[1] = wrong[1] + 1
    end
    cells[3] = k
    if cells[1] ~= cells[2] then
        wrong[2] = wrong[2] + 1
    end
    cells[1] = cells[1] + 1
    cells[2] = cells[2] + 1
    if cells[3] ~= k then
        wrong[1] = wrong[1] + 1
    end
    cells[3] = 0
end

-- Random choices ------------------------------------------------------------

--- One of a list.
function M.one_of(list)
    return list[math.random(#list)]
end

--- A number between the two, evenly.
function M.between(low, high)
    return low + (high - low) * math.random()
end

--- Sleeps for a time between the two (s).
function M.nap(low, high)
    mp.sleep(M.between(low, high))
end

--- Waits for what has nothing of its own to wait on.
---@param seconds number
---@param f function
---@return any what f returned, or false when the time was up
function M.eventually(seconds, f)
    local last = mp.monotonic() + seconds
    repeat
        local value = f()
        if value then
            return value
        end
        mp.sleep(0.001)
    until mp.monotonic() > last
    return false
end

-- Killing -------------------------------------------------------------------

--- Starts this process's fork server, which stays: so it is no more than there
-- was before.
function M.start_server()
    local p <close> = mp.get_context("forkserver").Process{
        target = function() end}
    p:start()
    p:join()
end

--- Is this error of a start that its first new program was killed?
---@param e any
---@return boolean
function M.is_killed(e)
    return mp.iserror(e, "StateError") and
        (e.message:find("by signal 9", 1, true) or
        e.message:find("killed again and again", 1, true)) ~= nil
end

--- Demands that a process which was killed ends, and by nothing else.
---@param p table
function Storm:bury(p)
    self:check(p:join(M.PATIENCE / 4), "a killed process does not end")
    self:check(p.exitcode == -9, "%s ended by itself: %s", p.name, p.exitcode)
    p:close()
    self:count("kills", 1)
end

--- A shell that sends signals: its `kill` is built in, so it costs a write.
-- (In between, a pid could only come to mean another process if all others
-- were used up meanwhile.)
---@return table with send(signal, pid) and close()
function M.signaller()
    local pipe = assert(io.popen("exec sh 2>/dev/null", "w"))
    pipe:setvbuf("no")
    return {
        send = function(signal, pid)
            pipe:write("kill -", signal, " ", pid, "\n")
        end,
        close = function()
            pipe:close()
        end,
    }
end

--- The descendants of a process but this one and its own, each with the
-- chance that its depth has.
local function find_prey(pid, me, shares, depth, list)
    for _, child in ipairs(M.children(pid)) do
        if child ~= me then
            if math.random() < (shares[depth] or 1) then
                list[#list + 1] = child
            end
            find_prey(child, me, shares, depth + 1, list)
        end
    end
    return list
end

local KILLER <const> = {
    least = 0.001, most = 0.02,     -- seconds between two signals
    shares = {0.02},                -- chance of each depth; deeper: 1
    act = function(shell, pid)
        shell.send("KILL", pid)
    end,
    finish = function() end,
}

local function hunt(opts, root, seed, halt, kills)
    math.randomseed(seed)
    local me = mp.getpid()
    local shell = M.signaller()
    local next_time = mp.monotonic()
    while not halt:is_set() do
        local prey = find_prey(root, me, opts.shares, 1, {})
        local chosen = prey[1] and M.one_of(prey)
        if chosen and M.state(chosen) ~= "Z" then
            opts.act(shell, chosen)
            kills:add(1)
        end
        -- By the clock, so that looking around does not make it slower; but
        -- what was missed is not made up for.
        next_time = math.max(next_time + M.between(opts.least, opts.most),
            mp.monotonic() - opts.most)
        mp.sleep(next_time - mp.monotonic())
    end
    opts.finish(shell)
    shell.close()
end

--- Starts a process that kills, at random times, descendants of this one:
-- crews with a small chance, workers, and what they started.
---@param storm Storm
---@param opts table|nil least, most (s), shares; act(shell, pid): what to do
--   instead of killing; finish(shell): at the end
---@return table with stop(), which returns the number of kills, and per s
function M.killer(storm, opts)
    opts = setmetatable(opts or {}, {__index = KILLER})
    local halt, kills = mp.Event(), mp.RawValue("q", 0)
    local root, seed = mp.getpid(), storm.seed + math.random(1 << 20)
    -- A copy: no server's death takes it along.
    local p = mp.get_context("fork").Process{name = "killer", daemon = true,
        target = function()
            hunt(opts, root, seed, halt, kills)
        end}
    p:start()
    local begin = mp.monotonic()
    return {
        stop = function()
            local seconds = mp.monotonic() - begin
            halt:set()
            storm:check(p:join(10), "the killer does not end")
            storm:check(p.exitcode == 0, "the killer ended with %s",
                p.exitcode)
            p:close()
            return kills.value, kills.value / seconds
        end,
    }
end

return M
