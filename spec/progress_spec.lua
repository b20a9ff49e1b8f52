-- progress = true | "label" | function: what a map shows or tells while its
-- caller waits. The terminal is `script`'s.

local mp = require "mp"
local display = require "mp.display"
local helper = require "spec.helper"
local tools = require "spec.pool_tools"

local failure = tools.failure

--- What a script writes on a terminal of so many columns.
local function on_terminal(text, opts)
    opts = opts or {}
    local path = helper.tmpfile(text, ".lua")
    local env = {TERM = "xterm", LC_ALL = "C.UTF-8", NO_COLOR = "1"}
    for name, value in pairs(opts.env or {}) do
        env[name] = value
    end
    local run = helper.run({"-qec", ("stty cols %d; exec %s %s"):format(
        opts.columns or 60, helper.quote(helper.mplua), helper.quote(path)),
        "/dev/null"}, {program = "script", env = env})
    assert.are.equal(0, run.code, run.stdout)
    return (run.stdout:gsub("\r\n", "\n"):gsub("█", "#"))
end

--- The lines that are shown one after the other: without what clears them.
local function frames(out)
    local list = {}
    for frame in out:gsub("\27%[J", ""):gmatch("[^\r\n]+") do
        list[#list + 1] = frame
    end
    return list
end

--- A program that maps sleeps; `more`: options besides the label.
local function sleeping(n, seconds, option, more)
    return ([[
        local mp = require "mp"
        local pool <close> = mp.Pool(2)
        local list = {}
        for i = 1, %d do list[i] = %g end
        pool:map(mp.sleep, list, {chunksize = 1, progress = %s%s})
    ]]):format(n, seconds, option, more or "")
end

describe("a bar", function()
    it("is drawn while the caller waits, and stays at the end", function()
        local begin = mp.monotonic()
        local out = on_terminal(sleeping(20, 0.03, "'resize'"))
        local list, took = frames(out), mp.monotonic() - begin
        assert.is_true(#list >= 3 and #list <= 10 * took + 1, #list)
        local last = 0
        for i, frame in ipairs(list) do
            local percent, bar, done = frame:match(
                "^resize  +(%d+)%% ([^ ]+)  (%d+)/20  [^ ]+  0:0%d")
            assert.is_not_nil(bar, frame)
            percent, done = tonumber(percent), tonumber(done)
            assert.is_true(done >= last and percent == done * 5, frame)
            assert.is_true(display.width(frame) <= 59, frame)
            assert.are.equal(i < #list, frame:match("left$") ~= nil)
            last = done
        end
        assert.are.equal(20, last)
        assert.matches("\n$", out)
        assert.matches("100%% #+  20/20", list[#list])
    end)

    it("has the rate, and the time that is left", function()
        local list = frames(on_terminal(sleeping(24, 0.02, "true")))
        local rate, left = list[#list // 2 + 1]:match(
            "^ *%d+%% [^ ]+  %d+/24  ([%d.]+)/s  (0:0%d) left$")
        rate = tonumber(rate)
        assert.is_true(rate > 10 and rate <= 101, rate)
        assert.matches("0:0[0-3]", left)
    end)

    it("knows how wide its label is, and shortens it", function()
        assert.are.equal(4, display.width("処理"))
        assert.are.equal(2, display.width("🎉"))
        assert.are.equal(4, display.width("caf\u{0065}\u{301}"))
        assert.are.equal("処…", display.shorten("処理中", 4, "…"))
        assert.are.equal("処~", display.shorten("処理中", 3, "~"))
        assert.are.equal("", display.shorten("処理", 1, "~~"))
        assert.are.equal("a  b ?c?", display.plain("a\n\tb\u{85}\xffc\xe5"))
        for _, columns in ipairs {20, 33} do
            local out = on_terminal(sleeping(4, 0.055,
                '("処理"):rep(10) .. "\\27[2J"'), {columns = columns})
            for _, frame in ipairs(frames(out)) do
                assert.is_true(display.width(frame) < columns, frame)
                assert.is_nil(frame:find("\27", 1, true))
            end
        end
    end)

    it("is plain without UTF-8, and coloured without NO_COLOR", function()
        local out = on_terminal(sleeping(4, 0.001, "true"), {
            env = {LC_ALL = "C"}})
        assert.matches("100%% ####+  4/4", out)
        assert.is_nil(out:find("[\x80-\xff]"))
        assert.is_nil(out:find("\27[3", 1, true))
        out = on_terminal(sleeping(4, 0.001, "true"), {env = {NO_COLOR = ""}})
        assert.matches("\27%[32m#+\27%[0m  4/4", out)
    end)

    it("is not drawn where there is no terminal, or a dumb one", function()
        local run = tools.script(sleeping(4, 0.001, "true"),
            {env = {TERM = "xterm"}})
        assert.are.equal("", run.stderr .. run.stdout)
        for _, term in ipairs {"dumb", ""} do
            assert.are.equal("", on_terminal(sleeping(4, 0.001, "true"),
                {env = {TERM = term}}))
        end
    end)

    it("needs no total: an endless input has none", function()
        local list = frames(on_terminal [[
            local mp = require "mp"
            local pool <close> = mp.Pool(2)
            local function endless() return 0.015 end
            for i in pool:imap(mp.sleep, endless, {progress = "lines",
                    chunksize = 1}) do
                if i == 30 then break end
            end
            print("behind it")
        ]])
        assert.is_true(#list >= 3)
        assert.are.equal("behind it", table.remove(list))
        for _, frame in ipairs(list) do
            assert.matches("^lines  %d+  [%d.]+k?/s  0:0%d$", frame)
        end
    end)

    it("stands below what the logger says, here and in workers", function()
        local out = on_terminal [[
            local mp = require "mp"
            mp.log_to_stderr("info")
            local pool <close> = mp.Pool(1)
            local function job(i)
                local m = require "mp"
                m.sleep(0.03)
                if i == 9 then
                    m.get_logger():info("from a worker")
                end
            end
            for i in pool:imap(job, mp.range(1, 13), {progress = true,
                    chunksize = 1}) do
                if i == 7 then
                    mp.get_logger():info("from the caller")
                end
            end
        ]]
        -- Each is a line of its own, on cleared ground, with a bar below it.
        assert.matches("\r\27%[J%[INFO/MainProcess%] from the caller\n"
            .. " *%d+%% #[^\n]*\r", out)
        assert.matches("\r\27%[K%[INFO/PoolWorker%-1%] from a worker\n"
            .. "[^\n]*100%%", out)
        assert.matches("100%% #+  12/12[^\n]*\n$", out)
    end)

    it("clears what a narrower terminal broke in two", function()
        local out = on_terminal([[
            local mp = require "mp"
            local pool <close> = mp.Pool(1)
            for i in pool:imap(mp.sleep, {0.12, 0.11, 0.05},
                    {progress = ("x"):rep(30), chunksize = 1}) do
                if i == 1 then os.execute("stty cols 25") end
            end
        ]], {columns = 70})
        assert.matches("\r\27%[2A\r\27%[J", out)
        local list = frames((out:gsub("\27%[%dA", "")))
        assert.is_true(display.width(list[1]) > 50)
        assert.is_true(display.width(list[#list]) < 25)
    end)

    it("ends its line before an error, and when its loop is left", function()
        local out = on_terminal [[
            local mp = require "mp"
            local pool <close> = mp.Pool(1)
            local function bad(i)
                require "mp".sleep(0.06)
                if i == 3 then error("three", 0) end
            end
            print(select(2, pcall(pool.map, pool, bad, {1, 2, 3},
                {progress = "map", chunksize = 1})).message)
            print(pcall(function()
                for i in pool:imap(bad, {1, 2, 3, 4}, {progress = "imap",
                        chunksize = 1}) do
                    if i == 2 then error("left", 0) end
                end
            end))
        ]]
        assert.matches("\27%[Jmap  100%%[^\r\n]*\nthree\n", out)
        assert.matches("\27%[Jimap  +%d+%%[^\r\n]*\nfalse\tleft\n$", out)
    end)

    it("makes room for one that begins below it", function()
        local out = on_terminal [[
            local mp = require "mp"
            local one <close> = mp.Pool(1)
            local other <close> = mp.Pool(1)
            for _ in one:imap(mp.sleep, {0.11, 0.11}, {
                    progress = "outer", chunksize = 1}) do
                other:map(mp.sleep, {0.06, 0.06}, {progress = "inner",
                    chunksize = 1})
            end
        ]]
        local _, inner = out:gsub("inner  100%%[^\n\r]*\n", "")
        local _, outer = out:gsub("outer  100%%[^\n\r]*\n", "")
        assert.are.same({2, 1}, {inner, outer})
    end)
end)

describe("a progress function", function()
    --- Calls of it, and what the call returned.
    local function calls_of(method, f, list, opts)
        local pool <close> = mp.Pool(2)
        local calls = {}
        opts.progress = function(...)
            calls[#calls + 1] = table.pack(...)
        end
        local result = pool[method](pool, f, list, opts)
        return calls, result, pool
    end

    it("is told how far a map is, ten times a second at most", function()
        local begin = mp.monotonic()
        local calls = calls_of("map", tools.sleep,
            setmetatable({n = 30}, {__index = function() return 0.02 end}),
            {chunksize = 1})
        local took = mp.monotonic() - begin
        assert.is_true(#calls >= 3 and #calls <= 10 * took + 2, #calls)
        local last = -1
        for _, call in ipairs(calls) do
            assert.are.equal(30, call[2])
            assert.is_true(call[1] > last)
            last = call[1]
        end
        assert.are.equal(30, last)
    end)

    it("is told of each map's end, however quick", function()
        for _, case in ipairs {
            {"map", {1, 2, 3}, 3}, {"map", {}, 0}, {"starmap", {{1}, {2}}, 2},
            {"map", mp.range(100), 100}, {"map", tools.counter(5), 5},
        } do
            local calls = calls_of(case[1], tools.square, case[2], {})
            assert.are.same({case[3], case[3], n = 2}, calls[#calls])
        end
        local calls, result = calls_of("map_async", tools.square, {1, 2}, {})
        result:get()
        assert.are.same({{2, 2, n = 2}}, calls)
    end)

    it("is told of an iterator, and where it was left", function()
        local pool <close> = mp.Pool(1)
        for _, method in ipairs {"imap", "imap_unordered"} do
            local calls = {}
            local function note(done, total)
                calls[#calls + 1] = {done, total}
            end
            for _ in pool[method](pool, tools.square, tools.counter(3),
                    {progress = note}) do
                break
            end
            assert.are.equal(1, #calls)
            assert.is_true(calls[1][1] >= 1)
            calls = {}
            for _ in pool[method](pool, tools.square, {1, 2, 3},
                    {progress = note}) do
            end
            assert.are.same({{3, 3}}, calls)
        end
    end)

    it("that raises is reported once, and stops nothing", function()
        local run = tools.script [[
            local mp = require "mp"
            local pool <close> = mp.Pool(1)
            print(pool:map(function(x)
                require "mp".sleep(0.06)
                return x * x
            end, {1, 2, 3, 4, 5}, {chunksize = 1, progress = function()
                error("oh no", 0)
            end})[5])
        ]]
        assert.are.equal("25\n", run.stdout)
        assert.are.equal("error in a progress function: oh no\n", run.stderr)
    end)

    it("may use the pool, and close it", function()
        local pool <close> = mp.Pool(1)
        local sum = 0
        pool:map(tools.sleep, {0.06, 0.06}, {chunksize = 1,
            progress = function()
                sum = sum + pool:apply(tools.square, {2})
            end})
        assert.is_true(sum >= 4)
        local it = pool:imap(tools.sleep, {5, 5}, {chunksize = 1,
            progress = function() pool:terminate() end})
        failure("PoolTerminated", it.next, it)
    end)

    it("does not keep next() longer than asked", function()
        local pool <close> = mp.Pool(1)
        local n = 0
        local gate <close> = mp.Event()
        local it = pool:imap(function(i) return gate:wait(20) and i end, {7},
            {progress = function() n = n + 1 end})
        local took = tools.timed(function()
            failure("TimeoutError", it.next, it, 0.15)
        end)
        assert.is_true(took >= 0.15 and took < 5)
        assert.are.equal(1, n)
        gate:set()
        assert.are.same({1, 7}, {it:next()})
    end)
end)

it("progress refuses what is no label or function (E)", function()
    local pool <close> = mp.Pool(1)
    for _, method in ipairs {"map", "map_async", "imap", "imap_unordered"} do
        local _, text = failure("TypeError", pool[method], pool,
            tools.square, {1}, {progress = 5})
        assert.are.equal(method .. ": progress must be true, a label or a "
            .. "function, got 5", text)
    end
    assert.are.same({1, n = 1}, pool:map(tools.square, {1},
        {progress = false}))
end)
