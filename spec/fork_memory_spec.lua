-- The memory of a forked child: what it inherits stays shared as long as it
-- only reads it, and what it allocates is collected.

local helper = require "spec.helper"

-- Begins each script: a big heap in the global `heap`, and how many MB of
-- this process's pages nobody else has.
local PRELUDE <const> = [[
    local mp = require "mp"
    function private()
        for line in io.lines("/proc/self/smaps_rollup") do
            local kb = line:match("^Private_Dirty:%s*(%d+)")
            if kb then return kb / 1024 end
        end
    end
    function build(mb)
        heap = {}
        local full = collectgarbage("count") + mb * 1024
        while collectgarbage("count") < full do
            for _ = 1, 1000 do
                heap[#heap + 1] = {#heap, tostring(#heap % 999),
                    name = "item " .. #heap % 999}
            end
        end
    end
    function job(x)
        local list = {}
        for i = 1, 10 do list[i] = {x, i, "garbage " .. i} end
        return #list + heap[x % #heap + 1][1]
    end
]]

local function run(text, opts)
    local result = helper.run({helper.tmpfile(PRELUDE .. text, ".lua")}, opts)
    assert.are.equal("", result.stderr)
    assert.are.equal(0, result.code)
    return result.stdout
end

describe("the memory of a forked child", function()
    local measured = helper.sanitized and pending or it

    measured("stays shared through a pool's run over 200 MB", function()
        local out = run([[
            build(200)
            local pool <close> = mp.Pool(2)
            pool:map(job, mp.range(200000))
            for _, mb in ipairs(pool:map(function()
                return private()
            end, mp.range(8), 1)) do
                print(mb)
            end]], {timeout = 90})
        local n = 0
        for mb in out:gmatch("%S+") do
            assert.is_true(tonumber(mb) < 10, mb .. " MB are private")
            n = n + 1
        end
        assert.are.equal(8, n)
    end)

    measured("stays shared in a process, and in a process of that one",
        function()
        local out = run([[
            build(100)
            local function work()
                for x = 1, 100000 do job(x) end
                print(private())
            end
            local p = mp.Process{target = function()
                work()
                local q = mp.Process{target = work}
                q:start()
                q:join()
            end}
            p:start()
            p:join()]], {timeout = 60})
        local own, below = out:match("^(%S+)\n(%S+)\n$")
        assert.is_true(tonumber(own) < 10, own .. " MB are private")
        assert.is_true(tonumber(below) < 10, below .. " MB are private")
    end)

    measured("is no more for what was added since the last child", function()
        local out = run([[
            build(100)
            mp.Process{target = print, args = {"first"}}:start()
            for i = 1, 100000 do heap[i] = {i, "x", name = "new"} end
            local p = mp.Process{target = function()
                for x = 1, 100000 do job(x) end
                print(private())
            end}
            p:start()
            p:join()]], {timeout = 60})
        local mb = tonumber(out:match("(%S+)\n$"))
        assert.is_true(mb < 10, mb .. " MB are private")
    end)

    -- More than a gigabyte of garbage, of all sizes.
    measured("does not grow with its own garbage", function()
        for _, inherited in ipairs{0, 60} do
            local out = run(("build(%d)"):format(inherited) .. [[
                local p = mp.Process{target = function()
                    local kept
                    for i = 1, 60000 do
                        kept = {("x"):rep(i * 37 % 20000), {i}, {kept = i}}
                    end
                    for i = 1, 100 do kept = ("y"):rep(4000000 + i) end
                    print(private(), #kept)
                end}
                p:start()
                p:join()]], {timeout = 60})
            local mb = tonumber(out:match("^%S+"))
            assert.is_true(mb < 250, mb .. " MB are private")
        end
    end)

    it("holds what is put there, whatever its size", function()
        local out = run [[
            build(20)
            local p = mp.Process{target = function()
                local list, sizes = {}, {}
                for round = 1, 3 do
                    for i = 1, 400 do
                        local n = (i * i * round) % 70000
                        list[i], sizes[i] = ("z"):rep(n) .. i, n
                    end
                    -- Tables of the parent's grow and shrink here.
                    for i = 1, 2000 do
                        heap[i][round + 2] = round
                        heap[i]["field" .. round] = list[i % 400 + 1]
                    end
                    collectgarbage()
                    for i = 1, 400 do
                        assert(#list[i] == sizes[i] + #tostring(i))
                        assert(list[i]:find("^z*" .. i .. "$"))
                    end
                end
                for i = 1, 2000 do
                    assert(heap[i][1] == i - 1 and heap[i][5] == 3)
                    assert(heap[i].field3 == list[i % 400 + 1])
                end
                heap = nil
                collectgarbage()
                build(10)
                print(#heap > 1000 and job(7))
            end}
            p:start()
            p:join()
            print(p.exitcode)]]
        assert.are.equal("17\n0\n", out)
    end)

    it("leaves the collector as it was in the parent", function()
        local out = run [[
            build(20)
            for _, mode in ipairs{"incremental", "generational"} do
                collectgarbage(mode)
                local pool <close> = mp.Pool(1)
                print(pool:apply(job, {3}), collectgarbage(mode))
            end
            collectgarbage("stop")
            mp.Process{target = function()
                print(collectgarbage("isrunning"))
            end}:start()
            mp.active_children()[1]:join()
            print(collectgarbage("isrunning"))]]
        assert.are.equal("13\tincremental\n13\tgenerational\n" ..
            "false\nfalse\n", out)
    end)
end)
