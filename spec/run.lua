-- Runs busted under the interpreter that reads this line:
-- `build/mplua spec/run.lua [busted's options] spec/queue_spec.lua`
require "busted.runner" {standalone = false}
