-- Queue, SimpleQueue, JoinableQueue.

local helper = require "spec.helper"
local mp = require "mp"
local core = require "mp.core"

local failure = helper.failure
local start, finish = helper.start, helper.finish

--- Runs f(...) in a child and waits for its end; returns its exit code.
local function in_child(f, ...)
    local p <close> = mp.Process{target = f, args = table.pack(...)}
    p:start()
    p:join()
    return p.exitcode
end

describe("a queue", function()
    it("QUE-01 QUE-02 QUE-03 gives back what was put, in order, with its type",
        function()
        local q <close> = mp.Queue()
        local values = table.pack(1, -1, math.mininteger, 1.0, -0.0, 2.5,
            1 / 0, nil, false, true, "", "short", "1234567", "12345678",
            "\0\255\0", ("x"):rep(100), ("y"):rep(2048), ("z"):rep(2049),
            ("w"):rep(100000))
        for i = 1, values.n do
            q:put(values[i])
        end
        for i = 1, values.n do
            local v = q:get()
            assert.are.equal(values[i], v)
            assert.are.equal(math.type(values[i]), math.type(v))
        end
        assert.is_true(q:empty())
    end)

    it("keeps the bits of NaN and of -0.0", function()
        local q <close> = mp.Queue()
        for _, bits in ipairs {1 << 63, 0x7ff8000000000123} do
            q:put((string.unpack("d", string.pack("i8", bits))))
            assert.are.equal(bits,
                (string.unpack("i8", string.pack("d", q:get()))))
        end
    end)

    it("takes tables and functions, small and large", function()
        local q <close> = mp.Queue()
        local large = {}
        for i = 1, 10000 do
            large[i] = i
        end
        local n = 5
        q:put({1, {2, x = "y"}})
        q:put(large)
        q:put(function(x) return x + n end)
        assert.are.same({1, {2, x = "y"}}, q:get())
        assert.are.same(large, q:get())
        assert.are.equal(7, q:get()(2))
    end)

    it("PAIN-17 takes a 20 MB string", function()
        local q <close> = mp.Queue()
        local s = ("0123456789"):rep(2000000)
        q:put(s)
        assert.is_true(q:get() == s)
    end)

    it("QUE-13 carries queues, itself too", function()
        local q <close> = mp.Queue()
        local other <close> = mp.SimpleQueue()
        q:put(q)
        q:put({other, name = ("n"):rep(5000)})
        local again <close> = q:get()
        again:put("in the same")
        local t = q:get()
        t[1]:put(3)
        assert.are.equal(3, other:get())
        assert.are.equal("in the same", q:get())
        t[1]:close()
    end)

    it("keeps what an unread item refers to, and drops it with the item",
        function()
            local q <close> = mp.Queue()
            do
                local inner <close> = mp.Queue()
                inner:put("kept")
                q:put {inner}
            end
            local t = q:get()
            assert.are.equal("kept", t[1]:get())
            t[1]:close()
            q:put {mp.Queue()} -- never read
        end)

    it("QUE-05 QUE-06 PAIN-16 counts exactly and at once", function()
        local q <close> = mp.Queue()
        assert.is_true(q:empty())
        for i = 1, 10000 do
            q:put(i)
            if i % 1000 == 0 then
                assert.are.equal(i, q:qsize())
            end
        end
        assert.is_false(q:empty())
        assert.is_false(q:full())
        for i = 1, 10000 do
            assert.are.equal(i, q:get_nowait())
        end
        assert.are.equal(0, q:qsize())
    end)

    it("QUE-02 PAIN-15 refuses what cannot be pickled, in put, and stays as "
        .. "it was",
        function()
            local q <close> = mp.Queue()
            local message = failure("PicklingError", q.put, q,
                {a = coroutine.create(print)})
            assert.matches("coroutine", message)
            failure("PicklingError", q.put_many, q,
                {1, 2, coroutine.create(print)})
            assert.are.equal(0, q:qsize())
        end)
end)

describe("a full or empty queue", function()
    it("QUE-03 QUE-04 raises Empty, at once or when the time is up", function()
        local q <close> = mp.Queue()
        assert.matches("get: the queue is empty",
            failure("Empty", q.get, q, false))
        failure("Empty", q.get_nowait, q)
        failure("Empty", q.get, q, true, -1)
        failure("Empty", q.get, q, false, 10)
        local before = mp.monotonic()
        failure("Empty", q.get, q, true, 0.05)
        failure("Empty", q.get, q, nil, 0.05)
        failure("Empty", q.get_many, q, 5, 0.05)
        assert.is_true(mp.monotonic() - before >= 0.15)
    end)

    it("QUE-02 QUE-04 T-Q-05 raises Full, at once or when the time is up",
        function()
        local q <close> = mp.Queue(2)
        q:put(1, false)
        q:put(2, true, -1)
        assert.is_true(q:full())
        failure("Full", q.put, q, 3, false)
        failure("Full", q.put_nowait, q, 3)
        local before = mp.monotonic()
        failure("Full", q.put, q, 3, true, 0.05)
        failure("Full", q.put, q, ("x"):rep(5000), nil, 0.01)
        failure("Full", q.put, q, {mp.Queue()}, nil, 0.01)
        assert.is_true(mp.monotonic() - before >= 0.05)
        assert.are.equal(1, q:get())
        q:put(3)
        assert.are.equal(2, q:get())
        assert.are.equal(3, q:get())
    end)

    it("says so in the try_ forms, which raise nothing", function()
        local q <close> = mp.Queue {maxsize = 1}
        assert.are.same({false, "Empty"}, {q:try_get()})
        assert.are.same({false, "Empty"}, {q:try_get(0.01)})
        assert.are.same({true}, {q:try_put(nil)})
        assert.are.same({false, "Full"}, {q:try_put(1)})
        assert.are.same({false, "Full"}, {q:try_put(1, 0.01)})
        local r = table.pack(q:try_get())
        assert.are.same({true, nil, n = 2}, r)
    end)

    it("wakes who waits for an item", function()
        local q, back <close> = mp.Queue(), mp.Queue()
        local p = start(function()
            back:put("here")
            back:put(q:get(true, 10))
        end)
        back:get()
        q:put("woken")
        assert.are.equal("woken", back:get(true, 10))
        finish(p)
        q:close()
    end)

    it("wakes who waits for room", function()
        local q <close> = mp.Queue(1)
        q:put(1)
        local p = start(function()
            q:put(2)
            q:put(("x"):rep(3000))
        end)
        assert.are.equal(1, q:get())
        assert.are.equal(2, q:get(true, 10))
        assert.are.equal(3000, #q:get(true, 10))
        finish(p)
    end)
end)

describe("put_many and get_many", function()
    it("pass lists with any values", function()
        local q <close> = mp.Queue()
        local list = {1, nil, "three", {4}, ("5"):rep(3000), false, n = 6}
        q:put_many(list)
        assert.are.equal(6, q:qsize())
        local got = {n = 0}
        while got.n < 6 do
            local some = q:get_many(100)
            table.move(some, 1, some.n, got.n + 1, got)
            got.n = got.n + some.n
        end
        assert.are.same(list, got)
    end)

    it("take no more than asked for", function()
        local q <close> = mp.Queue()
        q:put_many {1, 2, 3, 4, 5}
        assert.are.same({1, 2, n = 2}, q:get_many(2))
        assert.are.same({3, 4, 5, n = 3}, q:get_many(1000))
        q:put_many {}
        assert.is_true(q:empty())
    end)

    it("pass many in order", function()
        local q <close> = mp.Queue()
        local list = {}
        for i = 1, 20000 do
            list[i] = i % 3 == 0 and "item " .. i or i
        end
        q:put_many(list)
        local n = 0
        while n < 20000 do
            local some = q:get_many(999)
            for i = 1, some.n do
                assert.are.equal(list[n + i], some[i])
            end
            n = n + some.n
        end
    end)

    it("fill a bounded queue as far as it goes", function()
        local q <close> = mp.Queue(3)
        local _, e = failure("Full", q.put_many, q,
            {1, 2, ("x"):rep(3000), 4, ("y"):rep(3000)}, 0)
        assert.are.equal(3, e.count)
        assert.are.equal(3, q:qsize())
        local p = start(function()
            q:put_many {4, 5, 6, 7, 8}
        end)
        local got = {}
        for i = 1, 8 do
            got[i] = q:get(true, 10)
        end
        assert.are.same({1, 2, ("x"):rep(3000), 4, 5, 6, 7, 8}, got)
        finish(p)
    end)

    it("lose nothing when an item cannot be rebuilt", function()
        local q <close> = mp.Queue()
        local broken = setmetatable({}, {__reduce = function()
            return function()
                error("cannot rebuild")
            end
        end})
        q:put_many {1, 2, broken, 4}
        local _, e = failure("PicklingError", q.get_many, q, 10)
        assert.matches("cannot rebuild", tostring(e))
        assert.are.same({1, 2, n = 2}, e.items)
        assert.are.equal(4, q:get())
    end)
end)

describe("a large item that cannot be rebuilt", function()
    it("leaves no memory and the next item behind", function()
        local q <close> = mp.Queue()
        local text = ("x"):rep(10000)
        q:put(setmetatable({}, {__reduce = function()
            return function()
                error("cannot rebuild")
            end, text
        end}))
        q:put("next")
        assert.is_false(pcall(q.get, q))
        assert.are.equal("next", q:get())
    end)
end)

describe("queue arguments", function()
    it("QUE-01 maxsize is an integer; 0 or less is no bound", function()
        for _, none in ipairs {0, -1, math.mininteger} do
            local q <close> = mp.Queue(none)
            for i = 1, 100 do
                q:put(i, false)
            end
            assert.is_false(q:full())
        end
        local q <close> = mp.Queue(2.0)
        q:put_many {1, 2}
        assert.is_true(q:full())
        assert.matches("Queue: argument 'maxsize': integer expected, got 1.5",
            failure("ValueError", mp.Queue, 1.5), 1, true)
        failure("ValueError", mp.Queue, 0 / 0)
        failure("ValueError", mp.JoinableQueue, 1 / 0)
        assert.matches("maxsize", failure("TypeError", mp.Queue, "3"))
        assert.matches("size", failure("TypeError", mp.Queue, {size = 3}))
        failure("TypeError", mp.SimpleQueue, 3)
    end)

    it("block is a boolean, timeout a number", function()
        local q <close> = mp.Queue()
        assert.matches("get: argument 'block': boolean or nil expected",
            failure("TypeError", q.get, q, 0.5), 1, true)
        failure("TypeError", q.put, q, 1, "no")
        failure("TypeError", q.get, q, true, "soon")
        failure("ValueError", q.get, q, true, 0 / 0)
        failure("ValueError", q.try_get, q, 0 / 0)
        failure("TypeError", q.put, q)
        assert.is_true(q:empty())
    end)

    it("get_many wants a count, put_many a list", function()
        local q <close> = mp.Queue()
        failure("ValueError", q.get_many, q, 0)
        failure("ValueError", q.get_many, q, 1.5)
        failure("TypeError", q.get_many, q)
        failure("TypeError", q.put_many, q, "abc")
    end)

    it("self is a queue", function()
        local lock <close> = mp.Lock()
        local q <close> = mp.Queue()
        for _, bad in ipairs {1, "q", {}, lock, io.stdout} do
            assert.matches("Queue expected",
                failure("TypeError", q.put, bad, 1))
            failure("TypeError", q.get, bad)
            failure("TypeError", q.close, bad)
        end
    end)
end)

describe("a closed queue", function()
    it("QUE-07 refuses everything, and may be closed again", function()
        local q = mp.JoinableQueue()
        q:put(1)
        q:close()
        q:close()
        for _, name in ipairs {"put", "get", "put_nowait", "get_nowait",
            "try_put", "try_get", "qsize", "empty", "full", "task_done",
            "join"} do
            assert.matches("JoinableQueue is closed",
                failure("StateError", q[name], q, true))
        end
        failure("StateError", q.put_many, q, {1})
        failure("StateError", q.get_many, q, 1)
    end)

    it("QUE-07 QUE-13 is open for others", function()
        local q, same <close> = mp.Queue(), mp.Queue()
        same:put(q)
        local other <close> = same:get()
        q:put(1)
        q:close()
        assert.are.equal(1, other:get())
        assert.are.equal(0, in_child(function()
            other:put(2)
            other:close()
        end))
        assert.are.equal(2, other:get())
    end)

    it("QUE-08 QUE-09 has no thread to join", function()
        local q = mp.Queue()
        q:cancel_join_thread()
        assert.matches("not closed", failure("StateError", q.join_thread, q))
        q:close()
        q:join_thread()
        q:cancel_join_thread()
    end)
end)

describe("a JoinableQueue", function()
    it("QUE-11 T-Q-11 joins at once when nothing was put", function()
        local q <close> = mp.JoinableQueue()
        assert.is_true(q:join())
        assert.is_true(q:join(0))
    end)

    it("QUE-10 QUE-11 T-Q-11 counts tasks", function()
        local q <close> = mp.JoinableQueue()
        assert.matches("task_done%(%) called too many times",
            failure("ValueError", q.task_done, q))
        q:put_many {1, 2}
        q:get()
        q:get()
        assert.is_false(q:join(0))
        q:task_done()
        assert.is_false(q:join(0.01))
        q:task_done()
        assert.is_true(q:join(1))
        failure("ValueError", q.task_done, q)
    end)

    it("QUE-11 T-Q-11 waits for several workers", function()
        local q <close> = mp.JoinableQueue()
        local done <close> = mp.Queue()
        local workers = {}
        for i = 1, 3 do
            workers[i] = start(function()
                for v in function() return q:get() end do
                    done:put(v)
                    q:task_done()
                end
                q:task_done()
            end)
        end
        for i = 1, 300 do
            q:put(i)
        end
        assert.is_true(q:join(20))
        assert.are.equal(300, done:qsize())
        q:put_many {n = 3}
        assert.is_true(q:join(20))
        for i = 1, 3 do
            finish(workers[i])
        end
    end)
end)

describe("a SimpleQueue", function()
    it("QUE-12 T-Q-13 puts far more than a pipe holds without a reader",
        function()
        local q <close> = mp.SimpleQueue()
        for _ = 1, 100 do
            q:put(("x"):rep(64 * 1024))
        end
        q:put(nil)
        for _ = 1, 100 do
            assert.are.equal(64 * 1024, #q:get())
        end
        assert.is_nil(q:get())
        assert.is_true(q:empty())
    end)
end)

describe("a SimpleQueue's methods", function()
    it("QUE-12 are get, put, empty, close and their like", function()
        local q = mp.SimpleQueue()
        q:put(false)
        assert.is_false(q:empty())
        assert.is_false(q:get())
        assert.matches("coroutine", failure("PicklingError", q.put, q,
            coroutine.create(print)))
        for _, name in ipairs{"full", "put_nowait", "get_nowait",
                              "task_done", "join"} do
            assert.is_nil(q[name], name)
        end
        q:close()
        q:close()
        for _, name in ipairs{"get", "put", "empty"} do
            assert.matches("SimpleQueue is closed",
                failure("StateError", q[name], q, 1))
        end
    end)
end)

describe("queues between processes", function()
    it("PAIN-14 T-Q-01 need not be read before the producer is joined",
        function()
        local q <close> = mp.Queue()
        local before = mp.monotonic()
        assert.are.equal(0, in_child(function()
            q:put(("x"):rep(2 << 20))
        end))
        assert.is_true(mp.monotonic() - before < 10)
        assert.are.equal(2 << 20, #q:get())
    end)

    it("PAIN-16 T-Q-03 show a put at once", function()
        local q <close> = mp.Queue()
        for i = 1, 10 do
            q:put(i)
            assert.are.equal(0, in_child(function()
                assert(q:qsize() == 1 and not q:empty())
                assert(q:get_nowait() == i)
            end))
        end
    end)

    it("QUE-01 T-Q-07 give each item of 4 producers to one of 3 consumers, "
        .. "in order",
        function()
            local q <close> = mp.Queue()
            local back <close> = mp.Queue()
            local all = {}
            for c = 1, 3 do
                all[c] = start(function()
                    local last, n = {0, 0, 0, 0}, 0
                    while true do
                        local item = q:get()
                        if not item then
                            break
                        end
                        assert(item[2] > last[item[1]], "out of order")
                        last[item[1]] = item[2]
                        n = n + 1
                    end
                    back:put(n)
                end)
            end
            for p = 1, 4 do
                all[p + 3] = start(function()
                    for i = 1, 2500 do
                        q:put {p, i}
                    end
                end)
            end
            for p = 4, 7 do
                finish(all[p])
            end
            q:put_many {false, false, false}
            local n = back:get() + back:get() + back:get()
            assert.are.equal(10000, n)
            for c = 1, 3 do
                finish(all[c])
            end
        end)

    it("T-Q-09 give a whole item or none when a producer is killed in put",
        function()
            local q <close> = mp.Queue()
            local ready <close> = mp.Queue()
            local s = ("x"):rep(10 << 20)
            for round = 1, 10 do
                local p = start(function()
                    ready:put(1)
                    while true do
                        q:put(s)
                        if q:qsize() > 3 then
                            mp.sleep(10)
                        end
                    end
                end)
                ready:get()
                mp.sleep(round / 1000)
                p:kill()
                assert.is_true(p:join(10))
                p:close()
                while not q:empty() do
                    assert.are.equal(#s, #q:get(true, 10))
                end
            end
        end)

    it("PAIN-02 go on when a consumer is killed while it waits", function()
        local q <close> = mp.Queue()
        local ready <close> = mp.Queue()
        for i = 1, 10 do
            local p = start(function()
                ready:put(1)
                q:get()
            end)
            ready:get()
            p:kill()
            assert.is_true(p:join(10))
            p:close()
            q:put(i)
            assert.are.equal(i, q:get(true, 1))
        end
    end)
end)

describe("10,000 rounds of creating and dropping queues", function()
    it("T-F-23 leave the arena as it was", function()
        local function rounds(n)
            for i = 1, n do
                local q <close> = mp.Queue()
                q:put(i)
                q:put(("x"):rep(3000))
            end
        end
        rounds(100)
        local bytes = core.debug.arena_bytes()
        rounds(10000)
        assert.are.equal(bytes, core.debug.arena_bytes())
    end)
end)
