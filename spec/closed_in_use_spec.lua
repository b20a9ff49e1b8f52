-- Shared objects that are closed while a method of theirs runs: by a
-- finalizer, as the method asks for memory, or by a hook, as it waits.

local helper = require "spec.helper"
local mp = require "mp"

local start, at_a_slice = helper.start, helper.at_a_slice

local MANY = 20000
local numbers, texts = {}, {}
for i = 1, MANY do
    numbers[i], texts[i] = i, "text " .. i
end

local function close(object)
    debug.getmetatable(object).__close(object)
end

--- Runs job(...) in a process, which it may crash: what it returned.
local function isolated(job, ...)
    local mine, theirs = mp.Pipe()
    local p = start(function(...)
        theirs:send(job(...))
    end, ...)
    theirs:close()
    local ok, what = pcall(mine.recv, mine)
    mine:close()
    assert.is_true(p:join(20))
    local code = p.exitcode
    p:close()
    assert.are.equal(0, code)
    assert(ok, what)
    return what
end

--- Objects, what needs memory between the first look and the last, and the
--- error's kind if it is not StateError.
local methods = {
    {"Array:slice", function() return mp.Array("d", MANY) end,
        function(a) return a:slice() end},
    {"Array:set", function() return mp.Array("d", MANY) end,
        function(a) a:set(1, numbers) end},
    {"Array:copy", function() return mp.Array("d", MANY) end,
        function(a) return a:copy() end},
    {"Array.raw", function() return mp.Array("c", 4 << 20) end,
        function(a)
            local garbage = a.raw -- is behind the last look
            return #garbage + #a.raw
        end},
    {"RawArray:slice", function() return mp.RawArray("d", MANY) end,
        function(a) return a:slice() end},
    {"Array of an Array", function() return mp.Array("d", MANY) end,
        function(a) return mp.Array("i", a) end},
    {"send_bytes", function() return mp.RawArray("d", MANY) end,
        function(a)
            local mine = mp.Pipe()
            mine:send_bytes(a)
        end},
    {"send_bytes of an Array", function() return (mp.Pipe()) end,
        function(c) c:send_bytes(mp.RawArray("d", MANY)) end, "OSError"},
    {"Queue:put", function() return mp.Queue() end,
        function(q) q:put(texts) end},
    {"Queue:put_many", function() return mp.Queue() end,
        function(q) q:put_many(texts) end},
    {"Queue:get_many", function()
        local q = mp.Queue()
        q:put_many(texts)
        return q
    end, function(q) return q:get_many(MANY) end},
}

describe("a shared object", function()
    for _, case in ipairs(methods) do
        local name, make, method, kind = table.unpack(case)
        it("may be closed by a finalizer during " .. name, function()
            assert.are.equal(kind or "StateError", isolated(function()
                local e = helper.close_in_call(make(), method, 0)
                return e and (e.kind or e) or "no error"
            end))
        end)
    end

    --- Ways to wait for the lock of an array or a value.
    local waits = {
        {"Array[i]", mp.Array, {"i", 3}, function(a) return a[1] end},
        {"Array[i] = x", mp.Array, {"i", 3}, function(a) a[1] = 1 end},
        {"Array:fill", mp.Array, {"i", 3}, function(a) a:fill(1) end},
        {"Value.value", mp.Value, {"i", 3}, function(v) return v.value end},
        {"Value:add", mp.Value, {"i", 3}, function(v) v:add(1) end},
    }
    for _, case in ipairs(waits) do
        local name, make, args, method = table.unpack(case)
        it("may be closed by a hook while " .. name .. " waits",
            function()
            local object <close> = make(table.unpack(args))
            object:acquire()
            assert.are.equal("StateError", isolated(function()
                at_a_slice(function() close(object) end)
                local ok, e = pcall(method, object)
                debug.sethook()
                return ok and "no error" or e.kind or e
            end))
            object:release()
        end)
    end
end)

describe("a process", function()
    it("may be joined and closed by a hook while it is joined", function()
        helper.finish(start(function()
            local p = start(function() mp.sleep(60) end)
            at_a_slice(function()
                p:kill()
                p:join()
                p:close()
            end)
            assert(p:join())
        end))
    end)
end)
