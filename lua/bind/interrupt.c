/* lua_sethook is the one call that Lua allows in a signal handler. The hook
   is set in the coroutine that was named; one that is resumed by it and
   computes is interrupted when it comes back, or waits. */
#include "bind/interrupt.h"

#include <signal.h>
#include <string.h>

#include "bind/bind.h"

static lua_State *volatile running;      /* whose hook the handler sets */
static lua_State *main_thread;           /* of its state */
static volatile sig_atomic_t on_its_way;
static bool held;

/* The user's own hook, which ours stands in for. */
static lua_Hook user_hook;
static int user_mask, user_count;

/* Without a change of the stack that could fail. */
static lua_State *main_of(lua_State *L) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    lua_State *main = lua_tothread(L, -1);
    lua_pop(L, 1);
    return main;
}

void bind_interrupt_forget(void) {
    if (on_its_way && running)
        lua_sethook(running, user_hook, user_mask, user_count);
    on_its_way = 0;
}

void bind_interrupt_of(lua_State *L) {
    running = NULL;
    on_its_way = 0;
    main_thread = L ? main_of(L) : NULL;
    running = L;
}

void bind_interrupt_hold(lua_State *L, bool hold) {
    if (main_thread && main_of(L) == main_thread) held = hold;
}

/* One that came before is to reach what runs now. */
void bind_interrupt_in_child(lua_State *L) {
    bool came = on_its_way;
    if (!running || running == L) return;
    bind_interrupt_forget();
    bind_interrupt_of(L);
    if (came) bind_interrupt_on_signal();
}

static void on_hook(lua_State *L, lua_Debug *ar) {
    (void)ar;
    if (held) return;
    bind_interrupt_raise(L);
    /* A coroutine had it from its maker, and all is over. */
    lua_sethook(L, user_hook, user_mask, user_count);
}

bool bind_interrupt_on_signal(void) {
    lua_State *L = running;
    if (!L || on_its_way) return false;
    user_hook = lua_gethook(L);
    user_mask = lua_gethookmask(L);
    user_count = lua_gethookcount(L);
    on_its_way = 1;
    lua_sethook(L, on_hook,
                LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
    return true;
}

void bind_interrupt_raise(lua_State *L) {
    if (!on_its_way || held) return;
    luaL_checkstack(L, 8, "Ctrl-C");
    if (main_of(L) != main_thread) return;
    bind_interrupt_forget();
    bind_error_from(L, 0, "Interrupted", "Ctrl-C");
}

bool bind_is_interrupted(lua_State *L, int idx) {
    if (!bind_is_error(L, idx)) return false;
    lua_pushliteral(L, "kind");
    lua_rawget(L, idx < 0 ? idx - 1 : idx);
    const char *kind = lua_tostring(L, -1);
    bool is = kind && strcmp(kind, "Interrupted") == 0;
    lua_pop(L, 1);
    return is;
}
