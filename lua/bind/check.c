#include <errno.h>
#include <math.h>

#include "bind/bind.h"
#include "bind/interrupt.h"
#include "bind/task.h"
#include "mem/slot.h"

mp_deadline bind_deadline(lua_State *L, int arg, const char *fn) {
    if (lua_isnoneornil(L, arg)) return MP_FOREVER;
    int is_number;
    double seconds = lua_tonumberx(L, arg, &is_number);
    if (!is_number || lua_type(L, arg) != LUA_TNUMBER)
        bind_argerror(L, fn, arg, "timeout", "number of seconds or nil");
    if (isnan(seconds))
        bind_error(L, "ValueError",
                   "%s: argument 'timeout': number of seconds expected, got "
                   "NaN", fn);
    return mp_deadline_in(seconds);
}

lua_Integer bind_integer(lua_State *L, int arg, const char *fn,
                         const char *name, lua_Integer min,
                         lua_Integer max) {
    int is_integer;
    lua_Integer n = lua_tointegerx(L, arg, &is_integer);
    if (lua_type(L, arg) != LUA_TNUMBER)
        bind_argerror(L, fn, arg, name, "integer");
    if (!is_integer) {
        const char *got = luaL_tolstring(L, arg, NULL);
        bind_error(L, "ValueError",
                   "%s: argument '%s': integer expected, got %s", fn, name,
                   got);
    }
    if (n < min || n > max)
        bind_error(L, "ValueError",
                   "%s: argument '%s': %I is out of range (%I to %I)", fn,
                   name, n, min, max);
    return n;
}

static lua_Integer check_n(lua_State *L, const char *fn) {
    int is_integer;
    lua_Integer n = lua_tointegerx(L, -1, &is_integer);
    bool is_number = lua_type(L, -1) == LUA_TNUMBER;
    if (!is_number || !is_integer || n < 0)
        bind_error(L, is_number ? "ValueError" : "TypeError",
                   "%s: a list's n must be an integer of at least 0, got %s",
                   fn, luaL_tolstring(L, -1, NULL));
    lua_pop(L, 1);
    return n;
}

lua_Integer bind_list_length(lua_State *L, int idx, const char *fn) {
    idx = lua_absindex(L, idx);
    if (!lua_istable(L, idx)) return luaL_len(L, idx);
    lua_pushliteral(L, "n");
    if (lua_rawget(L, idx) != LUA_TNIL) return check_n(L, fn);
    lua_pop(L, 1);
    lua_Integer n = luaL_len(L, idx);
    lua_pushnil(L);
    if (n == 0 && lua_next(L, idx)) {
        /* What has __len says itself how many it has. */
        if (luaL_getmetafield(L, idx, "__len") == LUA_TNIL)
            bind_error(L, "TypeError",
                       "%s: list expected, got a table without items 1 to n",
                       fn);
        lua_pop(L, 3);
        return 0;
    }
    if (n > 0) lua_pop(L, 1);
    return n > 0 ? n : 0;
}

/* A Lua function's call is where pending hooks run. The key is an address
   of ours; what it points to does not matter. */
static const char empty_function;

void bind_interrupted(lua_State *L) {
    luaL_checkstack(L, 2, "waiting");
    if (mp_slot_asked())
        bind_error(L, "Interrupted", "the thread was asked to end");
    bind_interrupt_raise(L);
    bind_task_raise(L);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &empty_function) !=
        LUA_TFUNCTION) {
        lua_pop(L, 1);
        if (luaL_loadbuffer(L, "return", 6, BIND_WAITS) != LUA_OK)
            lua_error(L);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &empty_function);
    }
    lua_call(L, 0, 0);
}

void bind_open_runtime(lua_State *L) {
    int r = mp_open();
    if (r == 0) return;
    if (r == -EOWNERDEAD)
        bind_error(L, "StateError",
                   "this process was forked outside of mp: it cannot use mp");
    bind_oserror(L, r, "cannot open the shared memory of mp");
}

void bind_push_member(lua_State *L, const char *module, const char *name) {
    luaL_checkstack(L, 4, module);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, module) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_getglobal(L, "require");
        lua_pushstring(L, module);
        lua_call(L, 1, 1);
    }
    lua_getfield(L, -1, name);
    lua_replace(L, -3);
    lua_pop(L, 1);
}

void bind_push_hook(lua_State *L, const char *name, lua_CFunction hook) {
    lua_newuserdatauv(L, 0, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, hook);
    lua_setfield(L, -2, name);
    lua_setmetatable(L, -2);
}
