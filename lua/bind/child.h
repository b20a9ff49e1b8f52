/* What a forked child does to the Lua state that it inherited, for whoever
   forks (Process; a pool's crew and workers), and what every child does
   before it ends.

   Safe: the state's thread. */
#ifndef MP_BIND_CHILD_H
#define MP_BIND_CHILD_H

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

/* Adds at_end to the table on top, and lays out what a child will need. */
void bind_child_open(lua_State *L);

#endif
