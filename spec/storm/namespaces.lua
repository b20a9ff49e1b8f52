--- The kill storms inside of namespaces: in a pid namespace of their own,
-- where pids are small and used again soon; as a user of a new user
-- namespace; and with the family across two pid namespaces, so that a
-- process and its parent do not agree on its pid.

local mp = require "mp"
local tools = require "spec.storm.tools"

local USER <const> = "unshare --user --map-root-user"

--- Runs a storm behind a command; its last line.
local function storm_in(storm, command, name, seconds)
    storm:progress(("%s behind %s"):format(name, command))
    local pipe <close> = assert(io.popen(
        ("timeout -k 5 %d %s %s spec/storm/%s.lua %g %d 2>&1"):format(
            math.ceil(seconds * 4) + 60, command, tools.quote(tools.mplua),
            name, seconds, math.random(1 << 30))))
    local out = pipe:read("a")
    local ok, how, code = pipe:close()
    storm:check(ok, "%s behind %s: %s %s\n%s", name, command, how, code, out)
    storm:progress()
    storm:count("storms", 1)
    return out:match("([^\n]*)\n$")
end

--- The command, or what only root may do in a user namespace; nil when the
-- machine permits neither.
local function permitted(command)
    for _, try in ipairs{command, USER .. command:match("^unshare(.*)")} do
        if os.execute(("%s true 2>/dev/null"):format(try)) then
            return try
        end
    end
end

local OWN <const> = "unshare --pid --fork --kill-child --mount-proc"
-- unshare becomes the main process, and its first child, the storm's body,
-- the first of a new namespace.
local ACROSS <const> = "unshare --pid"

-- The programs it runs have limits of their own.
tools.PATIENCE = math.max(tools.PATIENCE, 300)

tools.run("namespaces", function(storm)
    local before, none = tools.footprint(), true
    for _, place in ipairs{
        {OWN, "kill_pool"}, {USER .. OWN:match("^unshare(.*)"), "kill_pool"},
        {ACROSS, "kill_queue"}, {ACROSS, "kill_sync"},
    } do
        local command, facts = permitted(place[1]), nil
        if command then
            facts = storm_in(storm, command, place[2], storm.seconds / 4)
            none = false
        end
        print(("%s, %s: %s"):format(command or place[1], place[2],
            facts or "skipped: not permitted here"))
    end
    if none then
        storm:skip("no namespace can be made here")
    end
    storm:nothing_left(before)
end)
