/* The garbage collector around a fork: what a child inherits stays on pages
   that it shares with its parent, as long as it only reads it.

   A collector writes a mark to each object that it looks at. In generational
   mode it does not look at old ones: so before the fork all objects are made
   old, in the parent, and the child collects what is its own. In incremental
   mode, which looks at all, the child's collector rests until as much as it
   inherited was allocated.
   Small heaps are left alone: their pages cost less than the care.
   Safe: the state's thread. */
#ifndef MP_BIND_GC_H
#define MP_BIND_GC_H

#include <lua.h>

/* In the parent, before it forks a child that runs `L`. May run finalizers;
   raises nothing but Lua's own error for want of memory. */
void bind_gc_before_fork(lua_State *L);

/* In the child. */
void bind_gc_in_child(lua_State *L);

#endif
