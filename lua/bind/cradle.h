/* Memory for the first objects of a thread's state.

   A state with its libraries is some hundred small pieces, which one thread
   allocates and another frees: that is what malloc does worst. So they come
   from one block, which the next state takes over; what does not fit, and what
   is large, comes from the allocator that the state had.

   Invariant: a piece is the block's if it lies in it. Freed pieces are used
   again for their size; the block is given back when the state is closed.
   Safe: each state for itself. Blocks: never. */
#ifndef MP_BIND_CRADLE_H
#define MP_BIND_CRADLE_H

#include <lua.h>
#include <stdbool.h>

/* From now on `L`, a state that was just made, allocates so; for want of
   memory nothing is changed. Who closes it uses bind_cradle_close. */
void bind_cradle_enter(lua_State *L);

/* Closes any state. */
void bind_cradle_close(lua_State *L);

/* Is this the allocator that bind_cradle_enter sets? */
bool bind_cradle_is(lua_Alloc f);

/* Gives back the block that is kept for the next state. */
void bind_cradle_drop(void);

#endif
