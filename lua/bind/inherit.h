/* Connections that a forked crew is not to have: those of its parent that the
   pool's initializer and its arguments do not name. (What a job names comes
   with the job.) Each of them would keep the other end from ever seeing its
   end.

   Named is what they reach, through tables, upvalues and the globals that
   functions read; but nothing through mp's own modules.
   Safe: one lua_State; the forking thread. */
#ifndef MP_BIND_INHERIT_H
#define MP_BIND_INHERIT_H

#include <lua.h>
#include <stdbool.h>

/* Notes the new Connection at `idx` among those of this state, weakly. Raises
   for want of memory. */
void inherit_note(lua_State *L, int idx);

/* Pushes a list of this state's open Connections that the value at `named`
   does not reach, or nil: there are none. */
void inherit_find(lua_State *L, int named);

/* The next child that this thread forks closes the Connections of the list at
   `idx`, before anything else; the list stays on the stack until
   inherit_done. Nothing may raise between the two. */
void inherit_begin(lua_State *L, int idx);
void inherit_done(void);

#endif
