/* core.wait: for descriptors and for things in shared memory at once. What
   each object stands for is found in lua/mp/wait.lua. */
#include <errno.h>
#include <poll.h>

#include "bind/bind.h"
#include "bind/connection.h"
#include "bind/core.h"
#include "bind/job.h"
#include "data/queue.h"
#include "mem/object.h"
#include "sync/bell.h"
#include "sync/event.h"

/* ---- things ----------------------------------------------------------- */

static bool queue_ready(void *of) {
    return mp_queue_has_item(((bind_object *)of)->shm);
}

static void queue_announce(void *of) {
    mp_queue_announce(((bind_object *)of)->shm);
}

static bool event_ready(void *of) {
    return mp_event_is_set(((bind_object *)of)->shm);
}

static void event_announce(void *of) {
    mp_event_announce(((bind_object *)of)->shm);
}

static bool job_ready(void *of) { return job_settled(of); }

static void job_announce(void *of) {
    const job_ud *j = of;
    mp_job_announce_end(j->job);
    mp_pool_watch(pool_of(j->pool));
}

/* What stands for the userdata at `idx`; false: it is nothing of ours. */
static bool thing_of(lua_State *L, int idx, mp_bell_thing *thing) {
    bind_object *o = bind_is(L, idx, &bind_job_class);
    if (o) {
        *thing = (mp_bell_thing){job_ready, job_announce, o, false};
        return true;
    }
    o = bind_test(L, idx);
    if (!o || !o->shm) return false;
    if (o->class->type == MP_TYPE_QUEUE)
        *thing = (mp_bell_thing){queue_ready, queue_announce, o, false};
    else if (o->class->type == MP_TYPE_EVENT)
        *thing = (mp_bell_thing){event_ready, event_announce, o, false};
    else
        return false;
    return true;
}

/* ---- the call --------------------------------------------------------- */

/* What is waited for: `n` descriptors, `m` things; with room for one more
   descriptor. `at` says for each which item of the list it is. */
typedef struct waiting {
    struct pollfd *fds;
    mp_bell_thing *things;
    int *fd_at, *thing_at;
    size_t n, m;
} waiting;

static void *scratch(lua_State *L, size_t n, size_t size) {
    return lua_newuserdatauv(L, n * size, 0);
}

static void add_fd(waiting *w, int fd, int item) {
    w->fds[w->n] = (struct pollfd){.fd = fd, .events = POLLIN};
    w->fd_at[w->n++] = item;
}

/* Raises, if the value at `idx` is something to wait for that is closed. */
static void refuse_closed(lua_State *L, int idx) {
    const bind_object *o = bind_test(L, idx);
    if (o && !o->shm &&
        (o->class->type == MP_TYPE_QUEUE || o->class->type == MP_TYPE_EVENT))
        bind_error(L, "StateError", "wait: %s is closed", o->class->name);
}

/* The descriptor of the connection or listener at `idx`, -1: it is neither.
   Raises of what is closed, and of a connection that cannot be read. */
static int pollfd_of(lua_State *L, int idx) {
    int fd = connection_pollfd(L, idx);
    if (fd == -2) bind_error(L, "OSError", "wait: handle is closed");
    if (fd == -3) bind_error(L, "OSError", "wait: connection is write-only");
    return fd;
}

/* Adds the value on top, item `i`. A finalizer may have closed it since it was
   found to be something to wait for. */
static void add(lua_State *L, waiting *w, int i) {
    int top = lua_gettop(L), fd = -1;
    if (lua_isinteger(L, top))
        add_fd(w, (int)lua_tointeger(L, top), i);
    else if ((fd = pollfd_of(L, top)) >= 0)
        add_fd(w, fd, i);
    else if (thing_of(L, top, &w->things[w->m]))
        w->thing_at[w->m++] = i;
    else {
        refuse_closed(L, top);
        bind_error(L, "TypeError", "wait: item %d is a %s", i,
                   luaL_typename(L, top));
    }
}

/* Fills *w from the list at 1, of `count` items. */
static void gather(lua_State *L, waiting *w, int count) {
    size_t most = (size_t)count + 1;
    w->fds = scratch(L, most, sizeof *w->fds);
    w->things = scratch(L, most, sizeof *w->things);
    w->fd_at = scratch(L, most, sizeof *w->fd_at);
    w->thing_at = scratch(L, most, sizeof *w->thing_at);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, i);
        add(L, w, i);
        lua_pop(L, 1);
    }
}

/* A hook that ran, or what starts a pool's workers, may have closed what we
   wait for: of a descriptor the kernel tells. */
static void check_open(lua_State *L, const waiting *w) {
    for (size_t i = 0; i < w->m; i++) {
        const bind_object *o = w->things[i].of;
        if (!o->shm && o->class != &bind_job_class)
            bind_error(L, "StateError", "wait: %s is closed",
                       o->class->name);
    }
}

/* Jobs whose pool has lost its crew would wait for ever. */
static void tend_jobs(lua_State *L, const waiting *w) {
    for (size_t i = 0; i < w->m; i++) {
        const job_ud *j = w->things[i].of;
        if (w->things[i].ready != job_ready || job_ready(w->things[i].of))
            continue;
        lua_rawgeti(L, 1, w->thing_at[i]);
        lua_getiuservalue(L, -1, UV_POOL);
        bind_pool_restart(L, j->pool, lua_gettop(L));
        lua_pop(L, 2);
    }
}

/* Pushes the table of what is ready: item's number -> true, or the bits of
   poll. */
static void push_ready(lua_State *L, const waiting *w) {
    lua_newtable(L);
    for (size_t i = 0; i < w->m; i++) {
        if (!w->things[i].is_ready) continue;
        lua_pushboolean(L, 1);
        lua_rawseti(L, -2, w->thing_at[i]);
    }
    for (size_t i = 0; i < w->n; i++) {
        if (!w->fds[i].revents) continue;
        lua_pushboolean(L, !(w->fds[i].revents & POLLNVAL));
        lua_rawseti(L, -2, w->fd_at[i]);
    }
}

/* wait(list, timeout) -> table: number of each item that is ready -> true;
   false: that is no open descriptor. The list holds descriptors as integers,
   connections, listeners, queues, events, jobs. nil: the time is up */
static int core_wait(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    mp_deadline deadline = bind_deadline(L, 2, "wait");
    waiting w = {.n = 0};
    bind_open_runtime(L);
    lua_settop(L, 2);
    luaL_checkstack(L, 16, "wait");
    gather(L, &w, (int)lua_rawlen(L, 1));
    int r;
    for (;;) {
        tend_jobs(L, &w);
        check_open(L, &w);
        r = mp_bell_wait(w.fds, w.n, w.things, w.m, deadline);
        if (r != -EINTR) break;
        bind_interrupted(L);
    }
    if (r == -ETIMEDOUT) return 0;
    if (r < 0) bind_oserror(L, r, "wait");
    push_ready(L, &w);
    return 1;
}

/* waitable(value, job) -> what wait takes for it: a queue, event or (if `job`)
   job itself, a connection or listener; nil: none of these.
   Raises of what is closed, and of a connection that cannot be read. */
static int core_waitable(lua_State *L) {
    mp_bell_thing thing;
    bool job = lua_toboolean(L, 2);
    lua_settop(L, 1);
    if (pollfd_of(L, 1) >= 0) return 1;
    if (thing_of(L, 1, &thing) && (job || thing.ready != job_ready))
        return 1;
    refuse_closed(L, 1);
    return 0;
}

void bind_wait_open(lua_State *L) {
    lua_pushcfunction(L, core_waitable);
    lua_setfield(L, -2, "waitable");
    lua_pushcfunction(L, core_wait);
    lua_setfield(L, -2, "wait");
}
