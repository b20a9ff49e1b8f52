/* What a forked child does to the Lua state that it inherited, for whoever
   forks (Process; a pool's crew and workers). */
#ifndef MP_BIND_PROCESS_H
#define MP_BIND_PROCESS_H

#include <lua.h>

/* Right after the fork, in the child: math.random is reseeded, the parent's
   children are forgotten, os.exit no longer closes the state (its variables
   are the parent's), and the collector lets the inherited objects lie until
   as much again was allocated, so that their pages stay shared. Leaves a
   guard on the stack, which must stay there while Lua code runs: it ends
   the process should somebody close the state all the same. */
void bind_child_enter(lua_State *L);

/* Before a child's end: calls what mp.util has to do then, if it was loaded.
   Its errors are its own. */
void bind_child_end(lua_State *L);

/* Raises why a start failed, with `what` in front: StateError for -EPROTO,
   otherwise OSError. `problem`: as in mp_start. */
int bind_start_failed(lua_State *L, const char *what, int r,
                      const char *problem);

/* The program that "spawn" and "forkserver" start: pushes what
   mp.program._argv() says, as which `argv` is valid while it stands there.
   Raises StateError. */
enum { BIND_WORDS = 16 };
void bind_process_argv(lua_State *L, const char **argv);

#endif
