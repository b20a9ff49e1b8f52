/* The pool's files on this floor: pool.c (life), job.c (the caller's side of
   a job), worker.c (what runs in a worker). */
#ifndef MP_BIND_POOL_H
#define MP_BIND_POOL_H

#include "bind/bind.h"
#include "proc/proc.h"
#include "work/pool.h"

/* How items become a call. */
enum { SHAPE_MAP, SHAPE_STAR, SHAPE_APPLY };

/* User value 1 of a pool: a table with the Lua side's functions:
   setup(id)                     first thing in a worker
   failure(value, traceback, f, index, id, phase) -> error object
   lost(pid, exitcode, index, name) -> error object
   run_callbacks()               of finished results */
typedef struct pool_ud {
    bind_object object;
    mp_proc crew;
    uint32_t owner; /* tag of the participant that made it */
    bool started, ended;
    bool calling;   /* callbacks run */
    int callbacks;  /* results with callbacks that are not finished */
} pool_ud;

extern const bind_class bind_pool_class;

/* The pool at `arg`, made by this process and not yet closed; StateError. */
pool_ud *bind_check_pool(lua_State *L, int arg, const char *fn);

static inline mp_pool_shm *pool_of(const pool_ud *pool) {
    return pool->object.shm;
}

/* Is the calling process the one that made it? */
bool bind_pool_mine(const pool_ud *pool);

/* Replaces a crew that died, by forking a new one; breaks the pool when that
   fails. `idx`: the pool's stack index. */
void bind_pool_restart(lua_State *L, pool_ud *pool, int idx);

/* Raises what a pool that does not run any more owes its callers:
   PoolTerminated, BrokenPool with its reason, or StateError. */
int bind_pool_stopped(lua_State *L, const pool_ud *pool);

void bind_job_open(lua_State *L);

/* Runs in a worker process, never returns (worker.c). ctx: worker_start. */
typedef struct worker_start {
    lua_State *L;
    int hooks; /* stack index of the pool's table of functions */
} worker_start;
void bind_worker_main(mp_pool_shm *pool, uint32_t index, void *ctx);
void bind_worker_open(lua_State *L);

#endif
