--- What users of other libraries for processes and threads in Lua complained
-- of when functions and values had to cross, one case each.

local mp = require "mp"
local pickle = require "mp.pickle"
local helper = require "spec.helper"
local tools = require "spec.pickle_tools"
local start = require "spec.start_tools"
local lfs = require "lfs"

local WAIT <const> = 30

start.start_server()

local copy, refusal, with_module = tools.copy, tools.refusal,
    tools.with_module

--- f(...) in a worker of a new pool.
local function in_worker(f, ...)
    local pool <close> = mp.Pool(1)
    return pool:apply(f, table.pack(...))
end

-- C modules -----------------------------------------------------------------

local SOURCE <const> = [[
#include <lua.h>
#include <lauxlib.h>
static int twice(lua_State *L) {
    lua_pushinteger(L, 2 * luaL_checkinteger(L, 1));
    return 1;
}
static int count(lua_State *L) {
    lua_Integer n = lua_tointeger(L, lua_upvalueindex(1)) + 1;
    lua_pushinteger(L, n);
    lua_copy(L, -1, lua_upvalueindex(1));
    return 1;
}
int luaopen_spec_tiny(lua_State *L) {
    lua_newtable(L);
    lua_pushcfunction(L, twice);
    lua_setfield(L, -2, "twice");
    lua_newtable(L);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, count, 1);
    lua_setfield(L, -2, "count");
    lua_setfield(L, -2, "inner");
    return 1;
}
]]

--- Compiles the module spec_tiny into a directory where require finds it;
-- nil where there is no compiler.
local function build(finally)
    local dir = helper.tmpdir()
    local file <close> = assert(io.open(dir .. "/spec_tiny.c", "w"))
    file:write(SOURCE)
    file:flush()
    local built = os.execute(string.format("cd %s && cc -shared -fPIC -o "
        .. "spec_tiny.so $(pkg-config --cflags lua5.4) spec_tiny.c 2>cc.log",
        helper.quote(dir)))
    if not built then
        return nil
    end
    local before = package.cpath
    package.cpath = dir .. "/?.so;" .. before
    finally(function()
        package.cpath = before
        package.loaded.spec_tiny = nil
    end)
    return true
end

local function need_tiny(finally)
    if not build(finally) then
        pending("needs a C compiler and Lua's headers")
    end
end

describe("transfer of C functions", function()
    it("knows those of a C module", function()
        local attributes = lfs.attributes
        assert.are.equal("directory", in_worker(function()
            return attributes(".", "mode")
        end))
    end)

    it("knows those in tables inside a module", function()
        need_tiny(finally)
        local tiny = require "spec_tiny"
        local inner = tiny.inner
        assert.are.equal(tiny.inner.count, copy(tiny.inner.count))
        assert.are.equal(1, in_worker(tiny.inner.count))
        assert.are.equal(1, in_worker(function() return inner.count() end))
    end)

    it("loads the module in a worker that was there before", function()
        need_tiny(finally)
        local pool <close> = mp.Pool(1)
        local twice = require("spec_tiny").twice
        assert.are.equal(42, pool:apply(twice, {21}))
        assert.are.same({2, 4, n = 2}, pool:map(function(x)
            return twice(x)
        end, {1, 2}))
    end)

    it("loads the module by every start method", function()
        need_tiny(finally)
        local twice = require("spec_tiny").twice
        for _, method in ipairs(mp.get_all_start_methods()) do
            local context = mp.get_context(method)
            local answer = context.SimpleQueue()
            local p = context.Process {target = function()
                answer:put(twice(21))
            end}
            p:start()
            assert.is_true(p:join(WAIT))
            assert.are.same({true, 42}, {answer:try_get()})
        end
    end)

    it("is not misled by a second name of a module", function()
        _G.string2, _G.a_format = string, string.format
        finally(function() _G.string2, _G.a_format = nil, nil end)
        copy {print}
        assert.are.equal(string.format, copy(string.format))
        assert.are.equal(string, copy(string))
        local s = pickle.dumps(string)
        _G.string2 = nil
        assert.are.equal(string, pickle.loads(s))
    end)

    it("names the same culprit in every run", function()
        local t = {}
        for i = 1, 20 do
            t[i] = {co = coroutine.create(print)}
        end
        assert.matches("value[1].co", refusal(pickle.dumps, t), 1, true)
    end)
end)

describe("transfer of what modules hold", function()
    it("takes functions that name each other through tables", function()
        local loader = {searchers = {}}
        function loader.find(name)
            return loader.searchers[1](name)
        end
        loader.searchers[1] = function(name)
            return name == "end" and loader or loader.find("end")
        end
        local find = copy(loader.find)
        assert.are.equal(find, find("x").find)
    end)

    it("takes a function that prints through io", function()
        local io, log = io, require "io"
        assert.is_true(in_worker(function()
            return io.stderr == log.stderr and io.type(io.stdout) == "file"
        end))
    end)

    it("takes a module with files in it by name", function()
        local m = with_module(finally, "spec.with_file", {log = io.stderr})
        function m.write() return m.log ~= nil end
        assert.is_true(copy(m.write)())
    end)

    it("requires the class of an object that comes first", function()
        local class = {__name = "Late"}
        class.__index = class
        package.loaded["spec.late"] = class
        local s = pickle.dumps {setmetatable({1}, class), print,
            function() end}
        package.loaded["spec.late"] = nil
        package.preload["spec.late"] = function() return class end
        finally(function()
            package.preload["spec.late"] = nil
            package.loaded["spec.late"] = nil
        end)
        assert.are.equal(class, getmetatable(pickle.loads(s)[1]))
    end)
end)

describe("transfer of classes", function()
    it("keeps inheritance", function()
        local m = with_module(finally, "spec.zoo", {})
        m.Animal = {}
        m.Animal.__index = m.Animal
        function m.Animal:speak() return self.word end
        m.Dog = setmetatable({}, {__index = m.Animal})
        m.Dog.__index = m.Dog
        local dog = setmetatable({word = "woof"}, m.Dog)
        assert.are.equal("woof", in_worker(function(d)
            return d:speak()
        end, dog))
        assert.are.equal(m.Dog, getmetatable(copy(dog)))
    end)

    it("takes an object whose method is the job", function()
        local Job = {}
        Job.__index = Job
        function Job:run() return self.n + 1 end
        pickle.register("spec.pain.job" .. tostring(Job), Job)
        local job = setmetatable({n = 1}, Job)
        assert.are.equal(2, in_worker(Job.run, job))
        assert.are.equal(2, in_worker(function() return job:run() end))
    end)

    it("says where userdata hides that is reached through self", function()
        local self = {conn = {sock = io.stdout}}
        local function job() return self end
        assert.matches("a file: .*upvalue 'self'%.conn%.sock of function at "
            .. ".*transfer_pain_spec.lua:%d+", refusal(in_worker, job))
    end)

    it("lets a table hold userdata and leave it behind", function()
        local Conn = {}
        Conn.__index = Conn
        function Conn.open(name)
            return setmetatable({name = name, sock = io.stdout}, Conn)
        end
        function Conn:__reduce() return Conn.open, self.name end
        local conn = Conn.open("db")
        assert.are.same({"db", "file"}, in_worker(function()
            return {conn.name, io.type(conn.sock)}
        end))
    end)
end)

describe("transfer of jobs", function()
    it("takes a job without arguments", function()
        local q = mp.SimpleQueue()
        local p = mp.Process {target = function(...)
            q:put(select("#", ...))
        end}
        p:start()
        assert.is_true(p:join(WAIT))
        assert.are.same({true, 0}, {q:try_get()})
    end)

    it("keeps nil among the arguments", function()
        assert.are.equal(4, in_worker(function(...)
            return select("#", ...)
        end, nil, 2, nil, nil))
    end)

    it("sends functions through queues", function()
        local jobs, answers = mp.Queue(), mp.Queue()
        local p = mp.Process {target = function()
            for f in function() return jobs:get(true, WAIT) end do
                answers:put(f())
            end
        end}
        p:start()
        for i = 1, 3 do
            jobs:put(function() return i * i end)
        end
        jobs:put(nil)
        assert.is_true(p:join(WAIT))
        assert.are.same({1, 4, 9, n = 3}, answers:get_many(9))
    end)

    it("sends queues through queues", function()
        local q, inner = mp.Queue(), mp.Queue()
        q:put(inner)
        q:put({deep = {inner}})
        inner:put("one")
        assert.are.equal("one", q:get():get())
        inner:put("two")
        assert.are.equal("two", q:get().deep[1]:get())
    end)

    it("lets them use mp, as upvalue and by require", function()
        assert.are.same({true, true}, in_worker(function()
            return {require "mp" == mp, mp.cpu_count() > 0}
        end))
    end)

    it("says what a function lacks that cannot travel", function()
        local list = {1, 2, {3, ("a"):gmatch("a")}}
        local function job() return list end
        assert.matches("cannot pickle a C function: value, upvalue "
            .. "'list'[3][2] of function at",
            refusal(pickle.dumps, job), 1, true)
    end)

    it("says so when a job holds another pool than that which runs it",
        function()
            local pool <close> = mp.Pool(1)
            local other <close> = mp.Pool(1)
            assert.matches("'Pool': .*upvalue 'pool' of function at.*; pool "
                .. "objects cannot be passed between processes or pickled, "
                .. "but to the pool's own tasks",
                refusal(other.apply, other, function() return pool end))
            assert.matches("'Pool': result",
                refusal(pool.apply, pool, function() return pool end))
            assert.are.equal(1, pool:apply(function() return 1 end))
        end)

    it("sends megabytes in one value", function()
        local list = {}
        for i = 1, 200000 do
            list[i] = {i, "item " .. i}
        end
        assert.are.same({200000, "item 200000"}, in_worker(function(t)
            return {#t, t[#t][2]}
        end, list))
    end)
end)
