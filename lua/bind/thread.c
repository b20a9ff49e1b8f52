#include "bind/thread.h"

#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bind/boot.h"
#include "bind/child.h"
#include "bind/core.h"
#include "bind/cradle.h"
#include "bind/pool.h"
#include "mem/slot.h"
#include "proc/family.h"
#include "proc/start.h"

/* A host may have been linked without it. */
#pragma weak luaL_openlibs

/* Where os.exit goes to. */
typedef struct base {
    jmp_buf jump;
    int code;
    bool closing; /* there is no way out any more */
} base;

static _Thread_local base *here;
static _Atomic bind_thread_maker makes;

/* A state that is made and has no thread yet; whoever takes it out has it. */
static lua_State *_Atomic ready;
static atomic_uint made; /* states of threads; it may wrap */

void bind_thread_makes(bind_thread_maker maker) {
    bind_thread_maker none = NULL;
    atomic_compare_exchange_strong(&makes, &none, maker);
}

/* ---- a fresh state --------------------------------------------------- */

void bind_thread_leave(int code) {
    here->code = code;
    longjmp(here->jump, 1);
}

void bind_thread_end_in_child(void) {
    here = NULL;
    atomic_store_explicit(&ready, NULL, memory_order_relaxed);
}

int bind_thread_exit(lua_State *L) {
    int code;
    if (lua_isboolean(L, 1))
        code = lua_toboolean(L, 1) ? EXIT_SUCCESS : EXIT_FAILURE;
    else
        code = (int)luaL_optinteger(L, 1, EXIT_SUCCESS);
    if (!here) {
        bind_child_end(L);
        mp_family_exit(code);
    }
    if (here->closing)
        return luaL_error(L, "os.exit: the thread is ending already");
    bind_thread_leave(code & 0xff);
}

static int furnish(lua_State *L) {
    if (!atomic_load_explicit(&makes, memory_order_relaxed)) {
        if (!luaL_openlibs) return luaL_error(L, "no standard libraries");
        luaL_openlibs(L);
    }
    luaL_requiref(L, "mp.core", bind_core_later, 0);
    lua_pushinteger(L, (lua_Integer)getpid());
    lua_setfield(L, -2, "thread_of"); /* a forked copy is no thread */
    lua_getglobal(L, "os");
    if (lua_istable(L, -1)) {
        lua_pushcfunction(L, bind_thread_exit);
        lua_setfield(L, -2, "exit");
    }
    lua_getglobal(L, "math");
    if (lua_istable(L, -1)) {
        /* It seeded itself by its address and the second. */
        lua_getfield(L, -1, "randomseed");
        bind_reseed(L);
    }
    lua_settop(L, 0);
    return 0;
}

static lua_State *plain_state(void) {
    lua_State *L = luaL_newstate();
    if (L) bind_cradle_enter(L);
    return L;
}

/* Makes a state; `loud`: says why it cannot. */
static lua_State *new_state(bool loud) {
    bind_thread_maker maker =
        atomic_load_explicit(&makes, memory_order_relaxed);
    lua_State *L = maker ? maker() : plain_state();
    if (!L) return NULL;
    lua_pushcfunction(L, furnish);
    if (lua_pcall(L, 0, 0, 0) == LUA_OK) return L;
    if (loud)
        fprintf(stderr, "mplua: cannot make a state for a thread: %s\n",
                lua_tostring(L, -1));
    bind_cradle_close(L);
    return NULL;
}

/* A thread that has ended makes the next one's state, unless there is one,
   once threads have come one after the other: on a processor that has its
   memory at hand, while whoever waited for the thread goes on. */
static void get_ready(void) {
    if (atomic_load_explicit(&made, memory_order_relaxed) < 2 ||
        atomic_load_explicit(&ready, memory_order_relaxed))
        return;
    lua_State *none = NULL, *L = new_state(false);
    /* Release pairs with the acquire of whoever takes it. */
    if (L && !atomic_compare_exchange_strong_explicit(
                 &ready, &none, L, memory_order_release,
                 memory_order_relaxed))
        bind_cradle_close(L);
}

void bind_thread_unready(void) {
    if (here) return;
    mp_start_join(); /* a thread that has ended may leave one yet */
    lua_State *L =
        atomic_exchange_explicit(&ready, NULL, memory_order_acquire);
    if (L) bind_cradle_close(L);
    bind_cradle_drop();
}

static lua_State *take_state(void) {
    lua_State *L =
        atomic_exchange_explicit(&ready, NULL, memory_order_acquire);
    atomic_fetch_add_explicit(&made, 1, memory_order_relaxed);
    return L ? L : new_state(true);
}

/* ---- a thread -------------------------------------------------------- */

int bind_thread_state(bind_thread_work f, void *ctx, bool *exited) {
    base at = {.code = EXIT_FAILURE}, *above = here;
    *exited = true;
    lua_State *const L = take_state();
    if (!L) return EXIT_FAILURE;
    here = &at;
    /* What changes behind it lies in `at`. */
    if (setjmp(at.jump) == 0) {
        at.code = f(L, ctx);
        *exited = false;
    }
    at.closing = true;
    bind_cradle_close(L);
    here = above;
    return at.code;
}

static int run_job(lua_State *L, void *boot) {
    return bind_boot_run(L, boot);
}

/* A thread: its exit code. */
static int run(mp_boot_shm *boot) {
    bool exited;
    if (boot->kind == BIND_BOOT_WORKER) return bind_worker_run(boot);
    int code = bind_thread_state(run_job, boot, &exited);
    uint32_t asked = mp_slot_asked();
    return code == EXIT_FAILURE && !exited && asked ? -(int)asked : code;
}

void bind_thread_open(void) {
    mp_start_thread_does(run, get_ready);
}
