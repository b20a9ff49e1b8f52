/* mplua inside a C program: link libmplua (pkg-config mplua) and Lua 5.4.

   mplua adds to a lua_State what `require "mp"` needs and nothing else: it
   sets no signal handler, starts no thread, reaps no child but its own.
   The first use of a shared object opens the arena, not these calls.

   Safe: each lua_State belongs to one thread, as always in Lua. */
#ifndef MPLUA_H
#define MPLUA_H

#include <lua.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A new state with Lua's standard libraries, where `require "mp"` works;
   NULL when memory is short. Owns: the caller, who ends it by lua_close. */
lua_State *mplua_newstate(void);

/* Makes `require "mp"` and its parts work in a state of the host's own:
   enters them in package.preload (before or after `package` is opened).
   Is a lua_CFunction; leaves nothing on the stack and returns 0. Raises
   only when memory is short. */
int mplua_open(lua_State *L);

/* The whole program: options, script, interactive mode, as `lua` has them.
   Takes SIGINT until it returns the exit code. Not to be called by two threads
   at a time. */
int mplua_main(int argc, char **argv);

#ifdef __cplusplus
}
#endif

#endif
