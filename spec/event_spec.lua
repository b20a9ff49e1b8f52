local mp = require "mp"
local helper = require "spec.helper"

describe("Event", function()
    it("SYN-10 is a flag", function()
        local event <close> = mp.Event()
        assert.is_false(event:is_set())
        assert.equal("<Event(unset)>", tostring(event))
        event:set()
        event:set()
        assert.is_true(event:is_set())
        assert.equal("<Event(set)>", tostring(event))
        event:clear()
        event:clear()
        assert.is_false(event:is_set())
    end)

    it("SYN-10 waits as long as it is told", function()
        local event <close> = mp.Event()
        assert.is_false(event:wait(0))
        assert.is_false(event:wait(-1))
        assert.is_false(event:wait(0.02))
        event:set()
        assert.is_true(event:wait())
        assert.is_true(event:wait(0))
    end)

    it("wakes every process that waits, also when cleared at once",
        function()
            local event <close> = mp.Event()
            local woken <close> = mp.Value("i", 0)
            local ps = {}
            for i = 1, 3 do
                ps[i] = mp.Process{target = function()
                    assert(event:wait(10))
                    woken:add(1)
                end}
                ps[i]:start()
            end
            helper.eventually(function()
                event:set()
                event:clear()
                return woken.value == 3
            end)
            for _, p in ipairs(ps) do
                p:join()
                assert.equal(0, p.exitcode)
            end
        end)

    it("refuses misuse", function()
        local event <close> = mp.Event()
        local ok, e = pcall(event.wait, event, "soon")
        assert.is_false(ok)
        assert.equal("TypeError", e.kind)
        assert.matches("^wait: argument 'timeout'", e.message)
        do local _ <close> = event end
        ok, e = pcall(event.set, event)
        assert.is_false(ok)
        assert.equal("StateError", e.kind)
    end)
end)
