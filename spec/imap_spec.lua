-- Pool: imap and imap_unordered.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local failure, square, sleep = tools.failure, tools.square, tools.sleep
local counter, broken_at = tools.counter, tools.broken_at

describe("imap", function()
    for _, chunk in ipairs {false, 1, 2, 7, 1000, 1 << 40, math.maxinteger} do
        it("yields index and value in order, chunks of " .. tostring(chunk)
            .. " (POL-08)", function()
            local pool <close> = mp.Pool(2)
            local n = 0
            for i, v in pool:imap(square, mp.range(1, 3001),
                chunk or nil) do
                n = n + 1
                assert.are.equal(n, i)
                assert.are.equal(n * n, v)
            end
            assert.are.equal(3000, n)
        end)
    end

    it("takes each kind of iterable", function()
        local pool <close> = mp.Pool(2)
        local array <close> = mp.Array("d", {1, 2})
        local path = helper.tmpfile("a\nb\nc\n")
        local function all(xs, f)
            local list = {n = 0}
            for i, v in pool:imap(f or square, xs) do
                list[i] = v
                list.n = i
            end
            return list
        end
        assert.are.same({1, 4, n = 2}, all(array))
        assert.are.same({9, 4, n = 2}, all(mp.range(3, 1, -1)))
        assert.are.same({"A", "B", "C", n = 3},
            all(io.lines(path), string.upper))
        assert.are.same({1, "nil", 3, n = 3}, all({1, nil, 3, n = 3},
            function(x) return x or "nil" end))
        assert.are.same({n = 0}, all({}))
        assert.are.same({n = 0}, all(mp.range(0)))
        assert.are.same({n = 0}, all(function() end))
        assert.are.same({1, 16, n = 2}, all(pool:map(square, {1, 2})))
    end)

    it("does not end at a nil or false result", function()
        local pool <close> = mp.Pool(2)
        local list = {}
        for i, v in pool:imap(function(x)
            if x == 1 then return nil end
            if x == 2 then return false end
            if x == 3 then return end
            return x
        end, {1, 2, 3, 4}) do
            list[i] = v == nil and "nil" or v
        end
        assert.are.same({"nil", false, "nil", 4}, list)
    end)

    it("goes on behind an item that failed (POL-10)", function()
        local pool <close> = mp.Pool(2)
        for _, name in ipairs {"imap", "imap_unordered"} do
            for _, chunk in ipairs {1, 3, 100} do
                local it = pool[name](pool, function(x)
                    if x == 3 or x == 5 then
                        error("bad " .. x, 0)
                    end
                    return x
                end, mp.range(1, 8), chunk)
                local sum, bad = 0, 0
                while true do
                    local ok, i, v = pcall(it.next, it)
                    if not ok then
                        assert.are.equal("RemoteError", i.kind)
                        assert.are.equal("bad " .. i.index, i.value)
                        bad = bad + i.index
                    elseif i then
                        assert.are.equal(i, v)
                        sum = sum + v
                    else
                        break
                    end
                end
                assert.are.equal(1 + 2 + 4 + 6 + 7, sum)
                assert.are.equal(8, bad)
            end
        end
    end)

    it("leaves a for loop with the item's error", function()
        local pool <close> = mp.Pool(2)
        local e = failure("RemoteError", function()
            for _ in pool:imap(error, {1, 2, 3}) do end
        end)
        assert.are.equal(1, e.index)
        assert.are.equal(9, pool:apply(square, {3}))
    end)

    it("gives nil at the end, and ever after (POL-10)", function()
        local pool <close> = mp.Pool(1)
        local it = pool:imap(square, {5})
        assert.are.same({1, 25}, {it:next()})
        for _ = 1, 3 do
            assert.is_nil((it:next()))
            assert.is_nil((it:next(0)))
        end
    end)

    it("waits no longer than asked, and goes on (T-W-17)", function()
        local pool <close> = mp.Pool(1)
        local it = pool:imap(sleep, {0.3, 0})
        failure("TimeoutError", it.next, it, 0.05)
        failure("TimeoutError", it.next, it, 0)
        failure("TimeoutError", it.next, it, -1)
        assert.are.same({1, 0.3}, {it:next(10)})
        assert.are.same({2, 0}, {it:next(10)})
        failure("ValueError", it.next, it, 0 / 0)
        failure("TypeError", it.next, it, "1")
    end)

    it("sleeps while it waits for an item that lags behind", function()
        local pool <close> = mp.Pool(2)
        local function job(x)
            require "mp".sleep(x == 1 and 0.5 or 0)
            return x
        end
        for _, chunk in ipairs {1, 10} do
            local used = os.clock()
            for i, v in pool:imap(job, mp.range(1, 501), chunk) do
                assert.are.equal(i, v)
            end
            assert.is_true(os.clock() - used < 0.2)
        end
    end)

    it("draws its input lazily, a bounded window ahead", function()
        local pool <close> = mp.Pool(2)
        for _, name in ipairs {"imap", "imap_unordered"} do
            local state = {}
            local draw = counter(nil, state)
            for i in pool[name](pool, square, draw, 1) do
                if i >= 10 then
                    break
                end
            end
            assert.is_true(state.at >= 10 and state.at < 10000)
        end
    end)

    it("draws its input no further than buffersize (POL-08, PAIN-10)",
    function()
        local pool <close> = mp.Pool(2)
        for _, method in ipairs {"imap", "imap_unordered"} do
            for _, size in ipairs {1, 5, 64} do
                local state = {}
                local it = pool[method](pool, square,
                    tools.counter(nil, state), {buffersize = size})
                for taken = 0, 20 do
                    assert.is_true(state.at - taken <= size)
                    it()
                end
            end
            local list = {}
            for i, v in pool[method](pool, square, mp.range(500), {
                    buffersize = 7, chunksize = 3}) do
                list[i] = v
            end
            assert.are.equal(499 * 499, list[500])
            for _, bad in ipairs {0, -1, 1.5} do
                local _, text = tools.failure("ValueError", pool[method],
                    pool, square, {1}, {buffersize = bad})
                assert.are.equal(("%s: buffersize must be nil or > 0, got "
                    .. "%s"):format(method, bad), text)
            end
            tools.failure("TypeError", pool[method], pool, square, {1},
                {buffersize = "2"})
        end
        tools.failure("TypeError", pool.map, pool, square, {1},
            {buffersize = 2})
    end)

    it("stops when a loop over an endless input is left", function()
        local pool = mp.Pool(2)
        for i, v in pool:imap(square, counter()) do
            if i == 5000 then
                assert.are.equal(25000000, v)
                break
            end
        end
        for _ in pool:imap_unordered(square, counter()) do
            break
        end
        pool:close()
        pool:join()
        assert.are.equal("<Pool state=close size=2>", tostring(pool))
    end)

    it("does not run what is outstanding once it was left", function()
        local pool <close> = mp.Pool(1)
        local count <close> = mp.Value("q", 0)
        for _ in pool:imap(function(x)
            count:add(1)
            require "mp".sleep(0.01)
            return x
        end, mp.range(500), 1) do
            break
        end
        pool:apply(square, {1})
        local ran = count.value
        assert.is_true(ran < 100)
        pool:apply(square, {1})
        assert.are.equal(ran, count.value)
    end)

    it("is finished by close and join when half read (T-W-15)", function()
        for _, name in ipairs {"imap", "imap_unordered"} do
            local pool = mp.Pool(2)
            local it = pool[name](pool, square, counter(5000), 1)
            assert.is_number((it:next()))
            pool:close()
            pool:join()
            local n = 1
            for i, v in it do
                assert.are.equal(i * i, v)
                n = n + 1
            end
            assert.are.equal(5000, n)
        end
    end)

    it("can be read after the end of the pool's block", function()
        local it, other
        do
            local pool <close> = mp.Pool(2)
            it = pool:imap(square, {1, 2, 3})
            other = pool:imap_unordered(square, counter(5000))
        end
        assert.are.same({1, 1}, {it:next()})
        assert.are.same({2, 4}, {it:next()})
        assert.are.same({3, 9}, {it:next()})
        assert.is_nil((it:next()))
        local n = 0
        for i, v in other do
            assert.are.equal(i * i, v)
            n = n + 1
        end
        assert.are.equal(5000, n)
    end)

    it("says so when it was not read before terminate", function()
        local pool = mp.Pool(1)
        local it = pool:imap(sleep, {0, 60})
        assert.are.same({1, 0}, {it:next()})
        pool:terminate()
        failure("PoolTerminated", it.next, it)
        failure("PoolTerminated", it)
    end)

    it("says so when its pool was left by an error", function()
        local it
        pcall(function()
            local pool <close> = mp.Pool(1)
            it = pool:imap(sleep, {0, 60})
            error("out")
        end)
        failure("PoolTerminated", it.next, it)
        failure("PoolTerminated", it)
    end)

    it("raises its input's error behind the items before it (POL-08)",
        function()
            local pool <close> = mp.Pool(2)
            local problem = {}
            for _, at in ipairs {1, 4, 3000} do
                local it = pool:imap(square, broken_at(at, problem))
                for i = 1, at - 1 do
                    assert.are.same({i, i * i}, {it:next()})
                end
                local ok, e = pcall(it.next, it)
                assert.is_false(ok)
                assert.are.equal(problem, e)
                assert.is_nil((it:next()))
            end
        end)

    it("raises for an item that cannot be pickled, at its place", function()
        local pool <close> = mp.Pool(2)
        local it = pool:imap(square, {1, 2, coroutine.create(print), 4})
        assert.are.same({1, 1}, {it:next()})
        assert.are.same({2, 4}, {it:next()})
        local e = failure("PicklingError", it.next, it)
        assert.are.equal(3, e.index)
    end)

    it("serves several loops at once", function()
        local pool <close> = mp.Pool(2)
        local sum = 0
        for i in pool:imap(square, mp.range(1, 6)) do
            for _, v in pool:imap(square, mp.range(1, 4)) do
                sum = sum + i * v
            end
        end
        assert.are.equal(15 * 14, sum)
    end)

    it("may be the input of another", function()
        local pool <close> = mp.Pool(2)
        local first = pool:imap(square, mp.range(1, 101))
        local sum = 0
        for _, v in pool:imap(square, function()
            local i, v = first:next()
            return i and v
        end) do
            sum = sum + v
        end
        assert.are.equal(2050333330, sum)
    end)

    it("survives a generator that gives the iterator up", function()
        local pool <close> = mp.Pool(1)
        local it
        local draw = counter()
        it = pool:imap(square, function()
            local i = draw()
            if i > 5000 then
                it:close()
            end
            return i
        end)
        local n = 0
        for _ in function() return (it:next()) end do
            n = n + 1
        end
        assert.is_true(n > 0 and n <= 5000)
    end)

    it("survives a generator that terminates the pool", function()
        local pool = mp.Pool(1)
        local draw = counter()
        failure("PoolTerminated", function()
            for _ in pool:imap(square, function()
                local i = draw()
                if i == 3000 then
                    pool:terminate()
                end
                return i
            end) do end
        end)
    end)

    it("is forgotten when nobody has it any more", function()
        local pool <close> = mp.Pool(1)
        pool:imap(square, counter())
        pool:imap_unordered(square, counter())
        collectgarbage()
        assert.are.equal(9, pool:apply(square, {3}))
    end)

    it("takes no callbacks and no unknown option", function()
        local pool <close> = mp.Pool(1)
        failure("TypeError", pool.imap, pool, square, {1}, {callback = print})
        failure("TypeError", pool.imap, pool, square, {1}, {size = 1})
        assert.are.same({1, 4}, {pool:imap(square, {2}, {
            chunksize = 1,
        }):next()})
    end)
end)

describe("imap_unordered", function()
    it("yields in the order of completion (T-W-19, POL-09)", function()
        local pool <close> = mp.Pool(3)
        local order = {}
        for i, v in pool:imap_unordered(sleep, {0.45, 0.05, 0.25}, 1) do
            order[#order + 1] = i
            assert.are.equal(({0.45, 0.05, 0.25})[i], v)
        end
        assert.are.same({2, 3, 1}, order)
    end)

    it("yields every item once, with one that lags behind", function()
        local pool <close> = mp.Pool(2)
        local seen, n = {}, 0
        for i, v in pool:imap_unordered(function(x)
            if x == 1 then
                require "mp".sleep(0.5)
            end
            return x * x
        end, counter(20000), 1) do
            assert.is_nil(seen[i])
            assert.are.equal(i * i, v)
            seen[i] = true
            n = n + 1
        end
        assert.are.equal(20000, n)
    end)

    for _, chunk in ipairs {1, 10, 100000} do
        it("yields every item once, chunks of " .. chunk, function()
            local pool <close> = mp.Pool(2)
            local sum, n = 0, 0
            for i, v in pool:imap_unordered(square, mp.range(1, 5001),
                chunk) do
                assert.are.equal(i * i, v)
                sum = sum + i
                n = n + 1
            end
            assert.are.equal(5000, n)
            assert.are.equal(5000 * 5001 // 2, sum)
        end)
    end

    it("raises its input's error behind the items before it", function()
        local pool <close> = mp.Pool(2)
        local problem = {}
        local it = pool:imap_unordered(square, broken_at(100, problem))
        for _ = 1, 99 do
            assert.is_number((it:next()))
        end
        local ok, e = pcall(it.next, it)
        assert.is_false(ok)
        assert.are.equal(problem, e)
    end)
end)
