--- What crosses to another process, and arrives right: each case through each
-- door. Then what users of other libraries complained of, one case each.

local mp = require "mp"
local start = require "spec.start_tools"
local Point = require "spec.methods.part".Point

local WAIT <const> = 30

start.start_server()

-- The doors -----------------------------------------------------------------

--- Each takes a value and a function over there, and returns what ask(value)
-- gave there: one plain value.
local doors = {}

function doors.dumps(value, ask)
    local there = mp.pickle.loads(mp.pickle.dumps {value, ask})
    return there[2](there[1])
end

function doors.Queue(value, ask)
    local q = mp.Queue()
    q:put({value, ask})
    local there = q:get(true, WAIT)
    return there[2](there[1])
end

doors["Pool.map"] = function(value, ask)
    local pool <close> = mp.Pool(1)
    return pool:map(function(item)
        return item[2](item[1])
    end, {{value, ask}})[1]
end

for _, method in ipairs(mp.get_all_start_methods()) do
    doors["Process by " .. method] = function(value, ask)
        local context = mp.get_context(method)
        local answer = context.SimpleQueue()
        local p = context.Process {target = function(...)
            local v, f = ...
            answer:put(f(v))
        end, args = {value, ask}}
        p:start()
        assert.is_true(p:join(WAIT))
        assert.are.equal(0, p.exitcode)
        return select(2, answer:try_get())
    end
end

local names = {}
for name in pairs(doors) do
    names[#names + 1] = name
end
table.sort(names)

--- One spec for each door.
---@param what string
---@param expected any of ask(value), over there
---@param make function () -> value, ask
local function crosses(what, expected, make)
    for _, name in ipairs(names) do
        it(what .. ", by " .. name, function()
            local value, ask = make()
            assert.are.same(expected, doors[name](value, ask))
        end)
    end
end

--- The doors at which a value is packed refuse it, with this path in the
-- message; by fork it is simply there.
local function refused(what, pattern, make)
    for _, name in ipairs(names) do
        if name ~= "Process by fork" then
            it(what .. ", by " .. name, function()
                local value = make()
                local ok, e = pcall(doors[name], value, type)
                assert.is_false(ok)
                assert.are.equal("PicklingError",
                    type(e) == "table" and e.kind or tostring(e))
                assert.matches(pattern, e.message)
            end)
        end
    end
end

local function call(f)
    return f()
end

-- Values --------------------------------------------------------------------

describe("transfer of functions", function()
    crosses("keeps a scalar upvalue", {42, "x", false}, function()
        local n, s, b = 42, "x", false
        return function() return {n, s, b} end, call
    end)

    crosses("keeps an upvalue shared by two functions", 2, function()
        local n = 0
        local function inc() n = n + 1 end
        local function get() return n end
        return function() inc() inc() return get() end, call
    end)

    crosses("keeps it for functions in a table", 2, function()
        local n = 0
        return {inc = function() n = n + 1 end,
            deep = {get = function() return n end}}, function(t)
            t.inc()
            t.inc()
            return t.deep.get()
        end
    end)

    crosses("keeps recursion", 120, function()
        local function fact(n) return n < 2 and 1 or n * fact(n - 1) end
        return fact, function(f) return f(5) end
    end)

    crosses("keeps mutual recursion", {true, false}, function()
        local odd
        local function even(n) return n == 0 or odd(n - 1) end
        function odd(n) return n ~= 0 and even(n - 1) end
        return {even, odd}, function(t) return {t[1](10), t[2](10)} end
    end)

    crosses("finds the global functions that they call", 9, function()
        function _G.spec_square(x) return x * x end
        function _G.spec_use(x) return _G.spec_square(x) end
        finally(function() _G.spec_square, _G.spec_use = nil, nil end)
        return 3, load "return spec_use(...)"
    end)

    crosses("keeps an _ENV of their own", {"own!", true}, function()
        local env = {x = "own"}
        return load("x = x .. '!' return {x, print == nil}", "=own", "t",
            env), call
    end)

    crosses("keeps closures 1,000 deep", 1000, function()
        local f = function() return 0 end
        for _ = 1, 1000 do
            local inner = f
            f = function() return inner end
        end
        return f, function(g)
            local n = 0
            while g() ~= 0 do
                g, n = g(), n + 1
            end
            return n
        end
    end)

    crosses("keeps C functions as upvalues", "0x1f", function()
        local format = string.format
        return function() return format("0x%x", 31) end, call
    end)

    crosses("keeps modules as upvalues", {true, "function"}, function()
        local strings, mine = string, mp
        return function()
            return {strings == string, type(mine.Lock)}
        end, call
    end)
end)

describe("transfer of tables", function()
    crosses("keeps cycles, and one table one", {true, true, true},
        function()
            local t = {shared = {}}
            t.self, t.again = t, {t.shared}
            return t, function(c)
                return {c.self == c, c.again[1] == c.shared, c ~= c.shared}
            end
        end)

    crosses("keeps tables as keys", {"value", 1}, function()
        local key = {}
        return {key = key, map = {[key] = "value"}}, function(c)
            local n = 0
            for _ in next, c.map do
                n = n + 1
            end
            return {c.map[c.key], n}
        end
    end)

    crosses("keeps tables tables", {"table", 3, "table"}, function()
        return {1, 2, {}}, function(c) return {type(c), #c, type(c[3])} end
    end)

    crosses("keeps 10,000 levels", 10000, function()
        local t = {}
        for _ = 1, 10000 do
            t = {t}
        end
        return t, function(c)
            local n = 0
            while c[1] do
                c, n = c[1], n + 1
            end
            return n
        end
    end)

    crosses("keeps nested arguments", {{{1, {"x"}}, k = {v = {}}}},
        function()
            return {{1, {"x"}}, k = {v = {}}}, function(c) return {c} end
        end)
end)

describe("transfer of objects", function()
    crosses("keeps methods of a class in a module", {7, true}, function()
        return Point.new(3, 4), function(p)
            return {p:sum(), getmetatable(p) ==
                require("spec.methods.part").Point}
        end
    end)

    crosses("keeps the class that a function names", {true, 5}, function()
        local Class = {}
        Class.__index = Class
        function Class:get() return self.v end
        mp.pickle.register("spec.transfer." .. tostring(Class), Class)
        return setmetatable({v = 5}, Class), function(o)
            return {getmetatable(o) == Class, o:get()}
        end
    end)

    crosses("takes classes by value that say how", {true, "node"},
        function()
            local Node = {}
            Node.__index = Node
            function Node.new() return setmetatable({}, Node) end
            function Node.__reduce() return Node.new end
            function Node:__getstate() return {self.next} end
            function Node:__setstate(state) self.next = state[1] end
            function Node.name() return "node" end
            local a, b = Node.new(), Node.new()
            a.next, b.next = b, a
            return a, function(o)
                return {o.next.next == o, o.next:name()}
            end
        end)

    crosses("keeps shared objects of mp", {3, "sent"}, function()
        local v, q = mp.Value("i", 1), mp.Queue()
        q:put("sent")
        return {{v = v}, function() return q end}, function(t)
            t[1].v.value = t[1].v.value + 2
            return {t[1].v.value, t[2]():get(true, 5)}
        end
    end)
end)

describe("transfer refuses, with the path,", function()
    refused("a file in an upvalue",
        "cannot pickle a file: .*upvalue 'out' of function", function()
            local out = io.stdout
            return {job = function() return out end}
        end)

    refused("a coroutine", "cannot pickle a coroutine: .*%.on_done",
        function()
            return {on_done = coroutine.create(print)}
        end)

    refused("an iterator", "a C function: .*upvalue 'words' of",
        function()
            local words = ("a b"):gmatch("%a")
            return {function() return words() end}
        end)

    refused("a wrapped coroutine", "a C function: .*upvalue 'co' of",
        function()
            local co = coroutine.wrap(function() end)
            return {function() return co() end}
        end)

    refused("an object whose class has no name", "mp%.pickle%.register",
        function()
            local Class = {__name = "Secret"}
            return {o = setmetatable({}, Class)}
        end)

    refused("what holds something with a finalizer deep inside it",
        "a file: .*%.self%.buffer%.sink", function()
            local self = {buffer = {sink = io.stderr}}
            return {self = self}
        end)
end)

describe("an error value", function()
    local pool_error = function(f)
        local pool <close> = mp.Pool(1)
        return select(2, pcall(pool.apply, pool, f))
    end

    it("that is a table arrives as that table", function()
        local e = pool_error(function() error({code = 7, at = {1}}) end)
        assert.are.same({code = 7, at = {1}}, e.value)
    end)

    it("that is an object keeps its class", function()
        local e = pool_error(function() error(Point.new(1, 2)) end)
        assert.are.equal(Point, getmetatable(e.value))
    end)

    it("POL-21 that cannot travel arrives as text", function()
        local e = pool_error(function() error(io.stdout) end)
        assert.matches("^file %(", tostring(e.value))
    end)
end)
