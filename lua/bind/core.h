/* The doors of this floor: one function per noun, called at most once per
   state with the table of mp.core on top of the stack, to which it adds its
   functions. */
#ifndef MP_BIND_CORE_H
#define MP_BIND_CORE_H

#include <lua.h>

void bind_error_open(lua_State *L);   /* core.error: new, is, metatable */
void bind_system_open(lua_State *L);  /* core.sleep, time, ... */
void bind_pickle_open(lua_State *L);  /* core.pickle: dumps, loads, ... */
void bind_sync_open(lua_State *L);    /* core.Lock, RLock, ... */
void bind_value_open(lua_State *L);   /* core.Value, RawValue */
void bind_array_open(lua_State *L);   /* core.Array, RawArray */
void bind_queue_open(lua_State *L);   /* core.Queue, ... */
void bind_container_open(lua_State *L); /* core.container */
void bind_process_open(lua_State *L); /* core.process */
void bind_settle_open(lua_State *L);  /* core.settle */
void bind_boot_open(lua_State *L);    /* more of core.process */
void bind_pool_open(lua_State *L);    /* core.pool */
void bind_connection_open(lua_State *L); /* core.connection */
void bind_shm_open(lua_State *L);     /* core.shm */
void bind_descriptor_open(lua_State *L); /* core.DupFd */
void bind_wait_open(lua_State *L);    /* core.wait */
void bind_debug_open(lua_State *L);   /* core.debug */

/* Pushes a userdata that has nothing but this metamethod. (check.c) */
void bind_push_hook(lua_State *L, const char *name, lua_CFunction hook);

/* Gives the math.randomseed on top (popped) a seed that nobody can foretell;
   anything else there is left alone. (system.c) */
void bind_reseed(lua_State *L);

int luaopen_mp_core(lua_State *L);

/* The same for the state of a thread, whose job may never ask for it: opens
   what decoding needs, and the rest when a field is asked for that is not
   there, or by bind_core_now, which the first object of a class calls.
   Some state of this process has opened all: the one that made the thread. */
int bind_core_later(lua_State *L);
void bind_core_now(lua_State *L);

#endif
