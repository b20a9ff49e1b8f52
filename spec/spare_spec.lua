-- The large blocks that a program's state frees: they serve again.

local helper = require "spec.helper"

local function run(text)
    local result = helper.run({helper.tmpfile('local mp = require "mp" '
        .. 'local function big(c, mb) return c:rep(1 << 20):rep(mb) end\n'
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
                for _ = 1, 4 do
                    swallow()
                    most = math.max(most, resident_mb() - before)
                end
                print(kept, most)
            end}
            p:start()
            local data = big("x", 70)
            for _ = 1, 6 do mine:send_bytes(data) end
            p:join()]])
        local kept, most = out:match("(%S+)%s+(%S+)")
        assert.is_true(tonumber(kept) > 69, kept .. " MB were kept")
        assert.is_true(tonumber(most) < 160, "4 messages took " .. most)
    end)

    measured("is given back beyond 256 MB", function()
        local out = run([[
            local list = {}
            for i = 1, 6 do list[i] = big("x", 70) end
            list = nil
            collectgarbage() collectgarbage()
            for line in io.lines("/proc/self/status") do
                local kb = line:match("^RssAnon:%s*(%d+)")
                if kb then print(kb / 1024) end
            end]])
        assert.is_true(tonumber(out) > 200 and tonumber(out) < 260, out
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
                'local function big(mb) ' ..
                'return ("x"):rep(1 << 20):rep(mb) end ' ..
                'for _ = 1, 2 do local s = big(100) end ' ..
                'collectgarbage() collectgarbage() ' ..
                'print(#big(110))'):close()
            os.execute("sh " .. arg[0] .. ".sh")
            os.remove(arg[0] .. ".sh") os.remove(arg[0] .. ".lua")]])
        assert.are.equal(110 << 20, tonumber(out))
    end)

    it("is given back in a child, which writes into its own", function()
        local out = run([[
            local function make(letter)
                local s = big(letter, 66)
                return s
            end
            make("a") collectgarbage()
            local q = mp.Queue()
            local p = mp.Process{target = function()
                local s = make("c")
                q:get()
                print(s:byte(1), s:byte(#s // 2), s:byte(-1))
            end}
            p:start()
            local s = make("p")
            q:put(true)
            p:join()
            print(s:byte(1), s:byte(#s // 2), s:byte(-1), p.exitcode)]])
        assert.are.equal("99\t99\t99\n112\t112\t112\t0\n", out)
    end)

    it("serves what is smaller, larger and grows, in two threads", function()
        local out = run([[
            local sizes = {64, 70, 66, 80}
            local function work(me)
                local letter = string.char(96 + me)
                for i = 1, 4 do
                    local size = sizes[(i + me) % #sizes + 1]
                    local s = big(letter, size)
                    assert(#s == size << 20 and s:byte(1) == 96 + me
                        and s:byte(size << 19) == 96 + me
                        and s:byte(-1) == 96 + me)
                end
                return me
            end
            local pool <close> = mp.ThreadPool(2)
            print(table.concat(pool:map(work, {1, 2}, 1), " "))]])
        assert.are.equal("1 2\n", out)
    end)

    measured("does not count for a worker's max_memory", function()
        local out = run([[
            local pool <close> = mp.Pool{processes = 1, max_memory = 16 << 20}
            local first = pool:apply(mp.getpid)
            for _ = 1, 3 do
                pool:apply(function()
                    local s = big("x", 64)
                    s = nil
                    collectgarbage() collectgarbage()
                    mp.sleep(0.005)
                end)
            end
            print(pool:apply(mp.getpid) == first)]])
        assert.are.equal("true\n", out)
    end)
end)
