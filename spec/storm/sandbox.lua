--- The kill storms, and the specs of what waits, in sandboxes that refuse
-- system calls as containers do: futex_waitv with EPERM, pidfds with ENOSYS.

local mp = require "mp"
local tools = require "spec.storm.tools"

local SANDBOXES <const> = {
    "futex_waitv=EPERM",
    "pidfd_open=ENOSYS pidfd_send_signal=ENOSYS",
    "futex_waitv=ENOSYS pidfd_open=EPERM",
}
local STORMS <const> = {"kill_pool", "kill_queue", "kill_sync"}
local SPECS <const> = {"lock", "condition", "barrier", "semaphore", "event"}
local LONG_SPECS <const> = {"queue", "pool_death", "pool_kill", "imap"}

--- Runs a program in a sandbox; what it said.
local function run(storm, deny, sandbox, what, seconds)
    storm:progress(("%s with %s"):format(what, sandbox))
    local pipe <close> = assert(io.popen(
        ("timeout -k 5 %d %s %s %s %s 2>&1"):format(seconds,
            tools.quote(deny), sandbox, tools.quote(tools.mplua), what)))
    local out = pipe:read("a")
    local ok, how, code = pipe:close()
    storm:progress()
    return ok, ("%s with %s: %s %s\n%s"):format(what, sandbox, how, code,
        out), code
end

-- The programs it runs have limits of their own.
tools.PATIENCE = math.max(tools.PATIENCE, 300)

tools.run("sandbox", function(storm)
    local deny, before = os.getenv("STORM_DENY"), tools.footprint()
    if not deny then
        return storm:skip("no compiler for spec/storm/deny.c")
    end
    local _, why, code = run(storm, deny, SANDBOXES[1], "-e 'os.exit(0)'", 20)
    if code == 125 then
        return storm:skip("no sandbox can be made here: " .. why)
    end
    local busted = os.execute(("%s -l busted -e '' 2>/dev/null"):format(
        tools.quote(tools.mplua)))
    local seconds = storm.seconds / 9
    for _, sandbox in ipairs(SANDBOXES) do
        for _, name in ipairs(STORMS) do
            local ok, text = run(storm, deny, sandbox,
                ("spec/storm/%s.lua %g %d"):format(name, seconds,
                    math.random(1 << 30)), 60 + math.ceil(4 * seconds))
            storm:check(ok, text)
            storm:count("storms", 1)
        end
    end
    local function specs(names)
        for _, name in ipairs(names) do
            for _, sandbox in ipairs(SANDBOXES) do
                local ok, text = run(storm, deny, sandbox,
                    ("spec/run.lua spec/%s_spec.lua"):format(name), 180)
                storm:check(ok, text)
                storm:count("specs", 1)
            end
        end
    end
    if busted then
        specs(SPECS)
        specs(storm.seconds > 30 and LONG_SPECS or {})
    end
    storm:nothing_left(before)
end)
