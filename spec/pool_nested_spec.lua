-- Pool: tasks that give tasks to the pool that they run in.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local square = tools.square

--- Adds up what tasks of the task give.
local function sum(pool, f, n)
    local total = 0
    for _, v in ipairs(pool:map(f, mp.range(1, n + 1), 1)) do
        total = total + v
    end
    return total
end

for _, method in ipairs{"fork", "spawn", "thread"} do
    local context = mp.get_context(method)

    describe("a pool in its own tasks, " .. method, function()
        it("PAIN-25 T-W-37 does what they wait for, however many wait",
            function()
                for _, n in ipairs{1, 3} do
                    local pool <close> = context.Pool(n)
                    assert.are.same({14, 14, 14, 14, 14, 14, n = 6},
                        pool:map(function() return sum(pool, square, 3) end,
                            mp.range(6), 1))
                end
            end)

        it("goes deep", function()
            local pool <close> = context.Pool(2)
            local function fib(k)
                if k < 2 then return k end
                local r = require "mp".worker.pool:map(fib, {k - 1, k - 2}, 1)
                return r[1] + r[2]
            end
            assert.are.equal(55, pool:apply(fib, {10}))
        end)
    end)
end

describe("a pool in its own tasks", function()
    it("POL-17 is an upvalue, an argument, or mp.worker.pool", function()
        local pool <close> = mp.Pool(1)
        assert.are.same({true, true, 25}, {pool:apply(function(p)
            local m = require "mp"
            return rawequal(p, pool), rawequal(p, m.worker.pool),
                p:apply(square, {5})
        end, {pool})})
        assert.is_nil(mp.worker.pool)
        local what = "pool objects cannot be passed between processes or "
            .. "pickled, but to the pool's own tasks"
        local other <close> = mp.Pool(1)
        local _, text = tools.failure("PicklingError", mp.pickle.dumps, pool)
        assert.is_truthy(text:find(what, 1, true), text)
        tools.failure("PicklingError", other.apply, other, type, {pool})
        local q = mp.Queue()
        tools.failure("PicklingError", q.put, q, pool)
    end)

    it("has all ways to call, with errors, and iterators", function()
        local pool <close> = mp.Pool(2)
        local kind, got, r, lost = pool:apply(function()
            local _, e = pcall(pool.map, pool, function(x)
                error("bad " .. x, 0)
            end, {7})
            local list = {}
            for _, v in pool:imap_unordered(square, {1, 2, 3}) do
                list[#list + 1] = v
            end
            table.sort(list)
            local async = pool:apply_async(square, {6})
            local _, dead = pcall(pool.apply, pool, square, {{}})
            return e.message, table.concat(list, " "), async:get(), dead.kind
        end)
        assert.are.equal("bad 7", kind)
        assert.are.equal("1 4 9", got)
        assert.are.equal(36, r)
        assert.are.equal("RemoteError", lost)
    end)

    it("gives back index, numbers and globals of the task", function()
        local pool <close> = mp.Pool(1)
        local list = pool:map(function()
            local m = require "mp"
            local before = m.worker.index
            local inner = pool:map(function()
                return require "mp".worker.index
            end, {0, 0, 0}, 1)
            return before == m.worker.index and #inner == 3
                and inner[3] == 3 and square(before)
        end, {0, 0, 0, 0})
        assert.are.same({1, 4, 9, 16, n = 4}, list)
    end)

    it("heeds timeouts in it and around it", function()
        local pool <close> = mp.Pool(1)
        local function stubborn()
            while true do pcall(function() while true do end end) end
        end
        local kind = pool:apply(function()
            local inner = pool:apply_async(function()
                while true do end
            end, {}, nil, {timeout = 0.03})
            return select(2, pcall(inner.get, inner)).kind
        end)
        assert.are.equal("TaskTimeout", kind)
        local r = pool:apply_async(function()
            return pool:apply(stubborn)
        end, {}, nil, {timeout = 0.03, grace = 0.03})
        tools.failure("TaskTimeout", r.get, r)
        assert.are.equal(9, pool:apply(square, {3}))
    end)

    it("hears that its call was left once it goes on", function()
        local pool <close> = mp.Pool(1)
        local phase, kind = mp.Value("i", 0), mp.Value("i", 0)
        for _ in pool:imap(function(x)
            if x == 2 then
                local _, e = pcall(function()
                    pool:apply(function()
                        phase.value = 1
                        local m = require "mp"
                        while phase.value < 2 do m.sleep(0.001) end
                    end)
                    while true do end
                end)
                kind.value = e.kind == "Cancelled" and 1 or 2
            end
            return x
        end, {1, 2}, 1) do
            helper.eventually(function()
                return phase.value == 1
            end)
            break
        end
        phase.value = 2
        helper.eventually(function()
            return kind.value > 0
        end)
        assert.are.equal(1, kind.value)
    end)

    it("counts what is done while it waits", function()
        local pool <close> = mp.Pool(1)
        pool:map(function() return sum(pool, square, 10) end, mp.range(3), 1)
        pool:apply(square, {1})
        assert.is_true(pool._core:counters()[1].done >= 33)
    end)

    it("may lose a task of a task, or the one that waits", function()
        local pool <close> = mp.Pool(3)
        local list = pool:map(function(x)
            local all = pool:map(function(y)
                if x == 2 and y == 2 then
                    require "mp".sleep(0.002)
                    os.exit(1)
                end
                return y
            end, {1, 2, 3}, {chunksize = 1, on_error = "collect"})
            return all[1] + all[3]
        end, mp.range(1, 9), {on_error = "collect", chunksize = 1})
        for x = 1, 8 do
            if x ~= 2 then
                assert.are.equal(4, list[x])
            end
        end
        assert.is_true(list[2] == 4 or list[2].kind == "WorkerLost")
        helper.eventually(function()
            return pool:apply(square, {2}) == 4
        end)
    end)

    it("is open to them until they end, and is not theirs to end", function()
        local pool = mp.Pool(2)
        local started = mp.Value("i", 0)
        local r = pool:map_async(function()
            started:add(1)
            require "mp".sleep(0.03)
            return sum(pool, square, 3)
        end, mp.range(4), 1)
        local refused = pool:apply_async(function()
            local kinds = {}
            for _, name in ipairs{"close", "terminate", "join"} do
                local _, e = pcall(pool[name], pool)
                kinds[#kinds + 1] = e.kind
            end
            do
                local p <close> = pool
            end
            return table.concat(kinds, " ")
        end)
        helper.eventually(function()
            return started.value > 0
        end)
        pool:close()
        pool:join()
        assert.are.same({14, 14, 14, 14, n = 4}, r:get())
        assert.are.equal("StateError StateError StateError", refused:get())
        pool._core:release()
    end)
end)
