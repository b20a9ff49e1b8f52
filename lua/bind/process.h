/* What starting a process shares with starting a pool's workers.
   Safe: the state's thread. */
#ifndef MP_BIND_PROCESS_H
#define MP_BIND_PROCESS_H

#include <lua.h>

/* Raises why a start failed, with `what` in front: StateError for -EPROTO, and
   for -EOWNERDEAD with a problem, otherwise OSError. `problem`: as in
   mp_start. */
int bind_start_failed(lua_State *L, const char *what, int r,
                      const char *problem);

/* The program that "spawn" and "forkserver" start: pushes what
   mp.program._argv() says, as which `argv` is valid while it stands there.
   Raises StateError. */
enum { BIND_WORDS = 16 };
void bind_process_argv(lua_State *L, const char **argv);

#endif
