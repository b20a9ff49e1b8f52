--- What the specs of mp.pickle share.

local pickle = require "mp.pickle"
local helper = require "spec.helper"

local M = {}

--- What comes of a value that is packed and unpacked.
function M.copy(v)
    return pickle.loads(pickle.dumps(v))
end

--- The message of the PicklingError that `f(...)` raises.
function M.refusal(f, ...)
    return (helper.failure("PicklingError", f, ...))
end

--- A module of this name for one spec, whose `finally` this is.
-- @return the module
function M.with_module(finally, name, module)
    package.loaded[name] = module
    finally(function()
        package.loaded[name] = nil
    end)
    return module
end

return M
