/* core.shm, for its own files: shm_buffer.c (the bytes), shm.c (segments, and
   how one comes by them).
   Safe: the state's thread. Blocks: never. */
#ifndef MP_BIND_SHM_H
#define MP_BIND_SHM_H

#include "bind/bind.h"

/* The bytes of a segment.
   head.shm  this userdata, or NULL once it is closed
   fd, size  -1: none
   base      where it is mapped, if pointer was called; else NULL */
typedef struct shm_buffer {
    bind_object head;
    int fd;
    uint64_t size;
    void *base;
} shm_buffer;

/* It has no code: what has no name of its own does not travel. */
extern const bind_class shm_buffer_class;

/* Pushes a closed one. */
shm_buffer *shm_buffer_new(lua_State *L);

/* Opens it on `size` bytes of `fd`, which is its own from here on. */
void shm_buffer_enter(shm_buffer *b, int fd, uint64_t size);

/* Lua functions: close(buffer), no-op where there is nothing to close; and
   rest(buffer, fn, offset) -> how many bytes there are from the offset on,
   and that as an integer; raises for method fn. */
int shm_buffer_close(lua_State *L);
int shm_buffer_rest(lua_State *L);

#endif
