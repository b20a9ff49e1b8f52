--- What the specs of pools share: jobs to give to a pool, iterators to feed
-- it, and looking at its processes.
--
-- A spec takes what it uses into locals of its own (`local square =
-- tools.square`), so that a job that calls it carries that function and not
-- this module.

local mp = require "mp"
local helper = require "spec.helper"
local assert = require "luassert"

local M = {}

-- Jobs ----------------------------------------------------------------------

--- A job: the square of x.
function M.square(x)
    return x * x
end

--- A job: sleeps so long, and returns how long.
function M.sleep(seconds)
    require "mp".sleep(seconds)
    return seconds
end

--- A job that fails for those items, with the text «bad ITEM», and gives the
-- tenfold of the others.
function M.failing(...)
    local bad = {}
    for _, item in ipairs {...} do
        bad[item] = true
    end
    return function(x)
        if bad[x] then
            error("bad " .. x, 0)
        end
        return x * 10
    end
end

--- What can go wrong in a job, or in the user's code around it.
M.ways = {}

function M.ways.error()
    error("bad luck", 0)
end

function M.ways.exit()
    os.exit(7)
end

--- A machine's instruction that fails, as near as Lua gets to it.
function M.ways.crash()
    os.execute("kill -SEGV " .. require "mp".getpid())
    require "mp".sleep(10)
end

-- Iterators -----------------------------------------------------------------

--- An iterator over 1, 2, ... n (nil: without end); state.at is how far.
function M.counter(n, state)
    state = state or {}
    state.at = 0
    return function()
        if state.at == n then
            return nil
        end
        state.at = state.at + 1
        return state.at
    end
end

--- An iterator over 1, 2, ... that raises `problem` in the place of item n.
function M.broken_at(n, problem)
    local draw = M.counter()
    return function()
        local i = draw()
        if i == n then
            error(problem, 0)
        end
        return i
    end
end

-- What came of it -----------------------------------------------------------

--- The error object that `f(...)` raises, which is of this kind, and its
-- message.
function M.failure(kind, f, ...)
    local message, e = helper.failure(kind, f, ...)
    return e, message
end

--- The seconds that `f(...)` takes.
function M.timed(f, ...)
    local begin = mp.monotonic()
    f(...)
    return mp.monotonic() - begin
end

--- Demands of a list of squares of 1 ... n that every item is done, or lost
-- with its own index; returns how many are lost.
function M.check_list(list, n)
    local lost = 0
    assert.are.equal(n, list.n)
    for i = 1, n do
        local v = list[i]
        if mp.iserror(v, "WorkerLost") then
            assert.are.equal(i, v.index)
            lost = lost + 1
        elseif v ~= i * i then
            assert.are.equal(i * i, v)
        end
    end
    return lost
end

--- Runs a script under mplua; takes and returns what helper.run does.
function M.script(text, opts)
    return helper.run({"-e", text}, opts)
end

-- Processes -----------------------------------------------------------------

--- How many of the pool's processes take part in n items, one at a time,
-- each of which lasts long enough for the others to get some.
function M.count_processes(pool, n)
    local seen, count = {}, 0
    for _, pid in ipairs(pool:map(function()
        local m = require "mp"
        m.sleep(0.002)
        return m.getpid()
    end, mp.range(n), 1)) do
        count = count + (seen[pid] and 0 or 1)
        seen[pid] = true
    end
    return count
end

--- Is there none of these processes any more?
function M.all_gone(pids)
    for _, pid in ipairs(pids) do
        if not helper.is_gone(pid) then
            return false
        end
    end
    return true
end

--- Demands that these processes end within a second.
function M.soon_gone(pids)
    helper.eventually(function() return M.all_gone(pids) end, 1)
end

--- Sends these processes a signal (KILL); some may be gone.
function M.kill(pids, signal)
    os.execute("kill -" .. (signal or "KILL") .. " "
        .. table.concat(pids, " ") .. " 2>/dev/null")
end

return M
