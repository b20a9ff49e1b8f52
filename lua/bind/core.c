#include "bind/core.h"

#include "bind/bind.h"
#include "bind/globals.h"
#include "bind/thread.h"

__attribute__((visibility("default"))) int luaopen_mp_core(lua_State *L) {
    luaL_checkversion(L);
    lua_newtable(L);
    bind_error_open(L);
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
    globals_open(L);
    bind_pool_open(L);
    bind_connection_open(L);
    bind_descriptor_open(L);
    bind_wait_open(L);
    bind_shm_open(L);
    bind_debug_open(L);
    bind_methods_open(L);
    return 1;
}
