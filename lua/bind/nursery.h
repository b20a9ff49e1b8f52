/* Memory for the objects that a forked child makes.

   The free pieces of a parent's heap lie all over it: a child that filled
   them would take a page of its own for each. So what a child with a big
   inheritance allocates comes from chunks of its own, in size classes; what
   it inherited, and what is large, stays with the allocator that it came
   from.

   Invariant: a pointer belongs to the chunk that the map names, or to the
   allocator before. Freed pieces are used again for their size; the memory
   is not given back before the end of the process.
   Safe: the state's thread; a child after fork, by bind_nursery_enter. */
#ifndef MP_BIND_NURSERY_H
#define MP_BIND_NURSERY_H

#include <lua.h>
#include <stdbool.h>

/* Is the state's allocator the one of luaL_newstate, and not a host's own? */
bool bind_nursery_fits(lua_State *L);

/* In the parent, before the fork: brings free pieces of malloc's into order,
   ten thousand at each of `times`, which the child's first large requests
   would do otherwise. */
void bind_nursery_prepare(int times);

/* In a forked child of a state that fits: from now on, what `L` allocates
   comes from pages that no other process has. For want of memory, nothing is
   changed. */
void bind_nursery_enter(lua_State *L);

#endif
