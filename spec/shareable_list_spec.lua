-- mp.shared_memory.ShareableList: what its slots hold, and refuse.

local helper = require "spec.helper"
local mp = require "mp"

local ShareableList = mp.shared_memory.ShareableList
local SharedMemory = mp.shared_memory.SharedMemory

local made = {}

--- A list that goes with the spec.
local function scratch(sequence)
    local list = ShareableList(sequence)
    made[#made + 1] = list.shm
    finally(function()
        for _, memory in ipairs(made) do
            memory:close()
            pcall(memory.unlink, memory)
        end
        made = {}
    end)
    return list
end

local function items(list)
    local t = {n = #list}
    for i, value in pairs(list) do
        t[i] = value
    end
    return t
end

describe("shareable_list", function()
    it("SHM-08 holds nil, booleans, integers, floats, strings", function()
        local given = table.pack(1, -2.5, "abc", true, false, nil,
            math.mininteger, 1 / 0, "")
        local list = scratch(given)
        assert.are.same(given, items(list))
        assert.are.equal("integer", math.type(list[1]))
        assert.are.equal("float", math.type(scratch{3.0}[1]))
    end)

    it("PAIN-21 SHM-09 keeps zero bytes at the end, and UTF-8", function()
        local given = {"\0", "a\0\0", ("\0"):rep(8), "grüße", "日本語",
            ("é"):rep(100), n = 6}
        assert.are.same(given, items(scratch(given)))
    end)

    it("SHM-08 E: items of other types, and what is no list", function()
        local message = helper.failure("KeyError", ShareableList, {1, {}})
        assert.truthy(message:find("an item is nil, a boolean, a number or "
            .. "a string, got a table", 1, true))
        helper.failure("KeyError", ShareableList, {print})
        helper.failure("TypeError", ShareableList, 5)
        helper.failure("TypeError", ShareableList, {x = 1})
        helper.failure("TypeError", ShareableList, {n = -1})
        helper.failure("TypeError", ShareableList, {1}, {nome = "x"})
        helper.failure("ValueError", ShareableList)
    end)

    it("SHM-08 is made of what can be indexed, and of nothing", function()
        assert.are.same({2, 4, n = 2}, items(scratch(mp.Array("i", {2, 4}))))
        assert.are.same({"a", n = 1}, items(scratch(scratch{"a"})))
        local none = scratch{}
        assert.are.equal(0, #none)
        assert.are.equal("", none.format)
        helper.failure("IndexError", function() return none[1] end)
    end)

    it("SHM-09 E: outside of it", function()
        local list = scratch{1, 2}
        for _, i in ipairs{0, 3, -1, 1.5} do
            local text = helper.failure("IndexError", function()
                return list[i]
            end)
            assert.truthy(text:find("^index out of range"))
            text = helper.failure("IndexError", function() list[i] = 1 end)
            assert.truthy(text:find("^assignment index out of range"))
        end
    end)

    it("SHM-09 slots keep their size, whatever their type", function()
        local list = scratch{1, "abcdefgh", "abc"}
        list[1] = "12345678"
        list[2] = "0123456789abcdef"
        list[3] = 2.5
        assert.are.same({"12345678", "0123456789abcdef", 2.5, n = 3},
            items(list))
        local text = helper.failure("ValueError", function()
            list[1] = "123456789"
        end)
        assert.are.equal("bytes/str item exceeds available storage (9 bytes, "
            .. "for 8)", text)
        helper.failure("ValueError", function() list[3] = "éééée" end)
        helper.failure("KeyError", function() list[1] = {} end)
        assert.are.equal("12345678", list[1])
        list[2] = nil
        assert.is_nil(list[2])
    end)

    it("SHM-09 is walked by ipairs as far as the first nil", function()
        local list = scratch{1, "x", nil, 4, n = 4}
        local seen = {}
        for i, value in ipairs(list) do seen[i] = value end
        assert.are.same({1, "x"}, seen)
        assert.are.equal(4, #list)
    end)

    it("SHM-09 counts and finds", function()
        local list = scratch{1, "zz", 1.0, false, nil, "zz", n = 6}
        assert.are.equal(2, list:count(1))
        assert.are.equal(2, list:count("zz"))
        assert.are.equal(0, list:count("y"))
        assert.are.equal(1, list:count(nil))
        assert.are.equal(2, list:index("zz"))
        assert.are.equal("'y' not in this container",
            helper.failure("ValueError", list.index, list, "y"))
        helper.failure("TypeError", list.count)
    end)

    it("SHM-09 tells its format and its segment", function()
        local list = scratch{1, 2.5, "abc", "12345678", true, nil, n = 6}
        assert.are.equal("qd8s16sxxxxxxx?xxxxxx?x", list.format)
        assert.are.equal("SharedMemory", getmetatable(list.shm).__name)
        assert.are.equal("ShareableList({1, 2.5, 'abc', '12345678', true, "
            .. "nil}, name='" .. list.shm.name .. "')", tostring(list))
        helper.failure("TypeError", function() list.shm = 5 end)
    end)

    it("SHM-08 is opened by name, and is the same one", function()
        local list = scratch{1, "two"}
        local other = ShareableList(nil, {name = list.shm.name})
        other[1] = 7
        assert.are.equal(7, list[1])
        other.shm:close()
        helper.failure("StateError", function() return other[1] end)
        helper.failure("StateError", function() other[1] = 1 end)
    end)

    it("SHM-08 closes its segment at the end of a block", function()
        local list = scratch{1, "two"}
        local kept
        do
            local other <close> = ShareableList(nil, {name = list.shm.name})
            kept = other
            assert.are.equal("two", other[2])
        end
        assert.is_nil(kept.shm.buf)
        helper.failure("StateError", function() return kept[1] end)
        do
            local again <close> = kept
        end
        local third <close> = ShareableList(nil, {name = list.shm.name})
        assert.are.same({1, "two", n = 2}, items(third))
        third.shm:close()
    end)

    it("SHM-08 E: a name that is none", function()
        assert.are.equal("ShareableList: argument 'name': string expected, "
            .. "got a table", helper.failure("TypeError", ShareableList, nil,
            {name = {create = true, size = 100}}))
        helper.failure("TypeError", ShareableList, {1}, {name = 5})
    end)

    it("SHM-08 is made under a name", function()
        local name = "mplua_list_" .. mp.getpid()
        local list = ShareableList({1}, {name = name})
        assert.are.equal(name, list.shm.name)
        local _, e = helper.failure("OSError", ShareableList, {1},
            {name = name})
        assert.are.equal("EEXIST", e.code)
        list.shm:unlink()
        list.shm:close()
    end)

    it("crosses to another process", function()
        local list = scratch{1, "two", nil, n = 3}
        local p = mp.Process{target = function(l)
            l[1], l[3] = l[2] == "two" and 100, 5
        end, args = {list}}
        p:start()
        p:join()
        p:close()
        assert.are.same({100, "two", 5, n = 3}, items(list))
        local bytes = mp.pickle.dumps(list)
        list.shm:unlink()
        local _, e = helper.failure("OSError", mp.pickle.loads, bytes)
        assert.are.equal("ENOENT", e.code)
    end)

    it("does not believe what stands in a segment", function()
        local s = SharedMemory(nil, true, 100)
        finally(function()
            s:close()
            s:unlink()
        end)
        local function open()
            return ShareableList(nil, {name = s.name})
        end
        local magic = "MPLIST1\0"
        for _, bytes in ipairs{
            ("\0"):rep(8), magic .. ("\255"):rep(8),
            magic .. string.pack("<i8", math.maxinteger),
            magic .. string.pack("<i8i8i8", 1, 0, 50),
            magic .. string.pack("<i8i8i8", 1, 40, 30),
            magic .. string.pack("<i8i8i8", 1, 32, 1 << 40),
            magic .. string.pack("<i8i8i8", 1, math.mininteger, 50),
        } do
            s.buf:fill(0)
            s.buf:write(0, bytes)
            helper.failure("ValueError", open)
        end
        s.buf:write(0, magic .. string.pack("<i8i8i8", 1, 32, 48))
        local list = open()
        assert.is_nil(list[1])
        s.buf:pack(32, "<I1I7", 9, 0)
        helper.failure("ValueError", function() return list[1] end)
        s.buf:pack(32, "<I1I7", 5, 1000)
        helper.failure("ValueError", function() return list[1] end)
        s.buf:pack(32, "<I1I7", 3, 2)
        helper.failure("ValueError", function() return list[1] end)
        list.shm:close()
    end)
end)
