/* Values to bytes and back: the one serializer of mp.  Everything put,
   mapped, returned or dumped goes through here (functions: code.c).

   Total on both sides: encoding refuses what cannot travel with a
   PicklingError that names the path to it, before anything is sent;
   decoding raises PicklingError on damaged bytes, never crashes, never
   allocates more than the bytes justify.  No C recursion: depth is bounded
   by memory only, and the Lua stack used is a small constant.
   Safe: one lua_State (any of its coroutines); not in a signal handler.
   Hooks of users (__reduce, __setstate, ..) run inside pack_value
   and pack_decode, and may pickle themselves. */
#ifndef MP_BIND_PACK_H
#define MP_BIND_PACK_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A shared object named inside the bytes; the message that carries the
   bytes must hold a count on it until it is decoded (see mem/object.h). */
typedef struct pack_handle {
    uint32_t id, gen;
} pack_handle;

/* Flags of pack_decode: what the bytes may do here. */
enum {
    PACK_CODE = 1,    /* they come from our own family or an authenticated
                         peer: bytecode, calls of rebuilding functions by
                         value, loading of modules they name */
    PACK_HANDLES = 2, /* shared objects of our own arena */
    PACK_DESCRIPTORS = 4 /* descriptors that came along over a connection */
};

/* An encoded message. Lives in a userdata on the Lua stack (pushed by
   pack_begin), so an error while encoding frees it. */
typedef struct pack_out {
    unsigned char *data;
    size_t len, cap;
    pack_handle *handles;    /* each id once */
    size_t nhandles, handles_cap;
    int needs;               /* PACK_* flags that decoding will need */
    bool parcels;            /* descriptors go along as parcels, which are
                                among the handles (pack_begin_shared) */
    struct connection_baggage *baggage; /* they go along in this, over a
                                connection; neither: they are refused */
    uint32_t *made;          /* parcels that are ours until pack_end */
    size_t nmade, made_cap;
    int functions;           /* stack index of a list (nil: to be made), or
                                0: each Lua function that is written by value
                                and reads globals is added to it, and behind
                                it its globals_of_code */
} pack_out;

/* Pushes a userdata that owns an empty pack_out and returns it. Cheap:
   buffers are recycled per state (kept while <= 1 MiB). */
pack_out *pack_begin(lua_State *L);

/* The same for what will lie in the arena, held by who holds the handles. */
pack_out *pack_begin_shared(lua_State *L);

/* Appends the value at stack index `idx`. `what` heads the path in an
   error: «cannot pickle a coroutine: args[2].on_done». Values encoded in
   one pack_out share identity (same table twice arrives as one), so what
   was encoded must stay reachable until the last pack_value. After an
   error nothing but pack_end is allowed. */
void pack_value(lua_State *L, pack_out *out, int idx, const char *what);

/* Returns the buffer to the state's store (the userdata, at `idx`, is dead
   after it). Not calling it is safe: __gc does the same. */
void pack_end(lua_State *L, int idx);

/* Pushes the values that `data` holds, and returns how many. `data` must
   stay in place until the call returns or raises. */
int pack_decode(lua_State *L, const void *data, size_t len, int flags);

/* The secret of our family, a random number made with the arena: the key
   that strings with code or handles are sealed with. Never shown. */
void bind_family(unsigned char id[16]);

#endif
