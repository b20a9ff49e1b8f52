-- mp.pickle.loads of damaged and hostile strings: an error, never a crash,
-- never much memory. (The same without bounds: spec/fuzz/fuzz_loads.c.)

local pickle = require "mp.pickle"

local refusal = require("spec.pickle_tools").refusal

--- The head of a string that needs nothing.
local HEAD <const> = pickle.dumps(nil):sub(1, -2)

local TABLE <const>, META <const>, END <const> = "\xca", "\xd4", "\xdc"
local NIL <const>, FLOAT <const>, REF <const> = "\xc0", "\xc4", "\xd7"

--- loads() of a hand-made body.
local function refused(body)
    return refusal(pickle.loads, HEAD .. body)
end

--- loads() that may raise nothing but PicklingError, nor take more than
--- `limit` KiB.
local function survive(s, limit)
    collectgarbage("stop")
    local before = collectgarbage("count")
    local ok, e = pcall(pickle.loads, s)
    local used = collectgarbage("count") - before
    collectgarbage("restart")
    if not ok and not (type(e) == "table" and e.kind == "PicklingError") then
        error(("%q raised %s"):format(s, e))
    end
    if used > limit then
        error(("%d bytes took %.0f KiB"):format(#s, used))
    end
end

--- A value with everything in it that needs no trust.
local function rich_value()
    local shared, long = { 1, 2.5, "x" }, ("long"):rep(100)
    local t = { shared, shared, long, long, -1, 1 << 40, print, string, _G,
        true, false, nil, "end", [shared] = 1, [2.5] = { n = {} } }
    t.self = t
    for i = 1, 300 do
        t["key" .. i] = { id = i, name = "n" }
    end
    local Class = {}
    pickle.register("spec.rich" .. tostring(Class), Class, function()
        return shared, 1
    end, table.pack)
    t.object = setmetatable({}, Class)
    return t
end

--- A linear congruential generator: the same numbers in every run.
local function generator(state)
    return function(n)
        state = state * 6364136223846793005 + 1442695040888963407
        return (state >> 33) % n + 1
    end
end

describe("pickle.loads", function()
    it("wants a string", function()
        for _, v in ipairs { 1, {}, print, true } do
            local ok, e = pcall(pickle.loads, v)
            assert.is_false(ok)
            assert.are.equal("TypeError", e.kind)
        end
        assert.is_false((pcall(pickle.loads)))
        assert.is_false((pcall(pickle.dumps)))
    end)

    it("wants known options", function()
        local s = pickle.dumps(1)
        assert.are.equal(1, pickle.loads(s, { trusted = false }))
        local ok, e = pcall(pickle.loads, s, { trust = true })
        assert.is_false(ok)
        assert.are.equal("TypeError", e.kind)
        assert.matches("'trust'", e.message, 1, true)
        assert.is_false((pcall(pickle.loads, s, 1)))
    end)

    it("knows its own strings", function()
        for _, s in ipairs { "", "junk", "\27Lua", HEAD:sub(1, 4), HEAD } do
            refusal(pickle.loads, s)
        end
        local other = HEAD:sub(1, 4) .. "\99" .. HEAD:sub(6)
        assert.matches("format 99", refusal(pickle.loads, other .. NIL))
        refusal(pickle.loads, HEAD:sub(1, 6) .. "\xff" .. ("x"):rep(99))
        assert.matches("exactly one", refused(NIL .. NIL))
    end)

    it("refuses a string that is cut off anywhere", function()
        local s = pickle.dumps(rich_value())
        for n = 0, #s - 1 do
            refusal(pickle.loads, s:sub(1, n))
        end
    end)

    it("refuses references to what is not there", function()
        refused(REF .. "\0")
        refused(REF .. "\xff\xff\xff\xff\xff\xff\xff\xff\xff\1")
        refused("\xa0")
        refused("\xd9\x40")
        refused("\xd8\0")
    end)

    it("refuses impossible keys", function()
        refused(TABLE .. "\1\0" .. NIL .. NIL)
        refused(TABLE .. "\1\0" .. FLOAT .. string.pack("<d", 0 / 0) .. NIL)
    end)

    it("refuses metatables that came by value", function()
        refused(META .. TABLE .. "\0\0" .. TABLE .. "\0\0")
        refused(TABLE .. "\0\2" .. "\xcb\0\0" .. META .. REF .. "\1"
            .. TABLE .. "\0\0")
        refused(META .. "\xd5\2\6string\6format" .. TABLE .. "\0\0")
        refused(META .. "\xd5\1\6string" .. NIL)
    end)

    it("refuses calls and code without a seal", function()
        assert.matches("family", refused("\xce\1" .. NIL))
        assert.matches("family", refused("\xcc\0"))
        assert.matches("family", refused("\xd2\1\1\1\1"))
        assert.matches("not loaded", refused("\xd5\1\9no.module"))
        assert.matches("registered", refused("\xd6\4none"))
        assert.matches("registered", refused("\xd0\4none\0"))
    end)

    it("does not make room for what is only announced", function()
        for _, n in ipairs { "\xff\xff\x03", "\xff\xff\xff\xff\x07",
            "\xff\xff\xff\xff\xff\xff\xff\xff\xff\1" } do
            assert.matches("announced", refused(TABLE .. "\0" .. n))
            refused("\xc5" .. n)
            refused("\xc6" .. n)
            refused("\xd0" .. n)
        end
        for hint = 0xe0, 0xff do
            survive(HEAD .. TABLE .. string.char(hint) .. "\0" .. END, 64)
        end
    end)

    it("does not make room again at each level", function()
        local items = (TABLE .. "\0\xff\x3f"):rep(20000)
        survive(HEAD .. items, 4000)
        local pairs_of_keys = (TABLE .. "\xea\0"):rep(20000)
        survive(HEAD .. pairs_of_keys, 6000)
    end)

    it("survives nesting without end", function()
        survive(HEAD .. (TABLE .. "\0\1"):rep(100000), 40000)
        survive(HEAD .. (TABLE .. "\1\0"):rep(100000), 40000)
        survive(HEAD .. NIL:rep(2000000), 64)
    end)

    it("survives every byte being another", function()
        local s = pickle.dumps { 1, -40, 1e9, "s", ("x"):rep(50), { a = 1.5 },
            { a = true, b = print }, { [true] = { 1 } } }
        for i = #HEAD + 1, #s do
            for byte = 0, 255 do
                survive(s:sub(1, i - 1) .. string.char(byte) .. s:sub(i + 1),
                    100)
            end
        end
    end)

    it("survives random changes", function()
        local random = generator(20261120)
        local base = pickle.dumps(rich_value())
        for _ = 1, 2000 do
            local s = base
            for _ = 1, random(4) do
                local i, n = random(#s), random(9) - 1
                local piece = ({
                    string.char(random(256) - 1), "",
                    s:sub(random(#s)):sub(1, n),
                })[random(3)]
                s = s:sub(1, i - 1) .. piece .. s:sub(i + random(2))
            end
            survive(s, 3000)
        end
    end)

    it("survives random bytes", function()
        local random = generator(1)
        for _ = 1, 3000 do
            local bytes = {}
            for i = 1, random(60) do
                bytes[i] = string.char(random(3) == 1 and random(64) + 191
                    or random(256) - 1)
            end
            survive(HEAD .. table.concat(bytes), 100)
        end
    end)
end)

describe("the seal of strings with code", function()
    local function answer() return 42 end

    --- `s` with one bit changed at `i`.
    local function flip(s, i)
        return s:sub(1, i - 1) .. string.char(s:byte(i) ~ 1) .. s:sub(i + 1)
    end

    it("covers every byte", function()
        local s = pickle.dumps(answer)
        for i = 1, #s do
            refusal(pickle.loads, flip(s, i))
        end
        assert.are.equal(42, pickle.loads(s)())
    end)

    it("can be waived for code", function()
        local s = pickle.dumps(answer)
        s = flip(s, #s)
        assert.matches("trusted=true", refusal(pickle.loads, s))
        assert.are.equal(42, pickle.loads(s, { trusted = true })())
    end)

    it("is not there when nothing needs it", function()
        assert.are.equal(#HEAD + 1, #pickle.dumps(1))
    end)
end)
