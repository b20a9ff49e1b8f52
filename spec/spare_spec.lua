-- The large blocks that a program's state frees: they serve again.

local helper = require "spec.helper"

local function run(text)
    local result = helper.run({helper.tmpfile('local mp = require "mp"\n'
        .. text, ".lua")}, {timeout = 60})
    assert.are.equal("", result.stderr)
    assert.are.equal(0, result.code)
    return result.stdout
end

describe("a large block that was freed", function()
    local measured = helper.sanitized and pending or it

    measured("is kept, and serves the next large message", function()
        local out = run([[
            local function resident_mb()
                for line in io.lines("/proc/self/status") do
                    local kb = line:match("^RssAnon:%s*(%d+)")
                    if kb then return kb / 1024 end
                end
            end
            local mine, other = mp.Pipe()
            local function swallow()
                local s = other:recv_bytes()
                return #s
            end
            local p = mp.Process{target = function()
                local before = resident_mb()
                swallow() swallow()
                collectgarbage() collectgarbage()
                local kept, most = resident_mb() - before, 0
                for _ = 1, 8 do
                    swallow()
                    most = math.max(most, resident_mb() - before)
                end
                print(kept, most)
            end}
            p:start()
            local data = ("x"):rep(40 << 20)
            for _ = 1, 10 do mine:send_bytes(data) end
            p:join()]])
        local kept, most = out:match("(%S+)%s+(%S+)")
        assert.is_true(tonumber(kept) > 39, kept .. " MB were kept")
        assert.is_true(tonumber(most) < 90, "8 messages took " .. most)
    end)

    measured("is given back beyond 256 MB", function()
        local out = run([[
            local list = {}
            for i = 1, 6 do list[i] = ("x"):rep(60 << 20) end
            list = nil
            collectgarbage() collectgarbage()
            for line in io.lines("/proc/self/status") do
                local kb = line:match("^RssAnon:%s*(%d+)")
                if kb then print(kb / 1024) end
            end]])
        assert.is_true(tonumber(out) > 170 and tonumber(out) < 260, out
            .. " MB are kept")
    end)

    measured("is given back where memory is short", function()
        local out = run([[
            for line in io.lines("/proc/self/status") do
                local kb = line:match("^VmSize:%s*(%d+)")
                if kb then
                    io.open(arg[0] .. ".sh", "w"):write(
                        ("ulimit -v %d; exec '%s' '%s.lua'"):format(
                        kb + 300 * 1024, arg[-1], arg[0])):close()
                end
            end
            io.open(arg[0] .. ".lua", "w"):write(
                'for _ = 1, 2 do local s = ("x"):rep(100 << 20) end ' ..
                'collectgarbage() collectgarbage() ' ..
                'print(#("x"):rep(110 << 20))'):close()
            os.execute("sh " .. arg[0] .. ".sh")
            os.remove(arg[0] .. ".sh") os.remove(arg[0] .. ".lua")]])
        assert.are.equal(110 << 20, tonumber(out))
    end)

    it("is given back in a child, which writes into its own", function()
        local out = run([[
            local function make(letter)
                local s = letter:rep(4 << 20)
                return s
            end
            make("a") collectgarbage()
            local q = mp.Queue()
            local p = mp.Process{target = function()
                local s = make("c")
                q:get()
                print(s == ("c"):rep(4 << 20))
            end}
            p:start()
            local s = make("p")
            q:put(true)
            p:join()
            print(s == ("p"):rep(4 << 20), p.exitcode)]])
        assert.are.equal("true\ntrue\t0\n", out)
    end)

    it("serves what is smaller, larger and grows, in several threads",
        function()
        local out = run([[
            local sizes = {1 << 20, 3 << 20, 2 << 20, 5 << 20, (1 << 20) + 9}
            local function work(me)
                local letter, list = string.char(96 + me), {}
                for i = 1, 30 do
                    local size = sizes[i % #sizes + 1]
                    list[i % 3] = letter:rep(size)
                    local s = list[i % 3]
                    assert(#s == size and s:byte(1) == 96 + me
                        and s:byte(size // 2) == 96 + me
                        and s:byte(size) == 96 + me)
                    if i % 7 == 0 then
                        local t = table.move({}, 1, 1, 1)
                        for k = 1, 200000 do t[k] = k end
                        assert(t[200000] == 200000)
                    end
                end
                return me
            end
            local pool <close> = mp.ThreadPool(3)
            print(table.concat(pool:map(work, {1, 2, 3}, 1), " "))]])
        assert.are.equal("1 2 3\n", out)
    end)

    measured("does not count for a worker's max_memory", function()
        local out = run([[
            local pool <close> = mp.Pool{processes = 1, max_memory = 16 << 20}
            local first = pool:apply(mp.getpid)
            for _ = 1, 5 do
                pool:apply(function()
                    local s = ("x"):rep(64 << 20)
                    s = nil
                    collectgarbage() collectgarbage()
                    mp.sleep(0.005)
                end)
            end
            print(pool:apply(mp.getpid) == first)]])
        assert.are.equal("true\n", out)
    end)
end)
