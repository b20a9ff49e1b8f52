-- mp.pickle: objects rebuilt with a state (__getstate, __setstate), and
-- functions that belong to mp's own modules. (Values: pickle_spec.)

local pickle = require "mp.pickle"
local mp = require "mp"
local tools = require "spec.pickle_tools"

local copy, refusal, with_module = tools.copy, tools.refusal,
    tools.with_module

--- A class whose objects travel as their number and then their fields.
local function new_class(finally)
    local Class = with_module(finally, "spec.stateful", {})
    local made = 0
    function Class.new()
        made = made + 1
        return setmetatable({ number = made }, Class)
    end
    function Class.__reduce()
        return Class.new
    end
    function Class:__getstate()
        local fields = {}
        for key, value in pairs(self) do
            fields[key] = value
        end
        return fields
    end
    function Class:__setstate(state)
        self.set = (self.set or 0) + 1
        for key, value in pairs(state) do
            self[key] = value
        end
    end
    return Class
end

describe("pickle of objects with a state", function()
    it("makes the object, then sets its state", function()
        local Class = new_class(finally)
        local c = copy(setmetatable({ value = { 1 } }, Class))
        assert.are.equal(Class, getmetatable(c))
        assert.are.same({ 1 }, c.value)
        assert.are.equal(1, c.set)
    end)

    it("lets the state refer to the object", function()
        local Class = new_class(finally)
        local o = setmetatable({}, Class)
        o.me, o.list, o[o] = o, { o }, function() return o end
        local c = copy(o)
        assert.are.equal(c, c.me)
        assert.are.equal(c, c.list[1])
        assert.are.equal(c, c[c]())
        assert.are_not.equal(o, c)
    end)

    it("keeps rings of objects, and each object one", function()
        local Class = new_class(finally)
        local a, b = setmetatable({}, Class), setmetatable({}, Class)
        a.other, b.other = b, a
        local c = copy { b, a, b }
        assert.are.equal(c[1], c[3])
        assert.are.equal(c[2], c[1].other)
        assert.are.equal(c[1], c[2].other)
        assert.are.equal(1, c[1].set)
        assert.are.equal(1, c[2].set)
    end)

    it("needs no __reduce where the class has a name", function()
        local Class = new_class(finally)
        Class.__reduce = nil
        local o = setmetatable({ 7, left_out = print }, Class)
        function Class.__getstate(object) return { object[1], object } end
        function Class.__setstate(object, state)
            assert.is_nil(next(object))
            rawset(object, 1, state)
        end
        local c = copy(o)
        assert.are.equal(7, c[1][1])
        assert.are.equal(c, c[1][2])
        assert.is_nil(c.left_out)
    end)

    it("works with registered functions, and registered names", function()
        local Class, made = {}, {}
        Class.__getstate = function(o) return o end
        Class.__setstate = function(o, state) made[#made + 1] = o == state end
        pickle.register("spec.state.functions", Class,
            function(o) return o.n end,
            function(n) return setmetatable({ n = n }, Class) end)
        assert.are.equal(3, copy(setmetatable({ n = 3 }, Class)).n)
        local Plain = { __getstate = Class.__getstate,
            __setstate = Class.__setstate }
        pickle.register("spec.state.plain", Plain)
        local c = copy(setmetatable({ n = 3 }, Plain))
        assert.are.equal(Plain, getmetatable(c))
        assert.is_nil(c.n)
        assert.are.same({ true, true }, made)
    end)

    it("takes any state, nil and false too", function()
        local Class = new_class(finally)
        Class.__reduce = nil
        for _, state in ipairs { false, 0, "", 1.5 } do
            Class.__getstate = function() return state end
            Class.__setstate = function(o, v) rawset(o, 1, { v }) end
            assert.are.same({ state }, copy(setmetatable({}, Class))[1])
        end
        Class.__getstate = function() end
        Class.__setstate = function(o, ...)
            rawset(o, 1, select("#", ...))
        end
        assert.are.equal(1, copy(setmetatable({}, Class))[1])
    end)

    it("takes a class of no name that travels by value", function()
        local Node = {}
        Node.__index = Node
        function Node.new() return setmetatable({}, Node) end
        function Node.__reduce() return Node.new end
        function Node:__getstate() return { self.next } end
        function Node:__setstate(state) self.next = state[1] end
        function Node:name() return "node" end
        local a, b = Node.new(), Node.new()
        a.next, b.next = b, a
        local c = copy(a)
        assert.are.equal(c, c.next.next)
        assert.are_not.equal(Node, getmetatable(c))
        assert.are.equal(getmetatable(c), getmetatable(c.next))
        assert.are.equal("node", c:name())
    end)

    it("takes chains of 100,000", function()
        local Class = new_class(finally)
        function Class.__getstate(o) return { o.next, o.first } end
        function Class.__setstate(o, s) o.next, o.first = s[1], s[2] end
        local first = setmetatable({}, Class)
        local o = first
        for _ = 1, 100000 do
            o.next = setmetatable({ first = first }, Class)
            o = o.next
        end
        local c = copy(first)
        local n, head = 0, c
        while c.next do
            c, n = c.next, n + 1
            if c.first ~= head then
                error("object " .. n)
            end
        end
        assert.are.equal(100000, n)
    end)

    it("lets the hooks pickle, and collect garbage", function()
        local Class = new_class(finally)
        function Class.__getstate(o)
            collectgarbage()
            return pickle.dumps(o.value)
        end
        function Class.__setstate(o, s)
            collectgarbage()
            o.value = pickle.loads(s)
        end
        local list = {}
        for i = 1, 20 do
            list[i] = setmetatable({ value = { i, key = "k" .. i } }, Class)
        end
        for i, c in ipairs(copy(list)) do
            assert.are.same({ i, key = "k" .. i }, c.value)
        end
    end)

    it("does not confuse a new string with one that a hook dropped",
        function()
            local Class, n = new_class(finally), 0
            Class.__reduce = nil
            function Class.__getstate(o)
                o.victim[next(o.victim)] = nil
                collectgarbage()
                local state = {}
                for i = 1, 300 do
                    n = n + 1
                    state[("%06d"):format(n)] = n
                end
                return state
            end
            local list = {}
            for i = 1, 20 do
                local victim = { [("old%03d"):format(i)] = true }
                list[i] = { victim, setmetatable({ victim = victim },
                    Class) }
            end
            for i, pair in ipairs(copy(list)) do
                assert.is_true(pair[1][("old%03d"):format(i)])
                for j = 300 * i - 299, 300 * i do
                    if pair[2][("%06d"):format(j)] ~= j then
                        error("key " .. j)
                    end
                end
            end
        end)

    it("passes on what a hook raises, and works after", function()
        local Class = new_class(finally)
        local get, o = Class.__getstate, setmetatable({}, Class)
        Class.__getstate = function() error("no state", 0) end
        assert.are.same({ false, "no state" }, { pcall(pickle.dumps, o) })
        Class.__getstate = get
        Class.__setstate = function() error("not here", 0) end
        local s = pickle.dumps { o }
        assert.are.same({ false, "not here" }, { pcall(pickle.loads, s) })
        Class.__setstate = rawequal
        assert.are.equal(Class, getmetatable(pickle.loads(s)[1]))
    end)
end)

describe("pickle of a class", function()
    --- A table; where it can, at this address.
    local function table_at(address)
        local others = {}
        for i = 1, 2000 do
            others[i] = {}
            if tostring(others[i]) == address then
                return others[i]
            end
        end
        return {}
    end

    it("knows a module that was loaded anew, at the same address", function()
        local last
        for _ = 1, 50 do
            local Class = with_module(finally, "spec.stateful",
                table_at(last))
            last = tostring(Class)
            function Class.new()
                return setmetatable({}, Class)
            end
            function Class.__reduce()
                return Class.new
            end
            assert.are.equal(Class, getmetatable(copy(Class.new())))
            package.loaded["spec.stateful"], Class = nil, nil
            collectgarbage()
            collectgarbage()
        end
    end)
end)

describe("pickle refuses states", function()
    it("of what has no __setstate, on either side", function()
        local Class = new_class(finally)
        local s = pickle.dumps(setmetatable({}, Class))
        Class.__setstate = nil
        assert.matches("no __setstate",
            refusal(pickle.dumps, { setmetatable({}, Class) }))
        assert.matches("no __setstate", refusal(pickle.loads, s))
    end)

    it("whose object is among what it is rebuilt from", function()
        local Class = new_class(finally)
        Class.__reduce = function(o) return table.pack, o end
        assert.matches("reduce", refusal(pickle.dumps,
            setmetatable({}, Class)))
    end)

    it("with the path into them", function()
        local Class = new_class(finally)
        local o = setmetatable({ a = { coroutine.create(print) } }, Class)
        assert.matches("a coroutine: value.o, its state.a[1]",
            refusal(pickle.dumps, { o = o }), 1, true)
        Class.__reduce = nil
        assert.matches("a coroutine: value.o, its state.a[1]",
            refusal(pickle.dumps, { o = o }), 1, true)
    end)

    it("of classes that are not registered, from strangers", function()
        local Class = with_module(finally, "spec.stateful", {})
        local called = 0
        Class.__getstate = function() return 1 end
        Class.__setstate = function() called = called + 1 end
        local head = pickle.dumps(nil):sub(1, -2)
        local by_name = "\xdd\xd4\xd5\1\13spec.stateful\xca\0\0\x21"
        assert.matches("registered", refusal(pickle.loads, head .. by_name))
        assert.are.equal(0, called)
        pickle.register("spec.stateful.registered", Class)
        local s = pickle.dumps(setmetatable({}, Class))
        assert.are.equal(head, s:sub(1, #head)) -- needs no trust
        assert.is_table(pickle.loads(s))
        assert.are.equal(1, called)
    end)

    it("that are damaged", function()
        local Class = { __getstate = function() return { 1, "two" } end,
            __setstate = function() end }
        pickle.register("spec.stateful.damaged", Class)
        local s = pickle.dumps(setmetatable({}, Class))
        for n = 0, #s - 1 do
            refusal(pickle.loads, s:sub(1, n))
        end
        local head = pickle.dumps(nil):sub(1, -2)
        for _, body in ipairs { "\xdd", "\xdd\xdd", "\xdd\x21\x21",
            "\xdd\xca\0\0\x21", "\xdd\xd7\0\x21", "\xdd\xd4\xda\xca\0\0\x21",
            "\xdd\xd4\xd6\8mp.error\xca\0\0\x21" } do
            refusal(pickle.loads, head .. body)
        end
    end)

    it("that nest without end", function()
        local head = pickle.dumps(nil):sub(1, -2)
        refusal(pickle.loads, head .. ("\xdd"):rep(100000))
        local one = "\xdd\xd4\xd6\8mp.error\xca\0\0"
        refusal(pickle.loads, head .. one:rep(100000))
    end)
end)

describe("pickle of mp's own functions", function()
    local function members()
        local process = require "mp.process"
        return { mp.cpu_count, mp.range, pickle.register, process.Process.run,
            process.Process.start, mp.iserror }
    end

    it("sends them by name", function()
        for _, f in ipairs(members()) do
            assert.are.equal(f, copy(f))
            assert.are.equal(f, copy(function() return f end)())
        end
    end)

    it("sends what only begins like them by value", function()
        local m = with_module(finally, "mp.of_the_spec", {})
        function m.f() return m end
        copy { mp.cpu_count, m.f, mp.range }
        assert.are_not.equal(m.f, copy(m.f))
    end)

    it("sends users' functions in mp's tables by value", function()
        local function mine() return 1 end
        mp.of_the_spec = mine
        finally(function() mp.of_the_spec = nil end)
        copy { mp.cpu_count, mp.range }
        local c = copy(mine)
        assert.are_not.equal(mine, c)
        assert.are.equal(1, c())
    end)
end)
