-- mp.pickle: values that are rare, deep, wide or hostile, and what errors say
-- of them. (The usual ones: pickle_spec.)

local pickle = require "mp.pickle"
local tools = require "spec.pickle_tools"

local copy, refusal, with_module = tools.copy, tools.refusal,
    tools.with_module

describe("pickle of odd values", function()
    it("keeps strings of any bytes and size as keys", function()
        local t = {}
        for _, n in ipairs {0, 1, 31, 32, 39, 40, 41, 255, 256, 70000} do
            t[("\0\xff"):rep(n // 2 + 1):sub(1, n)] = n
        end
        assert.are.same(t, copy(t))
        assert.are.same({t, t}, copy {t, t})
    end)

    it("keeps keys that differ in their last byte only", function()
        local t = {}
        for _, n in ipairs {8, 40, 41, 300} do
            for i = 0, 40 do
                t[("k"):rep(n - 1) .. string.char(i)] = n * 100 + i
            end
        end
        assert.are.same({t, t}, copy {t, t})
    end)

    it("writes no key of an array, nor where it begins with a hole or has "
        .. "fields", function()
        local plain, hole, fields = {}, {}, {x = 1}
        for i = 1, 1000 do
            plain[i], hole[i], fields[i] = i % 90, i % 90, i % 90
        end
        hole[1] = nil
        for _, t in ipairs {plain, hole, fields} do
            assert.is_true(#pickle.dumps(t) < 1000 + 20)
            assert.are.same(t, copy(t))
        end
    end)

    it("keeps extreme numbers, as values and as keys", function()
        local huge, tiny = math.huge, 5e-324
        local t = {math.mininteger, math.maxinteger, huge, -huge, tiny,
            1.7976931348623157e308, 2 ^ 63, -2.0 ^ 63}
        local keyed = {}
        for i, v in ipairs(t) do
            keyed[v] = i
        end
        local c = copy {t, keyed}
        for i, v in ipairs(t) do
            assert.are.equal(v, c[1][i])
            assert.are.equal(math.type(v), math.type(c[1][i]))
            assert.are.equal(keyed[v], c[2][v])
        end
        assert.are.equal(-huge, 1 / copy(-0.0))
        assert.is_true(copy(0 / 0) ~= copy(0 / 0))
    end)

    it("keeps keys that are floats of integral value", function()
        local t = {}
        t[2 ^ 53], t[1.0], t[-3.0], t[2 ^ 63] = "a", "b", "c", "d"
        local c = copy(t)
        assert.are.same(t, c)
        assert.are.equal("b", c[1])
        assert.are.equal("d", c[2.0 ^ 63])
    end)

    it("keeps tables with n, holes, and n that lies", function()
        for _, t in ipairs {table.pack(nil, nil), {n = 3}, {1, n = -1},
            {nil, nil, 3, n = "three"}, {[0] = 0, 1, [3] = 3}} do
            assert.are.same(t, copy(t))
        end
    end)

    it("asks no metamethod while it packs", function()
        local Class = with_module(finally, "spec.odd", {})
        for _, name in ipairs {"__pairs", "__len", "__index", "__newindex",
            "__eq", "__call", "__tostring", "__name", "__metatable",
            "__ipairs", "__hash"} do
            Class[name] = function() error(name .. " was called", 0) end
        end
        local o = setmetatable({1, 2, x = {y = 1}}, Class)
        local c = copy {o, {o}}
        assert.are.equal(Class, debug.getmetatable(c[1]))
        assert.are.equal(2, rawlen(c[1]))
        assert.are.equal(1, rawget(c[1], "x").y)
    end)

    it("gives back finalizers with their class", function()
        local Class = with_module(finally, "spec.odd", {})
        local gone = 0
        function Class.__gc() gone = gone + 1 end
        local o = setmetatable({}, Class)
        assert.are.equal(Class, getmetatable(copy(o)))
        collectgarbage()
        collectgarbage()
        assert.are.equal(1, gone)
        assert.are.equal(Class, getmetatable(o))
    end)

    it("keeps weak tables of a class weak", function()
        local Weak = with_module(finally, "spec.odd", {__mode = "v"})
        local kept = {}
        local c = copy {setmetatable({kept, {}}, Weak), kept}
        collectgarbage()
        assert.are.equal(c[2], c[1][1])
        assert.is_nil(c[1][2])
    end)

    it("refuses weak tables that have no name", function()
        assert.matches("value.cache; register", refusal(pickle.dumps,
            {cache = setmetatable({}, {__mode = "k"})}), 1, true)
    end)

    it("refuses light userdata", function()
        local light = debug.upvalueid(function() return pickle end, 1)
        assert.matches("a light userdata: value.p$",
            refusal(pickle.dumps, {p = light}))
    end)
end)

describe("pickle of the deep and the wide", function()
    --- How often `step` leads on from `o`.
    local function length(o, step)
        local n = 0
        o = step(o)
        while o do
            o, n = step(o), n + 1
        end
        return n
    end

    it("takes 1,000,000 levels", function()
        local t = {}
        for _ = 1, 1000000 do
            t = {t}
        end
        assert.are.equal(1000000, length(copy(t), function(o)
            return o[1]
        end))
    end)

    it("takes 100,000 objects reduced in each other", function()
        local Class = with_module(finally, "spec.odd", {})
        function Class.new(inner)
            return setmetatable({inner = inner}, Class)
        end
        function Class:__reduce() return Class.new, self.inner end
        local o = Class.new()
        for _ = 1, 100000 do
            o = Class.new(o)
        end
        assert.are.equal(100000, length(copy(o), function(c)
            return c.inner
        end))
    end)

    it("takes classes of classes of classes", function()
        local m = with_module(finally, "spec.odd", {})
        local class = nil
        for i = 1, 300 do
            class = setmetatable({__index = class}, class)
            m["C" .. i] = class
        end
        local c = copy(setmetatable({1}, class))
        assert.are.equal(class, getmetatable(c))
    end)

    it("takes tables, functions and objects in turn", function()
        local Class = with_module(finally, "spec.odd", {})
        local o = {}
        for i = 1, 30000 do
            local inner = o
            if i % 3 == 0 then
                o = {inner}
            elseif i % 3 == 1 then
                o = function() return inner end
            else
                o = setmetatable({[1] = inner}, Class)
            end
        end
        assert.are.equal(30000, length(copy(o), function(c)
            return type(c) == "function" and c() or
                type(c) == "table" and c[1] or nil
        end))
    end)

    it("takes 100,000 functions that share an upvalue", function()
        local n, list = 0, {}
        for i = 1, 100000 do
            list[i] = function() n = n + 1 return n end
        end
        local c = copy(list)
        c[1]()
        c[50000]()
        assert.are.equal(3, c[100000]())
    end)

    it("keeps tables of any number of pairs", function()
        for _, around in ipairs {1, 32, 224, 256, 512, 1024, 65536} do
            for n = around - 1, around + 1 do
                local t = {}
                for i = 1, n do
                    t[i * 1.5 + 0.25] = i
                end
                assert.are.same(t, copy(t))
            end
        end
    end)

    it("takes a table of 100,000 tables as keys", function()
        local t = {}
        for i = 1, 100000 do
            t[{i}] = i
        end
        local n = 0
        for key, value in pairs(copy(t)) do
            if key[1] ~= value then
                error("key " .. value)
            end
            n = n + 1
        end
        assert.are.equal(100000, n)
    end)
end)

describe("a refusal", function()
    local co = coroutine.create(print)

    it("says the whole path", function()
        local args = {1, {handlers = {}}}
        args[2].handlers.on_done = function() return co end
        local place = debug.getinfo(args[2].handlers.on_done, "S")
        assert.are.equal(("cannot pickle a coroutine: value[2].handlers."
            .. "on_done, upvalue 'co' of function at %s:%d"):format(
            place.short_src, place.linedefined), refusal(pickle.dumps, args))
    end)

    it("shows both ends of a long path", function()
        local t = {last = co}
        for i = 1000, 1, -1 do
            t = {["k" .. i] = t}
        end
        local message = refusal(pickle.dumps, t)
        assert.matches("value.k1.k2.k3.", message, 1, true)
        assert.matches("more)... ", message, 1, true)
        assert.matches(".k999.k1000.last", message, 1, true)
        assert.is_true(#message < 500)
    end)

    it("stays short when names are long", function()
        local long = ("long"):rep(100000)
        local t = co
        for i = 1, 100 do
            t = {[long .. i] = t}
        end
        assert.is_true(#refusal(pickle.dumps, t) < 2000)
        _G[long] = function() return co end
        finally(function() _G[long] = nil end)
        assert.is_true(#refusal(pickle.dumps, {_G[long]}) < 500)
        local named = setmetatable({}, {__name = long})
        assert.is_true(#refusal(pickle.dumps, {named}) < 500)
        local f = load(("local %s = ... return function() return %s end")
            :format(long, long))(co)
        assert.is_true(#refusal(pickle.dumps, f) < 500)
    end)

    it("shows keys of every kind", function()
        local function path(key)
            return refusal(pickle.dumps, {[key] = co})
                :match("coroutine: value(.*)")
        end
        assert.are.equal("[7]", path(7))
        assert.are.equal("[-1.5]", path(-1.5))
        assert.are.equal("[true]", path(true))
        assert.are.equal(".name_1", path("name_1"))
        assert.are.equal("[\"two words\"]", path("two words"))
        assert.are.equal("[\"a\\000\\010\\127\"]", path("a\0\n\127"))
        assert.are.equal("[a table]", path({}))
        assert.are.equal("[a coroutine] (the key)",
            refusal(pickle.dumps, {[co] = 1}):match("value(.*)")
            :gsub("thread", "coroutine"))
    end)
end)

describe("pickle.loads of hostile bytes", function()
    local HEAD <const> = pickle.dumps(nil):sub(1, -2)

    --- Seconds of processor time that the refusal took.
    local function time(body)
        local start = os.clock()
        refusal(pickle.loads, HEAD .. body)
        return os.clock() - start
    end

    it("takes a name of 300,000 parts in no time", function()
        local parts = ("\2_G"):rep(300000)
        assert.is_true(time("\xd5\xe1\xa7\x12" .. parts .. "\4none") < 2)
        assert.matches("there is no '_G._G._G",
            refusal(pickle.loads, HEAD .. "\xd5\xe1\xa7\x12" .. parts
                .. "\4none"), 1, true)
    end)

    it("refuses more pairs than a table announced, and fewer", function()
        local function body(n) -- announces 3 or 4
            return "\xca\xe2\0" .. ("\x21\x21"):rep(n) .. "\xdc"
        end
        refusal(pickle.loads, HEAD .. body(2))
        assert.are.same({1}, pickle.loads(HEAD .. body(3)))
        assert.are.same({1}, pickle.loads(HEAD .. body(4)))
        assert.matches("more pairs than were announced",
            refusal(pickle.loads, HEAD .. body(5)))
    end)

    it("gives up when keys are chosen to collide", function()
        local function varint(n)
            local s = ""
            while n >= 128 do
                s, n = s .. string.char(n % 128 + 128), n // 128
            end
            return s .. string.char(n)
        end
        local modulus = (1 << 18) - 1 -- where 200,000 pairs have 2^18 nodes
        local parts = {"\xca", string.char(224 + 18), "\0"}
        for i = 1, 200000 do
            parts[#parts + 1] = "\xc3" .. varint(2 * i * modulus) .. "\xc2"
        end
        parts[#parts + 1] = "\xdc"
        assert.is_true(time(table.concat(parts)) < 15)
    end)

    it("takes 100,000 references to the same things", function()
        local one = "\xcb\0\0" .. ("\xd7\0"):rep(100000)
        assert.is_true(time("\xca\0\xa1\x8d\6" .. one) < 2)
    end)
end)
