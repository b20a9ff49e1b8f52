--- The logger.

local helper = require "spec.helper"

local function stderr_of(text)
    local result = helper.run({"-e", "local mp = require 'mp' " .. text},
        {timeout = 20})
    assert.are.equal(0, result.code)
    return result.stderr
end

describe("logger", function()
    it("is silent until it is told to speak", function()
        assert.are.equal("", stderr_of "mp.get_logger():error('x')")
    end)

    it("names level and process (MOD-06, MOD-07)", function()
        assert.are.equal("[ERROR/MainProcess] x 7\n", stderr_of [[
            mp.log_to_stderr():error("x %d", 7)]])
    end)

    it("speaks in the children that start later", function()
        assert.are.equal("[INFO/Process-1] from below\n", stderr_of [[
            mp.log_to_stderr("info")
            local p = mp.Process{target = function()
                mp.get_logger():info("from below")
                mp.get_logger():debug("not this")
            end}
            p:start() p:join()]])
    end)

    it("refuses a level that does not exist", function()
        local mp = require "mp"
        local ok, e = pcall(mp.log_to_stderr, "loud")
        assert.is_false(ok)
        assert.are.equal("ValueError", e.kind)
        assert.matches("'loud'", e.message)
    end)
end)
