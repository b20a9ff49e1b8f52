/* Globals travel: what a job reads by a global name, and its receiver does
   not have or has older, goes along with the job.

   The names are found in the bytecode of the functions that go (globals_code)
   and of those that they reach.  What the receiver has is known by a
   snapshot for a copy of this process (globals_have), and by what Lua itself
   defines for a fresh state.  What is missing makes a bundle: one value of
   the message, in front of the job; to decode it is to apply it.

   Invariants: the job's functions and its globals are in one message, so what
   they share stays shared.  Only raw access to the tables of globals: a
   metatable there sees nothing of it.  Modules, and what Lua defines, go by
   name.  A global that cannot be pickled does not keep the job from going:
   what stands in for it raises that PicklingError when it is used.
   Safe: one lua_State (any of its coroutines). */
#ifndef MP_BIND_GLOBALS_H
#define MP_BIND_GLOBALS_H

#include <lua.h>
#include <stdbool.h>

#include "bind/pack.h"
#include "mem/arena.h"

/* ---- the sender ----------------------------------------------------- */

/* Pushes a snapshot: what a copy of this process, forked now, will have.
   Values are compared by identity; those that reach no more than
   GLOBALS_SMALL others also by all of these, so that changes in place are
   seen. It keeps none of them alive. */
#define GLOBALS_SMALL 1000
void globals_snapshot(lua_State *L);

/* Appends to `out` the bundle, or nil where nothing is missing; then the
   n > 0 values from stack index `first`, called `head`, args[1], ... by
   errors. `snapshot`: stack index of what the receiver has; 0 for a fresh
   state. Raises as pack_value. The receiver decodes one value more than n,
   true or nil, and has no more to do. */
void globals_pack(lua_State *L, pack_out *out, int snapshot,
                  const char *head, int first, int n);

/* The function at `f` as a message for the workers of a pool (OWNED by the
   caller), with a bundle where one is needed. `items`: it will be called
   with more than scalars, so the classes that these may have go along, and
   what functions read that the `n` values from `first` on reach (up to
   GLOBALS_SMALL values each).
   Raises as message_new. */
mp_ref globals_function(lua_State *L, int snapshot, int f, bool items,
                        int first, int n);

/* ---- the receiver --------------------------------------------------- */

/* A worker that runs several jobs in turn gives each its own globals: those
   of a job hold while it runs, with what it did to them, and behind them
   stand the worker's own. */

/* The worker's own globals are back. Safe twice. */
void globals_leave(lua_State *L);

/* Pushes the function of a message that globals_function made, and a view:
   nil, or what globals_return wants when this job's turn comes again. The
   job's globals are in effect. Only after globals_leave. */
void globals_enter(lua_State *L, mp_ref message);

/* The globals of the view on top (popped) are in effect; nil: none. Only
   after globals_leave. */
void globals_return(lua_State *L);

/* ---- */

/* Adds to the table on top (core) what bundles name. */
void globals_open(lua_State *L);

#endif
