/* What a child needs is laid out when the state opens, in one list (the kit):
   right after the fork nothing should be allocated. */
#include "bind/child.h"

#include <stdlib.h>

#include "bind/bind.h"
#include "bind/core.h"
#include "bind/gc.h"
#include "bind/interrupt.h"
#include "bind/thread.h"
#include "proc/family.h"

/* Keys of the registry: their addresses. */
static const char KIT, AT_END;

/* Places of the kit. */
enum { KIT_GUARD = 1, KIT_OS, KIT_EXIT, KIT_CHILD_EXIT, KIT_SEED };

/* ---- the beginning -------------------------------------------------- */

/* os.exit = bind_thread_exit; one in Lua is the user's own and ends in the one
   in C. */
static void replace_exit(lua_State *L, int kit) {
    if (lua_rawgeti(L, kit, KIT_OS) == LUA_TTABLE) {
        lua_rawgeti(L, kit, KIT_EXIT);
        lua_rawget(L, -2);
        if (lua_iscfunction(L, -1)) {
            lua_rawgeti(L, kit, KIT_EXIT);
            lua_rawgeti(L, kit, KIT_CHILD_EXIT);
            lua_rawset(L, -4);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
}

/* Nothing is allocated here: a child of a small job is mostly the pages that
   it touches first. The list of the parent's children is emptied when it is
   next used (process.c).
   No error may leave: it would unwind the parent's program, in its child. So
   a Ctrl-C that came first waits for whom it is meant. */
void bind_child_enter(lua_State *L) {
    luaL_checkstack(L, 8, "child");
    lua_rawgetp(L, LUA_REGISTRYINDEX, &KIT);
    int kit = lua_gettop(L);
    bind_interrupt_hold(L, true);
    bind_interrupt_in_child(L);
    bind_gc_in_child(L);
    bind_thread_end_in_child();
    replace_exit(L, kit);
    lua_rawgeti(L, kit, KIT_SEED);
    bind_reseed(L);
    lua_rawgeti(L, kit, KIT_GUARD);
    lua_replace(L, kit);
    lua_toclose(L, kit);
    bind_interrupt_hold(L, false);
}

/* ---- the end -------------------------------------------------------- */

/* at_end(function): what a child calls before it ends. */
static int child_at_end(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &AT_END);
    return 0;
}

void bind_child_end(lua_State *L) {
    if (!lua_checkstack(L, 4)) return;
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &AT_END) == LUA_TFUNCTION)
        lua_pcall(L, 0, 0, 0);
    else
        lua_pop(L, 1);
}

/* ---- opening -------------------------------------------------------- */

/* The guard's __close: the state is being closed by an os.exit that was
   taken before the fork. Its code cannot be known here; going on would run
   what the parent has to close. */
static int guard_close(lua_State *L) {
    (void)L;
    mp_family_exit(EXIT_SUCCESS);
}

static void open_kit(lua_State *L) {
    lua_createtable(L, KIT_SEED, 0);
    bind_push_hook(L, "__close", guard_close);
    lua_rawseti(L, -2, KIT_GUARD);
    lua_pushliteral(L, "exit");
    lua_rawseti(L, -2, KIT_EXIT);
    lua_pushcfunction(L, bind_thread_exit);
    lua_rawseti(L, -2, KIT_CHILD_EXIT);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, "os");
    lua_rawseti(L, -3, KIT_OS);
    if (lua_getfield(L, -1, "math") == LUA_TTABLE) {
        lua_getfield(L, -1, "randomseed");
        lua_rawseti(L, -4, KIT_SEED);
    }
    lua_pop(L, 2);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &KIT);
}

void bind_child_open(lua_State *L) {
    open_kit(L);
    lua_pushcfunction(L, child_at_end);
    lua_setfield(L, -2, "at_end");
}
