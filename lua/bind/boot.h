/* What a state that is no copy of its parent's is told to do: by "spawn",
   "forkserver" and "thread".

   It is told by one message, the boot block's (proc/boot.h): first its
   surroundings, which take effect while they are decoded, since what follows
   may need modules; then a bundle of globals (globals.h); then the job.
   Nothing of mp's Lua modules is loaded for a plain job.
   Safe: the state's thread. */
#ifndef MP_BIND_BOOT_H
#define MP_BIND_BOOT_H

#include <lua.h>

#include "proc/boot.h"

/* Kinds of boot blocks (mp_start.kind). */
enum {
    BIND_BOOT_PROCESS = 1, /* a job: a function and its arguments, or a
                              Process object */
    BIND_BOOT_CREW,        /* a pool's crew: the pool is boot->id */
    BIND_BOOT_WORKER       /* a pool's worker that is a thread */
};

/* Field of the registry: true in the states of the program mplua. */
#define BIND_IS_MPLUA "mplua.program"

/* Makes the message for a new state. [birth] is the stack index of the table
   that core.process.birth() returns there, or 0; the values from `first` on,
   `n` of them, follow the surroundings: [first] is named «target», the
   others «args[i]» in errors. Raises as message_new. The block is OWNED by
   me. */
mp_ref bind_boot_message(lua_State *L, int birth, int first, int n);

/* Makes the message for a new fork server (mp_start.preload): which modules it
   is to load. OWNED by me. `job` is an OWNED block, or 0: freed should this
   raise. Wants two places on the stack. */
mp_ref bind_boot_preload(lua_State *L, mp_ref job);

/* Does what `boot` says, in a fresh state whose package.loaded has mp.core;
   returns the exit code. An error is told on stderr, headed by the process's
   name. Never raises. */
int bind_boot_run(lua_State *L, mp_boot_shm *boot);

/* core.settle; core.process's birth, program, executable, child. */
void bind_settle_open(lua_State *L);
void bind_boot_open(lua_State *L);

#endif
