/* Lua states of threads: what is around bind_boot_run in a thread.

   A thread has a state of its own, made as the process makes its states. In it
   os.exit ends the thread, and nothing else: it leaves the state's C frames by
   longjmp, closes the state, and its code is the thread's exit code. Running
   out of stack or memory is the error of what ran.
   Safe: each thread for itself. */
#ifndef MP_BIND_THREAD_H
#define MP_BIND_THREAD_H

#include <lua.h>
#include <stdbool.h>

/* How states are made here, with all their libraries and a loader for mp's
   modules: who says it first is heeded. Without it: as the stock interpreter
   does. NULL: no memory. */
typedef lua_State *(*bind_thread_maker)(void);
void bind_thread_makes(bind_thread_maker maker);

/* Runs f(L, ctx), which does not raise, in a fresh state with mp.core in its
   package.loaded, and closes the state. Returns f's result, or the code of
   an os.exit; then *exited is true. Without memory for a state: EXIT_FAILURE,
   and *exited. */
typedef int (*bind_thread_work)(lua_State *L, void *ctx);
int bind_thread_state(bind_thread_work f, void *ctx, bool *exited);

/* At the end of a state of the process's own: none is kept ready. */
void bind_thread_unready(void);

/* In f: as os.exit. */
_Noreturn void bind_thread_leave(int code);

/* os.exit([code [, close]]) in a thread, whose state is closed whatever
   `close` is, and in a forked child, whose state never is. */
int bind_thread_exit(lua_State *L);

/* In a copy of this process: it is no thread any more, and an os.exit that was
   taken in one ends the process. */
void bind_thread_end_in_child(void);

/* Tells the floors below what threads do. */
void bind_thread_open(void);

#endif
