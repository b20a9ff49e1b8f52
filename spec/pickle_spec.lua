-- mp.pickle: values, classes, refusals. (Functions: pickle_code_spec;
-- damaged strings: pickle_damage_spec.)

local pickle = require "mp.pickle"
local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pickle_tools"

local failure = helper.failure
local copy, with_module = tools.copy, tools.with_module

local function refusal(v)
    return tools.refusal(pickle.dumps, v)
end

describe("pickle of scalars", function()
    it("keeps nil and booleans", function()
        assert.is_nil(copy(nil))
        assert.is_true(copy(true))
        assert.is_false(copy(false))
    end)

    it("keeps integers of every length", function()
        for shift = 0, 63 do
            local power = 1 << shift
            for _, n in ipairs { power, -power, power - 1 } do
                assert.are.equal(n, copy(n))
                assert.are.equal("integer", math.type(copy(n)))
            end
        end
    end)

    it("keeps floats floats", function()
        for _, x in ipairs { 0.0, 1.0, -1.5, 1e300, 2 ^ 53, 1 / 0, -1 / 0 } do
            assert.are.equal(x, copy(x))
            assert.are.equal("float", math.type(copy(x)))
        end
    end)

    it("keeps the sign of zero and the bits of NaN", function()
        for _, bits in ipairs { 1 << 63, 0x7ff8000000000123,
            -0x7ffffffffffed } do
            local x = string.unpack("d", string.pack("i8", bits))
            assert.are.equal(bits, (string.unpack("i8",
                string.pack("d", copy(x)))))
        end
    end)

    it("keeps strings of any bytes and length", function()
        local all = {}
        for byte = 0, 255 do
            all[#all + 1] = string.char(byte)
        end
        local s = table.concat(all)
        for _, n in ipairs { 0, 1, 31, 32, 40, 41, 127, 128, 255, 256,
            70000 } do
            local part = s:rep(n // 256 + 1):sub(1, n)
            assert.are.equal(part, copy(part))
        end
    end)

    it("takes strings of many megabytes", function()
        local s = ("0123456789abcdef"):rep(1 << 20)
        assert.is_true(copy(s) == s)
    end)
end)

describe("pickle of tables", function()
    it("keeps lists, records and mixtures", function()
        local t = { 1, "two", { 3 }, x = { y = { z = "deep" } }, [10] = 10 }
        assert.are.same(t, copy(t))
    end)

    it("keeps keys of every kind", function()
        local t = { [1.5] = 1, [true] = 2, [false] = 3, [-7] = 4,
            [math.mininteger] = 5, [("k"):rep(300)] = 6, [""] = 7,
            [math.huge] = 8 }
        assert.are.same(t, copy(t))
    end)

    it("keeps holes", function()
        assert.are.same({ 1, nil, 3, nil, nil, 6 },
            copy { 1, nil, 3, nil, nil, 6 })
        local packed = copy(table.pack(nil, nil, 3, nil))
        assert.are.equal(4, packed.n)
        assert.are.equal(3, packed[3])
        assert.are.same({ [1 << 40] = 1, [2] = 2 },
            copy { [1 << 40] = 1, [2] = 2 })
    end)

    it("is not misled by powers of two as keys", function()
        local t = {}
        for i = 0, 62 do
            t[1 << i] = i
        end
        assert.are.same(t, copy(t))
    end)

    it("keeps integer keys wherever Lua stores them", function()
        local t = {}
        for i = 1000, 1, -1 do
            t[i] = i
            t["s" .. i] = i
        end
        assert.are.same(t, copy(t))
    end)

    it("keeps cycles", function()
        local t = { name = "t", list = {} }
        t.self, t.list[1] = t, t
        local c = copy(t)
        assert.are.equal(c, c.self)
        assert.are.equal(c, c.list[1])
        assert.are_not.equal(t, c)
    end)

    it("keeps one table one", function()
        local shared = { 1 }
        local c = copy { shared, { shared }, key = shared }
        assert.are.equal(c[1], c[2][1])
        assert.are.equal(c[1], c.key)
    end)

    it("keeps tables and functions as keys", function()
        local key = { "key" }
        local c = copy { [key] = "value", key = key, [print] = "print" }
        assert.are.equal("value", c[c.key])
        assert.are.equal("print", c[print])
    end)

    it("keeps a table that is its own key and value", function()
        local t = {}
        t[t] = t
        local c = copy(t)
        assert.are.equal(c, c[c])
    end)

    it("sends a long string once", function()
        local long = ("x"):rep(10000)
        assert.is_true(#pickle.dumps { long, long, long } < 11000)
        assert.are.same({ long, long }, copy { long, long })
    end)

    it("makes tables that are ordinary", function()
        local c = copy { 1, 2, 3 }
        assert.are.equal("table", type(c))
        assert.are.equal(3, #c)
        table.insert(c, 4)
        assert.are.same({ 1, 2, 3, 4 }, c)
    end)

    it("keeps an error value that is a table", function()
        local _, e = pcall(error, { code = 7 })
        assert.are.same({ code = 7 }, copy(e))
    end)
end)

describe("pickle of large things", function()
    --- A chain of `n` tables, each made from the last by `wrap`.
    local function chain(n, wrap)
        local t = {}
        for i = 1, n do
            t = wrap(t, i)
        end
        return t
    end

    --- How deep, when `unwrap` leads one table further.
    local function depth(t, unwrap)
        local n = -1
        while t do
            t, n = unwrap(t), n + 1
        end
        return n
    end

    it("takes values nested 100,000 deep", function()
        local t = copy(chain(100000, function(inner, i)
            return { i, x = inner, y = {} }
        end))
        assert.are.equal(100000, depth(t, function(o) return o.x end))
    end)

    it("takes lists nested 100,000 deep", function()
        local t = copy(chain(100000, function(inner) return { 0, inner } end))
        assert.are.equal(100000, depth(t, function(o) return o[2] end))
    end)

    it("takes keys nested 100,000 deep", function()
        local t = copy(chain(100000, function(inner)
            return { [inner] = 1 }
        end))
        assert.are.equal(100000, depth(t, next))
    end)

    it("goes up and down at any depth", function()
        local t = chain(1000, function(inner, i)
            return { { { i } }, inner, { [{ i }] = inner } }
        end)
        t = copy(t)
        for i = 1000, 1, -1 do
            assert.are.equal(i, t[1][1][1])
            local key = next(t[3])
            assert.are.equal(i, key[1])
            assert.are.equal(t[2], t[3][key])
            t = t[2]
        end
    end)

    it("takes a million items", function()
        local t, map = {}, {}
        for i = 1, 1000000 do
            t[i] = i * 3
            map[i * 7] = false
        end
        local c = copy { t, map }
        for i = 1, 1000000 do
            if c[1][i] ~= i * 3 or c[2][i * 7] ~= false then
                error("item " .. i)
            end
        end
        assert.are.equal(1000000, #c[1])
    end)

    it("takes 100,000 tables shared among each other", function()
        local t = {}
        for i = 1, 100000 do
            t[i] = { id = i, before = t[i - 1], first = t[1] }
        end
        local c = copy(t)
        for i = 2, 100000 do
            if c[i].before ~= c[i - 1] or c[i].first ~= c[1] then
                error("table " .. i)
            end
        end
    end)

    it("takes 100,000 different keys", function()
        local t = {}
        for i = 1, 100000 do
            t["key " .. i] = i
        end
        assert.are.same(t, copy(t))
    end)
end)

describe("pickle of objects", function()
    it("sends the class as a field of a loaded module", function()
        local Point = with_module(finally, "spec.point", { Point = {} }).Point
        Point.__index = Point
        function Point:sum() return self.x + self.y end

        local p = copy(setmetatable({ x = 1, y = 2 }, Point))
        assert.are.equal(Point, getmetatable(p))
        assert.are.equal(3, p:sum())
    end)

    it("sends the class as a loaded module", function()
        local Class = with_module(finally, "spec.class", {})
        assert.are.equal(Class, getmetatable(copy(setmetatable({}, Class))))
    end)

    it("sends a class itself by name", function()
        local m = with_module(finally, "spec.class", { Class = {} })
        m.Class.__index = m.Class
        function m.Class.method() end
        assert.are.equal(m.Class, copy { m.Class }[1])
    end)

    it("finds a class that its module got later", function()
        local m = with_module(finally, "spec.class", {})
        copy { print }
        m.Late = { method = function() end }
        m.Late.__index = m.Late
        assert.are.equal(m.Late, copy(m.Late))
        m.Later = {}
        assert.are.equal(m.Later, getmetatable(copy(setmetatable({},
            m.Later))))
    end)

    it("sends the fields of a module that are no classes by value", function()
        local m = with_module(finally, "spec.data", { settings = { 1 } })
        local c = copy(m.settings)
        assert.are.same({ 1 }, c)
        assert.are_not.equal(m.settings, c)
    end)

    it("keeps objects one, with the metatable named once", function()
        local Class = with_module(finally, "spec.class", {})
        local o = setmetatable({}, Class)
        local many = {}
        for i = 1, 100 do
            many[i] = setmetatable({}, Class)
        end
        local c = copy { o, o }
        assert.are.equal(c[1], c[2])
        assert.is_true(#pickle.dumps(many) < 100 * 8)
    end)

    it("keeps a cycle through objects", function()
        local Class = with_module(finally, "spec.class", {})
        local a = setmetatable({}, Class)
        a.b = setmetatable({ a = a }, Class)
        local c = copy(a)
        assert.are.equal(c, c.b.a)
        assert.are.equal(Class, getmetatable(c.b))
    end)

    it("gives metatables to objects nested deeply", function()
        local Class = with_module(finally, "spec.class", {})
        local o
        for _ = 1, 1000 do
            o = setmetatable({ o, next = o }, Class)
        end
        o = copy(o)
        local n = 0
        while o do
            assert.are.equal(Class, getmetatable(o))
            assert.are.equal(o[1], o.next)
            o, n = o.next, n + 1
        end
        assert.are.equal(1000, n)
    end)

    it("keeps error objects whole", function()
        local _, e = pcall(pickle.loads, "junk")
        e.extra = { 1 }
        local c = copy(e)
        assert.are.equal(getmetatable(e), getmetatable(c))
        assert.are.equal(tostring(e), tostring(c))
        assert.are.same({ 1 }, c.extra)
    end)
end)

describe("pickle.register", function()
    it("names a metatable", function()
        local Class = {}
        pickle.register("spec.named", Class)
        local c = copy { setmetatable({ 5 }, Class), Class }
        assert.are.equal(Class, getmetatable(c[1]))
        assert.are.equal(5, c[1][1])
        assert.are.equal(Class, c[2])
    end)

    it("takes functions to reduce and rebuild", function()
        local Class = {}
        pickle.register("spec.reduced", Class, function(o)
            return o.a, nil, o.c
        end, function(...)
            return setmetatable({ n = select("#", ...), ... }, Class)
        end)
        local o = setmetatable({ a = 1, c = { 2 }, cache = print }, Class)
        local c = copy { o, o }
        assert.are.equal(c[1], c[2])
        assert.are.same({ n = 3, 1, nil, { 2 } },
            setmetatable(c[1], nil))
    end)

    it("works for userdata", function()
        pickle.register("spec.file", getmetatable(io.stdout), function(f)
            return f == io.stdout and "stdout" or error("no")
        end, function(name)
            return io[name]
        end)
        finally(function() -- and files are refused again
            pickle.register("spec.file", getmetatable(io.stdout))
        end)
        assert.are.equal(io.stdout, copy { io.stdout }[1])
    end)

    it("lets the hooks pickle", function()
        local Class = {}
        pickle.register("spec.nested", Class, function(o)
            return o[1] and pickle.dumps(o[1])
        end, function(s)
            return setmetatable({ s and pickle.loads(s) }, Class)
        end)
        local o = setmetatable({}, Class)
        for _ = 1, 10 do
            o = setmetatable({ o }, Class)
        end
        local c, n = copy(o), 0
        while c[1] do
            c, n = c[1], n + 1
        end
        assert.are.equal(10, n)
    end)

    it("passes on what a hook raises, and works after", function()
        local Class = {}
        pickle.register("spec.raising", Class, function()
            error("no way", 0)
        end, print)
        for _ = 1, 3 do
            local ok, e = pcall(pickle.dumps, { setmetatable({}, Class) })
            assert.is_false(ok)
            assert.are.equal("no way", e)
            assert.are.same({ 1 }, copy { 1 })
        end
    end)

    it("replaces the functions when called again", function()
        local Class = {}
        for i = 1, 2 do
            pickle.register("spec.again", Class, function() return i end,
                function(n) return { n } end)
        end
        assert.are.same({ 2 }, copy(setmetatable({}, Class)))
    end)

    it("wants a name, a table and both functions or none", function()
        local message = failure("TypeError", pickle.register, 1, {})
        assert.matches("name", message)
        failure("ValueError", pickle.register, "", {})
        failure("ValueError", pickle.register, "mp.error", {})
        message = failure("TypeError", pickle.register, "spec.x", "y")
        assert.matches("metatable", message)
        failure("TypeError", pickle.register, "spec.x", {}, 1, 2)
        message = failure("TypeError", pickle.register, "spec.x", {}, print)
        assert.matches("reduce", message)
    end)

    it("refuses a name or a metatable that is taken", function()
        local Class = {}
        pickle.register("spec.taken", Class)
        local message = failure("ValueError", pickle.register,
            "spec.taken", {})
        assert.matches("spec.taken", message, 1, true)
        message = failure("ValueError", pickle.register, "spec.other", Class)
        assert.matches("spec.taken", message, 1, true)
    end)
end)

describe("pickle of things with __reduce", function()
    it("calls the function that it returns", function()
        local Class = {}
        Class.__reduce = function(o) return table.pack, 1, nil, o.value end
        assert.are.same({ n = 3, 1, nil, "v" },
            copy(setmetatable({ value = "v" }, Class)))
    end)

    it("takes a Lua function, with upvalues", function()
        local tag = { "tag" }
        local function rebuild(v) return { tag = tag, v = v } end
        local Class = { __reduce = function(o) return rebuild, o.v end }
        assert.are.same({ tag = { "tag" }, v = { 1 } },
            copy(setmetatable({ v = { 1 } }, Class)))
    end)

    it("takes anything that can be called", function()
        local Class = with_module(finally, "spec.class", setmetatable({}, {
            __call = function(class, v) return setmetatable({ v }, class) end,
        }))
        Class.__reduce = function(o) return Class, o[1] end
        local c = copy(Class(3))
        assert.are.equal(Class, getmetatable(c))
        assert.are.equal(3, c[1])
    end)

    it("keeps identity", function()
        local o = setmetatable({}, {
            __reduce = function() return table.pack end,
        })
        local c = copy { o, { o } }
        assert.are.equal(c[1], c[2][1])
    end)

    it("refuses what reduces to itself", function()
        local o = setmetatable({}, {
            __reduce = function(self) return table.pack, { self } end,
        })
        assert.matches("reduce", refusal { o })
    end)

    it("refuses what returns no function", function()
        local o = setmetatable({}, { __reduce = function() return 1 end })
        assert.matches("no function", refusal { o })
    end)

    it("names the value that cannot travel", function()
        local o = setmetatable({}, { __reduce = function()
            return table.pack, 1, { co = coroutine.create(print) }
        end })
        assert.matches("value.o, value 3 that its reduce function returned.co",
            refusal { o = o }, 1, true)
    end)

    it("keeps thousands of temporaries apart", function()
        local Class = with_module(finally, "spec.class", {})
        Class.__reduce = function(o)
            if o.id % 10 == 0 then
                collectgarbage()
            end
            return table.pack, { o.id }, { ["name" .. o.id] = true }
        end
        local list = {}
        for i = 1, 300 do
            list[i] = setmetatable({ id = i }, Class)
        end
        for i, c in ipairs(copy(list)) do
            assert.are.same({ n = 2, { i }, { ["name" .. i] = true } }, c)
        end
    end)
end)

describe("pickle of shared objects", function()
    local function close(object)
        local _ <close> = object
    end

    it("arrives as the same object", function()
        local lock <close> = mp.Lock()
        local c <close> = copy(lock)
        assert.is_true(lock:acquire())
        assert.is_false(c:acquire(false))
        lock:release()
        assert.is_true(c:acquire(false))
        c:release()
    end)

    it("arrives once when sent twice", function()
        local lock <close> = mp.Lock()
        local c = copy { lock, { lock } }
        assert.are.equal(c[1], c[2][1])
    end)

    it("arrives in upvalues and as a key", function()
        local lock <close> = mp.Lock()
        local c = copy { f = function() return lock end, [lock] = true }
        assert.is_true(c[c.f()])
    end)

    it("is refused when closed", function()
        local lock = mp.Lock()
        close(lock)
        assert.matches("closed", refusal { lock })
    end)

    it("is an error when the object is gone", function()
        local lock = mp.Lock()
        local s = pickle.dumps(lock)
        close(lock)
        failure("StateError", pickle.loads, s)
    end)
end)

describe("pickle refuses", function()
    local thread = coroutine.create(print)

    it("coroutines, with the path", function()
        assert.are.equal("cannot pickle a coroutine: value", refusal(thread))
        assert.are.equal(
            'cannot pickle a coroutine: value[2].a["b c"][true]',
            refusal { 1, { a = { ["b c"] = { [true] = thread } } } })
    end)

    it("a key, and says so", function()
        assert.matches("(the key)", refusal { x = { [thread] = 1 } }, 1, true)
        assert.matches("value.x[a table] (the key).co",
            refusal { x = { [{ co = thread }] = 1 } }, 1, true)
    end)

    it("files", function()
        local file <close> = io.open("/dev/null")
        assert.matches("cannot pickle a file: value.out; .*register",
            refusal { out = file })
    end)

    it("C functions that have no name", function()
        for _, f in ipairs { coroutine.wrap(print), ("x"):gmatch("x") } do
            assert.matches("C function: value.f; .*no name", refusal { f = f })
        end
    end)

    it("an unregistered metatable, and says what to do", function()
        local message = refusal { setmetatable({}, { __name = "Account" }) }
        assert.matches("'Account': value[1]", message, 1, true)
        assert.matches("mp.pickle.register(name, metatable)", message, 1, true)
        assert.matches("table with a metatable",
            refusal(setmetatable({}, {})))
    end)

    it("deep in a chain, with a path of bounded length", function()
        local t = { co = thread }
        for _ = 1, 5000 do
            t = { x = t }
        end
        local message = refusal(t)
        assert.matches("more", message)
        assert.matches(".x.co$", message)
        assert.is_true(#message < 300)
    end)

    it("and works again after", function()
        for _ = 1, 100 do
            refusal { {}, {}, { ("long"):rep(1000), function() end, thread } }
        end
        assert.are.same({ { 1 } }, copy { { 1 } })
    end)
end)
