-- Pool: how long a task may run.

local mp = require "mp"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local square, sleep = tools.square, tools.sleep

--- A job that does `f` for item 3, and gives the square of the others.
local function but_for_3(f)
    return function(x)
        return x == 3 and f() or x * x
    end
end

local function wait_long()
    require "mp".sleep(30)
end

local function compute_long()
    while true do end
end

--- Does not heed the error.
local function stubborn()
    while true do pcall(function() while true do end end) end
end

--- Demands that item 3 alone of 1 ... 5 in one chunk fails.
local function check(pool, f, opts)
    opts.chunksize, opts.on_error = 5, "collect"
    local list
    local seconds = tools.timed(function()
        list = pool:map(but_for_3(f), mp.range(1, 6), opts)
    end)
    for i = 1, 5 do
        if i ~= 3 then
            assert.are.equal(i * i, list[i])
        end
    end
    assert.are.equal("TaskTimeout", list[3].kind)
    assert.are.equal(3, list[3].index)
    return seconds, list[3]
end

for _, method in ipairs{"fork", "spawn", "thread"} do
    local context = mp.get_context(method)

    describe("timeout, " .. method, function()
        it("PAIN-11 ends a task that waits, and one that computes",
            function()
                local pool <close> = context.Pool(1)
                for _, f in ipairs{wait_long, compute_long} do
                    local seconds, e = check(pool, f, {timeout = 0.05})
                    assert.is_true(seconds >= 0.05 and seconds < 3)
                    assert.are.equal(
                        "the task ran longer than its timeout of 0.05 s",
                        e.message)
                    assert.is_string(e.traceback)
                end
            end)
    end)
end

describe("timeout", function()
    it("is an error in the task, which it may catch, once", function()
        local pool <close> = mp.Pool(1)
        local pid = pool._core:pids()[1]
        local kind, more = pool:apply_async(function()
            local _, e = pcall(function() while true do end end)
            local n = 0
            for i = 1, 1e6 do n = n + i end
            return e.kind, n > 0
        end, {}, nil, {timeout = 0.05}):get()
        assert.are.equal("TaskTimeout", kind)
        assert.is_true(more)
        assert.are.equal(pid, pool._core:pids()[1])
    end)

    it("kills who does not heed it, and its neighbours go on", function()
        local pool <close> = mp.Pool(1)
        local pid = pool._core:pids()[1]
        local seconds, e = check(pool, stubborn,
            {timeout = 0.05, grace = 0.05})
        assert.is_true(seconds >= 0.1 and seconds < 3)
        assert.are.equal(pid, e.pid)
        assert.is_truthy(e.message:find("item 3 of .* ran longer than its "
            .. "timeout of 0.05 s: worker process %d+ was killed"))
        assert.is_true(helper.is_gone(pid))
        assert.are.equal(1, pool._core:counters()[1].timeouts)
    end)

    it("kills who blocks in C", function()
        local pool <close> = mp.Pool(1)
        local seconds = check(pool, function() os.execute("exec sleep 30") end,
            {timeout = 0.05, grace = 0})
        assert.is_true(seconds < 3)
    end)

    it("ends a coroutine that waits", function()
        local pool <close> = mp.Pool(1)
        check(pool, function()
            return coroutine.wrap(function() require "mp".sleep(30) end)()
        end, {timeout = 0.05})
    end)

    -- The times are wide: on a busy machine a sleep may last 0.1 s longer.
    it("is measured from the task's start, not in the queue", function()
        local pool <close> = mp.Pool(1)
        local all = {}
        for i = 1, 6 do
            all[i] = pool:apply_async(sleep, {0.1}, nil, {timeout = 0.55})
        end
        for i = 1, 6 do
            assert.are.equal(0.1, all[i]:get())
        end
        assert.are.same({n = 5, 0.1, 0.1, 0.1, 0.1, 0.1},
            pool:map(sleep, {0.1, 0.1, 0.1, 0.1, 0.1},
                {timeout = 0.45, chunksize = 5}))
    end)

    it("kills while the caller computes", function()
        local pool <close> = mp.Pool(1)
        local dead = mp.Value("i", 0)
        local r = pool:apply_async(stubborn, {}, nil,
            {timeout = 0.02, grace = 0.02})
        local after = pool:apply_async(function() dead.value = 1 end)
        local last = mp.monotonic() + 5
        while dead.value == 0 and mp.monotonic() < last do end
        assert.are.equal(1, dead.value)
        tools.failure("TaskTimeout", r.get, r)
        after:get()
    end)

    it("of the pool holds for all, but for who says otherwise", function()
        local pool <close> = mp.Pool{processes = 1, timeout = 0.25,
            grace = 0.02}
        tools.failure("TaskTimeout", pool.apply, pool, wait_long)
        check(pool, stubborn, {})
        local it = pool:imap(but_for_3(wait_long), mp.range(1, 5), 1)
        assert.are.equal(1, (it:next()))
        assert.are.equal(2, (it:next()))
        tools.failure("TaskTimeout", it.next, it)
        assert.are.same({4, 16}, {it:next()})
        assert.are.equal(0.1, pool:apply_async(sleep, {0.1}, nil,
            {timeout = 20}):get())
    end)

    it("leaves results and errors in time alone", function()
        local pool <close> = mp.Pool(2)
        local list = pool:map(square, mp.range(1, 2001), {timeout = 10})
        assert.are.equal(0, tools.check_list(list, 2000))
        local e = tools.failure("RemoteError", pool.map, pool,
            tools.failing(7), mp.range(1, 10), {timeout = 10})
        assert.are.equal(7, e.index)
    end)

    it("E: is a positive number of seconds", function()
        local pool <close> = mp.Pool(1)
        local threads <close> = mp.ThreadPool(1)
        local function refused(kind, text, opts, p)
            local _, message = tools.failure(kind, pool.map, p or pool,
                square, {1}, opts)
            assert.are.equal("map: " .. text, message)
        end
        local what = "timeout must be a positive number of seconds, got "
        refused("TypeError", what .. "'1'", {timeout = "1"})
        refused("ValueError", what .. "0", {timeout = 0})
        refused("ValueError", what .. "-1", {timeout = -1})
        refused("ValueError", "grace needs a timeout", {grace = 1})
        refused("ValueError", "grace must be a number of seconds of at least "
            .. "0, got -1", {timeout = 1, grace = -1})
        refused("ValueError", "grace: a thread cannot be killed; its timeout "
            .. "is only an error in the task", {timeout = 1, grace = 1},
            threads)
        local _, message = tools.failure("ValueError", mp.ThreadPool,
            {processes = 1, timeout = 1, grace = 1})
        assert.is_truthy(message:find("^Pool: grace: a thread cannot"))
        assert.are.same({1, n = 1}, pool:map(square, {1},
            {timeout = math.huge}))
    end)
end)
