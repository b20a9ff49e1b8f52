-- What happens when the kernel says no: each refusal is an error object that
-- says what and where, and leaves nothing behind; what fits still works.

local helper = require "spec.helper"

--- Tries each noun: a line with its name, and «ok» or the error; at the end
-- what is left. Objects whose children ended give their descriptors back when
-- they are collected.
local TRY <const> = [[
    local mp = require "mp"
    local core = require "mp.core"
    io.stdout:setvbuf("line")
    local function try(name, f)
        local ok, e = pcall(f)
        collectgarbage()
        collectgarbage()
        local text = "ok"
        if not ok then
            text = not mp.iserror(e) and "RAW " .. tostring(e) or
                e.kind .. " " .. tostring(e.code) .. " " .. e.where ..
                " " .. e.message
        end
        print(name .. ": " .. text)
    end
    local function pool()
        local pool <close> = mp.Pool(3)
        assert(pool:map(function(x) return x * x end,
            mp.range(100))[100] == 99 * 99)
        assert(pool:apply(math.abs, {-2}) == 2)
    end
    local function process()
        local p <close> = mp.Process{target = os.exit, args = {5}}
        p:start()
        assert(p:join(10) and (p.exitcode == 5 or FOREIGN))
    end
    try("lock", function() mp.Lock():acquire() end)
    try("queue", function()
        local q <close> = mp.Queue()
        q:put({1, ("x"):rep(1000)})
        assert(q:get()[1] == 1)
    end)
    try("process", process)
    try("sentinel", function()
        local p <close> = mp.Process{target = print}
        p:start()
        assert(p.sentinel)
    end)
    try("pool", pool)
    try("array", function() mp.Array("d", 1 << 25) end)
    try("fill", function()
        local q <close> = mp.Queue()
        for _ = 1, FILL or 0 do
            q:put(("x"):rep(1 << 20))
        end
    end)
    try("again", pool)
    try("process again", process)
    try("left", function()
        assert(#core.debug.children() == 0, "children")
    end)
]]

--- Runs it behind a command such as prlimit (and not into a file, since a
-- limit of files' sizes is one of the limits).
local function try(command, before)
    local words = {"-c", command .. ' "$@" | cat', "sh", helper.mplua, "-e",
        (before or "") .. TRY}
    local result = helper.run(words, {program = "sh", timeout = 50})
    assert.is_false(result.timed_out)
    local found = {}
    for name, text in result.stdout:gmatch("([%a ]+): ([^\n]*)\n") do
        found[name] = text
    end
    return function(name, ...)
        local text = found[name]
        assert.is_truthy(text, name .. "\n" .. result.stdout ..
            result.stderr)
        for _, wanted in ipairs{...} do
            if text:match("^" .. wanted) then
                return
            end
        end
        assert.are.equal(table.concat({...}, " or "), text, name)
    end
end

local function unless_sanitized(what, f)
    if helper.sanitized then
        pending(what .. " (not under sanitizers)")
    else
        it(what, f)
    end
end

describe("a full descriptor table", function()
    it("is an OSError of what needs one", function()
        local no_pool = "OSError EMFILE .-:%d+: Pool: cannot start"
        for limit = 4, 12 do
            local is = try(("exec prlimit --nofile=%d"):format(limit))
            is("lock", "ok", "OSError EMFILE .-:%d+: cannot open")
            is("process", "ok", "OSError EMFILE")
            is("sentinel", "ok", "OSError EMFILE .-:%d+: sentinel")
            is("pool", "ok", no_pool)
            is("again", "ok", no_pool)
            is("process again", "ok", "OSError EMFILE")
            is("left", "ok", "OSError EMFILE .-/proc") -- cannot look
        end
    end)
end)

describe("a limit of processes", function()
    --- Root is above it.
    local function as_another()
        local uid = tonumber((io.popen("id -u"):read("l")))
        if uid ~= 0 then
            return "exec"
        end
        return "exec setpriv --reuid=65533 --regid=65533 --clear-groups"
    end

    it("is an OSError, and the workers that started are gone", function()
        local other = as_another()
        if os.execute(other:gsub("^exec ", "") .. " test -x " ..
                helper.quote(helper.mplua) .. " 2>/dev/null") ~= true then
            pending("another user cannot run the program")
            return
        end
        for limit = 1, 5 do
            local is = try(("%s prlimit --nproc=%d"):format(other, limit))
            is("lock", "ok")
            is("process", limit > 1 and "ok" or "OSError EAGAIN",
                "OSError EAGAIN .-:%d+: cannot start a process")
            is("pool", limit > 4 and "ok" or "OSError EAGAIN",
                "OSError EAGAIN .-:%d+: Pool: cannot start the workers")
            is("again", limit > 4 and "ok" or "OSError EAGAIN",
                "OSError EAGAIN")
            is("left", "ok")
        end
    end)
end)

describe("a limit of memory", function()
    local message = "OSError ENOMEM .-:%d+: cannot allocate a message"
    local array = "OSError ENOMEM .-:%d+: Array of 33554432 cells 'd'"

    unless_sanitized("of address space is kept", function()
        for mib, fill in pairs{[100] = true, [300] = true, [1000] = false} do
            local is = try(("exec prlimit --as=%d"):format(mib << 20),
                fill and "FILL = 400 " or "FILL = 20 ")
            for _, name in ipairs{"lock", "queue", "process", "pool",
                                  "again", "process again", "left"} do
                is(name, "ok")
            end
            is("array", array)
            is("fill", fill and message or "ok")
        end
    end)

    it("of a file's size, too", function()
        for mib, fits in pairs{[0] = false, [1] = false, [64] = true} do
            local is = try(("exec prlimit --fsize=%d"):format(mib << 20),
                "FILL = 400 ")
            local no = "OSError EFBIG .-:%d+: cannot open the shared memory"
            for _, name in ipairs{"lock", "queue", "process", "pool",
                                  "again", "process again"} do
                is(name, fits and "ok" or no)
            end
            is("array", fits and array or no)
            is("fill", fits and message or no)
            is("left", "ok")
        end
    end)
end)

describe("a strange host", function()
    it("T-F-19 that ignores SIGCHLD is told of a worker's end", function()
        local is = try("trap '' CHLD; exec", "FOREIGN = true ")
        for _, name in ipairs{"lock", "queue", "process", "sentinel", "pool",
                              "again", "process again", "left"} do
            is(name, "ok")
        end
        local result = helper.run({"-c", "trap '' CHLD; exec \"$@\"", "sh",
            helper.mplua, "-e", [[
                local mp = require "mp"
                local pool <close> = mp.Pool(1)
                local _, e = pcall(pool.apply, pool, os.exit, {3})
                print(e.kind, e.exitcode, pool:apply(math.abs, {-1}))
            ]]}, {program = "sh"})
        assert.are.equal("WorkerLost\t3\t1\n", result.stdout)
    end)

    it("T-F-21 may have closed any of the standard files", function()
        local path = helper.tmpname()
        for _, closed in ipairs{"<&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"} do
            local result = helper.run({"-c", "exec \"$@\" " .. closed, "sh",
                helper.mplua, "-e", ([[
                    local mp = require "mp"
                    local pool = mp.Pool(2)
                    local sum = 0
                    for _, v in pool:imap(math.abs, mp.range(10)) do
                        sum = sum + v
                    end
                    local p <close> = mp.Process{target = print}
                    p:start()
                    p:join()
                    local file <close> = assert(io.open(%q, "w"))
                    file:write(sum, " ", p.exitcode)
                ]]):format(path)}, {program = "sh"})
            assert.are.equal(0, result.code)
            local file <close> = assert(io.open(path))
            assert.are.equal("45 0", file:read("a"))
        end
    end)
end)
