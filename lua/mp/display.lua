--- How wide a text is on a terminal, and shortening it.
--
-- Widths are those of most terminals: two columns for the scripts of East
-- Asia and for pictures, none for marks that stand on the letter before
-- them. What would move the cursor is shown as a blank.

local M = {}

-- Ranges of code points, ascending.
local WIDE <const> = {
    0x1100, 0x115f, 0x231a, 0x231b, 0x23e9, 0x23ec, 0x25fd, 0x25fe,
    0x2614, 0x2615, 0x2648, 0x2653, 0x26a1, 0x26a1, 0x26ce, 0x26ce,
    0x2705, 0x2705, 0x2728, 0x2728, 0x274c, 0x274c, 0x2753, 0x2755,
    0x2795, 0x2797, 0x2e80, 0x303e, 0x3041, 0x33ff, 0x3400, 0x4dbf,
    0x4e00, 0xa4cf, 0xa960, 0xa97f, 0xac00, 0xd7a3, 0xf900, 0xfaff,
    0xfe30, 0xfe6f, 0xff00, 0xff60, 0xffe0, 0xffe6, 0x16fe0, 0x18aff,
    0x1b000, 0x1b2ff, 0x1f004, 0x1f004, 0x1f0cf, 0x1f0cf, 0x1f18e, 0x1f18e,
    0x1f191, 0x1f19a, 0x1f200, 0x1f64f, 0x1f680, 0x1f6ff, 0x1f7e0, 0x1f7eb,
    0x1f900, 0x1faff, 0x20000, 0x3fffd,
}
local NARROWEST <const> = {
    0x0300, 0x036f, 0x0483, 0x0489, 0x0591, 0x05bd, 0x0610, 0x061a,
    0x064b, 0x065f, 0x0900, 0x0902, 0x093c, 0x093c, 0x0941, 0x0948,
    0x0e31, 0x0e31, 0x0e34, 0x0e3a, 0x0e47, 0x0e4e, 0x1ab0, 0x1aff,
    0x1dc0, 0x1dff, 0x200b, 0x200f, 0x2028, 0x202e, 0x2060, 0x206f,
    0x20d0, 0x20f0, 0x302a, 0x302d, 0x3099, 0x309a, 0xfe00, 0xfe0f,
    0xfe20, 0xfe2f, 0xfeff, 0xfeff, 0x1f3fb, 0x1f3ff, 0xe0100, 0xe01ef,
}

local function is_among(ranges, code)
    local low, high = 1, #ranges // 2
    while low <= high do
        local middle = (low + high) // 2
        if code < ranges[2 * middle - 1] then
            high = middle - 1
        elseif code > ranges[2 * middle] then
            low = middle + 1
        else
            return true
        end
    end
    return false
end

--- Columns of a character.
---@param code integer
---@return integer
function M.columns(code)
    if code < 0x300 then
        return 1
    elseif is_among(NARROWEST, code) then
        return 0
    end
    return is_among(WIDE, code) and 2 or 1
end

--- Columns of a line.
---@param line string of `plain`
---@return integer
function M.width(line)
    local sum = 0
    for _, code in utf8.codes(line) do
        sum = sum + M.columns(code)
    end
    return sum
end

--- A text as characters that each take their place on one line: blanks for
--- controls, '?' for bytes that are no UTF-8.
---@param text string
---@return string
function M.plain(text)
    local parts, i = {}, 1
    while i <= #text do
        local _, wrong = utf8.len(text, i)
        local good = text:sub(i, (wrong or #text + 1) - 1)
        parts[#parts + 1] = good:gsub("[%c\x7f]", " ")
            :gsub("\xc2[\x80-\x9f]", " ")
        if wrong then
            parts[#parts + 1] = "?"
        end
        i = (wrong or #text) + 1
    end
    return table.concat(parts)
end

--- As much of a line as fits, the rest shown by a sign.
---@param line string of `plain`
---@param most integer columns
---@param sign string
---@return string
function M.shorten(line, most, sign)
    if M.width(line) <= most then
        return line
    end
    local left = most - M.width(sign)
    for at, code in utf8.codes(line) do
        left = left - M.columns(code)
        if left < 0 then
            return most < M.width(sign) and "" or line:sub(1, at - 1) .. sign
        end
    end
    return line
end

return M
