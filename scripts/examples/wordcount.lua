-- Counts the words of files by a pool of processes, and prints the ten most
-- frequent and the total.
--
--     mplua wordcount.lua [-p PROCESSES] [-c BYTES] [FILE...]
--
-- Without FILE: the licence texts in /usr/share/common-licenses.
-- -p  workers (default: one for each CPU);  -c  bytes of a file that are one
-- task (default: 1048576).
--
-- A word is what `LC_ALL=C wc -w` takes for one: a run of bytes other than
-- white space, a printable one among them. The total counts all of them.
-- The ranking folds them to lower case and strips punctuation at both ends;
-- it leaves out what no text has: words of more than 256 bytes, and words
-- with control bytes (a note on stderr says how many).
--
-- Big files are cut into ranges. The workers do the reading; a word belongs
-- to the range in which it begins, so none is lost or counted twice. Ranges
-- are handed out as they are needed and counts are merged as they come:
-- memory is for a range per worker and for the different words, whatever
-- the size of the files.

local mp = require "mp"

local LICENCES <const> = "/usr/share/common-licenses"
local RANGE <const> = 1024 * 1024
local LONGEST <const> = 256
local TOP <const> = 10

--- Reads on to the end of the word that the end of a range cut. A word that
-- is too long to be ranked is not kept whole.
---@param file file*
---@param word string its beginning
---@return string
local function complete(file, word)
    repeat
        if #word > LONGEST then
            if word:find("%g") then
                return word
            end
            word = word:sub(1, LONGEST + 1)
        end
        local block = file:read(4096)
        local stop = block and block:find("%s")
        word = word .. (block or ""):sub(1, (stop or 0) - 1)
    until stop or not block
    return word
end

--- Reads the text of the words that begin in a range.
---@param file file*
---@param first integer offset of the range's first byte
---@param size integer its bytes
---@return string text
---@return boolean more whether the file did not end in the range
local function read_range(file, first, size)
    local before = ""
    if first > 0 then
        assert(file:seek("set", first - 1))
        before = file:read(1) or ""
    end
    local text = file:read(size) or ""
    local got = #text
    if before:find("%S") then -- a word of the range before goes on here
        local space = text:find("%s")
        if not space then
            return "", got == size
        end
        text = text:sub(space)
    end
    if got < size then
        return text, false
    end
    local space = text:match("^.*()%s") or 0
    if space == #text then
        return text, true
    end
    return text:sub(1, space) .. complete(file, text:sub(space + 1)), true
end

--- The task of a worker: counts the words that begin in a range; when the
-- range is the file's last, in all that follows too (a file may grow, and
-- those in /proc do not tell their size).
---@param range {path: string, first: integer, size: integer, last: boolean}
---@return {total: integer, unranked: integer, words: table<string, integer>}
local function count(range)
    local file <close> = assert(io.open(range.path, "rb"))
    local raw, first = {}, range.first
    repeat
        local text, more = read_range(file, first, range.size)
        for word in text:gmatch("%S+") do
            raw[word] = (raw[word] or 0) + 1
        end
        first = first + range.size
    until not (range.last and more)
    local result = {total = 0, unranked = 0, words = {}}
    local words = result.words
    for word, n in pairs(raw) do
        if word:find("%g") then
            result.total = result.total + n
            if #word > LONGEST or word:find("%c") then
                result.unranked = result.unranked + n
            else
                word = word:lower():match("^%p*(.-)%p*$")
                words[word] = (words[word] or 0) + n
            end
        end
    end
    words[""] = nil
    return result
end

--- The ranges of some files, one at each call, nil in the end.
---@param files {path: string, size: integer}[]
---@param size integer bytes of a range
---@return fun(): table?
local function each_range(files, size)
    return coroutine.wrap(function()
        for _, file in ipairs(files) do
            for first = 0, math.max(file.size - 1, 0), size do
                coroutine.yield{path = file.path, first = first, size = size,
                                last = first + size >= file.size}
            end
        end
    end)
end

--- The size of a file that can be read.
---@param path string
---@return integer? size
---@return string? message
local function measure(path)
    local file <close>, message = io.open(path, "rb")
    if not file then
        return nil, message
    end
    local _, unreadable = file:read(0)
    if unreadable then
        return nil, path .. ": " .. unreadable
    end
    local size, unseekable = file:seek("end")
    return size, unseekable and path .. ": " .. unseekable
end

--- The n most frequent words, most frequent first, equal ones by alphabet.
---@param words table<string, integer>
---@param n integer
---@return {word: string, count: integer}[]
local function most_frequent(words, n)
    local top = {}
    for word, times in pairs(words) do
        local place = #top + 1
        while place > 1 and (top[place - 1].count < times
            or top[place - 1].count == times and top[place - 1].word > word) do
            place = place - 1
        end
        if place <= n then
            table.insert(top, place, {word = word, count = times})
            top[n + 1] = nil
        end
    end
    return top
end

--- Ends the program with a message.
---@param message string
---@param code integer
local function fail(message, code)
    io.stderr:write("wordcount: ", message, "\n")
    os.exit(code)
end

--- The default files.
---@return string[]
local function licences()
    local paths = {}
    local find <close> = assert(io.popen(
        "find " .. LICENCES .. " -maxdepth 1 -type f -print0"))
    for path in find:read("a"):gmatch("%Z+") do
        table.insert(paths, path)
    end
    if #paths == 0 then
        fail("no FILE given, and no file in " .. LICENCES, 2)
    end
    table.sort(paths)
    return paths
end

--- A count given with an option.
---@param option string
---@param text string?
---@return integer
local function positive(option, text)
    local n = math.tointeger(tonumber(text))
    if not n or n < 1 then
        fail(option .. ": a whole number from 1 expected, got "
             .. (text and "'" .. text .. "'" or "nothing"), 2)
    end
    return n
end

--- Splits the command line.
---@param words string[]
---@return {p: integer?, c: integer} options
---@return string[] paths
local function parse(words)
    local options, paths, i = {c = RANGE}, {}, 1
    while words[i] and words[i]:find("^%-.") do
        local name = words[i]:sub(2)
        i = i + 1
        if name == "-" then
            break
        elseif name ~= "p" and name ~= "c" then
            fail("unknown option '-" .. name
                 .. "' (-p PROCESSES, -c BYTES)", 2)
        end
        options[name] = positive("-" .. name, words[i])
        i = i + 1
    end
    table.move(words, i, #words, 1, paths)
    return options, #paths > 0 and paths or licences()
end

local function main()
    local options, paths = parse(arg)
    local files = {}
    for i, path in ipairs(paths) do
        local size, message = measure(path)
        if not size then
            fail(message, 1)
        end
        files[i] = {path = path, size = size}
    end

    local words, total, unranked = {}, 0, 0
    local pool <close> = mp.Pool(options.p)
    for _, part in pool:imap_unordered(count, each_range(files, options.c)) do
        total = total + part.total
        unranked = unranked + part.unranked
        for word, n in pairs(part.words) do
            words[word] = (words[word] or 0) + n
        end
    end

    for _, entry in ipairs(most_frequent(words, TOP)) do
        print(("%8d %s"):format(entry.count, entry.word))
    end
    print(("total %d words in %d files"):format(total, #files))
    if unranked > 0 then
        io.stderr:write(("wordcount: %d words not ranked (longer than %d "
            .. "bytes, or with control bytes)\n"):format(unranked, LONGEST))
    end
end

local ok, err = pcall(main)
if not ok then
    fail(tostring(err), 1)
end
