#include "bind/message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/pack.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/slot.h"

/* A block: this head, handle ids, and from `data_at` on the bytes, which end
   where the payload does (head.length). The ids come first, since their
   place must fit in 32 bits, and the length of the bytes need not.
   form   MESSAGE_PACKED or MESSAGE_STRING */
typedef struct block_shm {
    mp_message_shm head;
    uint32_t form;
    uint32_t data_at;
} block_shm;
_Static_assert(sizeof(block_shm) == 24, "a block's head");

enum {
    DECODE = PACK_CODE | PACK_HANDLES, /* blocks come from our own family */
    ALIGNED = 16
};

/* ---- scalars -------------------------------------------------------- */

static bool short_string(lua_State *L, int idx, uint8_t *tag,
                         uint64_t *value) {
    size_t length;
    const char *text = lua_tolstring(L, idx, &length);
    if (length > 7) return false;
    *tag = (uint8_t)(MESSAGE_SHORT0 + length);
    *value = 0;
    for (size_t i = 0; i < length; i++)
        *value |= (uint64_t)(unsigned char)text[i] << (8 * i);
    return true;
}

static void number(lua_State *L, int idx, uint8_t *tag, uint64_t *value) {
    if (lua_isinteger(L, idx)) {
        *tag = MESSAGE_INTEGER;
        *value = (uint64_t)lua_tointeger(L, idx);
    } else {
        double d = lua_tonumber(L, idx);
        *tag = MESSAGE_FLOAT;
        memcpy(value, &d, sizeof d);
    }
}

bool message_scalar(lua_State *L, int idx, uint8_t *tag, uint64_t *value) {
    switch (lua_type(L, idx)) {
    case LUA_TNUMBER:
        number(L, idx, tag, value);
        return true;
    case LUA_TSTRING:
        return short_string(L, idx, tag, value);
    case LUA_TNIL:
        *tag = MESSAGE_NIL;
        break;
    case LUA_TBOOLEAN:
        *tag = lua_toboolean(L, idx) ? MESSAGE_TRUE : MESSAGE_FALSE;
        break;
    default:
        return false;
    }
    *value = 0;
    return true;
}

static void push_short(lua_State *L, size_t length, uint64_t value) {
    char text[8];
    for (size_t i = 0; i < length; i++)
        text[i] = (char)(unsigned char)(value >> (8 * i));
    lua_pushlstring(L, text, length);
}

static void push_float(lua_State *L, uint64_t value) {
    double d;
    memcpy(&d, &value, sizeof d);
    lua_pushnumber(L, d);
}

void message_push_scalar(lua_State *L, uint8_t tag, uint64_t value) {
    switch (tag) {
    case MESSAGE_INTEGER:
        lua_pushinteger(L, (lua_Integer)value);
        break;
    case MESSAGE_FLOAT:
        push_float(L, value);
        break;
    case MESSAGE_NIL:
        lua_pushnil(L);
        break;
    case MESSAGE_FALSE:
    case MESSAGE_TRUE:
        lua_pushboolean(L, tag == MESSAGE_TRUE);
        break;
    default:
        if (tag < MESSAGE_SHORT0 || tag >= MESSAGE_TAGS)
            bind_error(L, "PicklingError", "a message has an unknown tag: %d",
                       (int)tag);
        push_short(L, tag - (size_t)MESSAGE_SHORT0, value);
    }
}

/* ---- blocks --------------------------------------------------------- */

/* A block with these bytes and handles; 0 when there is no memory or, with
   *gone set, when a handle's object is gone. Nothing here raises. */
static mp_ref new_block(uint32_t form, const void *data, size_t length,
                        const pack_handle *handles, size_t n,
                        const pack_handle **gone) {
    size_t data_at = sizeof(block_shm) + n * sizeof(uint32_t);
    data_at = (data_at + ALIGNED - 1) & ~(size_t)(ALIGNED - 1);
    if (data_at > UINT32_MAX || length > SIZE_MAX - data_at) return 0;
    mp_ref block = mp_alloc(data_at + length);
    if (!block) return 0;
    block_shm *b = mp_at(block);
    b->head.length = data_at - sizeof(mp_message_shm) + length;
    b->head.handles_at = sizeof(block_shm);
    atomic_store_explicit(&b->head.n_handles, 0, memory_order_relaxed);
    b->form = form;
    b->data_at = (uint32_t)data_at;
    memset(b + 1, 0, data_at - sizeof *b); /* for those who compare */
    memcpy((unsigned char *)b + data_at, data, length);
    if (n > 0) mp_mark_handles(block);
    for (size_t i = 0; i < n; i++)
        if (mp_message_hold(block, handles[i].id, handles[i].gen) < 0) {
            *gone = &handles[i];
            mp_free(block);
            return 0;
        }
    return block;
}

/* Raises what new_block's 0 means. */
static void no_block(lua_State *L, size_t length, const pack_handle *gone,
                     const char *what) {
    if (gone)
        bind_error(L, "PicklingError",
                   "cannot pickle %s: shared object #%d no longer exists",
                   what, (int)gone->id);
    lua_pushfstring(L, "cannot allocate a message of %I bytes",
                    (lua_Integer)length);
    bind_oserror(L, -ENOMEM, lua_tostring(L, -1));
}

static mp_ref string_block(lua_State *L, int idx, const char *what) {
    size_t length;
    const char *text = lua_tolstring(L, idx, &length);
    mp_ref block = new_block(MESSAGE_STRING, text, length, NULL, 0, NULL);
    if (!block) no_block(L, length, NULL, what);
    return block;
}

mp_ref message_of(lua_State *L, const pack_out *out, const char *what) {
    const pack_handle *gone = NULL;
    mp_ref block = new_block(MESSAGE_PACKED, out->data, out->len,
                             out->handles, out->nhandles, &gone);
    if (!block) no_block(L, out->len, gone, what);
    return block;
}

/* Packs value i of n, called «what» when it is the only one and no list is
   meant, else «what[i]»; the name is made only for what may fail. */
static void pack_named(lua_State *L, pack_out *out, int idx, int i,
                       const char *what) {
    char name[64];
    if (i > 0 && lua_type(L, idx) > LUA_TSTRING) {
        snprintf(name, sizeof name, "%s[%d]", what, i);
        what = name;
    }
    pack_value(L, out, idx, what);
}

mp_ref message_new(lua_State *L, int first, int n, const char *what) {
    bool list = n > 1 || strcmp(what, "args") == 0;
    first = lua_absindex(L, first);
    if (n == 1 && lua_type(L, first) == LUA_TSTRING)
        return string_block(L, first, what);
    luaL_checkstack(L, 4, "too many values for a message");
    pack_out *out = pack_begin_shared(L);
    for (int i = 0; i < n; i++)
        pack_named(L, out, first + i, list ? i + 1 : 0, what);
    mp_ref block = message_of(L, out, what);
    pack_end(L, -1);
    lua_pop(L, 1);
    return block;
}

int message_push_bytes(lua_State *L, uint8_t tag, const void *data,
                       size_t length) {
    if (tag == MESSAGE_PACKED) return pack_decode(L, data, length, DECODE);
    if (tag != MESSAGE_STRING)
        bind_error(L, "PicklingError", "a message has an unknown tag: %d",
                   (int)tag);
    lua_pushlstring(L, data, length);
    return 1;
}

int message_push(lua_State *L, mp_ref block) {
    size_t size = mp_block_size(block);
    const block_shm *b = mp_at(block);
    if (size < sizeof *b || b->head.length > size - sizeof b->head ||
        b->data_at > sizeof b->head + b->head.length)
        bind_error(L, "PicklingError", "a message is damaged");
    return message_push_bytes(
        L, (uint8_t)b->form, (const unsigned char *)b + b->data_at,
        (size_t)(sizeof b->head + b->head.length - b->data_at));
}

static void free_block(mp_ref block, int hand) {
    if (block) mp_free(block);
    if (hand >= 0) mp_hand_drop(hand);
}

static int push_protected(lua_State *L) {
    mp_ref block = (mp_ref)lua_tointeger(L, 1);
    lua_settop(L, 0);
    return message_push(L, block);
}

int message_take(lua_State *L, mp_ref block, int hand) {
    int top = lua_gettop(L), r = LUA_ERRMEM;
    if (lua_checkstack(L, 4)) {
        lua_pushcfunction(L, push_protected);
        lua_pushinteger(L, (lua_Integer)block);
        r = lua_pcall(L, 1, LUA_MULTRET, 0);
    }
    free_block(block, hand);
    if (r != LUA_OK && lua_gettop(L) == top)
        luaL_error(L, "stack overflow (a message)");
    if (r != LUA_OK) lua_error(L);
    return lua_gettop(L) - top;
}

static int interrupted_protected(lua_State *L) {
    bind_interrupted(L);
    return 0;
}

void message_interrupted(lua_State *L, mp_ref block) {
    if (!block) {
        bind_interrupted(L);
        return;
    }
    lua_pushcfunction(L, interrupted_protected);
    if (lua_pcall(L, 0, 0, 0) == LUA_OK) return;
    mp_free(block);
    lua_error(L);
}

/* ---- the cheapest form ---------------------------------------------- */

static void encode_string(lua_State *L, int idx, const char *what,
                          size_t limit, message_form *form) {
    form->data = lua_tolstring(L, idx, &form->length);
    lua_pushvalue(L, idx);
    if (form->length <= limit) {
        form->tag = MESSAGE_STRING;
    } else {
        form->tag = MESSAGE_BLOCK;
        form->value = string_block(L, idx, what);
    }
}

void message_encode(lua_State *L, int idx, const char *what, size_t limit,
                    message_form *form) {
    idx = lua_absindex(L, idx);
    *form = (message_form){0};
    luaL_checkstack(L, 6, "a message");
    if (message_scalar(L, idx, &form->tag, &form->value)) {
        lua_pushnil(L);
    } else if (lua_type(L, idx) == LUA_TSTRING) {
        encode_string(L, idx, what, limit, form);
    } else {
        pack_out *out = pack_begin_shared(L);
        pack_value(L, out, idx, what);
        form->tag = MESSAGE_PACKED;
        form->data = out->data;
        form->length = out->len;
        if (out->nhandles == 0 && out->len <= limit) return;
        form->tag = MESSAGE_BLOCK;
        form->value = message_of(L, out, what);
        pack_end(L, -1);
    }
}

void message_release(lua_State *L, const message_form *form) {
    if (form->tag == MESSAGE_PACKED) pack_end(L, -1);
    lua_pop(L, 1);
}
