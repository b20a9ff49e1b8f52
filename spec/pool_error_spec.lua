-- Pool: errors of tasks and of the caller's iterators.

local mp = require "mp"
local tools = require "spec.pool_tools"

local failure, square, failing = tools.failure, tools.square, tools.failing

describe("an error in a task", function()
    it("PAIN-19 is a RemoteError with all its fields", function()
        local pool <close> = mp.Pool(1)
        local value = {code = 5}
        local e = failure("RemoteError", pool.map, pool, function(x)
            if x == 2 then
                error(value)
            end
            return x
        end, {1, 2, 3})
        assert.are.same({code = 5}, e.value)
        assert.are.equal(2, e.index)
        assert.are.equal(1, e.worker)
        assert.are.equal(pool._core:pids()[1], e.pid)
        assert.matches("pool_error_spec.lua:", e.func, 1, true)
        assert.matches("stack traceback", e.traceback, 1, true)
        assert.matches("pool_error_spec.lua:", e.traceback, 1, true)
        assert.matches("remote traceback", tostring(e), 1, true)
        assert.are.same({1, nil, 3, n = 3}, e.results)
    end)

    it("keeps its value, whatever its type", function()
        local pool <close> = mp.Pool(1)
        for _, value in ipairs {false, 5, 0.5, "text", {1}} do
            local e = failure("RemoteError", pool.apply, pool, error,
                {value, 0})
            assert.are.same(value, e.value)
        end
        local e = failure("RemoteError", pool.apply, pool, error)
        assert.is_nil(e.value)
        e = failure("RemoteError", pool.apply, pool, function()
            error(coroutine.create(print))
        end)
        assert.matches("^thread", e.value)
        e = failure("RemoteError", pool.apply, pool, function()
            error(setmetatable({}, {__tostring = function()
                error("no text")
            end}))
        end)
        assert.is_string(e.message)
    end)

    it("of the lowest index is raised (T-W-05)", function()
        local pool <close> = mp.Pool(2)
        for _ = 1, 20 do
            local e = failure("RemoteError", pool.map, pool, failing(5, 3),
                mp.range(1, 11), 1)
            assert.are.equal(3, e.index)
            assert.are.equal("bad 3", e.value)
            assert.are.same({10, 20, nil, 40, nil, 60, 70, 80, 90, 100,
                n = 10}, e.results)
        end
    end)

    it("is collected in its place when asked so", function()
        local pool <close> = mp.Pool(2)
        local list = pool:map(failing(1, 3), {1, 2, 3}, {
            on_error = "collect",
        })
        assert.are.equal(3, list.n)
        assert.is_true(mp.iserror(list[1], "RemoteError"))
        assert.are.equal(20, list[2])
        assert.are.equal(3, list[3].index)
        assert.are.equal("bad 1", pool:map_async(failing(1), {1}, {
            on_error = "collect",
        }):get()[1].value)
    end)

    it("does not keep the others from being done", function()
        local pool <close> = mp.Pool(2)
        local count <close> = mp.Value("q", 0)
        failure("RemoteError", pool.map, pool, function(x)
            count:add(1)
            error(x)
        end, mp.range(100))
        assert.are.equal(100, count.value)
    end)

    it("may be a stack overflow, a yield, or a want of memory", function()
        local pool <close> = mp.Pool(1)
        local function deep(n)
            return 1 + deep(n + 1)
        end
        local e = failure("RemoteError", pool.apply, pool, deep, {1})
        assert.matches("stack overflow", e.message, 1, true)
        e = failure("RemoteError", pool.apply, pool, coroutine.yield)
        assert.matches("yield", e.message, 1, true)
        e = failure("RemoteError", pool.apply, pool, function()
            return ("x"):rep(1 << 50)
        end)
        assert.is_string(e.message)
        assert.are.equal(4, pool:apply(square, {2}))
    end)

    it("POL-22 is PicklingError when the result cannot go (T-W-07)", function()
        local pool <close> = mp.Pool(2)
        local function job(x)
            return x == 2 and coroutine.create(print) or x
        end
        local e, text = failure("PicklingError", pool.map, pool, job,
            {1, 2, 3})
        assert.matches("cannot pickle a coroutine", text, 1, true)
        assert.are.equal(2, e.index)
        assert.are.same({1, nil, 3, n = 3}, e.results)
        failure("PicklingError", pool.apply, pool, job, {2})
        assert.are.equal(4, pool:apply(square, {2}))
    end)
end)

describe("an iterator of the caller", function()
    it("that raises makes map raise just that (POL-08)", function()
        local pool <close> = mp.Pool(2)
        local problem = {}
        for _, at in ipairs {1, 2, 100, 20000} do
            local ok, e = pcall(pool.map, pool, square,
                tools.broken_at(at, problem))
            assert.is_false(ok)
            assert.are.equal(problem, e)
            ok, e = pcall(pool.map_async, pool, square,
                tools.broken_at(at, problem))
            assert.is_false(ok)
            assert.are.equal(problem, e)
        end
        assert.are.equal(9, pool:apply(square, {3}))
    end)

    it("with an unpicklable item makes map raise at once", function()
        local pool <close> = mp.Pool(1)
        local function slow() require "mp".sleep(0.5) end
        local items = {1, 2, 3, 4, 5, 6, 7, 8, coroutine.create(print)}
        local begin = mp.monotonic()
        local e = failure("PicklingError", pool.map, pool, slow, items, 1)
        assert.are.equal(9, e.index)
        failure("PicklingError", pool.map_async, pool, slow, items, 1)
        assert.is_true(mp.monotonic() - begin < 1)
    end)

    it("may use the pool itself", function()
        local pool <close> = mp.Pool(2)
        local i = 0
        assert.are.same({1, 16, n = 2}, pool:map(square, function()
            i = i + 1
            return i <= 2 and pool:apply(square, {i}) or nil
        end))
    end)
end)
