/* The decoder's part for what is no scalar: each tag's beginning.  A table,
   function or list opens a frame, which pack_read.c fills. */
#include <string.h>

#include "bind/bind.h"
#include "bind/code.h"
#include "bind/interrupt.h"
#include "bind/pack_impl.h"

/* Of a missing name an error shows so many parts, and bytes of each. */
enum { NAME_SHOWN = 8, PART_SHOWN = 40 };

/* ---- things --------------------------------------------------------- */

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
    unpack_claim(u, n, 0);
    if (n == 0)
        unpack_damaged(u, "a function to rebuild with is missing");
    lua_createtable(u->L, unpack_capped(n), 0);
    open_list(u, number, shared, n);
}

static void read_rebuild(unpacker *u, bool shared) {
    lua_State *L = u->L;
    uint64_t number = u->things++;
    unpack_string(u, unpack_number(u, UINT64_MAX));
    int name = lua_gettop(L);
    uint64_t n = unpack_number(u, UINT64_MAX - 1);
    unpack_claim(u, n, 0);
    lua_pushvalue(L, name);
    pack_class_push(L);
    if (!lua_istable(L, -1) ||
        lua_rawgeti(L, -1, CLASS_REBUILD) != LUA_TFUNCTION)
        bind_error(L, "PicklingError", "no class '%s' is registered here "
                   "with functions to reduce and rebuild it",
                   lua_tostring(L, name));
    lua_createtable(L, unpack_capped(n) + 1, 0);
    lua_replace(L, name);
    lua_rawseti(L, name, 1);
    lua_settop(L, name);
    unpack_frame *f = open_list(u, number, shared, n + 1);
    f->next = 1;
}

/* Opens a frame on what gets a state; which is nil until it is read. */
static void read_state(unpacker *u) {
    int tag = u->p < u->end ? *u->p : TAG_NIL;
    if (tag != TAG_META && (tag | TAG_SHARED) != (TAG_REDUCE | TAG_SHARED) &&
        (tag | TAG_SHARED) != (TAG_REBUILD | TAG_SHARED))
        unpack_damaged(u, "a state of something that has none");
    lua_pushnil(u->L);
    unpack_open(u, UNPACK_STATE)->limit = 2;
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
    if (!unpack_parcel(u, code, &(pack_handle){id, gen}, aux))
        bind_push_handle(u->L, code, id, gen, aux);
    unpack_keep(u, UNPACK_SLOT_REFS, number, shared);
}

static void read_descriptor(unpacker *u, bool shared) {
    uint64_t number = u->things++;
    unpack_descriptor(u);
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
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        if (bind_is_interrupted(L, -1)) lua_error(L);
        bind_error(L, "PicklingError", "cannot load module '%s': %s", name,
                   luaL_tolstring(L, -1, NULL));
    }
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

/* Raises that the name whose parts begin at `p` has nothing behind it from
   part `parts` on. The name is made only here: it may be long. */
static void no_field(unpacker *u, const unsigned char *p, uint64_t parts) {
    luaL_Buffer b;
    luaL_buffinit(u->L, &b);
    u->p = p;
    for (uint64_t i = 0; i < parts && i < NAME_SHOWN; i++) {
        uint64_t n = unpack_number(u, UINT64_MAX);
        const char *part = (const char *)unpack_bytes(u, n);
        if (i > 0)
            luaL_addchar(&b, '.');
        luaL_addlstring(&b, part, n < PART_SHOWN ? (size_t)n : PART_SHOWN);
    }
    if (parts > NAME_SHOWN)
        luaL_addstring(&b, "...");
    luaL_pushresult(&b);
    bind_error(u->L, "PicklingError", "there is no '%s' here",
               lua_tostring(u->L, -1));
}

static void read_path(unpacker *u) {
    lua_State *L = u->L;
    uint64_t parts = unpack_number(u, UINT64_MAX);
    const unsigned char *first = u->p;
    if (parts == 0)
        unpack_damaged(u, "a name is empty");
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    unpack_string(u, unpack_number(u, UINT64_MAX));
    lua_pushvalue(L, -1);
    if (lua_rawget(L, -3) == LUA_TNIL) {
        lua_pop(L, 1);
        require_module(u);
    } else {
        lua_remove(L, -2);
    }
    lua_remove(L, -2);
    for (uint64_t i = 1; i < parts; i++) {
        unpack_string(u, unpack_number(u, UINT64_MAX));
        get_field(u);
        if (lua_isnil(L, -1))
            no_field(u, first, i + 1);
    }
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
        return unpack_table(u, shared);
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
    case TAG_STATE:
        read_state(u);
        return false;
    case TAG_BLOB: case TAG_BLOB | TAG_SHARED:
        read_blob(u, shared);
        return true;
    case TAG_HANDLE: case TAG_HANDLE | TAG_SHARED:
        read_handle(u, shared);
        return true;
    case TAG_DESCRIPTOR: case TAG_DESCRIPTOR | TAG_SHARED:
        read_descriptor(u, shared);
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
