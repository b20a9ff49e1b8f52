#include "bind/thread.h"

#include <lauxlib.h>
#include <lualib.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bind/boot.h"
#include "bind/core.h"
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

void bind_thread_makes(bind_thread_maker maker) {
    bind_thread_maker none = NULL;
    atomic_compare_exchange_strong(&makes, &none, maker);
}

/* ---- a fresh state --------------------------------------------------- */

void bind_thread_leave(int code) {
    here->code = code;
    longjmp(here->jump, 1);
}

void bind_thread_end_in_child(void) { here = NULL; }

int bind_thread_exit(lua_State *L) {
    int code;
    if (lua_isboolean(L, 1))
        code = lua_toboolean(L, 1) ? EXIT_SUCCESS : EXIT_FAILURE;
    else
        code = (int)luaL_optinteger(L, 1, EXIT_SUCCESS);
    if (!here) mp_family_exit(code);
    if (here->closing)
        return luaL_error(L, "os.exit: the thread is ending already");
    bind_thread_leave(code & 0xff);
}

static int furnish(lua_State *L) {
    if (!atomic_load_explicit(&makes, memory_order_relaxed)) {
        if (!luaL_openlibs) return luaL_error(L, "no standard libraries");
        luaL_openlibs(L);
    }
    luaL_requiref(L, "mp.core", luaopen_mp_core, 0);
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

static lua_State *new_state(void) {
    bind_thread_maker maker =
        atomic_load_explicit(&makes, memory_order_relaxed);
    lua_State *L = maker ? maker() : luaL_newstate();
    if (!L) return NULL;
    lua_pushcfunction(L, furnish);
    if (lua_pcall(L, 0, 0, 0) == LUA_OK) return L;
    fprintf(stderr, "mplua: cannot make a state for a thread: %s\n",
            lua_tostring(L, -1));
    lua_close(L);
    return NULL;
}

/* ---- a thread -------------------------------------------------------- */

int bind_thread_state(bind_thread_work f, void *ctx, bool *exited) {
    base at = {.code = EXIT_FAILURE}, *above = here;
    *exited = true;
    lua_State *const L = new_state();
    if (!L) return EXIT_FAILURE;
    here = &at;
    /* What changes behind it lies in `at`. */
    if (setjmp(at.jump) == 0) {
        at.code = f(L, ctx);
        *exited = false;
    }
    at.closing = true;
    lua_close(L);
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
    mp_start_thread_does(run);
}
