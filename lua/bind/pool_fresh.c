/* A pool whose workers are no copies of the caller: its crew is a new program
   (spawn, forkserver), which forks them; or they are threads, which have no
   crew.

   What they are to know is one message of the pool's: read once by a crew,
   before it forks, and by each state of a thread. A worker thread that loses
   its state, by os.exit or for want of memory, or that has done its share,
   does what a crew does for a process: the item that ran is lost, what the
   participant held is left as by a death, and another state begins. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bind/boot.h"
#include "bind/gc.h"
#include "bind/message.h"
#include "bind/pool.h"
#include "bind/process.h"
#include "bind/thread.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "proc/boot.h"
#include "proc/start.h"

/* ---- the caller ------------------------------------------------------ */

/* Initializer or false, its arguments or nil, worker_exit or false. */
enum { SETUP_VALUES = 3 };

void bind_pool_tell(lua_State *L, pool_ud *pool, int birth, int first) {
    mp_ref setup = bind_boot_message(L, birth, first, SETUP_VALUES);
    int r = mp_pool_tell(pool_of(pool), setup);
    if (r == 0) return;
    mp_free(setup);
    bind_oserror(L, r, "Pool: cannot make the pool");
}

static int start_crew(lua_State *L, pool_ud *pool, mp_start *start) {
    const char *argv[BIND_WORDS] = {NULL};
    bind_process_argv(L, argv);
    start->argv = argv;
    int r = -EOWNERDEAD;
    /* It may be killed as it starts. */
    for (int i = 0; r == -EOWNERDEAD && i <= MP_POOL_RESTARTS; i++) {
        if (start->method->start == mp_start_server)
            start->preload = bind_boot_preload(L, 0);
        if (!pool_of(pool)) { /* a finalizer has closed it */
            mp_free(start->preload);
            break;
        }
        if (i > 0) mp_pool_clear(pool_of(pool), &pool->crew);
        r = mp_pool_start_as(pool_of(pool), &pool->crew, start);
    }
    lua_pop(L, 1);
    return r;
}

int bind_pool_start_fresh(lua_State *L, pool_ud *pool, char *problem) {
    mp_start start = {.method = pool->method,
                      .kind = BIND_BOOT_CREW,
                      .id = pool->object.id,
                      .gen = pool->object.gen,
                      .problem = problem};
    if (pool->method->start != mp_start_thread)
        return start_crew(L, pool, &start);
    start.kind = BIND_BOOT_WORKER;
    return mp_team_start(pool_of(pool), &start,
                         lua_topointer(L, LUA_REGISTRYINDEX), &pool->team);
}

int bind_pool_fill_team(lua_State *L, pool_ud *pool, char *problem) {
    mp_start start = {.method = pool->method,
                      .kind = BIND_BOOT_WORKER,
                      .id = pool->object.id,
                      .gen = pool->object.gen,
                      .problem = problem};
    return mp_team_fill(pool_of(pool), &start,
                        lua_topointer(L, LUA_REGISTRYINDEX), pool->team);
}

/* ---- the other side -------------------------------------------------- */

/* [1] pool: the values that the pool was told. */
static int read_setup(lua_State *L) {
    mp_pool_shm *pool = lua_touserdata(L, 1);
    message_push(L, mp_pool_told(pool));
    return SETUP_VALUES;
}

/* [1] pool: pushes the hooks that workers have here. What keeps the message
   from being read is for their setup to raise. */
static int make_hooks(lua_State *L) {
    lua_pushcfunction(L, read_setup);
    lua_insert(L, 1);
    bool ok = lua_pcall(L, 1, LUA_MULTRET, 0) == LUA_OK;
    int n = lua_gettop(L);
    bind_push_member(L, "mp.pool_hooks", "of_worker");
    lua_insert(L, 1);
    lua_pushboolean(L, ok);
    lua_insert(L, 2);
    lua_call(L, n + 1, 1);
    return 1;
}

/* Pushes them; false: mp itself does not load, which is told. */
static bool push_hooks(lua_State *L, mp_pool_shm *pool) {
    if (!lua_checkstack(L, 8)) return false;
    lua_pushcfunction(L, make_hooks);
    lua_pushlightuserdata(L, pool);
    if (lua_pcall(L, 1, 1, 0) == LUA_OK) return true;
    const char *text = lua_tostring(L, -1);
    fprintf(stderr, "mplua: a pool's worker cannot start: %s\n",
            text ? text : "(error object is no string)");
    return false;
}

static mp_pool_shm *attach(const mp_boot_shm *boot) {
    if (mp_object_attach(boot->id, boot->gen) < 0) return NULL;
    return mp_object_block(boot->id);
}

int bind_crew_run(lua_State *L, mp_boot_shm *boot) {
    mp_pool_shm *pool = attach(boot);
    if (!pool) return EXIT_FAILURE; /* the caller is gone */
    if (!push_hooks(L, pool)) {
        mp_crew_report(pool, -ELIBACC);
        return EXIT_FAILURE;
    }
    bind_gc_before_fork(L);
    worker_start start = {L, lua_gettop(L)};
    mp_crew_run(pool, bind_worker_main, &start);
}

/* ---- a thread -------------------------------------------------------- */

typedef struct place {
    mp_pool_shm *pool;
    uint32_t index;
} place;

static int serve(lua_State *L, void *ctx) {
    const place *p = ctx;
    if (!push_hooks(L, p->pool)) {
        mp_pool_break(p->pool);
        return EXIT_FAILURE;
    }
    worker_start start = {L, lua_gettop(L)};
    bind_worker_serve(p->pool, p->index, &start, bind_thread_leave);
    return EXIT_SUCCESS;
}

/* Who is one too many leaves its place to whoever comes when the pool grows;
   unless it has just grown. */
static bool keeps_place(const place *p) {
    mp_worker_shm *w = mp_pool_worker(p->pool, p->index);
    if (!mp_worker_wanted(p->pool)) return false;
    if (p->index < mp_pool_workers(p->pool)) return true;
    uint32_t nobody = 0;
    atomic_store(&w->tag, 0);
    return p->index < mp_pool_workers(p->pool) &&
           atomic_compare_exchange_strong(&w->tag, &nobody, mp_me->tag);
}

/* A state has ended. Is another to begin? Then this is another worker. */
static bool begin_anew(place *p, const mp_boot_shm *boot, int code) {
    mp_crew_bury(p->pool, p->index, code);
    if (!keeps_place(p) || mp_start_anew() < 0) return false;
    p->pool = attach(boot);
    if (!p->pool) return false; /* nobody else has it any more */
    mp_worker_shm *w = mp_pool_worker(p->pool, p->index);
    atomic_store(&w->tag, mp_me->tag);
    atomic_store(&w->ready, 0);
    w->items = 0;
    return true;
}

int bind_worker_run(mp_boot_shm *boot) {
    place p = {.pool = attach(boot)};
    int index = p.pool ? mp_worker_join(p.pool) : -1;
    if (index < 0) return EXIT_FAILURE;
    p.index = (uint32_t)index;
    uint32_t early = 0; /* states that ended before they were ready */
    for (;;) {
        bool exited;
        int code = bind_thread_state(serve, &p, &exited);
        mp_worker_shm *w = mp_pool_worker(p.pool, p.index);
        early = atomic_load(&w->ready) ? 0 : early + 1;
        if (mp_worker_hopeless(early, 1)) mp_pool_break(p.pool);
        if (!begin_anew(&p, boot, code)) return EXIT_SUCCESS;
    }
}
