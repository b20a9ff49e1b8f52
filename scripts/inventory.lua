--- Holds the rows of spec/inventory.txt against the titles of the specs.
--
-- usage: inventory.lua [-v] [root]
-- Prints for each family how many of its rows a spec names, the rows that none
-- names, and a percentage; with -v every row with the places of its specs.
-- Ends with 1 if a row is missing, or a title names a row that there is not.

local verbose = arg[1] == "-v"
local root = arg[verbose and 2 or 1] or "."

-- The list -------------------------------------------------------------------

local rows, order = {}, {} -- id -> row; rows in the order of the file
local families = {}        -- "PRC", ... as the ids begin

--- Reads the list. A row: {id, family, text, without = boolean, specs = list}.
local function read_rows(path)
    local row
    for line in io.lines(path) do
        local sign, id, text = line:match("^(%-?)([%u%-]+%-%d%d)  (.+)$")
        if id then
            row = {id = id, family = id:match("^(.*)%-%d%d$"), text = text,
                without = sign == "-", specs = {}}
            assert(not rows[id], id .. " stands in the list twice")
            rows[id] = row
            order[#order + 1] = row
            families[row.family] = true
        elseif line:match("^ +%S") and row then
            row.text = row.text .. " " .. line:match("^ +(.*)$")
        end
    end
end

-- Titles ---------------------------------------------------------------------

local unknown = {}

--- Ticks the rows that a title names.
local function tick(title, place)
    for id in title:gmatch("%f[%w%-][%u%-]+%-%d%d%f[^%w%-]") do
        local family = id:match("^(.*)%-%d%d$")
        if rows[id] then
            local specs = rows[id].specs
            specs[#specs + 1] = place
        elseif families[family] then
            unknown[#unknown + 1] = place .. ": there is no row " .. id
        end
    end
end

--- Calls f(title, line) for what stands between `opening` and `closing`.
local function each_title(text, opening, closing, f)
    local at, line, counted = 1, 1, 1
    while true do
        local from, to = text:find(opening, at)
        if not from then
            return
        end
        local stop = text:find(closing, to, false) or #text
        local _, breaks = text:sub(counted, from):gsub("\n", "")
        line, counted = line + breaks, from + 1
        -- A title that goes on in another line is one text.
        local title = text:sub(to, stop):gsub('"%s*%.%.%s*"', "")
        f(title:gsub('"%s*"', ""), line)
        at = to + 1
    end
end

local function read(path)
    local file <close> = assert(io.open(path, "rb"))
    return file:read("a")
end

local function files(pattern)
    local list = {}
    local pipe <close> = assert(io.popen(
        ("cd '%s' && ls %s 2>/dev/null"):format(root, pattern)))
    for path in pipe:lines() do
        list[#list + 1] = path
    end
    return list
end

local function read_titles()
    for _, path in ipairs(files("spec/*_spec.lua")) do
        local function add(title, line)
            tick(title, path .. ":" .. line)
        end
        local text = read(root .. "/" .. path)
        each_title(text, "%f[%w]it%(", "function%s*%(", add)
        -- One for each start method: spec/start_tools.lua.
        each_title(text, "%.each%(", "function%s*%(", add)
    end
    for _, path in ipairs(files("spec/runtime/*_spec.c spec/crash/*.c")) do
        local function add(title, line)
            tick(title, path .. ":" .. line)
        end
        local text = read(root .. "/" .. path)
        each_title(text, "\nSPEC[%u_]*%(", "%)%s*{", add)
        each_title(text, "%.name = ", ",", add)
    end
end

-- The table ------------------------------------------------------------------

local function show(row)
    local mark = row.without and "-" or row.specs[1] and "x" or " "
    print(("  [%s] %-8s %s"):format(mark, row.id, row.text))
    for _, place in ipairs(verbose and row.specs or {}) do
        print("               " .. place)
    end
end

local function report()
    local seen, ticked, claimed = {}, 0, 0
    for _, first in ipairs(order) do
        local family = first.family
        if not seen[family] then
            seen[family] = true
            local n, of, shown = 0, 0, {}
            for _, row in ipairs(order) do
                if row.family == family then
                    local has = row.specs[1] ~= nil
                    of = of + (row.without and 0 or 1)
                    n = n + (has and not row.without and 1 or 0)
                    if verbose or not has then
                        shown[#shown + 1] = row
                    end
                end
            end
            print(("%-5s %3d of %3d"):format(family, n, of))
            for _, row in ipairs(shown) do
                show(row)
            end
            ticked, claimed = ticked + n, claimed + of
        end
    end
    for _, line in ipairs(unknown) do
        print(line)
    end
    print(("%d of %d rows, %.1f %%"):format(ticked, claimed,
        claimed > 0 and 100 * ticked / claimed or 100))
    return ticked == claimed and not unknown[1]
end

read_rows(root .. "/spec/inventory.txt")
read_titles()
os.exit(report())
