--- Answer: what a manager's server says to those who asked, as it travels.

local core = require "mp.core"
local errors = require "mp.errors"
local pickle = require "mp.pickle"
local repr = require "mp.repr".repr

local M = {}

--- A traceback down to what the server called: in a message handler.
---@return string
function M.traceback()
    local text = debug.traceback("", 3):gsub("^\n", "")
    return (text:gsub("\n\t[^\n]*mp/server%.lua:.*$", ""))
end

local function can_travel(value)
    return (pcall(pickle.dumps, value))
end

--- What was raised, as it travels: an error object keeps its kind, what else
-- was raised is a RemoteError; both have the server's traceback.
---@param e any
---@param traceback string empty where there is none
---@return table an error object
function M.failure(e, traceback)
    local object
    traceback = traceback ~= "" and traceback or nil
    if errors.iserror(e) then
        object = e
        if e.traceback then
            traceback = e.traceback .. "\n" .. (traceback or "")
        end
    else
        local text = type(e) == "string" and e or repr(e)
        object = core.error.new("RemoteError", text,
            {value = can_travel(e) and e or text}, 0)
    end
    object.traceback, object.pid = traceback, core.getpid()
    object.where = nil
    if not can_travel(object) then
        object = core.error.new(object.kind, object.message,
            {traceback = traceback, pid = core.getpid()}, 0)
        object.where = nil
    end
    return object
end

--- The bytes of an answer; of one that cannot be pickled, of that error.
---@param answer table
---@return string
function M.encode(answer)
    local ok, bytes = pcall(pickle.dumps, answer)
    if ok then
        return bytes
    end
    return pickle.dumps{
        n = answer.n, held = answer.held, error = M.failure(bytes, ""),
    }
end

return M
