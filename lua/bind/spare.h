/* The allocator of states that are the program's own: the one they had, but
   of the blocks that are freed and are too large for malloc to keep
   (cli/main.c) the last ones are kept for the next that are about as large.
   Whoever receives such messages one after the other would else get new
   memory for each, which the kernel clears page by page: that takes longer
   than copying the message.

   Invariant: each block is one of the allocator before; those that a process
   keeps have BIND_SPARE_LEAST bytes each at least, and BIND_SPARE_MOST
   together at most. A forked child gives back what it inherited: its pages
   are the parent's.
   Safe: threads; a child after fork. Blocks: never. */
#ifndef MP_BIND_SPARE_H
#define MP_BIND_SPARE_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

enum { BIND_SPARE_LEAST = 64 << 20, BIND_SPARE_MOST = 256 << 20 }; /* bytes */

/* From now on `L`, which luaL_newstate made, allocates so. */
void bind_spare_enter(lua_State *L);

/* Before a string of some `size` bytes is made: if it is large, the collector
   does now what it would do afterwards, so that one that is dead makes room.
   Finalizers run. In any state. */
void bind_spare_make_room(lua_State *L, size_t size);

/* Is this the allocator that bind_spare_enter sets? */
bool bind_spare_is(lua_Alloc f);

/* Gives back what is kept; for whoever is about to measure. */
void bind_spare_drop(void);

#endif
