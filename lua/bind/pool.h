/* The pool's files on this floor: pool.c (life), job.c (the caller's side of
   a job), worker.c (what runs in a worker). */
#ifndef MP_BIND_POOL_H
#define MP_BIND_POOL_H

#include "bind/bind.h"
#include "proc/proc.h"
#include "work/pool.h"
#include "work/team.h"

/* How items become a call. */
enum { SHAPE_MAP, SHAPE_STAR, SHAPE_APPLY };

/* User value 1 of a pool: a table with the Lua side's functions:
   setup(id)                     first thing in a worker (a copy)
   failure(value, traceback, f, index, id, phase) -> error object
   lost(pid, exitcode, index, f, runs, deaths, timeout or nil) -> error object
   farewell() -> value           last thing in a worker that leaves; or nil
   run_callbacks()               of finished results
   places, most_bytes            of mp_pool_spec
   Its field `snapshot` is what the workers have (globals.h). */
typedef struct pool_ud {
    bind_object object;
    const struct mp_start_method *method; /* NULL: fork */
    mp_proc crew;
    mp_team *team;  /* the workers, where they are threads: no crew */
    uint32_t owner; /* tag of the participant that made it */
    bool started, ended;
    bool guest;     /* of one of its workers, for a job of its own */
    bool calling;   /* callbacks run */
    int feeding;    /* so many of its jobs draw from their input just now */
    int callbacks;  /* results with callbacks that are not finished */
} pool_ud;

extern const bind_class bind_pool_class;

/* The pool at `arg`, made by this process and not yet closed; StateError. */
pool_ud *bind_check_pool(lua_State *L, int arg, const char *fn);

/* NULL once it was closed: by what of the user's code ran meanwhile, too. */
static inline mp_pool_shm *pool_of(const pool_ud *pool) {
    return pool->object.shm;
}

/* The same behind such code: raises what a pool that was closed owes. */
mp_pool_shm *bind_pool_still(lua_State *L, const pool_ud *pool);

/* Is the calling process the one that made it? */
bool bind_pool_mine(const pool_ud *pool);

/* Pushes the snapshot of what the pool's workers have (globals.h), true; or
   nil, false: their states are fresh ones. `idx`: the pool's. */
bool bind_pool_push_snapshot(lua_State *L, int idx);

/* Replaces a crew that died, by forking a new one; breaks the pool when that
   fails. `idx`: the pool's stack index. */
void bind_pool_restart(lua_State *L, pool_ud *pool, int idx);

/* mp_pool_state; as long as a task runs, its pool is open to it. */
uint32_t bind_pool_state(const pool_ud *pool);

/* Raises what a pool that does not run any more owes its callers:
   PoolTerminated, BrokenPool with its reason, or StateError. */
int bind_pool_stopped(lua_State *L, const pool_ud *pool);

void bind_job_open(lua_State *L);

/* In a worker that is about to make a job for its own pool: StateError where
   its task could not wait for it. */
void bind_worker_check(lua_State *L);

/* In a worker whose task waits for `job`, of its own pool: runs what there is
   of it, and says whether there was any. StateError where too many do. */
bool bind_worker_help(lua_State *L, mp_pool_shm *pool, mp_job_shm *job);

/* Runs in a worker process, never returns (worker.c). ctx: worker_start. */
typedef struct worker_start {
    lua_State *L;
    int hooks; /* stack index of the pool's table of functions */
} worker_start;
void bind_worker_main(mp_pool_shm *pool, uint32_t index, void *ctx);

/* The same in a thread, whose state is from->L: returns when the pool is over,
   or this worker has done its share. One that cannot go on ends by
   leave(code), which does not return. */
typedef void (*bind_worker_leave)(int code);
void bind_worker_serve(mp_pool_shm *pool, uint32_t index,
                       const worker_start *from, bind_worker_leave leave);

/* --- pool_fresh.c: workers that are no copies of the caller ------------ */

struct mp_boot_shm;

/* Tells the workers of a new pool what they are to know: the values at
   `first`, as many as lua/mp/pool_hooks.lua's of_worker takes. `birth`: as
   in bind_boot_message. Raises as that. */
void bind_pool_tell(lua_State *L, pool_ud *pool, int birth, int first);

/* Starts its crew by pool->method, or its threads; -errno. `problem` gets
   what that does not say (MP_BOOT_PROBLEM bytes). */
int bind_pool_start_fresh(lua_State *L, pool_ud *pool, char *problem);

/* As many threads as the pool wants now; -errno. */
int bind_pool_fill_team(lua_State *L, pool_ud *pool, char *problem);

/* What a boot block of kind CREW or WORKER wants: the exit code. */
int bind_crew_run(lua_State *L, struct mp_boot_shm *boot);
int bind_worker_run(struct mp_boot_shm *boot);
void bind_worker_open(lua_State *L);

#endif
