--- Holdings: the objects of a manager's server, and who holds them.
--
-- An object has an entry, and a client that has a proxy to it holds that
-- entry as many times as it has taken one. An entry that nobody holds is kept
-- for a while, since a proxy to it may be under way to another process.

local core = require "mp.core"
local errors = require "mp.errors"
local served = require "mp.served"

local M = {}

--- Seconds for which an entry that nobody holds is kept.
M._linger = 5

---@class mp.Holdings
---@field package registry table  typeid -> what is registered
---@field package entries table<string, table>  id -> entry
---@field package latest table<any, table>  weak: object -> its last entry
---@field package dying table<string, number>  id -> when it goes
---@field package prefix string of the ids
---@field package made integer
local Holdings = {}
Holdings.__index = Holdings

---@param registry table
---@return mp.Holdings
function M.new(registry)
    return setmetatable({
        registry = registry, entries = {}, dying = {}, made = 0,
        latest = setmetatable({}, {__mode = "k"}),
        prefix = ("%02x%02x%02x%02x-"):format(core.random():byte(1, 4)),
    }, Holdings)
end

--- A set of names, of a list; nil of nil.
local function set_of(list)
    if not list then
        return nil
    end
    local set = {}
    for _, name in ipairs(list) do
        set[name] = true
    end
    return set
end

local function new_entry(self, typeid, object)
    self.made = self.made + 1
    local registered = self.registry[typeid] or {}
    local entry = {
        id = self.prefix .. self.made, typeid = typeid, refs = 0,
        object = object, exposed = set_of(registered.exposed),
        gettypeid = registered.method_to_typeid or {},
    }
    if type(object) == "table" or type(object) == "userdata"
        or type(object) == "function" then
        self.latest[object] = entry
    end
    return entry
end

--- Takes an object in; the client holds it.
---@return table entry
function Holdings:keep(client, typeid, object)
    local entry = self.latest[object]
    if not entry or entry.typeid ~= typeid then
        entry = new_entry(self, typeid, object)
    end
    self.entries[entry.id] = entry
    self:hold(client, entry)
    return entry
end

--- The client holds it once more.
function Holdings:hold(client, entry)
    entry.refs = entry.refs + 1
    client.holds[entry.id] = (client.holds[entry.id] or 0) + 1
    self.dying[entry.id] = nil
end

--- The client holds it `n` times less, as far as it did.
function Holdings:drop(client, id, n)
    local held, entry = client.holds[id], self.entries[id]
    if not held or not entry then
        return
    end
    n = math.min(n, held)
    client.holds[id] = held > n and held - n or nil
    entry.refs = entry.refs - n
    if entry.refs == 0 then
        self.dying[id] = core.monotonic() + M._linger
    end
end

--- Removes what nobody has taken up in time; seconds until there is more to
--- do, or nil.
---@return number|nil
function Holdings:bury()
    local now, nearest = core.monotonic(), nil
    for id, at in pairs(self.dying) do
        if at <= now then
            self.dying[id], self.entries[id] = nil, nil
        elseif not nearest or at < nearest then
            nearest = at
        end
    end
    return nearest and nearest - now
end

--- The entry of this id. Raises KeyError.
---@return table entry
function Holdings:entry(id)
    local entry = self.entries[id]
    if not entry then
        errors._raise("KeyError", "the server has no object '%s': it was let "
            .. "go, or belonged to an earlier server", tostring(id))
    end
    return entry
end

--- The type that an object was last given out as; nil: it never was.
---@return string|nil
function Holdings:typeid_of(object)
    local entry = self.latest[object]
    return entry and entry.typeid
end

--- How many objects are held.
---@return integer
function Holdings:count()
    local n = 0
    for _, entry in pairs(self.entries) do
        n = n + (entry.refs > 0 and 1 or 0)
    end
    return n
end

--- A line for each of them.
---@return string
function Holdings:describe()
    local lines = {}
    for id, entry in pairs(self.entries) do
        if entry.refs > 0 then
            lines[#lines + 1] = ("  %s: refcount=%d\n    %s: %s"):format(id,
                entry.refs, entry.typeid,
                served.show(entry.object):sub(1, 75))
        end
    end
    table.sort(lines)
    return table.concat(lines, "\n")
end

return M
