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

/* --- bytes ----------------------------------------------------------- */

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

static void push_bytes(unpacker *u, uint64_t n) {
    const unsigned char *p = unpack_bytes(u, n);
    lua_pushlstring(u->L, (const char *)p, (size_t)n);
}

/* --- references ------------------------------------------------------ */

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

static void push_kept(unpacker *u, int slot, uint64_t number) {
    slot += u->base;
    if (lua_isnil(u->L, slot) ||
        lua_rawgeti(u->L, slot, (lua_Integer)(number + 1)) == LUA_TNIL)
        unpack_damaged(u, "reference to something that is not there");
}

void unpack_ref(unpacker *u, uint64_t n) {
    push_kept(u, UNPACK_SLOT_REFS, n);
}

/* --- scalars ---------------------------------------------------------- */

static void read_short_key(unpacker *u, bool shared) {
    uint64_t number = u->keys++;
    push_bytes(u, *unpack_bytes(u, 1));
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
        push_bytes(u, (uint64_t)(tag - TAG_STRING0));
    } else if (tag < TAG_NIL) {
        push_kept(u, UNPACK_SLOT_KEYS, (uint64_t)(tag - TAG_KEYREF0));
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
        case TAG_STR: push_bytes(u, unpack_number(u, UINT64_MAX)); break;
        case TAG_KEY: read_short_key(u, false); break;
        case TAG_KEY | TAG_SHARED: read_short_key(u, true); break;
        case TAG_KEYREF:
            push_kept(u, UNPACK_SLOT_KEYS, unpack_number(u, UINT32_MAX));
            break;
        default: u->p--; return false;
        }
    }
    return true;
}

/* --- frames ---------------------------------------------------------- */

static void grow_frames(unpacker *u) {
    size_t cap = u->frames_cap * 2;
    unpack_frame *grown =
        lua_newuserdatauv(u->L, cap * sizeof *grown, 0);
    memcpy(grown, u->frames, u->nframes * sizeof *grown);
    lua_replace(u->L, u->base + UNPACK_SLOT_FRAMES);
    u->frames = grown;
    u->frames_cap = cap;
}

/* How many items, of at least a byte each, frame `f` waits for besides the
   one that is being read. */
static uint64_t waits_for(const unpack_frame *f) {
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
        u->owed += waits_for(&u->frames[u->nframes - 1]);
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

/* Checks that `n` items can come after what is owed already. */
static void check_claim(unpacker *u, uint64_t items, uint64_t pairs) {
    uint64_t owed = u->owed;
    if (u->nframes > 0)
        owed += waits_for(&u->frames[u->nframes - 1]);
    uint64_t most = left(u) > owed ? left(u) - owed : 0;
    if (items > most || pairs > (most - items) / 2)
        unpack_damaged(u, "more items are announced than bytes are left");
}

/* --- things ---------------------------------------------------------- */

static int capped(uint64_t n) {
    return n < INT32_MAX / 2 ? (int)n : INT32_MAX / 2;
}

static void read_table(unpacker *u, bool shared) {
    uint64_t number = u->things++;
    unsigned hint = *unpack_bytes(u, 1);
    uint64_t items = unpack_number(u, UINT64_MAX);
    uint64_t pairs =
        hint < TABLE_OPEN ? hint : (uint64_t)1 << (hint - TABLE_OPEN);
    check_claim(u, items, pairs);
    lua_createtable(u->L, capped(items), capped(pairs));
    unpack_keep(u, UNPACK_SLOT_REFS, number, shared);
    unpack_frame *f = unpack_open(u, FRAME_TABLE);
    f->limit = items;
    f->pairs = pairs;
    f->open = hint >= TABLE_OPEN;
}

static void read_blob(unpacker *u, bool shared) {
    uint64_t number = u->things++;
    push_bytes(u, unpack_number(u, UINT64_MAX));
    unpack_keep(u, UNPACK_SLOT_REFS, number, shared);
}

/* A list frame whose table is on top. */
static unpack_frame *open_list(unpacker *u, uint64_t number, bool shared,
                               uint64_t n) {
    unpack_frame *f = unpack_open(u, FRAME_LIST);
    f->number = number;
    f->shared = shared;
    f->limit = n;
    return f;
}

static void read_reduce(unpacker *u, bool shared) {
    if (!(u->flags & PACK_CODE))
        bind_error(u->L, "PicklingError", "refused to call a function while "
                   "loading: the bytes do not come from this program's own "
                   "family");
    uint64_t number = u->things++;
    uint64_t n = unpack_number(u, UINT64_MAX);
    check_claim(u, n, 0);
    if (n == 0)
        unpack_damaged(u, "a function to rebuild with is missing");
    lua_createtable(u->L, capped(n), 0);
    open_list(u, number, shared, n);
}

static void read_rebuild(unpacker *u, bool shared) {
    lua_State *L = u->L;
    uint64_t number = u->things++;
    push_bytes(u, unpack_number(u, UINT64_MAX));
    int name = lua_gettop(L);
    uint64_t n = unpack_number(u, UINT64_MAX - 1);
    check_claim(u, n, 0);
    lua_pushvalue(L, name);
    pack_class_push(L);
    if (!lua_istable(L, -1) ||
        lua_rawgeti(L, -1, CLASS_REBUILD) != LUA_TFUNCTION)
        bind_error(L, "PicklingError", "no class '%s' is registered here "
                   "with functions to reduce and rebuild it",
                   lua_tostring(L, name));
    lua_createtable(L, capped(n) + 1, 0);
    lua_replace(L, name);
    lua_rawseti(L, name, 1);
    lua_settop(L, name);
    unpack_frame *f = open_list(u, number, shared, n + 1);
    f->next = 1;
}

static void read_handle(unpacker *u, bool shared) {
    if (!(u->flags & PACK_HANDLES))
        bind_error(u->L, "PicklingError", "refused to load a shared object: "
                   "its bytes do not come from this program's own family");
    uint64_t number = u->things++;
    uint8_t code = *unpack_bytes(u, 1);
    uint32_t id = (uint32_t)unpack_number(u, UINT32_MAX);
    uint32_t gen = (uint32_t)unpack_number(u, UINT32_MAX);
    uint32_t aux = (uint32_t)unpack_number(u, UINT32_MAX);
    bind_push_handle(u->L, code, id, gen, aux);
    unpack_keep(u, UNPACK_SLOT_REFS, number, shared);
}

/* --- names ----------------------------------------------------------- */

/* The module whose name is on top is not loaded: replaces the name by what
   require makes of it, if the sender is trusted. */
static void require_module(unpacker *u) {
    lua_State *L = u->L;
    const char *name = lua_tostring(L, -1);
    if (!(u->flags & PACK_CODE))
        bind_error(L, "PicklingError", "module '%s' is not loaded: require "
                   "it before you load what needs it", name);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    lua_pushliteral(L, "require");
    lua_rawget(L, -2);
    lua_pushvalue(L, -3);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK)
        bind_error(L, "PicklingError", "cannot load module '%s': %s", name,
                   luaL_tolstring(L, -1, NULL));
    lua_replace(L, -3);
    lua_pop(L, 1);
}

/* With a thing and a key on top: replaces both by the field, or nil. */
static void get_field(unpacker *u) {
    lua_State *L = u->L;
    if (!lua_istable(L, -2)) {
        lua_pop(L, 2);
        lua_pushnil(L);
        return;
    }
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) == LUA_TNIL && (u->flags & PACK_CODE)) {
        lua_pop(L, 1); /* modules may load their parts when asked */
        lua_pushvalue(L, -1);
        lua_gettable(L, -3);
    }
    lua_replace(L, -3);
    lua_pop(L, 1);
}

static void read_path(unpacker *u) {
    lua_State *L = u->L;
    uint64_t parts = unpack_number(u, UINT64_MAX);
    if (parts == 0)
        unpack_damaged(u, "a name is empty");
    push_bytes(u, unpack_number(u, UINT64_MAX));
    lua_pushvalue(L, -1); /* the name so far, for the error */
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, -3);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        require_module(u);
    }
    lua_remove(L, -3);
    while (--parts > 0) {
        push_bytes(u, unpack_number(u, UINT64_MAX));
        lua_pushfstring(L, "%s.%s", lua_tostring(L, -3),
                        lua_tostring(L, -1));
        lua_replace(L, -4);
        get_field(u);
        if (lua_isnil(L, -1))
            bind_error(L, "PicklingError", "there is no '%s' here",
                       lua_tostring(L, -2));
    }
    lua_remove(L, -2);
}

static void read_class(unpacker *u) {
    lua_State *L = u->L;
    push_bytes(u, unpack_number(u, UINT64_MAX));
    lua_pushvalue(L, -1);
    pack_class_push(L);
    if (lua_istable(L, -1)) {
        lua_rawgeti(L, -1, CLASS_META);
        lua_replace(L, -2);
    } else { /* reserved names are Lua's */
        lua_pop(L, 1);
        if (strcmp(lua_tostring(L, -1), PACK_RESERVED) == 0)
            luaL_getmetatable(L, PACK_RESERVED);
        else
            lua_pushnil(L);
    }
    if (!lua_istable(L, -1))
        bind_error(L, "PicklingError", "no class '%s' is registered here: "
                   "call mp.pickle.register(name, metatable) on both sides",
                   lua_tostring(L, -2));
    lua_remove(L, -2);
}

void unpack_name(unpacker *u, int tag) {
    uint64_t number = u->things++;
    if (tag == TAG_NAME)
        read_path(u);
    else
        read_class(u);
    unpack_keep(u, UNPACK_SLOT_NAMES, number, true);
}

static void read_globals(unpacker *u) {
    lua_rawgeti(u->L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
}

/* Pushes a metatable {__index = globals}. */
static void push_inheriting(unpacker *u) {
    lua_createtable(u->L, 0, 1);
    read_globals(u);
    lua_setfield(u->L, -2, "__index");
}

/* Opens a frame on the metatable; the table comes next. */
static void read_meta(unpacker *u) {
    int tag = *unpack_bytes(u, 1);
    if (tag == TAG_NAMEREF)
        push_kept(u, UNPACK_SLOT_NAMES, unpack_number(u, UINT64_MAX));
    else if (tag == TAG_NAME || tag == TAG_REGNAME)
        unpack_name(u, tag);
    else if (tag == TAG_GLOBALS && u->flags & PACK_CODE)
        push_inheriting(u); /* a function's environment */
    else
        unpack_damaged(u, "a metatable that has no name");
    if (!lua_istable(u->L, -1))
        unpack_damaged(u, "a metatable that is no table");
    if (u->p == u->end || (*u->p | TAG_SHARED) != (TAG_TABLE | TAG_SHARED))
        unpack_damaged(u, "a metatable of something that is no table");
    unpack_open(u, UNPACK_META)->limit = 1;
}

/* Reads a value that is no scalar: a whole one, now on top (true), or the
   beginning of one, in a new frame (false). */
static bool read_thing(unpacker *u) {
    int tag = *unpack_bytes(u, 1);
    bool shared = tag & TAG_SHARED;
    switch (tag) {
    case TAG_TABLE: case TAG_TABLE | TAG_SHARED:
        read_table(u, shared);
        return false;
    case TAG_META:
        read_meta(u);
        return false;
    case TAG_FUNC: case TAG_FUNC | TAG_SHARED:
        code_read(u, shared);
        return false;
    case TAG_REDUCE: case TAG_REDUCE | TAG_SHARED:
        read_reduce(u, shared);
        return false;
    case TAG_REBUILD: case TAG_REBUILD | TAG_SHARED:
        read_rebuild(u, shared);
        return false;
    case TAG_BLOB: case TAG_BLOB | TAG_SHARED:
        read_blob(u, shared);
        return true;
    case TAG_HANDLE: case TAG_HANDLE | TAG_SHARED:
        read_handle(u, shared);
        return true;
    case TAG_REF:
        unpack_ref(u, unpack_number(u, UINT64_MAX));
        return true;
    case TAG_NAMEREF:
        push_kept(u, UNPACK_SLOT_NAMES, unpack_number(u, UINT64_MAX));
        return true;
    case TAG_NAME: case TAG_REGNAME:
        unpack_name(u, tag);
        return true;
    case TAG_GLOBALS:
        read_globals(u);
        return true;
    default:
        u->p--;
        unpack_damaged(u, "unknown tag");
        return true;
    }
}

/* Pushes a whole value (true) or opens a frame (false). */
static bool read_value(unpacker *u) {
    return unpack_scalar(u) || read_thing(u);
}

/* --- filling frames --------------------------------------------------- */

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
        push_kept(u, UNPACK_SLOT_KEYS, *u->p++ - (uint64_t)TAG_KEYREF0);
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

/* --- the whole ------------------------------------------------------- */

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
