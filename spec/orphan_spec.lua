-- Who is left when a process is killed: nobody. Whatever its children, their
-- children, its pools and its fork server do, they go within a second.

local helper = require "spec.helper"
local mp = require "mp"
local tools = require "spec.pool_tools"

--- Seconds that they may take.
local WITHIN <const> = 1

-- Each kind of child says that it is there and then never ends by itself.
local SCRIPT <const> = [[
    local mp = require "mp"
    local ctx = mp.get_context(METHOD)
    local lock, queue, event = mp.Lock(), mp.Queue(), mp.Event()
    local barrier, condition = mp.Barrier(2), mp.Condition()
    lock:acquire()

    local function say(word)
        io.stdout:write(word .. "\n") -- threads share the file
        io.stdout:flush()
    end
    local kinds = {
        busy = function() say "busy" while true do end end,
        asleep = function() say "asleep" mp.sleep(60) end,
        in_c = function()
            say "in_c"
            ;("a"):rep(60):find(("a*"):rep(30) .. "b")
        end,
        lock = function() say "lock" lock:acquire() end,
        queue = function() say "queue" queue:get() end,
        event = function() say "event" event:wait() end,
        barrier = function() say "barrier" barrier:wait() end,
        condition = function()
            condition:acquire()
            say "condition"
            condition:wait()
        end,
    }
    local busy = kinds.busy
    local function parent()
        local p = mp.get_context(METHOD).Process{target = busy}
        p:start()
        say "parent"
        p:join()
    end
    local function with_pool()
        local pool = mp.get_context(METHOD).Pool(2)
        say "with_pool"
        pool:map(busy, {1, 2})
    end
    for _, target in pairs(kinds) do
        ctx.Process{target = target}:start()
    end
    ctx.Process{target = parent}:start()
    ctx.Process{target = with_pool, daemon = true}:start()
    local idle, pool = ctx.Pool(2), ctx.Pool(2)
    pool:map_async(busy, {1, 2})
    idle:map(math.abs, {1, 2})
    say("main " .. mp.getpid())
    mp.sleep(60)
]]
-- Eight kinds, `busy` five times more; parent, with_pool and main.
local LINES <const> = 8 + 5 + 3

describe("the orphans of a killed process", function()
    for _, method in ipairs(mp.get_all_start_methods()) do
        it("PRC-17 go within a second, started by " .. method, function()
            local path = helper.tmpfile(SCRIPT:gsub("METHOD",
                ("%q"):format(method)), ".lua")
            local pipe <close> = io.popen(("exec timeout -k 1 40 %s %s")
                :format(helper.quote(helper.mplua), path))
            local main
            for i = 1, LINES do
                local line = pipe:read()
                assert.is_truthy(line, ("%d lines came"):format(i - 1))
                main = main or tonumber(line:match("^main (%d+)"))
            end
            local family = helper.family(main)
            -- Threads aside: main, 10 started, one below parent, 2 crews of
            -- 2, and a crew of 2 below with_pool.
            assert.is_true(method == "thread" or
                #family >= 1 + 10 + 1 + 3 * 3)
            mp.sleep(0.1) -- so that those that wait have begun to
            os.execute("kill -9 " .. main)
            helper.eventually(function()
                return tools.all_gone(family)
            end, WITHIN)
        end)
    end
end)
