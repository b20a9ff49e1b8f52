/* Values as messages: what queues and pools carry between processes.

   A value goes in the cheapest of three forms:
     scalar   nil, booleans, numbers, strings of up to 7 bytes: a tag and a
              64-bit word, no memory and no pickler;
     inline   bytes (a string as it is, or a pickled value) that the carrier
              copies: small ones, without handles;
     block    a heap block with a mp_message_shm head: long ones, and all
              that name shared objects, which the block then holds.
   The pickled forms may hold several values.

   Blocks are raw resources: nothing that raises may run while one is only
   in a C variable. So here everything that can raise comes before the block
   exists (message_new), or the block is freed on the way out
   (message_take, message_interrupted).
   Safe: one lua_State. */
#ifndef MP_BIND_MESSAGE_H
#define MP_BIND_MESSAGE_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bind/pack.h"
#include "mem/arena.h"

/* How to read what stands beside it. The numbers live in shared memory only.
   MESSAGE_BLOCK is 0, so a zeroed cell is "a block, none". */
enum {
    MESSAGE_BLOCK = 0, /* value: the mp_ref of a block */
    MESSAGE_PACKED,    /* bytes: pickled, one or more values */
    MESSAGE_STRING,    /* bytes: a string as it is */
    MESSAGE_NIL,       /* from here on scalars */
    MESSAGE_FALSE,
    MESSAGE_TRUE,
    MESSAGE_INTEGER,   /* value: two's complement */
    MESSAGE_FLOAT,     /* value: the bits of a double */
    MESSAGE_SHORT0,    /* + length: a string, its bytes in value, low first */
    MESSAGE_TAGS = MESSAGE_SHORT0 + 8
};

/* Encodes the value at `idx` if it is a scalar. Never raises. */
bool message_scalar(lua_State *L, int idx, uint8_t *tag, uint64_t *value);

/* Pushes a scalar (tag >= MESSAGE_NIL, < MESSAGE_TAGS). */
void message_push_scalar(lua_State *L, uint8_t tag, uint64_t value);

/* The n values from stack index `first` (named `what`, or `what`[i] when there
   are several or they are "args") as a block OWNED by the caller, with
   the shared objects in it held. Raises PicklingError («cannot pickle ...:
   `what`[2].x»; see pack_value) or OSError (ENOMEM), and has then left
   nothing behind; the stack is as before. */
mp_ref message_new(lua_State *L, int first, int n, const char *what);

/* The same for values that the caller encoded one by one. */
mp_ref message_of(lua_State *L, const pack_out *out, const char *what);

/* Pushes the values of a block and returns how many. Does not free it. May
   raise (damaged bytes, no memory, a rebuilding function's error). */
int message_push(lua_State *L, mp_ref block);

/* The same for a block that stands in hand `hand` (mem/slot.h; -1: in none,
   it is OWNED): frees it and drops the hand, also when it raises. */
int message_take(lua_State *L, mp_ref block, int hand);

/* bind_interrupted for a caller with an OWNED block (or 0) in its hands: when
   it raises, the block is freed first. */
void message_interrupted(lua_State *L, mp_ref block);

/* A value in its cheapest form. */
typedef struct message_form {
    uint8_t tag;
    size_t length;    /* of data */
    const void *data; /* inline bytes: valid as long as the anchor is there */
    uint64_t value;   /* scalar, or block (OWNED by the caller) */
} message_form;

/* Finds the form of the value at `idx`, inline up to `limit` bytes, and
   pushes one anchor, which keeps `data` in place. Raises as message_new. */
void message_encode(lua_State *L, int idx, const char *what, size_t limit,
                    message_form *form);

/* Pops the anchor and recycles what it holds (a lua_pop is safe, too, but
   slower). A block is the caller's still. Never raises. */
void message_release(lua_State *L, const message_form *form);

/* Pushes what inline bytes (MESSAGE_PACKED or MESSAGE_STRING) hold; returns
   how many values. `data` must stay in place until it returns or raises. */
int message_push_bytes(lua_State *L, uint8_t tag, const void *data,
                       size_t length);

#endif
