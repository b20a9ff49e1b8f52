/* The receiver of a bundle.

   A bundle is made of calls of core.define, which happen while the message
   is decoded, so that what is decoded next finds its classes and globals.
   First tables are declared, under the names by which the message refers to
   them; then functions; then the tables are filled, and the rest follows.

   In a worker of a pool, what is defined belongs to a view: a list of
   {names, values, values behind}. While a view is in effect the globals have
   the values of the job, and the view what stood there before; else the
   other way round. */
#include "bind/bind.h"
#include "bind/globals_impl.h"
#include "bind/message.h"

enum { VIEW_NAMES = 1, VIEW_VALUES, VIEW_BEHIND };

/* Key of the registry: the view that is in effect, or nil. */
static const char VIEW;

/* ---- globals -------------------------------------------------------- */

/* Keeps for the view in effect what the global with the name at `name` is
   before it is defined for the first time. */
static void keep_behind(lua_State *L, int name) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &VIEW) == LUA_TTABLE) {
        int view = lua_gettop(L);
        lua_rawgeti(L, view, VIEW_NAMES);
        lua_pushvalue(L, name);
        if (lua_rawget(L, -2) == LUA_TNIL) {
            lua_pushvalue(L, name);
            lua_pushboolean(L, 1);
            lua_rawset(L, view + 1);
            lua_rawgeti(L, view, VIEW_BEHIND);
            lua_pushglobaltable(L);
            lua_pushvalue(L, name);
            lua_pushvalue(L, name);
            lua_rawget(L, -3);
            lua_remove(L, -3);
            lua_rawset(L, -3);
        }
        lua_settop(L, view);
    }
    lua_pop(L, 1);
}

/* The global with the name at 2 is the value on top, which stays. */
static int define_value(lua_State *L) {
    keep_behind(L, 2);
    lua_pushglobaltable(L);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    return 1;
}

/* (kind, name, value) */
static int define_given(lua_State *L) {
    lua_settop(L, 3);
    define_value(L);
    lua_pushboolean(L, 1);
    return 1;
}

/* (kind, name) */
static int define_class(lua_State *L) {
    lua_newtable(L);
    return define_value(L);
}

/* (kind, name, f, ...) */
static int define_by(lua_State *L) {
    lua_call(L, lua_gettop(L) - 3, 1);
    return define_value(L);
}

/* Pushes the global with the name at 2. */
static void push_global(lua_State *L) {
    lua_pushglobaltable(L);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
    lua_remove(L, -2);
}

/* Gives the table on top the fields at 3, and the metatable at 4. */
static void fill(lua_State *L) {
    luaL_checktype(L, -1, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    int table = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, 3)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, table);
    }
    lua_pushvalue(L, 4);
    lua_setmetatable(L, table);
}

/* (kind, name, fields, metatable) */
static int define_fill(lua_State *L) {
    lua_settop(L, 4);
    push_global(L);
    fill(L);
    return 1;
}

/* (kind, name, state) */
static int define_state(lua_State *L) {
    lua_settop(L, 3);
    push_global(L);
    if (luaL_getmetafield(L, 4, "__setstate") == LUA_TNIL)
        bind_error(L, "PicklingError", "there is a state for the global "
                   "'%s', which has no __setstate", lua_tostring(L, 2));
    lua_pushvalue(L, 4);
    lua_pushvalue(L, 3);
    lua_call(L, 2, 0);
    return 1;
}

/* ---- registered classes --------------------------------------------- */

/* Pushes the entry of the registered class with the name at 2, or nil. */
static bool push_entry(lua_State *L) {
    lua_pushvalue(L, 2);
    pack_class_push(L);
    return lua_istable(L, -1);
}

/* (kind, name): one that is there is filled anew. */
static int define_named(lua_State *L) {
    lua_settop(L, 2);
    if (!push_entry(L)) {
        lua_pop(L, 1);
        lua_pushcfunction(L, pack_class_register);
        lua_pushvalue(L, 2);
        lua_newtable(L);
        lua_call(L, 2, 0);
        push_entry(L);
        lua_pushboolean(L, 1);
        lua_rawseti(L, -2, CLASS_LENT);
    }
    return 1;
}

/* (kind, name, fields, metatable, reduce, rebuild) */
static int define_fill_named(lua_State *L) {
    lua_settop(L, 6);
    if (!push_entry(L)) luaL_checktype(L, -1, LUA_TTABLE);
    lua_pushvalue(L, 5);
    lua_rawseti(L, 7, CLASS_REDUCE);
    lua_pushvalue(L, 6);
    lua_rawseti(L, 7, CLASS_REBUILD);
    lua_rawgeti(L, 7, CLASS_META);
    fill(L);
    return 1;
}

/* ---- what could not be pickled -------------------------------------- */

/* Upvalue 1: why. */
static int raise_missing(lua_State *L) {
    return bind_error(L, "PicklingError", "%s",
                      lua_tostring(L, lua_upvalueindex(1)));
}

/* Pushes what field 5 of the global with the name at 4 is here, or was before
   the view that is being made. */
static int push_own_field(lua_State *L) {
    lua_pushglobaltable(L);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &VIEW) == LUA_TTABLE) {
        lua_rawgeti(L, -1, VIEW_NAMES);
        lua_pushvalue(L, 4);
        if (lua_rawget(L, -2) != LUA_TNIL) {
            lua_rawgeti(L, -3, VIEW_BEHIND);
            lua_replace(L, 6);
        }
    }
    lua_settop(L, 6);
    lua_pushvalue(L, 4);
    if (lua_rawget(L, 6) != LUA_TTABLE) return LUA_TNIL;
    lua_pushvalue(L, 5);
    return lua_rawget(L, -2);
}

/* (kind, text, is function [, name, key]) */
static int define_missing(lua_State *L) {
    static const char *const uses[] = {
        "__index", "__newindex", "__call", "__len", "__concat", "__add",
        "__sub", "__mul", "__div", "__idiv", "__mod", "__pow", "__unm",
        "__band", "__bor", "__bxor", "__bnot", "__shl", "__shr", "__lt",
        "__le", "__close", "__pairs"};
    luaL_checktype(L, 2, LUA_TSTRING);
    lua_settop(L, 5);
    if (!lua_isnil(L, 4) && push_own_field(L) != LUA_TNIL) return 1;
    lua_settop(L, 3);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, raise_missing, 1);
    if (lua_toboolean(L, 3)) return 1;
    lua_newuserdatauv(L, 0, 0);
    lua_newtable(L);
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
        lua_pushvalue(L, 4);
        lua_setfield(L, -2, uses[i]);
    }
    /* Library functions name it so when they get it. */
    lua_pushfstring(L, "nothing: %s", lua_tostring(L, 2));
    lua_setfield(L, -2, "__name");
    lua_setmetatable(L, -2);
    return 1;
}

/* ---- the door ------------------------------------------------------- */

static int define_all(lua_State *L) {
    lua_pushboolean(L, 1);
    return 1;
}

/* define(kind, ...): see globals_impl.h */
static int define(lua_State *L) {
    static const lua_CFunction kinds[] = {
        [DEFINE_VALUE] = define_given,
        [DEFINE_CLASS] = define_class,
        [DEFINE_BY] = define_by,
        [DEFINE_FILL] = define_fill,
        [DEFINE_STATE] = define_state,
        [DEFINE_NAMED] = define_named,
        [DEFINE_FILL_NAMED] = define_fill_named,
        [DEFINE_MISSING] = define_missing,
        [DEFINE_ALL] = define_all};
    lua_Integer kind = luaL_checkinteger(L, 1);
    luaL_argcheck(L, kind >= 0 && kind <= DEFINE_ALL, 1, "unknown kind");
    if (kind != DEFINE_ALL && kind != DEFINE_MISSING)
        luaL_checktype(L, 2, LUA_TSTRING);
    return kinds[kind](L);
}

void globals_open(lua_State *L) {
    lua_pushcfunction(L, define);
    lua_setfield(L, -2, "define");
}

/* ---- views ---------------------------------------------------------- */

/* The globals of the view on top (popped) go into its table `to`, and those
   of `from` come in their place. */
static void change(lua_State *L, int from, int to) {
    luaL_checkstack(L, 10, "globals");
    int view = lua_gettop(L);
    lua_rawgeti(L, view, from);
    lua_rawgeti(L, view, to);
    lua_pushglobaltable(L);
    lua_rawgeti(L, view, VIEW_NAMES);
    lua_pushnil(L);
    while (lua_next(L, view + 4)) {
        int name = view + 5;
        lua_pushvalue(L, name);
        lua_pushvalue(L, name);
        lua_rawget(L, view + 3);
        lua_rawset(L, view + 2);
        lua_pushvalue(L, name);
        lua_pushvalue(L, name);
        lua_rawget(L, view + 1);
        lua_rawset(L, view + 3);
        lua_settop(L, name);
    }
    lua_settop(L, view - 1);
}

static void set_view(lua_State *L) {
    lua_rawsetp(L, LUA_REGISTRYINDEX, &VIEW);
}

void globals_leave(lua_State *L) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &VIEW) != LUA_TTABLE) {
        lua_pop(L, 1);
        return;
    }
    change(L, VIEW_BEHIND, VIEW_VALUES);
    lua_pushnil(L);
    set_view(L);
}

void globals_return(lua_State *L) {
    if (lua_istable(L, -1)) {
        lua_pushvalue(L, -1);
        set_view(L);
        change(L, VIEW_VALUES, VIEW_BEHIND);
    } else {
        lua_pop(L, 1);
    }
}

void globals_enter(lua_State *L, mp_ref message) {
    int top = lua_gettop(L);
    luaL_checkstack(L, 10, "globals");
    lua_createtable(L, VIEW_BEHIND, 0);
    for (int i = VIEW_NAMES; i <= VIEW_BEHIND; i++) {
        lua_newtable(L);
        lua_rawseti(L, top + 1, i);
    }
    lua_pushvalue(L, top + 1);
    set_view(L);
    int n = message_push(L, message);
    if (n == 1) { /* no bundle */
        lua_pushnil(L);
        set_view(L);
        lua_pushnil(L);
    } else {
        lua_pushvalue(L, top + 1);
    }
    /* view, values of the message, view */
    lua_rotate(L, top + 1, 2);
    lua_settop(L, top + 2);
}
