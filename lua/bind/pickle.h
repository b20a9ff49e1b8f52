/* Values as strings that can be kept or sent (mp.pickle's), for the rest of
   this floor: a head, the packed value, and a seal where one is needed. */
#ifndef MP_BIND_PICKLE_H
#define MP_BIND_PICKLE_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

#include "bind/pack.h"

enum {
    PICKLE_STRING_MOST = 24, /* bytes of pickle_string_head */
    PICKLE_SCALAR_MOST = 24  /* ... of a scalar */
};

/* pack_begin, with room for the head: pack_value is to be called once. */
pack_out *pickle_begin(lua_State *L);

/* Writes head and seal: out->data holds the string. */
void pickle_finish(lua_State *L, pack_out *out);

/* Writes the pickle of a nil, boolean or number; its size, 0: it is another
   value. Never raises. */
size_t pickle_scalar(lua_State *L, int idx,
                     unsigned char out[PICKLE_SCALAR_MOST]);

/* Pushes the value if these bytes are the pickle of one of those. */
bool pickle_push_scalar(lua_State *L, const unsigned char *data,
                        size_t size);

/* Writes what comes before the bytes of a Lua string of `length`, so that
   both together are its pickle; returns how many bytes that are. */
size_t pickle_string_head(unsigned char *head, size_t length);

/* Are these the beginning of the pickle, `size` bytes in all, of nothing but
   a Lua string? Where its bytes begin; 0: no, or more of it must be seen
   (PICKLE_STRING_MOST are enough). */
size_t pickle_string_at(const unsigned char *data, size_t seen, size_t size);

/* How far a string is believed. */
typedef struct pickle_trust {
    const char *fn;      /* who loads it: heads the messages */
    const char *advice;  /* ends the one that refuses code */
    bool code;           /* code is taken from another family, too */
    bool descriptors;    /* some can have come along */
} pickle_trust;

/* Pushes the value in a string. Raises PicklingError, ... */
void pickle_load(lua_State *L, const void *data, size_t length,
                 const pickle_trust *trust);

#endif
