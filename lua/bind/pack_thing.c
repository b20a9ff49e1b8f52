/* The decoder's part for what is no scalar: each tag's beginning.  A table,
   function or list opens a frame, which pack_read.c fills. */
#include <string.h>

#include "bind/bind.h"
#include "bind/code.h"
#include "bind/pack_impl.h"

/* Checks that `n` items can come after what is owed already. */
static void check_claim(unpacker *u, uint64_t items, uint64_t pairs) {
    uint64_t owed = u->owed, left = (uint64_t)(u->end - u->p);
    if (u->nframes > 0)
        owed += unpack_awaited(&u->frames[u->nframes - 1]);
    uint64_t most = left > owed ? left - owed : 0;
    if (items > most || pairs > (most - items) / 2)
        unpack_damaged(u, "more items are announced than bytes are left");
}

/* ---- things --------------------------------------------------------- */

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
    unpack_string(u, unpack_number(u, UINT64_MAX));
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
    unpack_string(u, unpack_number(u, UINT64_MAX));
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

/* ---- names ---------------------------------------------------------- */

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
    unpack_string(u, unpack_number(u, UINT64_MAX));
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
        unpack_string(u, unpack_number(u, UINT64_MAX));
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
    unpack_string(u, unpack_number(u, UINT64_MAX));
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
        unpack_kept(u, UNPACK_SLOT_NAMES, unpack_number(u, UINT64_MAX));
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

bool unpack_thing(unpacker *u) {
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
        unpack_kept(u, UNPACK_SLOT_NAMES, unpack_number(u, UINT64_MAX));
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
