--- Signals by their names.

local M = {}

-- By number, as Linux has them.
local NAMES <const> = {
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS",
    "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE",
    "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP",
    "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ",
    "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
}

--- How messages show an exit code: the name of the signal that ended the
-- process, after a minus, else the number.
---@param code integer
---@return string
function M.show(code)
    local name = code < 0 and NAMES[-code]
    return name and "-" .. name or tostring(code)
end

return M
