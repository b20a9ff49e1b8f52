-- The main job, scripts/examples/wordcount.lua: its total is that of
-- `LC_ALL=C wc -w`, however the files are cut.

local helper = require "spec.helper"

local PROGRAM <const> = "scripts/examples/wordcount.lua"

local function run(...)
    return helper.run({PROGRAM, ...}, {timeout = 60})
end

--- Runs the program, which must succeed.
---@return string ranking the lines before the total
---@return integer total
---@return integer files
---@return string stderr
local function count(...)
    local result = run(...)
    assert.are.equal(0, result.code, result.stderr)
    local ranking, total, files = result.stdout:match(
        "^(.-)total (%d+) words in (%d+) files\n$")
    assert(ranking, result.stdout)
    return ranking, tonumber(total), tonumber(files), result.stderr
end

--- What `wc -w` says of a shell's list of files.
local function wc(list)
    local output <close> = assert(io.popen(
        "cat " .. list .. " | LC_ALL=C wc -w"))
    return output:read("n")
end

--- The ranking of a file's content as {word = count}, and the total, from
-- the definition and not from the program.
local function reference(content)
    local words, total = {}, 0
    for word in content:gmatch("%S+") do
        if word:find("%g") then
            total = total + 1
            local plain = word:lower():gsub("^%p+", ""):gsub("%p+$", "")
            if plain ~= "" and #word <= 256 and not word:find("%c") then
                words[plain] = (words[plain] or 0) + 1
            end
        end
    end
    return words, total
end

local function check_ranking(ranking, words)
    local least, shown = math.huge, 0
    for times, word in ranking:gmatch(" *(%d+) ([^\n]+)\n") do
        times = tonumber(times)
        assert.are.equal(words[word], times)
        assert.is_true(times <= least)
        least, shown = times, shown + 1
        words[word] = nil
    end
    for word, times in pairs(words) do
        assert.is_true(shown == 10 and times <= least, word .. " is missing")
    end
end

describe("wordcount", function()
    it("counts the licences as wc does", function()
        local ranking, total, files = count()
        local licences <const> = "/usr/share/common-licenses"
        assert.are.equal(wc("$(find " .. licences .. " -type f)"), total)
        local find <close> = assert(io.popen(
            "find " .. licences .. " -type f | wc -l"))
        assert.are.equal(find:read("n"), files)
        assert.are.equal(10, select(2, ranking:gsub("\n", "")))
        assert.matches("^ *%d+ the\n *%d+ of\n", ranking)
    end)

    it("ranks words without regard to case and punctuation", function()
        local path = helper.tmpfile(
            "The the, (THE) \"the\" don't -- Don't! *** b B a")
        local ranking, total = count(path)
        assert.are.equal("       4 the\n       2 b\n       2 don't\n"
                         .. "       1 a\n", ranking)
        assert.are.equal(11, total)
    end)

    it("shows ten words, and equally frequent ones by alphabet", function()
        local path = helper.tmpfile("l k j i h g f e d c b a b c d c")
        local ranking = count(path)
        assert.are.equal("       3 c\n       2 b\n       2 d\n       1 a\n"
            .. "       1 e\n       1 f\n       1 g\n       1 h\n"
            .. "       1 i\n       1 j\n", ranking)
    end)

    it("finds nothing in an empty file", function()
        local ranking, total, files = count(helper.tmpfile(""))
        assert.are.equal("", ranking)
        assert.are.equal(0, total)
        assert.are.equal(1, files)
    end)

    it("finds nothing in white space", function()
        local path = helper.tmpfile(" \t\n\v\f\r \n\n   ")
        local _, total = count("-c", "3", path)
        assert.are.equal(0, total)
    end)

    it("counts a last word without a newline", function()
        local ranking, total = count(helper.tmpfile("one two\nthree"))
        assert.are.equal("       1 one\n       1 three\n       1 two\n",
                         ranking)
        assert.are.equal(3, total)
    end)

    it("cuts no word in two, however small the ranges", function()
        local content = "a bc  def\nghij\tklmnopqrstuvwxyz a\n\n bc- \0\1 x"
        local path = helper.tmpfile(content)
        for _, bytes in ipairs{1, 2, 3, 5, 8, 13, 21, #content, 100} do
            local ranking, found = count("-c", tostring(bytes), path)
            local words, total = reference(content)
            assert.are.equal(total, found)
            check_ranking(ranking, words)
        end
    end)

    it("gives the same for any number of workers", function()
        local content = ("lorem ipsum dolor sit amet "):rep(1000)
        local path = helper.tmpfile(content)
        for _, workers in ipairs{"1", "2", "7"} do
            local ranking, total = count("-p", workers, "-c", "1000", path)
            assert.are.equal(5000, total)
            assert.are.equal("    1000 amet\n    1000 dolor\n    1000 ipsum\n"
                .. "    1000 lorem\n    1000 sit\n", ranking)
        end
    end)

    it("counts binary bytes as wc does", function()
        local bytes = {}
        local state = 1
        for i = 1, 50000 do
            state = (state * 1103515245 + 12345) % 2147483648
            bytes[i] = string.char(state >> 16 & 255)
        end
        local content = table.concat(bytes)
        local path = helper.tmpfile(content)
        for _, size in ipairs{"777", "4096", "1048576"} do
            local ranking, total, _, stderr = count("-c", size, path)
            assert.are.equal(wc(path), total)
            check_ranking(ranking, reference(content))
            assert.matches("^wordcount: %d+ words not ranked", stderr)
        end
    end)

    it("counts, but does not rank, a word of megabytes", function()
        local path = helper.tmpfile("a " .. ("x"):rep(3000000) .. " b")
        local ranking, total = count("-c", "100000", path)
        assert.are.equal("       1 a\n       1 b\n", ranking)
        assert.are.equal(3, total)
        ranking, total = count("-c", "5000000", path)
        assert.are.equal("       1 a\n       1 b\n", ranking)
        assert.are.equal(3, total)
    end)

    it("takes a long run of zero bytes for no word, or for a part of one",
       function()
        local zeros = ("\0"):rep(1000000)
        local _, total = count("-c", "50000", helper.tmpfile(zeros))
        assert.are.equal(0, total)
        _, total = count("-c", "50000", helper.tmpfile("a " .. zeros .. "b c"))
        assert.are.equal(3, total)
    end)

    it("adds the files up, also one that is given twice", function()
        local a, b = helper.tmpfile("x y"), helper.tmpfile("y z\n")
        local empty = helper.tmpfile("")
        local ranking, total, files = count(a, empty, b, a)
        assert.are.equal("       3 y\n       2 x\n       1 z\n", ranking)
        assert.are.equal(6, total)
        assert.are.equal(4, files)
    end)

    it("reads a file that does not tell its size", function()
        local _, total = count("/proc/self/limits")
        assert.is_true(total > 50)
    end)

    it("says which file is missing, and counts nothing", function()
        local result = run(helper.tmpfile("a b"), "/nonexistent/file")
        assert.are.equal(1, result.code)
        assert.are.equal("", result.stdout)
        assert.are.equal("wordcount: /nonexistent/file: "
            .. "No such file or directory\n", result.stderr)
    end)

    it("refuses a directory", function()
        local result = run("spec")
        assert.are.equal(1, result.code)
        assert.are.equal("wordcount: spec: Is a directory\n", result.stderr)
    end)

    it("refuses wrong options", function()
        for _, wrong in ipairs{{"-c", "0"}, {"-c", "-1"}, {"-c", "1.5"},
                               {"-c"}, {"-p", "x"}, {"-z"}} do
            local result = run(table.unpack(wrong))
            assert.are.equal(2, result.code)
            assert.are.equal("", result.stdout)
            assert.matches("^wordcount: .*%" .. wrong[1], result.stderr)
        end
    end)

    it("takes words after -- for files", function()
        local result = run("--", "-z")
        assert.are.equal("wordcount: -z: No such file or directory\n",
                         result.stderr)
    end)

    it("reads a big file in bounded memory", function()
        if helper.sanitized then
            return pending("sanitizers need the address space")
        end
        local path = helper.tmpname()
        do
            local file <close> = assert(io.open(path, "w"))
            local block = ("counterrevolutionaries incomprehensibilities\n")
                :rep(10000)
            for _ = 1, 230 do -- 104 MB
                assert(file:write(block))
            end
        end
        -- For each of the processes, fewer addresses than the file has bytes.
        local result = helper.run(
            {"-c", "ulimit -v 98304; exec \"$@\"", "sh", helper.mplua,
             PROGRAM, "-p", "2", path},
            {program = "/bin/sh", timeout = 60})
        assert.are.equal("", result.stderr)
        assert.are.equal(" 2300000 counterrevolutionaries\n"
            .. " 2300000 incomprehensibilities\n"
            .. "total 4600000 words in 1 files\n", result.stdout)
    end)
end)
