/* The decoder.  Total: whatever the bytes are, it returns or raises.

   Every length and count is compared with the bytes that are left.  Since
   an item takes at least one byte, the items that all unfinished tables
   still wait for can never be more than the bytes left: what a header
   claims is checked against what is not yet owed to others, so room is
   made in advance for honest messages only.  Time is bounded, too: strangers
   could choose keys that collide in Lua's tables, and are given up after
   some seconds (pack_table.c).  Memory comes from Lua, on the
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

uint64_t unpack_number_long(unpacker *u, uint64_t max) {
    uint64_t n = 0;
    const unsigned char *p = mp_varint_get(u->p, u->end, &n);
    if (!p)
        unpack_damaged(u, "a number is cut off");
    if (n > max)
        unpack_damaged(u, "a number is out of range");
    u->p = p;
    return n;
}

void unpack_string(unpacker *u, uint64_t n) {
    const unsigned char *p = unpack_bytes(u, n);
    lua_pushlstring(u->L, (const char *)p, (size_t)n);
}

void unpack_claim(unpacker *u, uint64_t items, uint64_t pairs) {
    uint64_t owed = u->owed, left = (uint64_t)(u->end - u->p);
    if (u->nframes > 0)
        owed += unpack_awaited(&u->frames[u->nframes - 1]);
    uint64_t most = left > owed ? left - owed : 0;
    if (items > most || pairs > (most - items) / 2)
        unpack_damaged(u, "more items are announced than bytes are left");
}

/* ---- references ----------------------------------------------------- */

void unpack_keep_shared(unpacker *u, int slot, uint64_t number) {
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
    if (f->kind == FRAME_LIST || f->kind == UNPACK_STATE)
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
    unpack_call(u, (int)f->limit - 1, 1);
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

/* Gives the table on top the metatable, whose place it takes. */
static void take_meta(unpacker *u, unpack_frame *f, int meta) {
    lua_pushvalue(u->L, meta);
    lua_setmetatable(u->L, -2);
    lua_replace(u->L, meta);
    f->next++;
}

static bool fill_meta(unpacker *u, unpack_frame *f) {
    int meta = pack_slot(&u->window, u->nframes - 1);
    while (f->next < f->limit) {
        if (!read_value(u))
            return false;
        take_meta(u, f, meta);
    }
    return true;
}

/* Is the metatable of the value at `idx` one that was registered? */
static bool registered(lua_State *L, int idx) {
    if (!lua_getmetatable(L, idx))
        return false;
    pack_class_push(L);
    bool is = lua_istable(L, -1);
    lua_pop(L, 1);
    return is;
}

/* Takes the value on top: first the thing, then its state. */
static void take_state(unpacker *u, unpack_frame *f, int thing) {
    lua_State *L = u->L;
    if (f->next++ == 0) {
        lua_replace(L, thing);
        return;
    }
    if (!(u->flags & PACK_CODE) && !registered(L, thing))
        bind_error(L, "PicklingError", "refused to call a __setstate: its "
                   "class is not registered here, and the bytes do not come "
                   "from this program's own family");
    if (luaL_getmetafield(L, thing, "__setstate") == LUA_TNIL)
        bind_error(L, "PicklingError", "there is a state for an object that "
                   "has no __setstate here");
    lua_pushvalue(L, thing);
    lua_rotate(L, -3, -1);
    unpack_call(u, 2, 0);
}

static bool fill_state(unpacker *u, unpack_frame *f) {
    int thing = pack_slot(&u->window, u->nframes - 1);
    while (f->next < f->limit) {
        if (!read_value(u))
            return false;
        take_state(u, f, thing);
    }
    return true;
}

/* Gives the finished value on top to the innermost frame. */
static void attach(unpacker *u) {
    lua_State *L = u->L;
    unpack_frame *f = &u->frames[u->nframes - 1];
    int slot = pack_slot(&u->window, u->nframes - 1);
    if (f->kind == FRAME_FUNC) {
        lua_setupvalue(L, slot, (int)f->next);
    } else if (f->kind == UNPACK_STATE) {
        take_state(u, f, slot);
    } else if (f->kind == UNPACK_META) {
        take_meta(u, f, slot);
    } else if (f->kind == FRAME_LIST) {
        lua_rawseti(L, slot, (lua_Integer)++f->next);
    } else {
        unpack_table_take(u, f, slot);
    }
}

static void run(unpacker *u) {
    static bool (*const fill[])(unpacker *, unpack_frame *) = {
        [FRAME_TABLE] = unpack_table_fill,
        [FRAME_FUNC] = fill_function,
        [FRAME_LIST] = fill_list,
        [UNPACK_META] = fill_meta,
        [UNPACK_STATE] = fill_state};
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
    u.quick = 0;
    u.patience = UNPACK_LOOK;
    u.stop = 0;
    u.frames = u.first;
    u.nframes = 0;
    u.frames_cap = UNPACK_FRAMES;
    u.ncodes = 0;
    luaL_checkstack(L, PACK_STACK, "unpickling");
    lua_settop(L, u.base + UNPACK_SLOTS + UNPACK_QUICK);
    int n = read_all(&u), first = lua_gettop(L) - n;
    for (int i = 1; i <= n; i++)
        lua_copy(L, first + i, u.base + i);
    lua_settop(L, u.base + n);
    return n;
}
