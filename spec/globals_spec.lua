--- Globals travel: what a job reads by a global name, and its receiver does
-- not have or has older, goes along.
--
-- Each script runs in a process of its own, whose globals are real ones (those
-- of a spec are not), and begins with a pool of one worker, so that all its
-- jobs meet.

local helper = require "spec.helper"

local HEAD <const> = [[
local mp = require "mp"
local pool <close> = mp.Pool(1)
]]

--- Runs a script; returns what it printed, without the last line's end.
local function run(text, opts)
    local result = helper.run({"-"}, {stdin = text,
        env = opts and opts.env, timeout = opts and opts.timeout})
    assert.are.equal("", result.stderr)
    assert.are.equal(0, result.code)
    return (result.stdout:gsub("\n$", ""))
end

--- The same with a pool that is older than all the script does.
local function play(text)
    return run(HEAD .. text)
end

describe("globals that travel with a job", function()
    it("are functions, and what these call", function()
        assert.are.equal("7", play [[
            function twice(x) return 2 * x end
            function helper(x) return twice(x) + 1 end
            print(pool:apply(function(x) return helper(x) end, {3}))]])
    end)

    it("are tables, numbers, strings, booleans", function()
        assert.are.equal("2\t1.5\ttext\tfalse", play [[
            config, factor, name, flag = {level = 2}, 1.5, "text", false
            print(pool:apply(function()
                return config.level, factor, name, flag
            end))]])
    end)

    it("are seen when they are defined anew between two maps", function()
        assert.are.equal("1\t2\n10\t20\n-1\t-2", play [[
            function helper(x) return x end
            local function job(x) return helper(x) end
            local function show()
                print(table.unpack(pool:map(job, {1, 2})))
            end
            show()
            function helper(x) return 10 * x end
            show()
            function helper(x) return -x end
            show()]])
    end)

    it("are seen when what the pool began with is defined anew", function()
        assert.are.equal("old\nnew\nold", run [[
            local mp = require "mp"
            function helper() return "old" end
            local old = helper
            local pool <close> = mp.Pool(1)
            local function job() return helper() end
            print(pool:apply(job))
            function helper() return "new" end
            print(pool:apply(job))
            helper = old
            print(pool:apply(job))]])
    end)

    it("are found behind functions that the worker has", function()
        assert.are.equal("1\n2", run [[
            local mp = require "mp"
            function inner() return 1 end
            function outer() return inner() end
            local pool <close> = mp.Pool(1)
            local function job() return outer() end
            print(pool:apply(job))
            function inner() return 2 end
            print(pool:apply(job))]])
    end)

    it("are seen when a small table was changed in place", function()
        assert.are.equal("1\n2\n3", run [[
            local mp = require "mp"
            config = {deep = {level = 1}}
            local pool <close> = mp.Pool(1)
            local function job() return config.deep.level end
            print(pool:apply(job))
            config.deep.level = 2
            print(pool:apply(job))
            config.deep.level = 3
            print(pool:apply(job))]])
    end)

    it("are seen when an upvalue of a function has changed", function()
        assert.are.equal("1\n2", run [[
            local mp = require "mp"
            local level = 1
            function get() return level end
            local pool <close> = mp.Pool(1)
            print(pool:apply(function() return get() end))
            level = 2
            print(pool:apply(function() return get() end))]])
    end)

    it("are nil when they are nil now", function()
        assert.are.equal("nil\tnil\tnil", run [[
            local mp = require "mp"
            gone, number, other = {}, 1, function() end
            local pool <close> = mp.Pool(1)
            gone, number, other = nil, nil, nil
            collectgarbage() collectgarbage()
            print(pool:apply(function() return gone, number, other end))]])
    end)

    it("are Lua's own when they stand for others", function()
        assert.are.equal("4\tprint\t3", play [[
            local real = print
            fmt, json = string.format, math
            tostring = function() return "print" end
            real(pool:apply(function()
                return fmt("%d", 4), tostring(1), json.max(1, 3)
            end))]])
    end)

    it("keep what they share with each other and with the job", function()
        assert.are.equal("true\ttrue\t2", play [[
            local count = 0
            function inc() count = count + 1 end
            list = {}
            same = {list}
            local mine = list
            print(pool:apply(function()
                inc() inc()
                return same[1] == list, mine == list, count
            end))]])
    end)

    it("may call themselves, and each other", function()
        assert.are.equal("120\ttrue", play [[
            function fact(n) return n <= 1 and 1 or n * fact(n - 1) end
            function even(n) return n == 0 or odd(n - 1) end
            function odd(n) return n ~= 0 and even(n - 1) end
            print(pool:apply(function() return fact(5), even(10) end))]])
    end)

    it("may have names of any length, and be many", function()
        assert.are.equal("500500\t1", play [[
            local lines = {}
            local long = ("n"):rep(300)
            for i = 1, 1000 do
                _G["v" .. i] = i
                lines[i] = ("sum = sum + v%d"):format(i)
            end
            _G[long] = 1
            print(pool:apply(assert(load("local sum = 0 " ..
                table.concat(lines, "\n") .. " return sum, " .. long))))]])
    end)

    it("are found through _G, and in functions inside of functions", function()
        assert.are.equal("1\t2", play [[
            one, two = 1, 2
            print(pool:apply(function()
                local g = _G
                return g.one, (function()
                    return (function() return two end)()
                end)()
            end))]])
    end)

    it("are found in stripped code, behind goto, in main chunks", function()
        assert.are.equal("3\t4\t5", play [[
            helper = function(x) return x end
            local stripped = load(string.dump(function()
                return helper(3)
            end, true))
            local function jump(n)
                goto over
                ::back:: do return helper(n) end
                ::over:: goto back
            end
            local chunk = load "return helper(...)"
            print(pool:apply(stripped), pool:apply(jump, {4}),
                pool:apply(chunk, {5}))]])
    end)

    it("are found behind an environment that inherits them", function()
        assert.are.equal("mine\tglobal", play [[
            shown = "global"
            local env = setmetatable({own = "mine"}, {__index = _G})
            print(pool:apply(load("return own, shown", "=x", "t", env)))]])
    end)

    it("are raw: metatables of the globals see nothing", function()
        assert.are.equal("5", play [[
            helper = function() return 5 end
            setmetatable(_G, {
                __index = function(_, k) error("reads " .. k, 0) end,
                __newindex = function(_, k) error("sets " .. k, 0) end,
            })
            print(pool:apply(function() return helper() end))]])
    end)

    it("belong to their job: two take turns", function()
        assert.are.equal("a1 b1 a2 b2 a3 b3", play [[
            function helper(x) return "a" .. x end
            local function job(x) return helper(x) end
            local a = pool:imap(job, {1, 2, 3}, 1)
            local first = {a:next()}
            function helper(x) return "b" .. x end
            local b = pool:imap(job, {1, 2, 3}, 1)
            local all = {first[2], (select(2, b:next()))}
            for i = 2, 3 do
                all[#all + 1] = select(2, a:next())
                all[#all + 1] = select(2, b:next())
            end
            print(table.concat(all, " "))]])
    end)

    it("give way to what the worker has when another job runs", function()
        assert.are.equal("old new old", run [[
            local mp = require "mp"
            function helper() return "old" end
            local pool <close> = mp.Pool(1)
            local function job() return helper() end
            local a = pool:imap(job, mp.range(300), 1)
            local all = {(select(2, a:next()))}
            local old = helper
            function helper() return "new" end
            all[2] = pool:apply(job)
            for _, v in a do all[3] = v end
            print(table.concat(all, " "))]])
    end)

    it("stay as the worker has changed them", function()
        assert.are.equal("1 2 3", play [[
            hits = 0
            local function job() hits = hits + 1 return hits end
            local function other() return 0 end
            local list = {}
            for i = 1, 3 do
                list[i] = pool:apply(job)
                pool:apply(other)
            end
            print(table.concat(list, " "))]])
    end)

    it("are there for a worker that replaces a dead one", function()
        assert.are.equal("WorkerLost\t6", play [[
            function helper(x) return 2 * x end
            local function job(x)
                if x == 0 then os.exit(3) end
                return helper(x)
            end
            local ok, e = pcall(pool.apply, pool, job, {0})
            print(e.kind, pool:apply(job, {3}))]])
    end)

    it("are the caller's of then for a crew that is made anew", function()
        assert.are.equal("2\t1", run [[
            local mp = require "mp"
            function helper() return 1 end
            local pool <close> = mp.Pool(1)
            local function job() return helper() end
            local old = helper
            function helper() return 2 end
            os.execute("kill -9 " .. pool:apply(mp.getppid))
            local ok, new
            for _ = 1, 100 do
                ok, new = pcall(pool.apply, pool, job)
                if ok then break end
            end
            helper = old
            print(new, pool:apply(job))]])
    end)
end)

describe("a job that is submitted again", function()
    it("is not sent again", function()
        assert.are.equal("1 1 1", play [[
            factor = 1
            local object = setmetatable({}, {__reduce = function()
                return function()
                    local state = require("mp").worker.state
                    state.made = (state.made or 0) + 1
                    return {state.made}
                end
            end})
            local function job() return factor * object[1] end
            local list = {}
            for i = 1, 3 do list[i] = pool:apply(job) end
            print(table.concat(list, " "))]])
    end)

    it("is, when it differs in its last byte", function()
        assert.are.equal("1 2 3", play [[
            local n
            local function job() return n end
            local list = {}
            for i = 1, 3 do
                n = i
                list[i] = pool:apply(job)
            end
            print(table.concat(list, " "))]])
    end)

    it("is, when a table that it reads was changed in place", function()
        assert.are.equal("1 2 3", play [[
            new = {}
            local function job() return new.n end
            local list = {}
            for i = 1, 3 do
                new.n = i
                list[i] = pool:apply(job)
            end
            print(table.concat(list, " "))]])
    end)
end)

describe("globals that the receiver has", function()
    it("do not go: a table of 100 MB costs nothing", function()
        assert.are.equal("1000000\ttrue", run [[
            local mp = require "mp"
            big = {}
            for i = 1, 1000000 do big[i] = {id = i, text = "item " .. i} end
            local pool <close> = mp.Pool(1)
            local function job() return #big end
            local n = pool:apply(job)
            local began = os.clock()
            for _ = 1, 100 do pool:apply(job) end
            print(n, os.clock() - began < 0.5)]])
    end)

    it("do not go behind a function that reads them either", function()
        assert.are.equal("100000\ttrue", run [[
            local mp = require "mp"
            big = {}
            for i = 1, 100000 do big[i] = {i} end
            function size() return #big end
            local pool <close> = mp.Pool(1)
            local before = mp.debug.arena_bytes and mp.debug.arena_bytes()
            local function job() return size() end
            local n = pool:apply(job)
            local began = os.clock()
            for _ = 1, 100 do pool:apply(job) end
            print(n, os.clock() - began < 0.2)]])
    end)

    it("need not be what can be pickled", function()
        assert.are.equal("thread\tfile", run [[
            local mp = require "mp"
            co, out = coroutine.create(print), io.stderr
            local pool <close> = mp.Pool(1)
            print(pool:apply(function()
                return type(co), io.type(out)
            end))]])
    end)
end)

describe("globals that cannot be pickled", function()
    it("stay what the worker has, should they be older there", function()
        assert.are.equal("file\tfile\t2", run [[
            local mp = require "mp"
            local file, count = io.stderr, 0
            function trace() count = count + 1 return io.type(file) end
            config = {log = io.stderr, level = 1}
            local pool <close> = mp.Pool(1)
            trace()
            config.level = 2
            print(pool:apply(function()
                return trace(), io.type(config.log), config.level
            end))]])
    end)

    it("keep no job from going that does not use them", function()
        assert.are.equal("1", play [[
            co = coroutine.create(print)
            print(pool:apply(function(x)
                if not x then return coroutine.resume(co) end
                return x
            end, {1}))]])
    end)

    it("are an error where they are used", function()
        assert.are.equal("cannot pickle a coroutine: global 'co' read by " ..
            "function 'job' (stdin:4)", play [[
            co = coroutine.create(print)
            function job() return co.x end
            local ok, e = pcall(pool.apply, pool, job)
            print(e.value.message)]])
    end)

    it("are an error when they are functions, and called", function()
        assert.are.equal("PicklingError\tcannot pickle a C function: global " ..
            "'step' read by function 'job' (stdin:4); it is in no loaded " ..
            "module, so it has no name to travel by", play [[
            step = coroutine.wrap(print)
            function job() return step() end
            local ok, e = pcall(pool.apply, pool, job)
            print(e.value.kind, e.value.message)]])
    end)

    it("are told by functions of Lua that are given them", function()
        local text = play [[
            co = coroutine.create(print)
            local ok, e = pcall(pool.apply, pool, function()
                return coroutine.resume(co)
            end)
            print(e.message)]]
        assert.is_truthy(text:find("cannot pickle a coroutine: global 'co' " ..
            "read by function at stdin:4", 1, true), text)
    end)

    it("go without their fields that cannot", function()
        assert.are.equal("7\tcannot pickle a file: global 'config'.log read " ..
            "by function at stdin:5", (play [[
            config = {log = io.stderr, level = 7}
            local n = pool:apply(function() return config.level end)
            local ok, e = pcall(pool.apply, pool, function()
                config.log:write("x")
            end)
            print(n, (e.value.message:gsub("; register.*", "")))]]))
    end)
end)

describe("functions among the items of a job", function()
    it("bring the globals that they read", function()
        assert.are.equal("2\t3\t4", play [[
            function helper(x) return x + 1 end
            local function f() return helper(1) end
            local function call(g) return g() end
            print(pool:apply(call, {f}), pool:map(call, {
                function() return helper(2) end,
                function() return helper(3) end})[1],
                pool:apply(function(t) return t.f() end,
                    {{f = function() return helper(3) end}}))]])
    end)
end)

describe("classes that travel with a job", function()
    it("are those among the globals, for objects in items", function()
        assert.are.equal("2\t3\ttrue", play [[
            Account = {}
            Account.__index = Account
            function Account.new(n) return setmetatable({n = n}, Account) end
            function Account:get() return self.n end
            local list = pool:map(function(a)
                a.n = a:get() + 1
                return a
            end, {Account.new(1), Account.new(2)})
            print(list[1]:get(), list[2]:get(),
                getmetatable(list[1]) == Account)]])
    end)

    it("know those that they inherit from", function()
        assert.are.equal("5\ttrue", play [[
            Base = {}
            Base.__index = Base
            function Base:get() return self.n end
            Derived = setmetatable({}, {__index = Base})
            Derived.__index = Derived
            print(pool:apply(function()
                local o = setmetatable({n = 5}, Derived)
                return o:get(), getmetatable(o).__index == Derived
            end))]])
    end)

    it("have the methods that they got since the pool was made", function()
        assert.are.equal("4", run [[
            local mp = require "mp"
            Point = {}
            Point.__index = Point
            local pool <close> = mp.Pool(1)
            function Point:twice() return 2 * self.x end
            print(pool:map(function(p) return p:twice() end,
                {setmetatable({x = 2}, Point)})[1])]])
    end)

    it("are those registered after the pool was made", function()
        assert.are.equal("8\ttrue\t9", play [[
            local Point = {}
            Point.__index = Point
            Point.class = Point
            function Point:twice() return 2 * self.x end
            mp.pickle.register("Point", Point)
            print(pool:map(function(p) return p:twice() end,
                {setmetatable({x = 4}, Point)})[1],
                pool:apply(function(p)
                    return p.class == getmetatable(p)
                end, {setmetatable({}, Point)}),
                pool:apply(function()
                    return setmetatable({x = 9}, Point)
                end).x)]])
    end)

    it("bring their reducing and rebuilding functions", function()
        assert.are.equal("3\t4", play [[
            local Vector = {}
            Vector.__index = Vector
            local function new(x, y) return setmetatable({x, y}, Vector) end
            mp.pickle.register("Vector", Vector, function(v)
                return v[1], v[2]
            end, function(x, y) return new(x, y) end)
            local v = pool:map(function(v)
                return setmetatable({v[2], v[1]}, getmetatable(v))
            end, {new(4, 3)})[1]
            print(v[1], v[2])]])
    end)

    it("give way to one that the worker registers itself", function()
        local dir = helper.tmpdir()
        local file = assert(io.open(dir .. "/shape.lua", "w"))
        file:write [[
            local Shape = {}
            Shape.__index = Shape
            require("mp").pickle.register("Shape", Shape)
            return {new = function() return setmetatable({}, Shape) end}]]
        file:close()
        assert.are.equal("table\ttable", run(HEAD .. [[
            local shape = require "shape"
            local function job(s)
                return type(s), type(require("shape").new())
            end
            print(pool:apply(job, {shape.new()}))]],
            {env = {LUA_PATH = dir .. "/?.lua;;"}}))
    end)
end)

describe("a session", function()
    it("defines jobs after its pool was made", function()
        local result = helper.run({"-i"}, {stdin = [[
mp = require "mp"
pool = mp.Pool(2)
function square(x) return x * x end
function job(x) return square(x) + offset end
offset = 1
print(table.concat(pool:map(job, {1, 2, 3}), " "))
offset = 100
print(table.concat(pool:map(job, {1, 2, 3}), " "))
function square(x) return -x end
print(table.concat(pool:map(job, {1, 2, 3}), " "))
pool:terminate()
]]})
        for _, line in ipairs {"2 5 10", "101 104 109", "99 98 97"} do
            assert.is_truthy(result.stdout:find(line, 1, true),
                result.stdout .. result.stderr)
        end
    end)
end)

describe("a fresh state", function()
    it("gets all that its job reads", function()
        assert.are.equal("14\nhello bob", run [[
            local mp = require "mp"
            local ctx = mp.get_context("spawn")
            base = {4}
            function helper(x) return x + base[1] end
            Greeter = ctx.Process:extend("Greeter")
            function Greeter:init(whom) self.whom = whom end
            function Greeter:run() print(greeting .. " " .. self.whom) end
            greeting = "hello"
            local p = ctx.Process{target = function(x) print(helper(x)) end,
                args = {10}}
            p:start() p:join()
            local g = Greeter("bob")
            g:start() g:join()]])
    end)

    it("gets registered classes, and ranges", function()
        assert.are.equal("6\t3", run [[
            local mp = require "mp"
            local ctx = mp.get_context("spawn")
            local Point = {}
            Point.__index = Point
            function Point:twice() return 2 * self.x end
            mp.pickle.register("Point", Point)
            local p = ctx.Process{target = function(point, range)
                print(point:twice(), #range)
            end, args = {setmetatable({x = 3}, Point), mp.range(3)}}
            p:start() p:join()]])
    end)

    it("keeps what is Lua's own, by whatever name it goes", function()
        assert.are.equal("true\ttrue\t5\ttrue", run [[
            local mp = require "mp"
            local ctx = mp.get_context("spawn")
            fmt, lib, co = string.format, string, coroutine.create(print)
            print = print
            local p = ctx.Process{target = function(unused)
                if unused then return co.x end
                print(fmt == string.format, lib == string, lib.len("12345"),
                    type(_G) == "table")
            end}
            p:start() p:join()]])
    end)

    it("tells what it could not get where that is used", function()
        local result = helper.run({"-"}, {stdin = [[
            local mp = require "mp"
            local ctx = mp.get_context("spawn")
            co = coroutine.create(print)
            local p = ctx.Process{target = function() return co.x end}
            p:start() p:join()
            print(p.exitcode)]]})
        assert.are.equal("1\n", result.stdout)
        assert.is_truthy(result.stderr:find("PicklingError: cannot pickle a " ..
            "coroutine: global 'co' read by function at stdin:4", 1, true),
            result.stderr)
    end)
end)

describe("a large job", function()
    local function warning(text)
        local result = helper.run({"-"}, {stdin = HEAD .. text})
        assert.are.equal(0, result.code)
        return result.stderr
    end

    it("is warned of once, by the name of its largest upvalue", function()
        assert.are.equal("[WARNING/MainProcess] a job carries 5.2 MB to each " ..
            "worker: upvalue 'big' of function at stdin:5 is 5.2 MB of it\n",
            warning [[
            mp.log_to_stderr()
            local big, small = ("x"):rep(5200000), ("y"):rep(50000)
            local function inner() return #big + #small end
            local function job() return inner() end
            pool:apply(job)
            pool:apply(job)]])
    end)

    it("is warned of by the name of its largest global", function()
        assert.are.equal("[WARNING/MainProcess] a job carries 2.0 MB to each " ..
            "worker: global 'big' is 2.0 MB of it\n", warning [[
            mp.log_to_stderr()
            big = ("x"):rep(2000000)
            pool:apply(function() return #big end)]])
    end)

    it("is not when it is less than 1 MB", function()
        assert.are.equal("", warning [[
            mp.log_to_stderr()
            big = ("x"):rep(900000)
            pool:apply(function() return #big end)]])
    end)
end)
