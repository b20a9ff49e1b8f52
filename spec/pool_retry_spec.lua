-- Pool: tasks that are run again, and errors that end a call.

local mp = require "mp"
local tools = require "spec.pool_tools"

local square = tools.square

--- A job that fails for item 3 by `f`, the first `times` times.
local function failing(count, times, f)
    return function(x)
        if x == 3 and count:add(1) <= times then
            f()
        end
        return x * x
    end
end

local function raise()
    error("not yet", 0)
end

local function crash()
    os.exit(7)
end

local function list_of(pool, f, opts)
    opts.on_error = "collect"
    return pool:map(f, mp.range(1, 7), opts)
end

for _, method in ipairs{"fork", "spawn", "thread"} do
    local context = mp.get_context(method)

    describe("retries, " .. method, function()
        it("run failed and lost tasks again, and no others", function()
            local pool <close> = context.Pool(2)
            local count, all = mp.Value("i", 0), mp.Value("i", 0)
            for _, f in ipairs{raise, crash} do
                count.value, all.value = 0, 0
                local job = failing(count, 2, f)
                local list = list_of(pool, function(x)
                    all:add(1)
                    return job(x)
                end, {retries = 2, chunksize = 6})
                assert.are.equal(0, tools.check_list(list, 6))
                assert.are.equal(3, count.value)
                assert.are.equal(8, all.value)
            end
        end)
    end)
end

describe("retries", function()
    it("end with the last error, which says how often it was", function()
        local pool <close> = mp.Pool(2)
        local count = mp.Value("i", 0)
        local list = list_of(pool, failing(count, 100, raise), {retries = 3})
        assert.are.equal(4, count.value)
        assert.are.equal("RemoteError", list[3].kind)
        assert.are.equal("not yet", list[3].message)
        assert.are.equal(4, list[3].attempts)
        assert.are.equal(36, list[6])
        local r = pool:apply_async(failing(count, 1000, raise), {3}, nil,
            {retries = 1})
        local e = tools.failure("RemoteError", r.get, r)
        assert.are.equal(2, e.attempts)
    end)

    for _, method in ipairs{"fork", "spawn", "thread"} do
        it("ask retry_if, in the worker, " .. method, function()
            local pool <close> = mp.get_context(method).Pool(2)
            local count, asked = mp.Value("i", 0), mp.SimpleQueue()
            local list = pool:map(function(x)
                if x == 2 then
                    error{code = count:add(1)}
                elseif x == 3 then
                    error("for good", 0)
                end
                return x
            end, {1, 2, 3, 4}, {retries = 9, on_error = "collect",
                retry_if = function(e, attempt)
                    asked:put{e.code, attempt, mp.worker.id ~= nil}
                    return type(e) == "table" and e.code < 3
                end})
            assert.are.same({1, 4}, {list[1], list[4]})
            assert.are.same({3, 1}, {list[2].attempts, list[3].attempts})
            assert.are.equal("for good", list[3].message)
            local of_two = {}
            for _ = 1, 4 do
                local code, attempt, elsewhere = table.unpack(asked:get())
                assert.is_true(elsewhere)
                if code then
                    table.insert(of_two, {code, attempt})
                end
            end
            assert.are.same({{1, 1}, {2, 2}, {3, 3}}, of_two)
        end)
    end

    it("ask the retry_if of the pool, and tell what fails in it", function()
        local count = mp.Value("i", 0)
        local pool <close> = mp.Pool{processes = 1, retries = 5,
            retry_if = function(_, attempt) return attempt < 3 end}
        local function fail()
            count:add(1)
            error "no"
        end
        tools.failure("RemoteError", pool.map, pool, fail, {1})
        assert.are.equal(3, count.value)
        local r = pool:apply_async(fail, nil, nil, {retry_if = function()
            error("the judge", 0)
        end})
        local e = tools.failure("RemoteError", r.get, r)
        assert.are.equal("the judge", e.message)
        assert.are.equal(1, e.attempts)
    end)

    it("refuse a retry_if that nobody would ask, or call", function()
        local pool <close> = mp.Pool(1)
        local e = tools.failure("ValueError", pool.map, pool, square, {1},
            {retry_if = square})
        assert.are.equal("map: retry_if needs retries", e.message)
        e = tools.failure("TypeError", mp.Pool, {retries = 1, retry_if = 5})
        assert.are.equal("Pool: retry_if must be a callable, got 5",
            e.message)
    end)

    it("count tasks whose time was up", function()
        local pool <close> = mp.Pool(1)
        local count = mp.Value("i", 0)
        local list = list_of(pool, failing(count, 1, function()
            while true do pcall(function() while true do end end) end
        end), {retries = 1, timeout = 0.03, grace = 0.03})
        assert.are.equal(0, tools.check_list(list, 6))
        assert.are.equal(2, count.value)
    end)

    it("wait for their backoff, and hold up nobody", function()
        local pool <close> = mp.Pool(1)
        local count, order = mp.Value("i", 0), mp.Queue()
        local job = failing(count, 2, raise)
        local seconds = tools.timed(function()
            pool:map(function(x)
                local v = job(x)
                order:put(x)
                return v
            end, mp.range(1, 7), {
                retries = 2, chunksize = 1,
                backoff = {base = 0.05, factor = 2, max = 10},
            })
        end)
        assert.is_true(seconds >= 0.15 and seconds < 3)
        local got = {}
        for i = 1, 6 do
            got[i] = order:get(true, 1)
        end
        assert.are.same({1, 2, 4, 5, 6, 3}, got)
    end)

    it("wait at most so long, less by chance", function()
        local pool <close> = mp.Pool(1)
        local count = mp.Value("i", 0)
        local seconds = tools.timed(function()
            pool:map(failing(count, 4, raise), {3}, {
                retries = 4,
                backoff = {base = 0.02, factor = 100, max = 0.03,
                           jitter = 1},
            })
        end)
        assert.are.equal(5, count.value)
        assert.is_true(seconds < 0.11 + 1)
    end)

    it("are for iterators, too, in order and not", function()
        local pool <close> = mp.Pool(2)
        for _, name in ipairs{"imap", "imap_unordered"} do
            local count, sum = mp.Value("i", 0), 0
            for _, v in pool[name](pool, failing(count, 1, raise),
                                   mp.range(1, 200), {retries = 1}) do
                sum = sum + v
            end
            assert.are.equal(199 * 200 * 399 // 6, sum)
            assert.are.equal(2, count.value)
        end
    end)

    it("are awaited by a pool that is closed", function()
        local count = mp.Value("i", 0)
        local pool = mp.Pool(2)
        local r = pool:map_async(failing(count, 1, raise), mp.range(1, 7),
            {retries = 1, backoff = 0.1})
        pool:close()
        pool:join()
        assert.are.equal(0, tools.check_list(r:get(), 6))
        pool._core:release()
    end)

    it("of a task that kills its workers end with max_crashes", function()
        local pool <close> = mp.Pool(2)
        local count = mp.Value("i", 0)
        local function crashes(opts)
            count.value = 0
            local e = list_of(pool, failing(count, 100, crash), opts)[3]
            assert.are.equal("WorkerLost", e.kind)
            assert.are.equal(count.value, e.crashes)
            return count.value, e.message
        end
        assert.are.equal(3, (crashes{retries = 10}))
        assert.are.equal(2, (crashes{retries = 10, max_crashes = 2}))
        assert.are.equal(2, (crashes{retries = 1}))
        local n, text = crashes{max_crashes = 4}
        assert.are.equal(4, n)
        assert.is_truthy(text:find("as 3 others did before it", 1, true))
        -- ... which forgives no errors
        count.value = 0
        list_of(pool, failing(count, 1, raise), {max_crashes = 4})
        assert.are.equal(1, count.value)
    end)

    it("E: and their like are checked", function()
        local pool <close> = mp.Pool(1)
        local function refused(kind, text, opts)
            local _, message = tools.failure(kind, pool.map, pool, square,
                {1}, opts)
            assert.are.equal("map: " .. text, message)
        end
        refused("ValueError", "retries must be an integer of at least 0, "
            .. "got -1", {retries = -1})
        refused("TypeError", "retries must be an integer of at least 0, got "
            .. "'2'", {retries = "2"})
        refused("ValueError", "max_crashes must be an integer of at least 1, "
            .. "got 0", {max_crashes = 0})
        refused("TypeError", "backoff has an unknown field 'least'",
            {backoff = {least = 1}})
        refused("ValueError", "backoff.factor must be from 1 to 1000, got "
            .. "0.5", {backoff = {factor = 0.5}})
        refused("TypeError", "backoff must be a number of seconds, or a table "
            .. "of base, factor, max and jitter, got true", {backoff = true})
        refused("ValueError", "backoff must end some day",
            {backoff = math.huge})
        refused("ValueError", "priority must be 0 to 3, or 'low', 'normal', "
            .. "'high' or 'urgent', got 4", {priority = 4})
        refused("TypeError", "seed must be an integer, got 1.5",
            {seed = 1.5})
        refused("ValueError", "on_error must be 'raise', 'collect' or "
            .. "'stop', got 'go'", {on_error = "go"})
        local _, message = tools.failure("ValueError", mp.Pool,
            {processes = 1, retries = -1})
        assert.is_truthy(message:find("^Pool: retries must be"))
    end)
end)

describe("on_error of a pool", function()
    it("is that of its maps, if they say nothing else", function()
        local pool <close> = mp.Pool{processes = 1, on_error = "collect"}
        local f = tools.failing(2)
        for _, list in ipairs{
            pool:map(f, {1, 2}), pool:map_async(f, {1, 2}, 1):get(),
            pool:starmap(f, {{1}, {2}}),
            pool:starmap_async(f, {{1}, {2}}, {chunksize = 1}):get(),
        } do
            assert.are.equal(10, list[1])
            assert.are.equal("bad 2", list[2].message)
        end
        tools.failure("RemoteError", pool.map, pool, f, {1, 2},
            {on_error = "raise"})
        tools.failure("RemoteError", pool.apply, pool, f, {2})
        local it = pool:imap(f, {2})
        tools.failure("RemoteError", it.next, it)
    end)

    it("is refused when it is none", function()
        local _, message = tools.failure("ValueError", mp.Pool,
            {processes = 1, on_error = "go"})
        assert.are.equal("Pool: on_error must be 'raise', 'collect' or "
            .. "'stop', got 'go'", message)
    end)
end)

describe("on_error = 'stop'", function()
    it("ends the call with the first error, and what runs of it", function()
        local pool <close> = mp.Pool(2)
        local ran = mp.Value("i", 0)
        local e
        local seconds = tools.timed(function()
            e = tools.failure("RemoteError", pool.map, pool, function(x)
                ran:add(1)
                if x == 5 then error("bad 5", 0) end
                if x == 4 then require "mp".sleep(30) end
                return x * x
            end, mp.range(1, 1000), {chunksize = 1, on_error = "stop"})
        end)
        assert.is_true(seconds < 5)
        assert.are.equal("bad 5", e.message)
        assert.are.equal(5, e.index)
        assert.are.equal(9, e.results[3])
        assert.is_true(ran.value < 1000)
        assert.are.equal(9, pool:apply(square, {3}))
    end)

    it("ends it by a worker's death as well", function()
        local pool <close> = mp.Pool(2)
        local r = pool:map_async(function(x)
            if x == 5 then os.exit(3) end
            require "mp".sleep(x > 5 and 0.05 or 0)
        end, mp.range(1, 1000), {chunksize = 1, on_error = "stop"})
        local e = tools.failure("WorkerLost", r.get, r)
        assert.are.equal(5, e.index)
        assert.is_true(r:ready())
        tools.failure("WorkerLost", r.get, r)
    end)

    it("is no more than 'raise' where all goes well", function()
        local pool <close> = mp.Pool(2)
        local list = pool:map(square, mp.range(1, 501), {on_error = "stop"})
        assert.are.equal(0, tools.check_list(list, 500))
    end)
end)
