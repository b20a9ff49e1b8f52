--- This process: who it is, who its parent is, what its children are told.

local core = require "mp.core"
local context = require "mp.context"
local errors = require "mp.errors"
local log = require "mp.log"
local program = require "mp.program"

local M = {}

-- This process: its object, how many processes it has made, what its
-- children know of it, and its parent's object. In one table, and the latter
-- two made when asked for: a child writes to few of its pages, since each
-- costs it more than the whole of a small job.
local this <const> = {process = false, made = 0, card = false, parent = false}
M._this = this

-- Births --------------------------------------------------------------------

--- What a child is to know of this process.
---@return table {name, pid, tag}
function M._card()
    if not this.card then
        this.card = {name = this.process.name, pid = core.getpid(),
            tag = core.process.tag()}
    end
    return this.card
end

--- What a child that is no copy of this process is to know of itself: its
-- core.process.birth().
---@param object table a Process object, which describes it
---@return table
function M._birth(object)
    return {
        name = object.name, daemon = object._daemon, path = object._path,
        authkey = object._authkey or this.process._authkey,
        card = object._card or M._card(), log = log._birth(),
        method = context.get_start_method(true), program = program._birth(),
        thread = object._is_thread,
    }
end

--- Makes the object of a process that mp did not start what it is, or that
-- of one that is no copy of its parent what it was told.
---@param object table a Process object
function M._receive(object)
    local told = core.process.birth()
    if not told then
        object._authkey = core.random()
        return
    end
    object._name, object._daemon = told.name, told.daemon
    object._path, object._card = told.path, told.card
    object._creator, object._authkey = told.card.pid, told.authkey
end

-- The end of a child --------------------------------------------------------

--- How far below its own end a stack is searched: each look costs as much as
-- the stack is deep, and one that overflowed is very deep.
local FEW <const> = 60

--- The level of the last frame, as the caller's caller counts.
local function depth()
    local low, high = 2, 4
    while debug.getinfo(high, "f") do
        low, high = high, high * 2
    end
    while high - low > 1 do
        local middle = (low + high) // 2
        if debug.getinfo(middle, "f") then
            low = middle
        else
            high = middle
        end
    end
    return low - 1
end

--- The end of a traceback: the lines from what runs `f` on; none if nothing
-- does. They tell what led to the child's run, which is not the child's own.
---@param f function
---@param above integer so many frames more
local function lines_from(f, above)
    local last = depth()
    for level = last, math.max(2, last - FEW), -1 do
        if debug.getinfo(level, "f").func == f then
            return debug.traceback("", level - above):match("traceback:(.*)")
                or ""
        end
    end
    return ""
end

--- Tells on stderr what ended a child, at once and in one piece, after what
-- the child has said before.
---@param e any
---@param level integer where the traceback begins; 1: in the caller
---@param below string lines at its end that are left out
local function tell(e, level, below)
    local ok, text = pcall(errors._describe, e, level + 2)
    if not ok then
        text = "(error in describing an error)"
    elseif below ~= "" and text:sub(-#below) == below then
        text = text:sub(1, -#below - 1)
    end
    pcall(io.stdout.flush, io.stdout)
    local told = core.process.birth()
    local brief = ok and core.error.is(e, "Interrupted")
    pcall(io.stderr.write, io.stderr, (told and told.thread and "Thread "
        or "Process ") .. this.process.name .. (brief and ": " or ":\n")
        .. text .. "\n")
    pcall(io.stderr.flush, io.stderr)
end

--- Message handler of a child that is a copy of this process.
function M._report_copy(e)
    tell(e, 2, lines_from(core.process.start, 0))
end

--- Tells what ended this process, which is no copy of its parent: called by
-- the core's message handler.
---@param e any
function M._report(e)
    -- In a thread the core's own frame is all that is below.
    local below = lines_from(core.process.child, 1)
    tell(e, 4, below ~= "" and below or "\n\t[C]: in ?")
end

-- The parent ----------------------------------------------------------------

--- A parent, known by its participant's tag.
local Parent = {__name = "ParentProcess"}
Parent.__index = Parent

--- Does it live?
---@return boolean
function Parent:is_alive()
    return core.process.alive(self._tag)
end

--- Waits for its end.
---@param timeout number|nil seconds
---@return boolean whether it ended
function Parent:join(timeout)
    return core.process.await(self._tag, timeout)
end

function Parent:__tostring()
    return string.format("<ParentProcess name='%s' pid=%d>", self.name,
        self.pid)
end

--- The process that started this one: fields pid, name, methods is_alive,
-- join; nil in the main process.
---@return table|nil
function M.parent_process()
    local card = this.process._card
    if card and not this.parent then
        this.parent = setmetatable({
            name = card.name, pid = card.pid, ident = card.pid,
            _tag = card.tag,
        }, Parent)
    end
    return this.parent or nil
end

return M
