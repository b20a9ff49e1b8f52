-- Small tasks, and how items are cut into chunks where nobody says how.

local helper = require "spec.helper"
local mp = require "mp"

describe("tiny tasks", function()
    it("PAIN-18 need no chunksize: 20,000 take less than a second", function()
        local pool <close> = mp.Pool(2)
        local function add(x) return x + 1 end
        pool:map(add, mp.range(100))
        local before = mp.monotonic()
        local list = pool:map(add, mp.range(20000))
        local seconds = mp.monotonic() - before
        assert.are.equal(20000, list.n)
        assert.are.equal(20000, list[20000])
        -- 10 microseconds each, with as much again for a busy machine; five
        -- times that under a sanitizer.
        local most = helper.sanitized and 5 or 1
        assert.is_true(seconds < most, seconds .. " s")
    end)

    it("T-W-13 give every item once, however many there are and "
        .. "however they are cut", function()
        local pool <close> = mp.Pool(4)
        local seen = mp.Array("i", 1000)
        local function note(x)
            local held <close> = seen:guard()
            seen[x] = seen[x] + 1
            return x
        end
        for _, n in ipairs{1, 4, 9, 20, 100, 1000} do
            for _, chunk in ipairs{0, 1, 2, 7, 63} do
                seen:fill(0)
                local list = pool:map(note, mp.range(1, n + 1),
                    chunk > 0 and chunk or nil)
                assert.are.equal(n, list.n)
                for i = 1, n do
                    assert.are.equal(1, seen[i])
                    assert.are.equal(i, list[i])
                end
            end
        end
    end)
end)
