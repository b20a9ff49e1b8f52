/* A worker's own state, and how it runs a range, for the files of this noun:
   worker.c (a worker's life), worker_run.c (what it runs). */
#ifndef MP_BIND_WORKER_H
#define MP_BIND_WORKER_H

#include "bind/pool.h"
#include "bind/task.h"

/* Where the worker is in its code when an error comes. */
enum { PHASE_FUNCTION, PHASE_ARGUMENT, PHASE_CALL, PHASE_RESULT };

/* In the registry under worker_self. */
typedef struct worker {
    mp_pool_shm *pool;
    bind_worker_leave leave;
    mp_worker_shm *shm;
    uint32_t id; /* from 1 */
    uint32_t place; /* where it claims: its own, or a guest's */
    mp_range range;
    mp_cell_shm *in, *out; /* the job's cells, in this process */
    uint64_t at;
    int phase;
    int functions; /* entries in the cache */
    mp_ref turn;   /* the message whose globals are in effect, or 0 */
    bind_task task;
    bool seeded;         /* by a job: what comes is no chance any more */
    uint64_t weight;     /* bytes of its own at first; 0: of no interest */
    int64_t weighed;     /* when it looked last (ns) */
} worker;

/* Keys of the registry, by their addresses: the worker; its pool's table of
   functions; the functions it has decoded; the last traceback;
   math.randomseed. */
extern const char worker_self, worker_hooks, worker_cache, worker_trace,
    worker_seed;

/* --- worker_run.c ---------------------------------------------------- */

/* A message handler. */
int worker_traceback(lua_State *L);

/* Pushes the function of w->range.job, whose globals are then in effect. It is
   decoded once per worker, found by the ref of its message, which no two
   functions of a pool share. */
void worker_function(lua_State *L, worker *w);

/* judge(function): of the job that runs, asks it by f(error, attempt) whether
   an item that failed may be run again. A Lua function. */
int worker_judge(lua_State *L);

/* The error on the stack's top as a message block (popped); 0 when even that
   fails, for want of memory. */
mp_ref worker_error(lua_State *L, worker *w);

/* Runs w->range. */
void worker_run(lua_State *L, worker *w);

#endif
