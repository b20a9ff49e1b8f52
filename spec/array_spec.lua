-- mp.Array and mp.RawArray: lists of shared cells. (Types and locks are
-- those of values: value_spec.)

local helper = require "spec.helper"
local mp = require "mp"

local failure = helper.failure

local function get(a, i)
    return a[i]
end

local function set(a, i, x)
    a[i] = x
end

--- Runs job(...) in a process, to its end.
local function run(job, ...)
    local p = mp.Process{target = job, args = table.pack(...)}
    p:start()
    assert.is_true(p:join(20))
    assert.are.equal(0, p.exitcode)
end

describe("array", function()
    it("SHV-04 SHV-05 has zeros by a length", function()
        for _, make in ipairs{mp.Array, mp.RawArray} do
            local a = make("i", 3)
            assert.are.equal(3, #a)
            assert.are.same({0, 0, 0}, a:slice())
        end
    end)

    it("T-M-03 has zeros where other arrays have been before", function()
        for _ = 1, 50 do
            local a = mp.Array("i", 100)
            for i = 1, 100 do
                assert.are.equal(0, a[i])
                a[i] = -1
            end
            a = nil
            collectgarbage()
        end
    end)

    it("SHV-05 has the content of a list", function()
        assert.are.same({1, 2, 3}, mp.Array("i", {1, 2, 3}):slice())
        assert.are.same({1.0, 2.5}, mp.Array("d", {1, 2.5}):slice())
        assert.are.same({"é", "a"}, mp.Array("u", {"é", "a"}):slice())
        assert.are.equal(0, #mp.Array("i", {}))
    end)

    it("has the content of whatever has a length and an index", function()
        local list = setmetatable({}, {
            __len = function() return 3 end,
            __index = function(_, i) return i * i end,
        })
        assert.are.same({1, 4, 9}, mp.Array("i", list):slice())
        assert.are.same({5, 6, 7}, mp.Array("i", mp.range(5, 8)):slice())
    end)

    it("has the content of another array, of another type too", function()
        local a = mp.Array("i", {1, 2})
        assert.are.same({1, 2}, mp.RawArray("i", a):slice())
        assert.are.same({1.0, 2.0}, mp.Array("d", a):slice())
        failure("ValueError", mp.Array, "b", mp.Array("i", {1000}))
        failure("TypeError", mp.Array, "i", mp.Array("d", {1.5}))
    end)

    it("has the bytes or characters of a string", function()
        assert.are.same({"a", "b"}, mp.Array("c", "ab"):slice())
        assert.are.same({"é", "€"}, mp.Array("u", "é€"):slice())
        failure("TypeError", mp.Array, "u", "\xff")
        failure("TypeError", mp.Array, "i", "ab")
    end)

    it("SHV-04 SHV-05 refuses a length that is none", function()
        assert.are.equal("Array length must be >= 0, not -1",
            failure("ValueError", mp.Array, "i", -1))
        for _, n in ipairs{1.5, 0/0, 1/0} do
            failure("TypeError", mp.Array, "i", n)
        end
        failure("TypeError", mp.Array, "i", true)
        failure("TypeError", mp.Array, "i", nil)
        failure("TypeError", mp.Array, "i", print)
    end)

    it("refuses a length for which there is no memory", function()
        for shift = 40, 62 do
            failure("OSError", mp.Array, "d", 1 << shift)
        end
        failure("OSError", mp.Array, "b", math.maxinteger)
        failure("OSError", mp.Array, "i", setmetatable({}, {
            __len = function() return math.maxinteger end,
        }))
    end)

    it("SHV-04 may be empty", function()
        local a = mp.Array("i", 0)
        assert.are.equal(0, #a)
        assert.are.same({}, a:slice())
        a:fill(1)
        a:set(1, {})
        assert.are.equal("invalid index 1 (the array is empty)",
            failure("IndexError", get, a, 1))
    end)

    it("refuses a list of lists, and other things", function()
        assert.are.equal("an integer is required",
            failure("TypeError", mp.Array, "i", {{1, 2}, {3, 4}}))
        failure("ValueError", mp.Array, "b", {1, 200})
        failure("TypeError", mp.Array, "d", {1, "2"})
    end)

    it("SHV-05 takes its arguments by name", function()
        local a = mp.Array{typecode = "i", size_or_list = {1}, lock = false}
        assert.are.equal("<RawArray('i', 1)>", tostring(a))
        failure("TypeError", mp.Array, {typecode = "i", size = 1})
        failure("TypeError", mp.Array, "i", 1, {lok = true})
        failure("TypeError", mp.Array, "i", 1, {lock = 5})
    end)

    it("shows type and length", function()
        assert.are.equal("<Array('d', 10)>", tostring(mp.Array("d", 10)))
    end)
end)

describe("array[i]", function()
    it("SHV-06 is read and written from 1 to its length", function()
        for _, make in ipairs{mp.Array, mp.RawArray} do
            local a = make("i", 3)
            a[1], a[3] = 10, 30
            a[2.0] = 20
            assert.are.same({10, 20, 30}, {a[1], a[2], a[3]})
        end
    end)

    it("SHV-06 raises outside of that, and names the ends", function()
        local a = mp.Array("i", 10)
        assert.are.equal("invalid index 11 (1 to 10)",
            failure("IndexError", get, a, 11))
        for _, i in ipairs{0, -1, 11, 1.5, 0/0, 1e300, math.mininteger,
                           math.maxinteger} do
            failure("IndexError", get, a, i)
            failure("IndexError", set, a, i, 1)
        end
    end)

    it("refuses what its type does not hold, and keeps the rest", function()
        local a = mp.Array("b", {1, 2, 3})
        failure("ValueError", set, a, 2, 128)
        failure("TypeError", set, a, 2, "x")
        failure("TypeError", set, a, 2, nil)
        assert.are.same({1, 2, 3}, a:slice())
    end)

    it("is nil for other keys, which cannot be set", function()
        local a = mp.Array("i", 1)
        assert.is_nil(a.name)
        assert.is_nil(a["1"])
        assert.is_nil(a[true])
        failure("TypeError", set, a, "name", 1)
        failure("TypeError", set, a, "1", 1)
    end)

    it("SHV-06 serves ipairs, pairs and what takes a list", function()
        local a = mp.Array("i", {3, 1, 2})
        local seen = {}
        for i, x in ipairs(a) do
            seen[i] = x
        end
        assert.are.same({3, 1, 2}, seen)
        for i, x in pairs(a) do
            seen[i] = x + 1
        end
        assert.are.same({4, 2, 3}, seen)
        assert.are.equal("3 1 2", table.concat(a, " "))
        assert.are.same({3, 1, 2}, {table.unpack(a)})
        table.sort(a)
        assert.are.same({1, 2, 3}, a:slice())
    end)
end)

describe("array's parts", function()
    it("SHV-06 are lists", function()
        local a = mp.Array("i", {1, 2, 3, 4})
        assert.are.same({2, 3}, a:slice(2, 3))
        assert.are.same({3, 4}, a:slice(3))
        assert.are.same({}, a:slice(1, 0))
        assert.are.same({}, a:slice(5))
    end)

    it("are as long as they are", function()
        local list = {}
        for i = 1, 5000 do
            list[i] = i
        end
        local a = mp.Array("q", list)
        assert.are.same(list, a:slice())
        assert.are.equal(5000, #a:slice(1, 5000))
    end)

    it("are refused when they are not inside", function()
        local a = mp.Array("i", 4)
        for _, ends in ipairs{{0}, {1, 5}, {3, 1}, {6}, {-1, 2},
                              {1, math.mininteger}} do
            failure("IndexError", a.slice, a, table.unpack(ends))
            failure("IndexError", a.fill, a, 0, table.unpack(ends))
        end
        failure("TypeError", a.slice, a, "x")
        failure("ValueError", a.slice, a, 1.5)
    end)

    it("are filled", function()
        local a = mp.Array("d", 4)
        a:fill(1.5)
        a:fill(2, 2, 3)
        assert.are.same({1.5, 2.0, 2.0, 1.5}, a:slice())
        failure("TypeError", a.fill, a, "x")
    end)

    it("are set from a list, an array, a string", function()
        local a = mp.Array("i", 4)
        a:set(2, {7, 8})
        assert.are.same({0, 7, 8, 0}, a:slice())
        a:set(1, a)
        a:set(3, mp.RawArray("b", {1, 2}))
        assert.are.same({0, 7, 1, 2}, a:slice())
        local c = mp.Array("c", 4)
        c:set(2, "abc")
        assert.are.equal("\0abc", c.raw)
    end)

    it("SHV-06 are set as a whole or not at all", function()
        local a = mp.Array("i", {1, 2, 3})
        failure("IndexError", a.set, a, 2, {7, 8, 9})
        failure("IndexError", a.set, a, 0, {7})
        failure("IndexError", a.set, a, 5, {})
        failure("TypeError", a.set, a, 1, {7, "x"})
        failure("ValueError", a.set, a, 1, {7, 2^40})
        failure("TypeError", a.set, a, 1, 7)
        assert.are.same({1, 2, 3}, a:slice())
    end)
end)

describe("array of bytes", function()
    it("SHV-07 has its bytes as one string", function()
        local a = mp.Array("c", "hello")
        assert.are.equal("hello", a.value)
        a.value = "ab"
        assert.are.equal("ab", a.value)
        assert.are.equal("ab\0lo", a.raw)
        a.raw = "\0x"
        assert.are.equal("", a.value)
        assert.are.equal("\0x\0lo", a.raw)
        a.value = "world"
        assert.are.equal("world", a.value)
    end)

    it("SHV-07 refuses what is too long, or no string", function()
        for _, a in ipairs{mp.Array("c", 3), mp.RawArray("c", 3)} do
            assert.truthy(failure("ValueError", set, a, "value", "long")
                :find("byte string too long", 1, true))
            failure("ValueError", set, a, "raw", "long")
            failure("TypeError", set, a, "value", 1)
            assert.are.equal("\0\0\0", a.raw)
        end
    end)

    it("alone has them", function()
        local a = mp.Array("b", 3)
        assert.is_nil(a.value)
        assert.is_nil(a.raw)
        failure("TypeError", set, a, "value", "abc")
    end)
end)

describe("array's object", function()
    it("SHV-09 is copied with its type, content and kind of lock", function()
        local lock = mp.Lock()
        local a = mp.Array("h", {1, 2}, {lock = lock})
        local b = a:copy()
        b[1] = 9
        assert.are.same({1, 2}, a:slice())
        assert.are.same({9, 2}, b:slice())
        assert.are.equal(lock, b:get_lock())
        assert.are.equal("<RawArray('h', 2)>",
            tostring(mp.RawArray("h", 2):copy()))
    end)

    it("has a place in memory", function()
        assert.are.equal("userdata", type(mp.Array("i", 1):pointer()))
    end)

    it("SHV-08 has a lock like a value's, or none", function()
        local a = mp.Array("i", 2)
        do
            local held <close> = a:guard()
            a[1] = a[1] + 1
        end
        assert.are.equal(a:get_lock(), a:get_lock())
        assert.are.equal("<RawArray('i', 2)>", tostring(a:get_obj()))
        assert.is_nil(mp.RawArray("i", 1).get_lock)
    end)

    it("tells the collector how large it is", function()
        local debug = require("mp.core").debug
        local most = 0
        for _ = 1, 200 do
            mp.RawArray("d", 100000)
            most = math.max(most, debug.arena_bytes())
        end
        assert.is_true(most < 60e6)
    end)
end)

describe("array in processes", function()
    it("is seen by all of them", function()
        local a = mp.Array("i", {1, 2, 3})
        run(function(array)
            for i = 1, #array do
                array[i] = array[i] * 10
            end
        end, a)
        assert.are.same({10, 20, 30}, a:slice())
    end)

    it("can be sent", function()
        local a, q = mp.RawArray("d", 3), mp.Queue()
        q:put(a)
        local same = q:get(true, 5)
        same[2] = 1.5
        assert.are.same({0.0, 1.5, 0.0}, a:slice())
    end)

    it("is seen as it is between two changes of many cells", function()
        local a, stop = mp.Array("q", 2000), mp.RawValue("i", 0)
        local p = mp.Process{target = function()
            local i = 0
            while stop.value == 0 do
                i = i + 1
                a:fill(i)
            end
        end}
        p:start()
        for _ = 1, 200 do
            local list = a:slice()
            assert.are.equal(list[1], list[2000])
        end
        stop.value = 1
        assert.is_true(p:join(5))
    end)

    it("goes on when a process is killed while it writes", function()
        local a = mp.Array("q", 2000)
        for _ = 1, 5 do
            local p = mp.Process{target = function()
                while true do
                    a:fill(a[1] + 1)
                end
            end}
            p:start()
            local from = a[1]
            while a[1] == from do
                mp.sleep(0)
            end
            p:kill()
            a:fill(0)
            assert.are.equal(0, a[2000])
            assert.is_true(p:join(5))
        end
    end)
end)
