-- The user's code that a pool calls (inputs, callbacks, hooks, what pickles
-- and rebuilds values) may close the pool, or ask for what it is itself
-- needed for.

local helper = require "spec.helper"
local mp = require "mp"
local tools = require "spec.pool_tools"

local at_a_slice = helper.at_a_slice
local failure = tools.failure
local square = tools.square

--- As the end of its block by an error.
local function leave(pool)
    getmetatable(pool).__close(pool, "an error")
end

--- A class whose objects run f where they are pickled.
local function pickled(f)
    return setmetatable({}, {__reduce = function()
        f()
        return math.abs, 1
    end})
end

--- Registers a class whose objects run f where they are rebuilt, unless that
--- is a worker: a function that makes one.
local function rebuilt(name, f)
    local class, main = {}, mp.getpid()
    mp.pickle.register(name, class, function() return 1 end, function()
        if mp.getpid() == main then f() end
        return {}
    end)
    return function() return setmetatable({}, class) end
end

--- A function that makes such objects, which leave the pool; and one that is
--- told which.
local function leaver(name)
    local pool
    return rebuilt("pool_reentry_spec." .. name, function()
        leave(pool)
    end), function(it)
        pool = it
        return it
    end
end

local function slow(x)
    require "mp".sleep(0.15)
    return x
end

describe("a pool that is left", function()
    it("as an argument or an upvalue is pickled, says so", function()
        for _, call in ipairs{
            function(pool, o) return pool:apply(math.sin, {o}) end,
            function(pool, o) return pool:apply_async(math.sin, {o}):get() end,
            function(pool, o) return pool:map(math.sin, {o}) end,
            function(pool, o)
                return pool:map(function() return o end, {1, 2})
            end,
            function(pool, o)
                return pool:imap(function() return o end, {1, 2})()
            end,
        } do
            local pool = mp.Pool(1)
            failure("PoolTerminated", call, pool,
                pickled(function() leave(pool) end))
        end
    end)

    for _, how in ipairs{"progress", "callback", "hook", "result"} do
        it("while a map waits, by a " .. how .. ", gives no list with holes",
            function()
            local pool = mp.Pool(1)
            local options = {chunksize = 1}
            local function task(x) return slow(x) end
            if how == "progress" then
                options.progress = function(n)
                    if n and n > 0 then leave(pool) end
                end
            elseif how == "callback" then
                pool:apply_async(square, {1}, nil, function() leave(pool) end)
            elseif how == "hook" then
                at_a_slice(function() leave(pool) end)
            else
                local make, leaves = leaver(how)
                leaves(pool)
                task = function() return make() end
            end
            finally(debug.sethook)
            failure("PoolTerminated", pool.map, pool, task, {1, 2, 3, 4},
                options)
        end)
    end

    it("while an iterator waits, does not end its loop", function()
        local pool = mp.Pool(1)
        local n = 0
        finally(debug.sethook)
        failure("PoolTerminated", function()
            for _ in pool:imap(slow, {1, 2, 3, 4}, 1) do
                n = n + 1
                at_a_slice(function() leave(pool) end)
            end
        end)
        assert.is_true(n >= 1 and n < 4, n)
    end)

    it("as what its workers said is rebuilt, has it all", function()
        local make, leaves = leaver("left")
        local pool = leaves(mp.Pool{processes = 3, worker_exit = function()
            return make()
        end})
        pool:map(square, {1, 2, 3})
        pool:close()
        pool:join()
        assert.are.equal(3, pool:exit_results().n)
    end)

    it("as its initializer's error is rebuilt, has that", function()
        local make, leaves = leaver("broken")
        local pool = leaves(mp.Pool{processes = 1, initializer = function()
            error({make(), ("x"):rep(5000)}, 0)
        end})
        local e
        helper.eventually(function()
            local ok, what = pcall(pool.apply, pool, square, {1})
            e = what
            return not ok
        end)
        assert.are.equal("BrokenPool", e.kind)
        assert.are.equal(("x"):rep(5000), e.cause.value[2])
    end)

    it("by a finalizer, while it counts, says so or has counted", function()
        local mine, theirs = mp.Pipe()
        helper.finish(helper.start(function()
            local pool = mp.Pool(2)
            local runs = false
            local function lie_in_wait()
                setmetatable({}, {__gc = function()
                    if runs then leave(pool) else lie_in_wait() end
                end})
            end
            lie_in_wait()
            collectgarbage("incremental", 100, 1000)
            collectgarbage()
            runs = true
            local kinds = {}
            for _ = 1, 50 do
                local ok, e = pcall(pool.stats, pool)
                kinds[ok and "counted" or e.kind] = true
            end
            theirs:send(kinds)
        end))
        local kinds = mine:recv()
        kinds.counted = nil
        assert.are.same({StateError = true}, kinds)
        mine:close()
        theirs:close()
    end)
end)

describe("the input of a call", function()
    it("cannot ask that call for a result", function()
        local pool <close> = mp.Pool(1)
        local it, n = nil, 0
        local refused = 0
        it = pool:imap(function(t)
            require "mp".sleep(0.001)
            return t
        end, function()
            n = n + 1
            if it then
                failure("StateError", it.next, it, 0)
                failure("StateError", it)
                refused = refused + 1
            end
            return n <= 60 and {n, ("x"):rep(100)} or nil
        end, 1, {buffersize = 4})
        for i = 1, 60 do
            local at, item = it:next(20)
            assert.are.same({i, i}, {at, item[1]})
        end
        assert.is_nil(it:next(20))
        assert.is_true(refused > 10)
        assert.is_true(mp.debug.fsck())
    end)

    it("can ask other calls", function()
        local pool <close> = mp.Pool(2)
        local n = 0
        assert.are.same({1, 16, 81, n = 3}, pool:map(square, function()
            n = n + 1
            return n <= 3 and pool:apply(square, {n}) or nil
        end))
    end)

    it("cannot wait for the pool's end", function()
        for _, name in ipairs{"map", "imap", "imap_unordered"} do
            local pool <close> = mp.Pool(1)
            local n = 0
            local _, text = failure("StateError", function()
                local got = pool[name](pool, square, function()
                    n = n + 1
                    if n == 3 then
                        pool:close()
                        pool:join()
                    end
                    return n < 9 and n or nil
                end)
                if name ~= "map" then
                    for _ in got do end
                end
            end)
            assert.matches("join: called by the input", text)
        end
    end)
end)

describe("in a worker, what rebuilds", function()
    it("an argument can use the worker's pool, a function cannot", function()
        local class, main = {}, mp.getpid()
        mp.pickle.register("pool_reentry_spec.nested", class,
            function(o) return o[1] end,
            function(n)
                if mp.getpid() == main then return {n} end
                return mp.worker.pool:map(function(x) return x + n end, {1, 2})
            end)
        local pool <close> = mp.Pool(2)
        local o = setmetatable({3}, class)
        assert.are.same({{4, 5, n = 2}, n = 1},
            pool:map(function(x) return x end, {o}))
        local e = failure("RemoteError", pool.map, pool,
            function() return o end, {1})
        assert.are.equal("StateError", e.value.kind)
    end)
end)
