-- mp.Value and mp.RawValue. (Arrays: array_spec; cells and deaths at the
-- floor below: runtime/value_spec.c.)

local helper = require "spec.helper"
local mp = require "mp"

local failure = helper.failure

local function set(v, x)
    v.value = x
end

--- Starts `n` processes that run job(...).
local function start(n, job, ...)
    local list = {}
    for i = 1, n do
        list[i] = mp.Process{target = job, args = table.pack(...)}
        list[i]:start()
    end
    return list
end

--- Runs `n` processes to their end, which is a good one.
local function run(n, job, ...)
    for _, p in ipairs(start(n, job, ...)) do
        assert.is_true(p:join(20))
        assert.are.equal(0, p.exitcode)
    end
end

local ENDS <const> = {
    b = {-128, 127}, B = {0, 255}, h = {-32768, 32767}, H = {0, 65535},
    i = {-2147483648, 2147483647}, I = {0, 4294967295},
    l = {math.mininteger, math.maxinteger}, L = {0, math.maxinteger},
    q = {math.mininteger, math.maxinteger}, Q = {0, math.maxinteger},
}

describe("value", function()
    it("SHV-01 SHV-03 is zero by default, for every typecode", function()
        local expected = {f = 0.0, d = 0.0, c = "\0", u = "\0"}
        for code in ("cbBuhHiIlLqQfd"):gmatch(".") do
            local value = mp.Value(code).value
            assert.are.equal(expected[code] or 0, value)
            assert.are.equal(math.type(expected[code] or 0),
                math.type(value))
        end
    end)

    it("holds both ends of each integer type's range", function()
        for code, ends in pairs(ENDS) do
            local v = mp.Value(code)
            for _, x in ipairs(ends) do
                v.value = x
                assert.are.equal(x, v.value)
            end
        end
    end)

    it("SHV-03 T-M-01 refuses what is one beyond them, and keeps its value",
        function()
        for code, ends in pairs(ENDS) do
            local v = mp.Value(code, 1)
            if ends[1] > math.mininteger then
                failure("ValueError", set, v, ends[1] - 1)
            end
            if ends[2] < math.maxinteger then
                failure("ValueError", set, v, ends[2] + 1)
            end
            failure("ValueError", set, v, 2^63)
            assert.are.equal(1, v.value)
        end
    end)

    it("names value, type and range when it is out of range", function()
        local v = mp.Value("i")
        assert.are.equal("2147483648 is out of range of 'i' " ..
            "(-2147483648 to 2147483647)", failure("ValueError", set, v, 2^31))
    end)

    it("T-M-01 refuses what is no integer", function()
        local v = mp.Value("i")
        for _, x in ipairs{1.5, "x", "1", {}, true, 0/0, 1/0, print} do
            assert.are.equal("an integer is required",
                failure("TypeError", set, v, x))
        end
        assert.are.equal("an integer is required",
            failure("TypeError", set, v, nil))
    end)

    it("takes a float with an integral value as an integer", function()
        local v = mp.Value("i", 10 / 2)
        assert.are.equal("integer", math.type(v.value))
        assert.are.equal(5, v.value)
    end)

    it("T-M-01 keeps floats, and refuses what is no number", function()
        local v = mp.Value("d", 3)
        assert.are.equal("float", math.type(v.value))
        for _, x in ipairs{0.1, 1e308, 1/0, -1/0, math.pi} do
            v.value = x
            assert.are.equal(x, v.value)
        end
        v.value = 0/0
        assert.is_true(v.value ~= v.value)
        assert.are.equal("a float is required",
            failure("TypeError", set, v, "1.5"))
    end)

    it("rounds to 'f', and refuses what would become infinite", function()
        local v = mp.Value("f", 0.1)
        assert.are.equal(string.unpack("f", string.pack("f", 0.1)), v.value)
        failure("ValueError", set, v, 1e39)
        v.value = 1/0
        assert.are.equal(1/0, v.value)
    end)

    it("holds a byte as a string of length 1", function()
        local v = mp.Value("c", "\xff")
        assert.are.equal("\xff", v.value)
        for _, x in ipairs{"", "ab", "é", 65} do
            assert.are.equal("a string of one byte is required",
                failure("TypeError", set, v, x))
        end
    end)

    it("holds a character of any length in UTF-8", function()
        local v = mp.Value("u")
        for _, x in ipairs{"a", "é", "€", "😀", "\0", "\u{10ffff}"} do
            v.value = x
            assert.are.equal(x, v.value)
        end
    end)

    it("refuses as a character what is none in UTF-8", function()
        local v = mp.Value("u", "é")
        local bad = {"", "ab", "\x80", "\xc3", "\xc3\x28", "\xc0\x80",
                     "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "éé", 65}
        for _, x in ipairs(bad) do
            assert.are.equal("a string of one UTF-8 character is required",
                failure("TypeError", set, v, x))
        end
        assert.are.equal("é", v.value)
    end)

    it("SHV-01 lists the typecodes when it gets an unknown one", function()
        for _, code in ipairs{"z", "", "ii", "\0"} do
            local message = failure("TypeError", mp.Value, code, 0)
            assert.truthy(message:find("c b B u h H i I l L q Q f d", 1,
                true))
        end
        failure("TypeError", mp.Value, 5)
        failure("TypeError", mp.Value)
    end)

    it("SHV-03 takes its arguments by name", function()
        local v = mp.Value{typecode = "d", init = 2, lock = false}
        assert.are.equal("<RawValue('d', 2.0)>", tostring(v))
        assert.truthy(failure("TypeError", mp.Value,
            {typecode = "d", inti = 2}):find("'inti'", 1, true))
        assert.truthy(failure("TypeError", mp.Value, "d", 2,
            {loc = false}):find("'loc'", 1, true))
        failure("TypeError", mp.Value, "d", 2, {}, 3)
        failure("TypeError", mp.RawValue, "d", 2, {})
    end)

    it("shows type and content", function()
        assert.are.equal("<Value('i', 5)>", tostring(mp.Value("i", 5)))
        assert.are.equal("<Value('d', 5.0)>", tostring(mp.Value("d", 5)))
        assert.are.equal("<Value('u', 'é')>", tostring(mp.Value("u", "é")))
    end)

    it("has no other fields", function()
        local v = mp.Value("i")
        assert.is_nil(v.valu)
        assert.is_nil(v[1])
        assert.truthy(failure("TypeError", function()
            v.valu = 1
        end):find("'valu'", 1, true))
    end)

    it("is of no use after it was closed", function()
        local v = mp.Value("i", 1)
        do
            local closing <close> = v
        end
        assert.are.equal("<Value (closed)>", tostring(v))
        failure("StateError", set, v, 1)
        failure("StateError", v.add, v, 1)
    end)

    it("does not take another thing for itself", function()
        local v = mp.Value("i")
        for _, x in ipairs{io.stdout, 5, "v", mp.Array("i", 1)} do
            failure("TypeError", v.add, x, 1)
            failure("TypeError", v.get_lock, x == 5 and 5 or io.stdout)
        end
        failure("TypeError", v.add)
    end)
end)

describe("value:add", function()
    it("returns the new value", function()
        local v = mp.Value("i", 5)
        assert.are.equal(8, v:add(3))
        assert.are.equal(-2, v:add(-10))
        assert.are.equal(-2, v.value)
    end)

    it("takes away from an unsigned value", function()
        assert.are.equal(1, mp.Value("B", 3):add(-2))
    end)

    it("adds floats", function()
        assert.are.equal(2.75, mp.Value("d", 0.5):add(2.25))
        assert.are.equal(2.75, mp.RawValue("f", 0.5):add(2.25))
    end)

    it("raises when the sum is out of range, and changes nothing", function()
        for _, make in ipairs{mp.Value, mp.RawValue} do
            for code, ends in pairs(ENDS) do
                local v = make(code, ends[2])
                failure("ValueError", v.add, v, 1)
                assert.are.equal(ends[2], v.value)
                v.value = ends[1]
                failure("ValueError", v.add, v, -1)
                assert.are.equal(ends[1], v.value)
            end
        end
    end)

    it("refuses what is no number, and values that are none", function()
        local v = mp.Value("i")
        for _, x in ipairs{1.5, "1", {}} do
            failure("TypeError", v.add, v, x)
        end
        failure("TypeError", v.add, v)
        failure("TypeError", mp.Value("d").add, mp.Value("d"), "1")
        failure("TypeError", v.add, mp.Value("c"), 1)
        failure("TypeError", v.add, mp.Value("u"), "a")
    end)
end)

describe("value:compare_exchange", function()
    it("stores the new content if the old one is as said", function()
        for _, make in ipairs{mp.Value, mp.RawValue} do
            local v = make("i", 5)
            assert.is_false(v:compare_exchange(4, 6))
            assert.are.equal(5, v.value)
            assert.is_true(v:compare_exchange(5, 6))
            assert.are.equal(6, v.value)
        end
    end)

    it("works on every kind of type", function()
        assert.is_true(mp.Value("f", 0.1):compare_exchange(0.1, 0.2))
        assert.is_true(mp.Value("d", 0.0):compare_exchange(-0.0, 1))
        assert.is_false(mp.Value("d", 0/0):compare_exchange(0/0, 1))
        assert.is_true(mp.Value("u", "é"):compare_exchange("é", "e"))
        assert.is_true(mp.Value("c", "a"):compare_exchange("a", "b"))
    end)

    it("refuses what the type does not hold", function()
        local v = mp.Value("b", 1)
        failure("ValueError", v.compare_exchange, v, 1, 128)
        failure("TypeError", v.compare_exchange, v, 1)
        assert.are.equal(1, v.value)
    end)
end)

describe("value's lock", function()
    it("SHV-03 SHV-08 is an RLock of its own, the same object each time",
        function()
        local v, other = mp.Value("i"), mp.Value("i")
        assert.are.equal(v:get_lock(), v:get_lock())
        assert.are_not.equal(v:get_lock(), other:get_lock())
        assert.is_true(v:get_lock():acquire())
        assert.is_true(v:get_lock():acquire())
        v:get_lock():release()
        v:get_lock():release()
        failure("StateError", v.release, v)
    end)

    it("SHV-03 T-M-09 is the one that was given", function()
        for _, make in ipairs{mp.Lock, mp.RLock} do
            local lock = make()
            local v = mp.Value("i", 5, {lock = lock})
            assert.are.equal(lock, v:get_lock())
            local held <close> = lock:guard()
            v.value = v.value + 1
            assert.are.equal(7, v:add(1))
        end
    end)

    it("may lie in another value", function()
        local first = mp.Value("i", 1)
        local second = mp.Value("i", 2, {lock = first:get_lock()})
        first = nil
        collectgarbage()
        collectgarbage()
        local held <close> = second:guard()
        assert.are.equal(3, second:add(1))
    end)

    it("SHV-03 T-M-09 is refused when it is none", function()
        for _, lock in ipairs{5, "lock", {}, print, mp.Value("i")} do
            failure("TypeError", mp.Value, "i", 0, {lock = lock})
        end
    end)

    it("SHV-08 has methods on the value itself", function()
        local v = mp.Value("i")
        assert.is_true(v:acquire())
        assert.is_true(v:acquire(false))
        v:release()
        v:release()
        do
            local held <close> = v:guard()
            v.value = 1
        end
        failure("StateError", v.release, v)
    end)

    it("SHV-02 T-M-09 is not there in a raw value", function()
        for _, v in ipairs{mp.RawValue("i", 3),
                           mp.Value("i", 3, {lock = false})} do
            assert.are.equal("<RawValue('i', 3)>", tostring(v))
            assert.is_nil(v.get_lock)
            assert.has_error(function()
                v:get_lock()
            end)
            assert.are.equal(3, v.value)
        end
    end)

    it("SHV-08 is left out by get_obj", function()
        local v = mp.Value("i", 5)
        local raw = v:get_obj()
        raw.value = 6
        assert.are.equal(6, v.value)
        assert.are.equal("<RawValue('i', 6)>", tostring(raw))
    end)

    it("SHV-09 is kept by a copy if it was given, and is new else", function()
        local lock = mp.RLock()
        local v = mp.Value("i", 5, {lock = lock})
        assert.are.equal(lock, v:copy():get_lock())
        local w = mp.Value("i", 5)
        local copy = w:copy()
        copy.value = 6
        assert.are.equal(5, w.value)
        assert.are_not.equal(w:get_lock(), copy:get_lock())
    end)
end)

describe("value in processes", function()
    it("is seen by all of them, whichever way it came", function()
        local v = mp.Value("i", 1)
        local q = mp.Queue()
        local function job()
            q:put(v)
            v.value = 2
        end
        run(1, job)
        local same = q:get(true, 5)
        assert.are.equal(2, same.value)
        same.value = 3
        assert.are.equal(3, v.value)
    end)

    it("loses no sum, under its lock or by add, or both", function()
        local function job(v)
            for i = 1, 2000 do
                if i % 2 == 0 then
                    v:add(1)
                else
                    local held <close> = v:get_lock():guard()
                    v.value = v.value + 1
                end
            end
        end
        for _, lock in ipairs{true, mp.Lock(), mp.RLock()} do
            local v = mp.Value("i", 0, {lock = lock})
            run(3, job, v)
            assert.are.equal(6000, v.value)
        end
    end)

    it("loses no sum without a lock", function()
        local v = mp.RawValue("d")
        run(3, function(value)
            for _ = 1, 2000 do
                value:add(0.5)
            end
        end, v)
        assert.are.equal(3000.0, v.value)
    end)

    it("waits while another process holds its lock", function()
        local v, held = mp.Value("i", 0), mp.Event()
        local list = start(1, function()
            local lock <close> = v:guard()
            held:set()
            for i = 1, 1000 do
                v.value = i
            end
            mp.sleep(0.05)
            v.value = -1
        end)
        assert.is_true(held:wait(5))
        assert.are.equal(-1, v.value)
        assert.is_true(list[1]:join(5))
    end)

    it("does not wait for a holder that died", function()
        local v, held = mp.Value("i", 0), mp.Event()
        local list = start(1, function()
            v:acquire()
            v.value = 7
            held:set()
            mp.sleep(100)
        end)
        assert.is_true(held:wait(5))
        list[1]:kill()
        assert.are.equal(7, v.value)
        assert.are.equal(8, v:add(1))
        local acquired, how = v:get_lock():acquire()
        assert.is_true(acquired)
        assert.are.equal("abandoned", how)
        v:release()
        assert.is_true(list[1]:join(5))
    end)

    it("is not made with a lock that a finalizer closes meanwhile", function()
        helper.closed_in(mp.Lock, function(l)
            mp.Value("i", 0, {lock = l})
        end, "StateError: Value: lock is closed")
        helper.closed_in(mp.Lock, function(l)
            mp.Array("i", {1, 2, 3}, {lock = l})
        end, "StateError: Array: lock is closed")
    end)

    it("has one lock, however it travels", function()
        local v = mp.Value("i", 0)
        local copy = mp.pickle.loads(mp.pickle.dumps({v, v:get_lock()}))
        local held <close> = v:guard()
        local results = mp.Queue()
        run(1, function(lock)
            results:put(lock:acquire(false))
        end, copy[2])
        assert.is_false(results:get(true, 5))
        copy[1].value = 3
        assert.are.equal(3, v.value)
    end)
end)
