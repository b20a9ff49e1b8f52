-- What mp brings because Lua lacks it: range, repr, sleep, time and the like.

local helper = require "spec.helper"
local mp = require "mp"
local core = require "mp.core"

local failure = helper.failure

local function values(range)
    local list = {}
    for x in range do
        list[#list + 1] = x
    end
    return list
end

describe("mp.range", function()
    it("goes from start up to, not including, stop", function()
        assert.are.same({0, 1, 2}, values(mp.range(3)))
        assert.are.same({2, 3}, values(mp.range(2, 4)))
        assert.are.same({2, 4, 6}, values(mp.range(2, 7, 2)))
        assert.are.same({5, 3, 1}, values(mp.range(5, 0, -2)))
        for _, empty in ipairs{mp.range(0), mp.range(-5), mp.range(3, 3),
            mp.range(1, 5, -1), mp.range(5, 1)} do
            assert.are.same({}, values(empty))
            assert.are.equal(0, #empty)
        end
    end)

    it("is a list: length, index from 1, ipairs", function()
        local r = mp.range(10, 20, 3)
        assert.are.equal(4, #r)
        assert.are.equal(10, r[1])
        assert.are.equal(19, r[4])
        assert.are.equal(13, r[2.0])
        assert.is_nil(r[0])
        assert.is_nil(r[5])
        assert.is_nil(r[-1])
        assert.is_nil(r[1.5])
        local list = {}
        for i, x in ipairs(r) do
            list[i] = x
        end
        assert.are.same({10, 13, 16, 19}, list)
        assert.are.equal(10, r.start)
        assert.are.equal(20, r.stop)
        assert.are.equal(3, r.step)
        assert.matches("cannot be assigned",
            failure("TypeError", function() r[1] = 5 end))
    end)

    it("serves several loops at once", function()
        local r, sum = mp.range(4), 0
        for x in r do
            for y in r do
                sum = sum + x * y
            end
        end
        assert.are.equal(36, sum)
    end)

    it("takes floats with an integral value, and nothing else", function()
        assert.are.same({0, 1}, values(mp.range(2.0)))
        assert.are.equal("integer", math.type(mp.range(2.0)[1]))
        assert.matches("'stop': integer expected, got 1.5",
            failure("ValueError", mp.range, 1.5))
        failure("ValueError", mp.range, 0 / 0)
        failure("ValueError", mp.range, 1 / 0)
        assert.matches("'stop': integer expected, got nil",
            failure("TypeError", mp.range))
        assert.matches("'start': integer expected, got '1'",
            failure("TypeError", mp.range, "1", 2))
        assert.matches("'step' must not be 0",
            failure("ValueError", mp.range, 1, 2, 0))
    end)

    it("reaches to the ends of the integers", function()
        local max, min = math.maxinteger, math.mininteger
        assert.are.same({max - 2, max - 1}, values(mp.range(max - 2, max)))
        assert.are.same({max - 3}, values(mp.range(max - 3, max, 10)))
        assert.are.same({min + 1}, values(mp.range(min + 1, min, -1)))
        assert.are.equal(max, #mp.range(max))
        assert.are.equal(4, #mp.range(min, max, 1 << 62))
        assert.are.equal(3, #mp.range(min, max, max))
        assert.are.equal(2, #mp.range(max, min, min))
        assert.are.equal(max // 3 * 2 + 1, #mp.range(min, max, 3))
        assert.are.same({min, min + (1 << 62), 0, 1 << 62},
            values(mp.range(min, max, 1 << 62)))
        for step = 1, 2 do
            assert.matches("more than 2%^63 ",
                failure("ValueError", mp.range, min, max, step))
        end
    end)

    it("shows itself, compares, and travels", function()
        assert.are.equal("range(0, 3)", tostring(mp.range(3)))
        assert.are.equal("range(5, 1, -2)", tostring(mp.range(5, 1, -2)))
        assert.is_true(mp.range(3) == mp.range(0, 3, 1))
        assert.is_true(mp.range(0, 4, 2) == mp.range(0, 3, 2))
        assert.is_false(mp.range(3) == mp.range(4))
        local copy = mp.pickle.loads(mp.pickle.dumps(mp.range(1, 9, 3)))
        assert.are.same({1, 4, 7}, values(copy))
        assert.are.equal(getmetatable(mp.range(1)), getmetatable(copy))
    end)
end)

describe("mp.repr", function()
    local function back(text)
        return assert(load("return " .. text))()
    end

    it("shows simple values as Lua does", function()
        local shown = {
            ["nil"] = table.pack(nil), ["true"] = {true}, ["5"] = {5},
            ["-7"] = {-7}, ["1.5"] = {1.5}, ["2.0"] = {2.0},
            ["-0.0"] = {-0.0}, ["1e+100"] = {1e100}, ["0.1"] = {0.1},
            ["math.huge"] = {1 / 0}, ["-math.huge"] = {-1 / 0},
            ["0/0"] = {0 / 0}, ["math.mininteger"] = {math.mininteger},
            ['"a"'] = {"a"}, ['"a\\nb"'] = {"a\nb"},
            ['"\\"\\\\"'] = {'"\\'}, ['"\\0001"'] = {"\0001"},
        }
        for text, value in pairs(shown) do
            assert.are.equal(text, mp.repr(value[1]))
        end
    end)

    it("shows floats so that they read back as they are", function()
        for _, x in ipairs{1 / 3, 2 ^ 53, 2 ^ 53 + 2, 5e-324, 1.1, 1e15,
            123456789.123456789} do
            local again = back(mp.repr(x))
            assert.are.equal(x, again)
            assert.are.equal("float", math.type(again))
        end
    end)

    it("shows a list, then sorted keys, on one line", function()
        assert.are.equal("{}", mp.repr({}))
        assert.are.equal("{1, 2, 3}", mp.repr{1, 2, 3})
        assert.are.equal('{1, {"x"}, a = 1, b = {c = true}}',
            mp.repr{1, {"x"}, b = {c = true}, a = 1})
        assert.are.equal('{[-1] = 1, [1.5] = 2, [10] = 3, ["a b"] = 5, ' ..
            '["end"] = 4, z = 6, [false] = 7}',
            mp.repr{[-1] = 1, [1.5] = 2, [10] = 3, ["end"] = 4,
                ["a b"] = 5, z = 6, [false] = 7})
        assert.are.equal("{[2] = 5}", mp.repr{nil, 5})
    end)

    it("is Lua source for the same table", function()
        local t = {1, {2, x = {"\n\r\0", -0.5}}, ["a-b"] = false, [7] = "y"}
        assert.are.same(t, back(mp.repr(t)))
    end)

    it("shows cycles, and what is shared but is none", function()
        local t, shared = {1}, {2}
        t.self = t
        t.a, t.b = shared, shared
        assert.are.equal("{1, a = {2}, b = {2}, self = <cycle>}",
            mp.repr(t))
    end)

    it("shows objects by their own text, and functions by place", function()
        assert.are.equal("{range(0, 3)}", mp.repr{mp.range(3)})
        assert.matches("^<function .*helpers_spec.lua:%d+>$",
            mp.repr(function() end))
        assert.matches("^<function: builtin", (mp.repr(print)
            :gsub("0x%x+", "builtin")))
        assert.matches("^<thread: ", mp.repr(coroutine.create(print)))
        assert.matches("^<file %(", mp.repr(io.stdout))
        local hidden = setmetatable({1}, {__index = {x = 5},
            __pairs = function() error("not asked") end,
            __len = function() return 9 end})
        assert.are.equal("{1}", mp.repr(hidden))
    end)
end)

describe("clocks and sleep", function()
    it("sleep for the time that was asked", function()
        local before = mp.monotonic()
        mp.sleep(0.03)
        assert.is_true(mp.monotonic() - before >= 0.03)
        before = mp.monotonic()
        mp.sleep(0)
        mp.sleep(-5)
        mp.sleep(-1 / 0)
        assert.is_true(mp.monotonic() - before < 1)
    end)

    it("refuse what is no time", function()
        failure("ValueError", mp.sleep, 0 / 0)
        assert.matches("sleep: .*seconds.*got no value",
            failure("TypeError", mp.sleep))
        assert.matches("got nil", failure("TypeError", mp.sleep, nil))
        assert.matches("got string", failure("TypeError", mp.sleep, "1"))
    end)

    it("agree with the system's", function()
        assert.is_true(math.abs(mp.time() - os.time()) < 2)
        local a, b = mp.monotonic(), mp.monotonic()
        assert.is_true(b >= a)
        assert.are.equal("float", math.type(mp.time()))
    end)
end)

describe("numbers of this process", function()
    it("are those of /proc", function()
        local file <close> = io.open("/proc/self/stat")
        local pid, ppid = file:read("a"):match("^(%d+) %(.*%) %a (%d+)")
        assert.are.equal(tonumber(pid), mp.getpid())
        assert.are.equal(tonumber(ppid), mp.getppid())
    end)

    it("MOD-01 count the processors that it may use", function()
        local pipe <close> = io.popen("nproc")
        local n = pipe:read("n")
        assert.is_true(mp.cpu_count() >= 1 and mp.cpu_count() <= n)
    end)

    it("count its children, descriptors, objects and bytes", function()
        local fds = #core.debug.fds()
        local objects = core.debug.objects()
        local bytes = core.debug.arena_bytes()
        local file = io.open("/dev/null")
        local lock <const> = {mp.Lock()}
        assert.are.equal(fds + 1, #core.debug.fds())
        assert.are.equal(objects + 1, core.debug.objects())
        assert.is_true(core.debug.arena_bytes() > bytes)
        file:close()
        lock[1] = nil
        collectgarbage()
        assert.are.equal(fds, #core.debug.fds())
        assert.are.equal(objects, core.debug.objects())
        assert.are.equal(bytes, core.debug.arena_bytes())
        assert.are.same({}, core.debug.children())
    end)
end)
