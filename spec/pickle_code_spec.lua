-- mp.pickle: functions, modules, C functions. (Values: pickle_spec.)

local pickle = require "mp.pickle"
local tools = require "spec.pickle_tools"

local copy, refusal, with_module = tools.copy, tools.refusal,
    tools.with_module

describe("pickle of Lua functions", function()
    it("keeps a function without upvalues", function()
        local f = copy(function(a, b) return a + b, nil, a end)
        assert.are.same({ n = 3, 5, nil, 2 }, table.pack(f(2, 3)))
    end)

    it("keeps scalar upvalues", function()
        local n, s, b, none = 42, "text", false, nil
        local f = copy(function() return n, s, b, none end)
        assert.are.same({ n = 4, 42, "text", false, nil }, table.pack(f()))
    end)

    it("sets the first upvalue to nil, not to the globals", function()
        local none
        assert.is_nil(copy(function() return none end)())
    end)

    it("copies upvalues: the original keeps its own", function()
        local n = 1
        local f = copy(function() n = n + 1 return n end)
        assert.are.equal(2, f())
        assert.are.equal(1, n)
    end)

    it("keeps shared upvalues shared", function()
        local n = 0
        local function inc() n = n + 1 end
        local function get() return n end
        local c = copy { inc, { deep = { get } } }
        c[1]()
        c[1]()
        assert.are.equal(2, c[2].deep[1]())
    end)

    it("keeps an upvalue shared by three functions and a table", function()
        local t = {}
        local function set(v) t = v end
        local function get() return t end
        local function same(v) return t == v end
        local c = copy { set = set, get = get, same = same, t = t }
        assert.is_true(c.same(c.t))
        c.set("new")
        assert.are.equal("new", c.get())
    end)

    it("keeps apart upvalues that are only equal", function()
        local function counter()
            local n = 0
            return function() n = n + 1 return n end
        end
        local c = copy { counter(), counter() }
        assert.are.equal(1, c[1]())
        assert.are.equal(2, c[1]())
        assert.are.equal(1, c[2]())
    end)

    it("shares upvalues at different places of two functions", function()
        local a, b = 1, 2
        local function ab(v) a = v return a, b end
        local function ba(v) b = v return b, a end
        local c = copy { ab, ba }
        c[1]("a")
        assert.are.same({ "b", "a" }, { c[2]("b") })
        assert.are.same({ "x", "b" }, { c[1]("x") })
    end)

    it("keeps recursion", function()
        local function fact(n) return n < 2 and 1 or n * fact(n - 1) end
        assert.are.equal(120, copy(fact)(5))
    end)

    it("keeps mutual recursion", function()
        local odd
        local function even(n) return n == 0 or odd(n - 1) end
        function odd(n) return n ~= 0 and even(n - 1) end
        assert.is_true(copy(even)(10))
        assert.is_false(copy(odd)(10))
    end)

    it("keeps a function one, and as a key", function()
        local function f() return 1 end
        local c = copy { f, { f }, [f] = "key" }
        assert.are.equal(c[1], c[2][1])
        assert.are.equal("key", c[c[1]])
    end)

    it("keeps closures in closures in tables", function()
        local function wrap(f) return function() return { f() } end end
        local f = function() return "core" end
        for _ = 1, 1000 do
            f = wrap(f)
        end
        local v = copy(f)()
        for _ = 1, 1000 do
            v = v[1]
        end
        assert.are.equal("core", v)
    end)

    it("takes closures nested 100,000 deep", function()
        local f = false
        for i = 1, 100000 do
            local inner = f
            f = function() return inner, i end
        end
        local n = 0
        f = copy(f)
        while f do
            f, n = f(), n + 1
        end
        assert.are.equal(100000, n)
    end)

    it("sends the code of many closures once", function()
        local list = {}
        for i = 1, 1000 do
            list[i] = function() return i end
        end
        local s = pickle.dumps(list)
        assert.is_true(#s < 1000 * 20)
        assert.are.equal(777, pickle.loads(s)[777]())
    end)

    it("takes functions with 255 upvalues", function()
        local names = {}
        for i = 1, 125 do
            names[i] = "a" .. i
        end
        local list = table.concat(names, ",")
        local f = load(("local %s = ... return function() return {%s} end")
            :format(list, list))(table.unpack(names))
        assert.are.same(names, copy(f)())
    end)

    it("keeps varargs, names and lines", function()
        local f = copy(function(...)
            return select("#", ...), error("here")
        end)
        local _, message = pcall(f)
        assert.matches("pickle_code_spec.lua:%d+: here", message)
    end)

    it("takes stripped functions", function()
        local n = 5
        local function get() return n end
        local stripped = load(string.dump(get, true))
        debug.upvaluejoin(stripped, 1, get, 1)
        assert.are.equal(5, copy(stripped)())
    end)
end)

describe("pickle of a function's environment", function()
    it("binds globals to the receiver's", function()
        local f = load "return spec_global, _ENV"
        finally(function() _G.spec_global = nil end)
        f = copy(f)
        _G.spec_global = 2
        local value, env = f()
        assert.are.equal(2, value)
        assert.are.equal(_G, env)
    end)

    it("copies an _ENV of one's own", function()
        local env = { x = "own" }
        local f = copy(load("x = x .. '!' return x, _ENV", "", "t", env))
        local value, own = f()
        assert.are.equal("own!", value)
        assert.are_not.equal(env, own)
        assert.are.equal("own", env.x)
    end)

    it("keeps what an _ENV inherits from the globals", function()
        local hidden = setmetatable({}, { __index = function(_, key)
            return _G[key]
        end })
        for _, parent in ipairs { _G, hidden } do
            local env = setmetatable({ x = 1 }, { __index = parent })
            local f = copy(load("y = x + 1 return tostring(y)", "", "t", env))
            f = copy(f)
            assert.are.equal("2", f())
            assert.is_nil(_G.y)
        end
    end)

    it("refuses another _ENV with a metatable", function()
        local env = setmetatable({}, { __index = string })
        assert.matches("upvalue '_ENV' of",
            refusal(pickle.dumps, load("return rep", "", "t", env)))
    end)

    it("knows the globals by value, whatever the upvalue's name", function()
        local env = _G
        local c = copy { f = function() return env end, env = _G }
        assert.are.equal(_G, c.f())
        assert.are.equal(_G, c.env)
    end)

    it("sends a class among the globals by name", function()
        local Account = { get = function(self) return self.balance end }
        Account.__index, _G.SpecAccount = Account, Account
        finally(function() _G.SpecAccount = nil end)
        local c = copy(setmetatable({ balance = 10 }, Account))
        assert.are.equal(Account, getmetatable(c))
        assert.are.equal(10, c:get())
    end)
end)

describe("pickle by name", function()
    it("sends C functions of the standard library", function()
        for _, f in ipairs { print, string.format, math.sin, require,
            ("x").rep, table.unpack, coroutine.wrap, io.write } do
            assert.are.equal(f, copy(f))
            assert.are.equal(f, copy(function() return f end)())
        end
    end)

    it("sends modules", function()
        assert.are.equal(string, copy(string))
        assert.are.equal(pickle, copy { pickle }[1])
        assert.are.equal(package.loaded, copy(package.loaded))
        assert.are.equal(string, copy(function() return string end)())
    end)

    it("sends functions of C modules", function()
        local core = require "mp.core"
        assert.are.equal(core.pickle.dumps, copy(core.pickle.dumps))
    end)

    it("sends a module loaded after the last look", function()
        copy { print }
        local m = with_module(finally, "spec.new", { f = function() end })
        assert.are.equal(m, copy { { m }, m }[1][1])
        assert.are.equal(m, copy(function() return m end)())
    end)

    it("sends a module that is a function", function()
        local m = with_module(finally, "spec.function", function() end)
        assert.are.equal(m, copy { m }[1])
    end)

    it("sends Lua functions of modules by value", function()
        local m = with_module(finally, "spec.module", {})
        function m.self() return m end
        local f = copy(m.self)
        assert.are_not.equal(m.self, f)
        assert.are.equal(m, f())
    end)

    it("finds C functions in nested tables", function()
        local f = coroutine.wrap(print)
        local m = with_module(finally, "spec.nested", {
            a = { b = { f = f } },
        })
        m.a.loop = m
        assert.are.equal(f, copy(f))
    end)

    it("finds C functions that came later", function()
        local m = with_module(finally, "spec.later", {})
        local f = coroutine.wrap(print)
        refusal(pickle.dumps, f)
        m.f = f
        assert.are.equal(f, copy(f))
    end)

    it("uses the shortest name, then the least", function()
        local f = coroutine.wrap(print)
        local m = with_module(finally, "spec.a", { zz = f, y = f, x = f })
        m.deep = { f = f }
        assert.matches("spec.a\1x$", (pickle.dumps(f)))
    end)

    it("does not keep what it named", function()
        local weak = setmetatable({}, { __mode = "v" })
        _G.SpecGlobal = {}
        finally(function() _G.SpecGlobal = nil end)
        weak[1] = _G.SpecGlobal
        copy(print)
        _G.SpecGlobal = nil
        collectgarbage()
        assert.is_nil(weak[1])
    end)

    it("does not confuse a new thing with a gone one", function()
        for i = 1, 50 do
            _G.SpecGlobal = { __index = print, i }
            copy(print)
            _G.SpecGlobal = nil
            collectgarbage()
            local t = { __index = print, i, function() end }
            assert.are.equal(i, copy(t)[1])
        end
    end)
end)

describe("pickle loads by name", function()
    local function pickled_then_gone(name, module, v)
        package.loaded[name] = module
        local s = pickle.dumps(v)
        package.loaded[name] = nil
        return s
    end

    it("requires the module when functions may be loaded", function()
        local m = { Class = { __index = print } }
        local s = pickled_then_gone("spec.lazy", m,
            { function() end, setmetatable({}, m.Class) })
        package.preload["spec.lazy"] = function() return m end
        finally(function()
            package.preload["spec.lazy"] = nil
            package.loaded["spec.lazy"] = nil
        end)
        assert.are.equal(m.Class, getmetatable(pickle.loads(s)[2]))
    end)

    it("requires nothing for a string without functions", function()
        local m = { Class = { __index = print } }
        local s = pickled_then_gone("spec.lazy", m, setmetatable({}, m.Class))
        assert.matches("module 'spec.lazy' is not loaded",
            refusal(pickle.loads, s))
    end)

    it("says which module or member is missing", function()
        local m = { Class = { __index = print } }
        local s = pickled_then_gone("spec.lazy", m,
            { setmetatable({}, m.Class), print, function() end })
        assert.matches("cannot load module 'spec.lazy'",
            refusal(pickle.loads, s))
        with_module(finally, "spec.lazy", {})
        assert.matches("there is no 'spec.lazy.Class' here",
            refusal(pickle.loads, s))
    end)
end)

describe("pickle refuses in functions", function()
    local co = coroutine.create(print)

    it("with the upvalue and the place of the function", function()
        local function job() return co end
        assert.matches("^cannot pickle a coroutine: value.f, upvalue 'co' of "
            .. "function at .*pickle_code_spec.lua:%d+$",
            refusal(pickle.dumps, { f = job }))
    end)

    it("with the name of a global function", function()
        function _G.spec_job() return co end
        finally(function() _G.spec_job = nil end)
        assert.matches("upvalue 'co' of function 'spec_job' %(.*:%d+%)$",
            refusal(pickle.dumps, { _G.spec_job }))
    end)

    it("with the path inside an upvalue, and all functions on it", function()
        local t = { list = { 1, co } }
        local function inner() return t end
        local function outer() return inner end
        assert.matches("value, upvalue 'inner' of function at [^,]*, upvalue "
            .. "'t'%.list%[2%] of function at [^,]*$",
            refusal(pickle.dumps, outer))
    end)

    it("files and C functions in upvalues", function()
        local out, step = io.stdout, ("x"):gmatch("x")
        assert.matches("a file: value, upvalue 'out' of",
            refusal(pickle.dumps, function() return out end))
        assert.matches("C function: value, upvalue 'step' of",
            refusal(pickle.dumps, function() return step end))
    end)

    it("objects of a class that both sides cannot name", function()
        local Class = {}
        Class.__index = Class
        local o = setmetatable({}, Class)
        assert.matches("register",
            refusal(pickle.dumps, function() return o, Class end))
    end)

    it("but not a class without objects", function()
        local Class = {}
        Class.__index = Class
        function Class.new(v) return setmetatable({ v = v }, Class) end
        function Class:get() return self.v end
        local new = copy(Class.new)
        assert.are.equal(3, new(3):get())
    end)
end)
