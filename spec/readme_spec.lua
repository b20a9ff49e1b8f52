--- The README's programs do what it says: each block of Lua or C is run, and
-- what it prints is the block of output behind it.

local helper = require "spec.helper"

--- The blocks of README.md: {language, text, line}.
local function blocks()
    local list, current, number = {}, nil, 0
    for line in io.lines("README.md") do
        number = number + 1
        local language = line:match("^```(%a*)")
        if language and current then
            list[#list + 1] = current
            current = nil
        elseif language then
            current = {language = language, text = "", line = number}
        elseif current then
            current.text = current.text .. line .. "\n"
        end
    end
    return list
end

describe("README", function()
    local list = blocks()
    for i, block in ipairs(list) do
        local output = list[i + 1]
        if output and output.language == "output" then
            it(("prints what it says at line %d"):format(block.line),
                function()
                    local result
                    if block.language == "lua" then
                        result = helper.run({helper.tmpfile(block.text)},
                            {timeout = 30})
                        assert.are.equal("", result.stderr)
                        assert.are.equal(0, result.code)
                        assert.are.equal(output.text, result.stdout)
                    else
                        local pipe = assert(io.popen(helper.build_host(
                            helper.tmpdir(), block.text)))
                        assert.are.equal(output.text, pipe:read("a"))
                        assert.is_true(pipe:close())
                    end
                end)
        end
    end

    it("names targets that exist", function()
        local makefile = assert(io.open("Makefile")):read("a")
        for _, block in ipairs(list) do
            for target in block.text:gmatch("make (%a+)") do
                if block.language == "sh" then
                    assert.is_truthy(makefile:find("\n" .. target .. ":", 1,
                        true), target)
                end
            end
        end
    end)
end)
