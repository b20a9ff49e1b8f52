#include "bind/core.h"

#include "bind/bind.h"
#include "bind/globals.h"
#include "bind/thread.h"

/* Key of the registry: the core that is to be opened later. */
static const char LATE;

/* What a message may name, or rely on, while it is decoded. */
static void open_first(lua_State *L) {
    luaL_checkversion(L);
    lua_newtable(L);
    bind_error_open(L);
    bind_settle_open(L);
    globals_open(L);
}

static void open_rest(lua_State *L) {
    bind_system_open(L);
    bind_pickle_open(L);
    bind_sync_open(L);
    bind_value_open(L);
    bind_array_open(L);
    bind_queue_open(L);
    bind_container_open(L);
    bind_process_open(L);
    bind_boot_open(L);
    bind_thread_open();
    bind_pool_open(L);
    bind_connection_open(L);
    bind_descriptor_open(L);
    bind_wait_open(L);
    bind_shm_open(L);
    bind_debug_open(L);
    bind_methods_open(L);
}

__attribute__((visibility("default"))) int luaopen_mp_core(lua_State *L) {
    open_first(L);
    open_rest(L);
    return 1;
}

/* (core, name): its __index until then; should memory be short, the next field
   is another try. */
static int open_late(lua_State *L) {
    lua_settop(L, 2);
    lua_insert(L, 1);
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &LATE);
    open_rest(L);
    lua_pushnil(L);
    lua_setmetatable(L, 2);
    lua_insert(L, 1);
    lua_rawget(L, 1);
    return 1;
}

int bind_core_later(lua_State *L) {
    open_first(L);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, open_late);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &LATE);
    return 1;
}

void bind_core_now(lua_State *L) {
    luaL_checkstack(L, 8, "mp.core");
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &LATE) != LUA_TTABLE) {
        lua_pop(L, 1);
        return;
    }
    lua_pushcfunction(L, open_late);
    lua_insert(L, -2);
    lua_call(L, 1, 0);
}
