--- The logger.

local helper = require "spec.helper"
local mp = require "mp"

local function stderr_of(text)
    local result = helper.run({"-e", "local mp = require 'mp' " .. text},
        {timeout = 20})
    assert.are.equal(0, result.code)
    return result.stderr
end

describe("logger", function()
    it("MOD-06 is silent until it is told to speak", function()
        assert.are.equal("", stderr_of "mp.get_logger():error('x')")
    end)

    it("MOD-07 names level and process", function()
        assert.are.equal("[ERROR/MainProcess] x 7\n", stderr_of [[
            mp.log_to_stderr():error("x %d", 7)]])
    end)

    it("MOD-07 speaks in the children that start later", function()
        assert.are.equal("[INFO/Process-1] from below\n", stderr_of [[
            mp.log_to_stderr("info")
            local p = mp.Process{target = function()
                mp.get_logger():info("from below")
                mp.get_logger():debug("not this")
            end}
            p:start() p:join()]])
    end)

    it("MOD-07 speaks in the children, by every method", function()
        for _, method in ipairs(mp.get_all_start_methods()) do
            assert.are.equal("[DEBUG/bee] from below 5\n" ..
                "[ERROR/bee:1] deeper\n", stderr_of(([[
                mp.log_to_stderr("debug")
                local ctx = mp.get_context(%q)
                local p = ctx.Process{name = "bee", target = function()
                    local mp = require "mp"
                    mp.get_logger():debug("from below %%d", 5)
                    local q = mp.Process{target = function()
                        require "mp".get_logger():error("deeper")
                    end}
                    q.name = "bee:1"
                    q:start() q:join()
                end}
                p:start() p:join()]]):format(method)))
        end
    end)

    it("MOD-07 speaks in a pool's workers, each in whole lines", function()
        local lines, n = stderr_of [[
            mp.log_to_stderr("info")
            local pool <close> = mp.Pool(4)
            pool:map(function(x)
                require "mp".get_logger():info(("x"):rep(200))
            end, mp.range(200), 1)]], 0
        for line in lines:gmatch("[^\n]+") do
            assert.matches("^%[INFO/PoolWorker%-[1-4]%] x+$", line)
            assert.are.equal(200, #line:match("x+$"))
            n = n + 1
        end
        assert.are.equal(200, n)
    end)

    it("MOD-07 keeps its level, and speaks once when told twice", function()
        assert.are.equal("[WARNING/MainProcess] w\n[INFO/MainProcess] i\n",
            stderr_of [[
            local logger = mp.log_to_stderr()
            logger:info("not this")
            logger:warning("w")
            assert(mp.log_to_stderr("info") == logger)
            assert(mp.get_logger() == logger)
            logger:info("i")
            logger:set_level(40)
            logger:warning("nor this")]])
    end)

    it("warns of a fork beside other threads, once", function()
        local text = stderr_of [[
            local ctx = mp.get_context("thread")
            local event, started = mp.Event(), mp.Event()
            local t = ctx.Process{target = function()
                started:set()
                event:wait()
            end}
            t:start()
            started:wait()
            for i = 1, 2 do
                local p = mp.get_context("fork").Process{target = math.abs,
                    args = {i}}
                p:start() p:join()
                assert(p.exitcode == 0)
            end
            event:set()
            t:join()
            local p = mp.get_context("fork").Process()
            p:start() p:join()]]
        assert.matches("^%[WARNING/MainProcess%] this process has threads: " ..
            "[^\n]*\n$", text)
    end)

    it("refuses what does not fit the format, at the caller's line", function()
        local run = helper.run({"-e", [[
            local mp = require "mp"
            local log = mp.log_to_stderr("info")
            print(select(2, pcall(log.info, log, "%d", "x")))
            print(select(2, pcall(log.info, log, {}, "x")).kind)]]})
        assert.matches("^TypeError: info: bad argument #2 to '[%w.]*format' "
            .. "%(number expected, got string%)\nTypeError\n$", run.stdout)
        assert.are.equal("", run.stderr)
    end)

    it("refuses a level that does not exist", function()
        local ok, e = pcall(mp.log_to_stderr, "loud")
        assert.is_false(ok)
        assert.are.equal("ValueError", e.kind)
        assert.matches("'loud'", e.message)
    end)
end)
