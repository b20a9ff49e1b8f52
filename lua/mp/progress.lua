--- Progress: how far a map is, shown or told while its caller waits.
--
--   progress = true, "label"   a bar on stderr, if that is a terminal
--   progress = f               f(done, total or nil) is called
--
-- The core calls at most ten times a second, and once at the end
-- (lua/bind/job_progress.c); who waits for nothing is told nothing. Only the
-- process that waits draws: one line, the last on the screen, with the cursor
-- at its beginning, so that what others write there begins a line, too. What
-- the logger says appears above it.

local core = require "mp.core"
local display = require "mp.display"
local errors = require "mp.errors"
local log = require "mp.log"
local text_of = require "mp.result".text_of

local is_error, now = core.error.is, core.monotonic

local M = {}

--- Raises TypeError unless `value` is an option progress.
---@param fn string
---@param value any
function M._check(fn, value)
    local kind = type(value)
    if kind ~= "nil" and kind ~= "boolean" and kind ~= "string"
        and kind ~= "function" then
        errors._raise("TypeError", "%s: progress must be true, a label or a "
            .. "function, got %s", fn, errors._show(value))
    end
end

-- The rate -------------------------------------------------------------------

--- Seconds after which an observation counts for a third.
local MEMORY <const> = 5

--- Items per second, where what was lately counts most.
local Rate = {}
Rate.__index = Rate

local function new_rate(at)
    return setmetatable({at = at, done = 0, items = 0, seconds = 0}, Rate)
end

---@param done integer
---@param at number seconds
---@return number|nil nil: nothing is known yet
function Rate:update(done, at)
    local passed = at - self.at
    local keep = math.exp(-passed / MEMORY)
    self.items = self.items * keep + (done - self.done)
    self.seconds = self.seconds * keep + passed
    self.at, self.done = at, done
    if self.items <= 0 or self.seconds <= 0 then
        return nil
    end
    return self.items / self.seconds
end

-- Words ----------------------------------------------------------------------

--- A time as people write it: 0:07, 1:02:03, 2d 5h.
local function show_time(seconds)
    local s = math.tointeger(math.floor(seconds + 0.5))
    if not s or s >= 8640000 then
        return "?"
    elseif s >= 86400 then
        return ("%dd %dh"):format(s // 86400, s % 86400 // 3600)
    elseif s >= 3600 then
        return ("%d:%02d:%02d"):format(s // 3600, s % 3600 // 60, s % 60)
    end
    return ("%d:%02d"):format(s // 60, s % 60)
end

--- A rate in three figures.
local function show_rate(rate)
    for _, unit in ipairs {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} do
        if rate >= unit[1] then
            return ("%.3g%s/s"):format(rate / unit[1], unit[2])
        end
    end
    if rate < 0.1 then
        return ("%s each"):format(show_time(1 / rate))
    end
    return ("%.3g/s"):format(rate)
end

-- The terminal ---------------------------------------------------------------

local STDERR <const> = 2

--- Its width, if stderr is one that understands how lines are cleared.
local function terminal()
    local term = os.getenv("TERM")
    if not term or term == "" or term == "dumb" then
        return nil
    end
    return core.terminal(STDERR)
end

local function is_set(name)
    local value = os.getenv(name)
    return value ~= nil and value ~= ""
end

local function has_utf8()
    for _, name in ipairs {"LC_ALL", "LC_CTYPE", "LANG"} do
        if is_set(name) then
            local value = os.getenv(name):lower()
            return value:find("utf%-?8") ~= nil
        end
    end
    return false
end

--- How bars look here: full, the parts of a column, empty; signs, colours.
local function style()
    local utf = has_utf8()
    local colour = not is_set("NO_COLOR")
    return {
        parts = utf and {"▏", "▎", "▍", "▌", "▋", "▊", "▉"} or {},
        full = utf and "█" or "#", empty = utf and "░" or ".",
        more = utf and "…" or "~",
        begin = colour and "\27[32m" or "", stop = colour and "\27[0m" or "",
    }
end

-- Bars -----------------------------------------------------------------------

---@class mp.Bar
local Bar = {}
Bar.__index = Bar

--- Those that are under way, the one that is drawn last. A child has its
-- parent's, which are not its own to draw.
local bars = {}

--- Columns that a bar has, at most and at least.
local LONGEST <const>, SHORTEST <const> = 40, 4

--- So many columns of bar.
local function draw_bar(look, columns, part)
    local eighths = math.floor(columns * 8 * part)
    local full, rest = eighths // 8, eighths % 8
    local partly = full < columns and look.parts[rest] or ""
    local empty = columns - full - (partly ~= "" and 1 or 0)
    return look.begin .. look.full:rep(full) .. partly .. look.stop
        .. look.empty:rep(empty)
end

--- What stands behind the bar: count, rate, time.
local function words(self, rate)
    local count = self.total and ("%d/%d"):format(self.done, self.total)
        or tostring(self.done)
    local list = {count}
    if self.over then
        local took = self.at - self.begin
        list[2] = took > 0 and show_rate(self.done / took) or nil
        list[#list + 1] = show_time(took)
    elseif rate then
        list[2] = show_rate(rate)
        list[3] = self.total
            and show_time((self.total - self.done) / rate) .. " left"
            or show_time(self.at - self.begin)
    end
    return table.concat(list, "  ")
end

--- The line for a terminal of that width: label, per cent, bar, words, as far
-- as they fit.
local function compose(self, width)
    local look, room = self.look, width - 1
    local behind = display.shorten(self.words, room, look.more)
    room = room - display.width(behind)
    local part = self.total
        and (self.total > 0 and math.min(self.done / self.total, 1) or 1)
    local percent = part and ("%3d%% "):format(math.floor(part * 100)) or ""
    if room < #percent + SHORTEST + 2 then
        percent, part = "", nil
    end
    room = room - #percent - (part and SHORTEST + 2 or 0)
    local label = ""
    if self.label ~= "" and room > 3 then
        label = display.shorten(self.label, room - 2, look.more) .. "  "
        room = room - display.width(label)
    end
    local bar = ""
    if part then
        bar = draw_bar(look, math.min(SHORTEST + math.max(room, 0), LONGEST),
            part) .. "  "
    end
    return label .. percent .. bar .. behind
end

--- What clears the line that is there. A terminal that became narrower has
-- broken it into several.
local function clear(self, width)
    if self.shown == 0 then
        return ""
    end
    local above = (self.shown - 1) // width
    self.shown = 0
    return (above > 0 and ("\27[%dA"):format(above) or "") .. "\r\27[J"
end

--- Columns of a line with colours.
local function visible(line)
    return display.width((line:gsub("\27%[[%d;]*m", "")))
end

local function draw(self, before)
    local width = core.terminal(STDERR)
    if not width then
        return
    end
    local line = compose(self, width)
    local text = clear(self, width) .. (before or "") .. line
        .. (self.over and "\n" or "\r")
    self.shown = self.over and 0 or visible(line)
    io.stderr:write(text)
    io.stderr:flush()
end

--- The bar that this process shows, if any.
local function shown_bar()
    local bar = bars[#bars]
    return bar and bar.pid == core.getpid() and bar or nil
end

--- How the logger writes: above the bar; in another process, whose parent may
-- show one, over what is there of it.
local function write_line(line)
    local bar = shown_bar()
    if bar and bar.shown > 0 then
        draw(bar, line)
    else
        io.stderr:write(terminal() and "\27[K" or "", line)
        io.stderr:flush()
    end
end

--- In a worker: its pool's process may show a bar.
function M._in_worker()
    log._write = terminal() and write_line or nil
end

local function leave(self)
    for i = #bars, 1, -1 do
        if bars[i] == self then
            table.remove(bars, i)
        end
    end
    if #bars == 0 then
        log._write = nil
    end
end

--- Another one is at the bottom now: what it showed stays.
local function hide_shown(width)
    local bar = shown_bar()
    if bar and bar.shown > 0 then
        io.stderr:write(clear(bar, width))
    end
end

--- The first time that it has something to show.
local function open(self)
    hide_shown(core.terminal(STDERR) or 1)
    table.insert(bars, self)
    log._write = write_line
    self.opened = true
end

function Bar:update(done, total, over)
    local at = now()
    if self.pid ~= core.getpid() then
        return
    elseif not self.opened then
        open(self)
    end
    self.done, self.total, self.at = done, total, at
    local rate = self.rate:update(done, at)
    self.over = over
    self.words = words(self, rate)
    if over then
        hide_shown(core.terminal(STDERR) or 1)
        draw(self)
        leave(self)
    elseif bars[#bars] == self then
        draw(self)
    end
end

local function new_bar(label)
    local at = now()
    return setmetatable({
        label = display.plain(label), look = style(), pid = core.getpid(),
        begin = at, at = at, rate = new_rate(at), done = 0, shown = 0,
        words = "", over = false, opened = false,
    }, Bar)
end

-- What the pool asks for -----------------------------------------------------

--- Calls the user's function. An error in it is reported, once, and it is not
-- called again.
local function told(f)
    local failed, last_done, last_total = false, nil, nil
    return function(done, total)
        if failed or done == last_done and total == last_total then
            return
        end
        last_done, last_total = done, total
        local ok, e = pcall(f, done, total)
        if ok then
            return
        elseif is_error(e, "Interrupted") then
            error(e, 0)
        end
        failed = true
        io.stderr:write("error in a progress function: ", text_of(e), "\n")
    end
end

--- Shows or tells how far a job is, as the option asks.
---@param job userdata
---@param option boolean|string|function|nil
function M._follow(job, option)
    if type(option) == "function" then
        job:progress(told(option))
    elseif option and terminal() then
        local bar = new_bar(option == true and "" or option)
        job:progress(function(...)
            bar:update(...)
        end)
    end
end

return M
