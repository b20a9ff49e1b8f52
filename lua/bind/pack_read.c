/* The decoder.  Total: whatever the bytes are, it returns or raises.

   Every length and count is compared with the bytes that are left.  Since
   an item takes at least one byte, the items that all unfinished tables
   still wait for can never be more than the bytes left: what a header
   claims is checked against what is not yet owed to others, so room is
   made in advance for honest messages only.  Memory comes from Lua, on the
   stack, so that an error leaks nothing.

   What came by value never becomes a metatable and, without PACK_CODE, is
   never called. */
#include <string.h>

#include "bind/bind.h"
#include "bind/code.h"
#include "bind/pack_impl.h"

int unpack_damaged(unpacker *u, const char *why) {
    return bind_error(u->L, "PicklingError", "damaged data at byte %I: %s",
                      (LUAI_UACINT)(u->p - u->start), why);
}

/* ---- bytes ---------------------------------------------------------- */

static uint64_t left(const unpacker *u) {
    return (uint64_t)(u->end - u->p);
}

uint64_t unpack_number(unpacker *u, uint64_t max) {
    uint64_t n = 0;
    const unsigned char *p = mp_varint_get(u->p, u->end, &n);
    if (!p)
        unpack_damaged(u, "a number is cut off");
    if (n > max)
        unpack_damaged(u, "a number is out of range");
    u->p = p;
    return n;
}

const unsigned char *unpack_bytes(unpacker *u, uint64_t n) {
    const unsigned char *p = u->p;
    if (n > left(u))
        unpack_damaged(u, "the end is missing");
    u->p += n;
    return p;
}

void unpack_string(unpacker *u, uint64_t n) {
    const unsigned char *p = unpack_bytes(u, n);
    lua_pushlstring(u->L, (const char *)p, (size_t)n);
}

/* ---- references ----------------------------------------------------- */

void unpack_keep(unpacker *u, int slot, uint64_t number, bool shared) {
    if (!shared)
        return;
    slot += u->base;
    if (lua_isnil(u->L, slot)) {
        lua_newtable(u->L);
        lua_replace(u->L, slot);
    }
    lua_pushvalue(u->L, -1);
    lua_rawseti(u->L, slot, (lua_Integer)number + 1);
}

void unpack_kept(unpacker *u, int slot, uint64_t number) {
    slot += u->base;
    if (lua_isnil(u->L, slot) ||
        lua_rawgeti(u->L, slot, (lua_Integer)(number + 1)) == LUA_TNIL)
        unpack_damaged(u, "reference to something that is not there");
}

void unpack_ref(unpacker *u, uint64_t n) {
    unpack_kept(u, UNPACK_SLOT_REFS, n);
}

/* ---- scalars -------------------------------------------------------- */

static void read_short_key(unpacker *u, bool shared) {
    uint64_t number = u->keys++;
    unpack_string(u, *unpack_bytes(u, 1));
    unpack_keep(u, UNPACK_SLOT_KEYS, number, shared);
}

bool unpack_scalar(unpacker *u) {
    lua_State *L = u->L;
    if (u->p == u->end)
        unpack_damaged(u, "the end is missing");
    int tag = *u->p++;
    if (tag < TAG_STRING0) {
        lua_pushinteger(L, tag - TAG_INT0);
    } else if (tag < TAG_KEYREF0) {
        unpack_string(u, (uint64_t)(tag - TAG_STRING0));
    } else if (tag < TAG_NIL) {
        unpack_kept(u, UNPACK_SLOT_KEYS, (uint64_t)(tag - TAG_KEYREF0));
    } else {
        switch (tag) {
        case TAG_NIL: lua_pushnil(L); break;
        case TAG_FALSE: lua_pushboolean(L, 0); break;
        case TAG_TRUE: lua_pushboolean(L, 1); break;
        case TAG_INT:
            lua_pushinteger(L, mp_unzigzag(unpack_number(u, UINT64_MAX)));
            break;
        case TAG_FLOAT:
            lua_pushnumber(L, mp_double_get(unpack_bytes(u, 8)));
            break;
        case TAG_STR: unpack_string(u, unpack_number(u, UINT64_MAX)); break;
        case TAG_KEY: read_short_key(u, false); break;
        case TAG_KEY | TAG_SHARED: read_short_key(u, true); break;
        case TAG_KEYREF:
            unpack_kept(u, UNPACK_SLOT_KEYS, unpack_number(u, UINT32_MAX));
            break;
        default: u->p--; return false;
        }
    }
    return true;
}

/* ---- frames --------------------------------------------------------- */

static void grow_frames(unpacker *u) {
    size_t cap = u->frames_cap * 2;
    unpack_frame *grown =
        lua_newuserdatauv(u->L, cap * sizeof *grown, 0);
    memcpy(grown, u->frames, u->nframes * sizeof *grown);
    lua_replace(u->L, u->base + UNPACK_SLOT_FRAMES);
    u->frames = grown;
    u->frames_cap = cap;
}

uint64_t unpack_awaited(const unpack_frame *f) {
    uint64_t items = f->limit - f->next;
    if (f->kind == UNPACK_META)
        return 0;
    if (f->kind == FRAME_FUNC)
        return items; /* the one being read is counted as done */
    if (f->kind == FRAME_LIST)
        return items - 1;
    if (f->state == UNPACK_ITEMS)
        return items - 1 + 2 * f->pairs;
    return 2 * f->pairs + (f->state == UNPACK_KEY);
}

unpack_frame *unpack_open(unpacker *u, int kind) {
    if (u->nframes - u->window.spilled == PACK_WINDOW)
        pack_window_spill(u->L, &u->window);
    if (u->nframes == u->frames_cap)
        grow_frames(u);
    uint64_t owed = u->owed;
    if (u->nframes > 0)
        u->owed += unpack_awaited(&u->frames[u->nframes - 1]);
    lua_pushnil(u->L); /* the key's slot */
    unpack_frame *f = &u->frames[u->nframes++];
    memset(f, 0, sizeof *f);
    f->kind = (uint8_t)kind;
    f->owed = owed;
    return f;
}

/* Leaves the finished thing on top. */
static void close_frame(unpacker *u) {
    unpack_frame *f = &u->frames[--u->nframes];
    u->owed = f->owed;
    lua_settop(u->L, pack_slot(&u->window, u->nframes));
    if (u->nframes == u->window.spilled && u->nframes)
        pack_window_restore(u->L, &u->window);
}

/* ---- filling frames ------------------------------------------------- */

/* Pushes a whole value (true) or opens a frame (false). */
static bool read_value(unpacker *u) {
    return unpack_scalar(u) || unpack_thing(u);
}

/* The key on top: may it be one? */
static void check_key(unpacker *u) {
    bool bad = lua_isnil(u->L, -1);
    if (lua_type(u->L, -1) == LUA_TNUMBER) {
        lua_Number n = lua_tonumber(u->L, -1);
        bad = n != n;
    }
    if (bad)
        unpack_damaged(u, "a key is nil or not a number");
}

/* Pushes a key, or opens a frame for one (false). */
static bool read_key(unpacker *u) {
    if (u->p < u->end && *u->p >= TAG_KEYREF0 && *u->p < TAG_NIL) {
        unpack_kept(u, UNPACK_SLOT_KEYS, *u->p++ - (uint64_t)TAG_KEYREF0);
        return true; /* a string */
    }
    if (!read_value(u))
        return false;
    check_key(u);
    return true;
}

/* Array items up to the first that needs a frame; true: all are there. */
static bool fill_items(unpacker *u, unpack_frame *f, int table) {
    while (f->next < f->limit) {
        if (!read_value(u))
            return false;
        lua_rawseti(u->L, table, (lua_Integer)++f->next);
    }
    f->state = UNPACK_KEY;
    return true;
}

/* Is there another pair? Then counts it as begun. */
static bool next_pair(unpacker *u, unpack_frame *f) {
    if (f->pairs > 0) {
        f->pairs--;
        return true;
    }
    if (f->open && u->p < u->end && *u->p == TAG_END) {
        u->p++;
        return false;
    }
    return f->open;
}

/* Stores the value on top under the key in its slot. */
static void store_pair(unpacker *u, unpack_frame *f, int table) {
    lua_pushvalue(u->L, table + 1);
    lua_insert(u->L, -2);
    lua_rawset(u->L, table);
    f->state = UNPACK_KEY;
}

/* Pairs up to the first that needs a frame; true: the table is done. While
   a child is read, the key lies in its slot and the pair counts as begun. */
static bool fill_table(unpacker *u, unpack_frame *f) {
    int table = pack_slot(&u->window, u->nframes - 1);
    if (f->state == UNPACK_ITEMS && !fill_items(u, f, table))
        return false;
    for (;;) {
        if (f->state == UNPACK_KEY) {
            if (!next_pair(u, f))
                return true;
            if (!read_key(u))
                return false;
            if (unpack_scalar(u)) {
                lua_rawset(u->L, table);
                continue;
            }
            lua_replace(u->L, table + 1);
            f->state = UNPACK_VALUE;
        }
        if (!read_value(u))
            return false;
        store_pair(u, f, table);
    }
}

static bool fill_function(unpacker *u, unpack_frame *f) {
    int slot = pack_slot(&u->window, u->nframes - 1);
    while (f->next < f->limit) {
        f->next++;
        if (code_read_cell(u, slot, (int)f->next))
            continue;
        if (!read_value(u))
            return false;
        lua_setupvalue(u->L, slot, (int)f->next);
    }
    return true;
}

/* Calls the first item of the list with the others; the result takes the
   list's place. */
static void rebuild(unpacker *u, const unpack_frame *f, int list) {
    lua_State *L = u->L;
    uint64_t number = f->number;
    bool shared = f->shared;
    if (f->limit >= INT32_MAX || !lua_checkstack(L, (int)f->limit + 4))
        bind_error(L, "PicklingError", "too many values to rebuild with");
    for (uint64_t i = 1; i <= f->limit; i++)
        lua_rawgeti(L, list, (lua_Integer)i);
    lua_call(L, (int)f->limit - 1, 1);
    if (lua_isnil(L, -1))
        bind_error(L, "PicklingError", "the rebuilding function returned "
                   "nothing");
    unpack_keep(u, UNPACK_SLOT_REFS, number, shared);
    lua_replace(L, list);
}

static bool fill_list(unpacker *u, unpack_frame *f) {
    int list = pack_slot(&u->window, u->nframes - 1);
    while (f->next < f->limit) {
        if (!read_value(u))
            return false;
        lua_rawseti(u->L, list, (lua_Integer)++f->next);
    }
    rebuild(u, f, list);
    return true;
}

static bool fill_meta(unpacker *u, unpack_frame *f) {
    if (f->next == f->limit)
        return true;
    return read_value(u);
}

/* Gives the finished value on top to the innermost frame. */
static void attach(unpacker *u) {
    lua_State *L = u->L;
    unpack_frame *f = &u->frames[u->nframes - 1];
    int slot = pack_slot(&u->window, u->nframes - 1);
    if (f->kind == FRAME_FUNC) {
        lua_setupvalue(L, slot, (int)f->next);
    } else if (f->kind == UNPACK_META) {
        lua_pushvalue(L, slot);
        lua_setmetatable(L, -2);
        lua_replace(L, slot);
        f->next++;
    } else if (f->kind == FRAME_LIST || f->state == UNPACK_ITEMS) {
        lua_rawseti(L, slot, (lua_Integer)++f->next);
    } else if (f->state == UNPACK_KEY) {
        check_key(u);
        lua_replace(L, slot + 1);
        f->state = UNPACK_VALUE;
    } else {
        store_pair(u, f, slot);
    }
}

static void run(unpacker *u) {
    static bool (*const fill[])(unpacker *, unpack_frame *) = {
        [FRAME_TABLE] = fill_table,
        [FRAME_FUNC] = fill_function,
        [FRAME_LIST] = fill_list,
        [UNPACK_META] = fill_meta};
    while (u->nframes > 0) {
        unpack_frame *f = &u->frames[u->nframes - 1];
        if (fill[f->kind](u, f)) {
            close_frame(u);
            if (u->nframes > 0)
                attach(u);
        }
    }
}

/* ---- the whole ------------------------------------------------------ */

/* All values of a message, above the fixed slots. */
static int read_all(unpacker *u) {
    lua_State *L = u->L;
    int n = 0;
    while (u->p < u->end) {
        if (!lua_checkstack(L, PACK_STACK))
            bind_error(L, "PicklingError", "too many values at once");
        u->window = (pack_window){lua_gettop(L),
                                  u->base + UNPACK_SLOT_SPILL, 0};
        if (!read_value(u))
            run(u);
        n++;
    }
    return n;
}

int pack_decode(lua_State *L, const void *data, size_t len, int flags) {
    unpacker u;
    u.L = L;
    u.start = u.p = data;
    u.end = u.start + len;
    u.flags = flags;
    u.base = lua_gettop(L);
    u.things = u.keys = u.owed = 0;
    u.frames = u.first;
    u.nframes = 0;
    u.frames_cap = UNPACK_FRAMES;
    u.ncodes = 0;
    luaL_checkstack(L, PACK_STACK, "unpickling");
    lua_settop(L, u.base + UNPACK_SLOTS);
    int n = read_all(&u);
    lua_rotate(L, u.base + 1, n);
    lua_settop(L, u.base + n);
    return n;
}
