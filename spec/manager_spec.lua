-- Manager: what it makes, how tables nest, cross and go. (Each container's
-- methods: manager_dict_spec, manager_list_spec, manager_set_spec.)

local helper = require "spec.helper"
local mp = require "mp"
local start_tools = require "spec.start_tools"

local failure = helper.failure
local manager = mp.Manager()

start_tools.start_server()

--- Runs a job in a process of its own, to a good end.
local function run(context, job, ...)
    local p <close> = context.Process{target = job, args = table.pack(...)}
    p:start()
    assert.is_true(p:join(20))
    assert.are.equal(0, p.exitcode)
end

describe("Manager", function()
    it("T-F-11 has started, and makes nothing after its end", function()
        local m = mp.Manager()
        assert.are.equal("start: the manager has already started",
            failure("StateError", m.start, m))
        local d, lock = m:dict{a = 1}, m:Lock()
        m:shutdown()
        m:shutdown()
        for _, name in ipairs{"dict", "list", "set", "Namespace", "Value",
            "Array", "Queue", "JoinableQueue", "Lock", "RLock", "Semaphore",
            "BoundedSemaphore", "Condition", "Event", "Barrier", "Pool",
            "start"} do
            assert.are.equal(name .. ": the manager has shut down",
                failure("StateError", m[name], m))
        end
        d.a = 2
        assert.are.equal(2, d.a)
        assert.is_true(lock:acquire(false))
        lock:release()
        local closed
        do
            local inner <close> = mp.Manager()
            closed = inner
            assert.are.equal("<Manager>", tostring(inner))
        end
        failure("StateError", closed.dict, closed)
        assert.are.equal("<Manager (shut down)>", tostring(closed))
    end)

    it("T-F-11 says how its methods are called", function()
        assert.are.equal("dict: argument 'self': Manager expected, got nil "
            .. "(use ':')", failure("TypeError", manager.dict))
        assert.are.equal("Manager: too many arguments (1, at most 0)",
            failure("TypeError", mp.Manager, 1))
        failure("TypeError", manager.list, {1})
        failure("TypeError", manager.dict, manager, 5)
        failure("TypeError", manager.dict, manager, {}, {})
    end)

    it("is there in every context, and in each process", function()
        local m = mp.get_context("spawn").Manager()
        local d = m:dict()
        run(mp, function()
            d.made = m:list{1}
            d.there = mp.Manager():dict{x = 1}
        end)
        assert.are.same({made = {1}, there = {x = 1}}, d:totable())
    end)
end)

describe("what a manager makes", function()
    it("MAN-12 is of all of Python's types", function()
        for _, name in ipairs{"list", "dict", "set", "Namespace", "Lock",
            "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event",
            "Queue", "JoinableQueue"} do
            local made = manager[name](manager)
            assert.are.equal(name, getmetatable(made).__name)
        end
    end)

    start_tools.each("MAN-19 holds numbers that a child changes",
        function(context)
            local v, a = manager:Value("i", 10), manager:Array("i", {1, 2, 3})
            run(context, function()
                v:set(v:get() + 1)
                a[1] = #a * 10
            end)
            assert.are.equal(11, v.value)
            assert.are.equal(11, v:get())
            assert.are.same({30, 2, 3}, a:slice())
            failure("TypeError", v.set, v, "x")
            assert.are.equal(11, v:get_lock() and v.value)
        end)

    it("MAN-20 acquires, and refuses as mp's own locks do", function()
        local lock, rlock = manager:Lock(), manager:RLock()
        local s, b = manager:Semaphore(2), manager:BoundedSemaphore(1)
        run(mp, function()
            assert(lock:acquire() and rlock:acquire() and rlock:acquire())
            rlock:release()
            rlock:release()
            lock:release()
            assert(s:acquire() and b:acquire())
            b:release()
        end)
        assert.are.equal(1, s:get_value())
        failure("ValueError", lock.release, lock)
        failure("StateError", rlock.release, rlock)
        failure("ValueError", b.release, b)
        do local _ <close> = lock:guard() end
    end)

    it("MAN-21 waits and wakes", function()
        local event, condition = manager:Event(), manager:Condition()
        local barrier, state = manager:Barrier(2), manager:Namespace{n = 0}
        local p <close> = mp.Process{target = function()
            assert(event:wait(20))
            condition:acquire()
            state.n = state.n + 1
            condition:notify_all()
            condition:release()
            barrier:wait(20)
        end}
        p:start()
        condition:acquire()
        event:set()
        assert.is_true(condition:wait_for(function() return state.n == 1 end,
            20))
        condition:release()
        barrier:wait(20)
        assert.is_true(p:join(20))
        assert.are.equal(0, p.exitcode)
        failure("StateError", condition.wait, condition)
    end)

    it("MAN-22 queues", function()
        local jobs, done = manager:JoinableQueue(), manager:Queue(5)
        local d = manager:dict{done = done}
        local p <close> = mp.Process{target = function()
            for _ = 1, 3 do
                d.done:put(jobs:get() * 2)
                jobs:task_done()
            end
        end}
        p:start()
        for i = 1, 3 do jobs:put(i) end
        assert.is_true(jobs:join(20))
        assert.are.same({2, 4, 6, n = 3}, d.done:get_many(3))
        failure("ValueError", jobs.task_done, jobs)
        p:join()
    end)

    it("MAN-23 has pools, each for the process that made it", function()
        local pool <close> = manager:Pool(2)
        assert.are.same({1, 4, n = 2}, pool:map(function(x)
            return x * x
        end, {1, 2}))
    end)
end)

describe("a plain table in a container", function()
    it("MAN-16 is a container, which all change", function()
        local d = manager:dict()
        d.config = {level = 1, tags = {"a"}, deep = {{{1}}}}
        run(mp, function()
            d.config.level = 2
            d.config.tags:append("b")
            d.config.deep[1][1][1] = "changed"
            d.config.new = {{}}
        end)
        assert.are.same({level = 2, tags = {"a", "b"},
            deep = {{{"changed"}}}, new = {{}}}, d.config:totable())
        local l = manager:list{{x = 0}}
        l[1].x = 1
        assert.are.equal(1, l[1].x)
        assert.is_true(rawequal(l[1], l[1]))
        l:append({})
        l[2].y = 2
        assert.are.equal(2, l[2].y)
    end)

    it("T-F-13 is changed in any place, by any process", function()
        local d = manager:dict{t = {list = {1, 2, {3}}}}
        local t = d.t
        run(mp, function() d.t.list[3]:append(4) end)
        assert.are.equal(4, t.list[3][2])
        t.list = nil
        assert.is_nil(d.t.list)
        t.n = 5
        d.t = nil
        assert.are.equal(5, t.n)
    end)

    it("is a list when its keys are 1 to n, else a dict", function()
        local d = manager:dict()
        local function becomes(t)
            d.x = t
            return getmetatable(d.x).__name
        end
        assert.are.equal("list", becomes{1, 2})
        assert.are.equal("list", becomes{[2] = "b", [1] = "a"})
        assert.are.equal("list", becomes(table.pack(nil, 2)))
        assert.are.equal(2, #d.x)
        for _, t in ipairs{{}, {n = 0}, {n = 3}, {1, x = 1}, {[2] = 1},
            {[0] = 1, 2}, {1, [1.5] = 2}, {1, n = "1"}, {1, 2, n = 1},
            {[true] = 1}} do
            assert.are.equal("dict", becomes(t))
            assert.are.same(t, d.x:totable())
        end
    end)

    it("keeps what it shares with others, and circles", function()
        local shared = {1}
        local t = {a = shared, b = {shared}}
        t.self, t.b[2] = t, t.b
        local d = manager:dict{t = t}
        d.t.a:append(2)
        assert.are.equal(2, d.t.b[1][2])
        d.t.self.b[2][2]:append("end")
        assert.are.equal("end", d.t.b[3])
        local copy = d:totable().t
        assert.is_true(copy.self == copy)
        assert.is_true(copy.a == copy.b[1])
        assert.is_true(copy.b[2] == copy.b)
        d.t.b:clear()
        d.t:clear()
    end)

    it("leaves nothing behind when it cannot be stored", function()
        local d = manager:dict()
        local before = mp.debug.objects()
        for _ = 1, 20 do
            local t = {{}, {1, 2}, {big = ("x"):rep(1000)}}
            t[1].back, t[2][3], t.self = t, t, t
            t[4] = {{bad = coroutine.create(print)}}
            assert.are.equal("cannot pickle a coroutine: value[4][1].bad",
                failure("PicklingError", d.set, d, "x", t))
        end
        assert.are.equal(0, #d)
        collectgarbage()
        collectgarbage()
        assert.are.equal(before, mp.debug.objects())
    end)

    it("leaves nothing behind when there is no memory for all of it",
        function()
        local result = helper.run({"-c", 'prlimit --fsize=16777216 "$@" | cat',
            "sh", helper.mplua, "-e", [[
            local mp = require "mp"
            local m, kept = mp.Manager(), {}
            local d = m:dict()
            local circle = {a = {}, big = {}}
            circle.a.circle = circle
            for i = 1, 100000 do circle.big[i] = {} end
            for i = 1, 6 do
                local ok, e = pcall(d.set, d, "x", circle)
                collectgarbage()
                collectgarbage()
                io.write(ok and "stored" or e.code, " ",
                    mp.debug.objects() - i, "\n")
                kept[i] = m:list{("x"):rep(2000)}
            end]]}, {program = "sh"})
        assert.are.equal(("ENOMEM 0\n"):rep(6), result.stdout, result.stderr)
    end)

    it("may be nested 900 deep", function()
        local d, t = manager:dict(), {}
        for _ = 1, 900 do t = {t} end
        d.t = t
        local c, depth = d.t, 0
        while #c > 0 do
            c, depth = c[1], depth + 1
        end
        assert.are.equal(900, depth)
        c.x = "bottom"
        t = d.t:totable()
        while t[1] do t = t[1] end
        assert.are.equal("bottom", t.x)
    end)

    it("is a value when it has a metatable, like all else that travels",
        function()
            local Point = setmetatable({}, {__call = function(class, x)
                return setmetatable({x = x, inner = {1}}, class)
            end})
            Point.__index = Point
            function Point:double() return 2 * self.x end
            Point.__name = "spec.Point"
            mp.pickle.register("spec.ManagerPoint", Point)
            local d = manager:dict{p = Point(4), f = math.max,
                g = function(x) return x + 1 end, r = mp.range(3)}
            assert.are.equal(8, d.p:double())
            assert.are.equal(1, d.p.inner[1])
            assert.is_false(d.p == d.p)
            assert.are.equal(math.max, d.f)
            assert.are.equal(3, d.g(2))
            assert.are.equal(3, #d.r)
            local l = manager:list{Point(1), Point(2), 3}
            l:sort{key = function(v)
                return type(v) == "table" and -v.x or v
            end}
            assert.are.equal(2, l[1].x)
            assert.are.equal(3, l:pop())
        end)
end)

describe("a container", function()
    it("is used by the functions that rebuild what it holds", function()
        local l, depth = manager:list(), 0
        local Chain = {__name = "spec.Chain"}
        function Chain.__getstate() return true end
        function Chain.__setstate()
            depth = depth + 1
            if #l > 0 then l:pop() end
        end
        mp.pickle.register("spec.ManagerChain", Chain)
        for _ = 1, 20 do l:append(setmetatable({}, Chain)) end
        assert.are.equal("pop: called from too many nested rebuilding "
            .. "functions", failure("StateError", l.pop, l))
        assert.is_true(depth > 1)
        assert.are.equal(20 - depth, #l)
        while #l > 2 do pcall(l.pop, l) end
        l:pop()
        assert.are.equal(0, #l)
        l:append(1)
        assert.are.equal(1, l:pop())
        assert.are.same({true}, {mp.debug.fsck()})
        l = nil -- which the class would keep for ever
    end)

    start_tools.each("crosses as argument, upvalue, item and result",
        function(context)
            local d, l, s, ns = manager:dict(), manager:list(), manager:set(),
                manager:Namespace()
            local queue = mp.Queue()
            queue:put{d, l}
            do
                local pool <close> = context.Pool(1)
                local back = pool:apply(function(list, q)
                    local dict = q:get()[1]
                    dict.x = "dict"
                    list:append("list")
                    s:add("set")
                    ns.x = {"namespace"}
                    return ns
                end, {l, queue})
                assert.is_true(back == ns)
                back.y = 1
            end
            assert.are.equal("dict", d.x)
            assert.are.equal("list", l[1])
            assert.is_true(s:contains("set"))
            assert.are.equal("namespace", ns.x[1])
            assert.are.equal(1, ns.y)
        end)

    it("is an iterable for pools, as it is when the call begins", function()
        local pool <close> = mp.Pool(2)
        local l = manager:list{1, 2, {3}}
        local function job(x)
            if type(x) == "userdata" then x = x[1] end
            l:pop()
            return x * 10
        end
        assert.are.same({10, 20, 30, n = 3}, pool:map(job, l, 1))
        assert.are.equal(0, #l)
        assert.are.same({5, n = 1}, pool:map(math.abs, manager:set{-5}))
        assert.are.same({"KEY", n = 1}, pool:map(string.upper,
            manager:dict{key = 1}))
        local sum = 0
        for _, v in pool:imap(math.abs, manager:list{-1, -2}) do
            sum = sum + v
        end
        assert.are.equal(3, sum)
        failure("TypeError", pool.map, pool, math.abs, manager:Namespace())
    end)

    it("T-F-15 outlives the process that made it", function()
        local queue = mp.Queue()
        run(mp, function()
            local made = mp.Manager():dict{n = 1, list = {1}}
            queue:put(made)
        end)
        local d = queue:get()
        d.list:append(2)
        assert.are.equal(2, d.list[2])
        run(mp, function() d.n = 2 end)
        assert.are.equal(2, d.n)
    end)

    it("MAN-24 is freed when nobody holds it", function()
        local d = manager:dict{keep = {}}
        collectgarbage()
        local objects = mp.debug.objects()
        d.x = {{{}, {}}, lock = mp.Lock(), queue = mp.Queue()}
        assert.is_true(mp.debug.objects() >= objects + 6)
        local inner = d.x[1]
        d.x = nil
        collectgarbage()
        collectgarbage()
        assert.are.equal(objects + 3, mp.debug.objects())
        assert.are.equal(2, #inner)
        inner = nil
        collectgarbage()
        collectgarbage()
        assert.are.equal(objects, mp.debug.objects())
    end)

    it("T-F-17 leaves nothing in 1000 iterations", function()
        local root = manager:dict()
        local pool <close> = mp.Pool(1)
        local function second(list) return list[2] end
        pool:apply(second, {{1, 2}})
        collectgarbage()
        collectgarbage()
        root.item = 1
        root:clear()
        local objects, bytes = mp.debug.objects(), mp.debug.arena_bytes()
        for i = 1, 1000 do
            root.item = {i, {name = ("n"):rep(i % 40), {}}}
            local list = root.item
            list:append(manager:set{i})
            list[2].again = list[2][1]
            if i % 100 == 0 then
                pool:apply(second, {list}).seen = i
            end
            if i % 40 == 0 then
                collectgarbage()
                collectgarbage()
            end
        end
        root:clear()
        helper.eventually(function()
            collectgarbage()
            pool:apply(collectgarbage)
            return mp.debug.objects() == objects
        end)
        -- The pool keeps what it was told of its job.
        assert.is_true(mp.debug.arena_bytes() <= bytes + 1024)
    end)

    it("PAIN-22 is changed whole, by many, or not at all", function()
        local d = manager:dict{total = 0, log = {}}
        local list = {}
        for i = 1, 3 do
            list[i] = mp.Process{target = function()
                for _ = 1, 100 do
                    d:update_with("total", function(n) return n + 1 end)
                    d.log:append(i)
                end
            end}
            list[i]:start()
        end
        for _, p in ipairs(list) do assert.is_true(p:join(20)) end
        assert.are.equal(300, d.total)
        assert.are.equal(300, #d.log)
    end)
end)
