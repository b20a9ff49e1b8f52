/* The pool's shared structure, for the files of this folder only. */
#ifndef MP_WORK_POOL_SHM_H
#define MP_WORK_POOL_SHM_H

#include <stdalign.h>

#include "mem/mutex.h"
#include "mem/txn.h"
#include "work/pool.h"

/* A function that jobs refer to. In the list `functions`; written by the
   caller. `uses`: jobs that refer to it (the caller's own count). */
typedef struct mp_function_shm {
    _Atomic uint64_t link;
    mp_ref message;
    uint64_t hash, length;
    uint64_t uses;
} mp_function_shm;

/* What is written by whom stands on lines of its own:
   workers, most, caller   fixed
   state     RUN -> CLOSING -> TERMINATE (caller), RUN -> BROKEN (a worker)
   started   0; 1 the workers run; -errno why not (crew)
   crew      tag of the crew (crew)
   reason    message: why BROKEN; under `lock`
   setup     message: what a worker that is no copy of the caller is to know
             (caller, before the start)
   lock      guards the lists, the claims and the jobs' (w) fields
   first, last  runnable jobs, linked by `link`
   all       all jobs, linked by `after`, `previous`
   grave     jobs that nobody needs any more, linked by `link`; the caller
             frees them
   functions list of mp_function_shm
   orphans   claims whose worker died
   posted    counts the caller's changes that may make work (caller)
   work      idle workers sleep here; spinning: tag of the one that spins
   done      the caller sleeps here; patience: how long it spins first (ns)
   Repair: all changes of more than one word are records under `lock`. */
struct mp_pool_shm {
    uint32_t workers, caller;
    uint64_t most;
    _Atomic uint32_t state, crew;
    _Atomic int32_t started;
    uint32_t reserved;
    _Atomic uint64_t reason, setup;
    alignas(64) mp_mutex_shm lock;
    uint32_t pad;
    _Atomic uint64_t first, last, all, grave, functions, orphans;
    alignas(64) mp_wait_shm work;
    _Atomic uint32_t spinning;
    alignas(64) _Atomic uint64_t posted;
    alignas(64) mp_wait_shm done;
    uint32_t patience;
    alignas(64) mp_worker_shm worker[];
};
_Static_assert(sizeof(mp_function_shm) == 40, "no padding");
_Static_assert(sizeof(mp_pool_shm) % 64 == 0, "workers begin on a line");
_Static_assert(sizeof(mp_claim_shm) == 40, "no padding");
_Static_assert(sizeof(mp_cell_shm) == 16, "cells are packed");
_Static_assert(sizeof(mp_worker_shm) == 128, "a worker's lines are its own");
_Static_assert(sizeof(mp_job_shm) % 128 == 0, "cells begin on a line");
_Static_assert(offsetof(mp_job_shm, next) % 128 == 0,
               "workers' fields on a line of their own");

static inline uint64_t mp_get(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline mp_job_shm *mp_job_at(mp_ref ref) {
    return ref ? (mp_job_shm *)mp_at(ref) : NULL;
}

/* The type's check (mem/check.h; pool_check.c). */
struct mp_check;
void mp_pool_check(struct mp_check *c, const void *object);

/* Takes the job out of the list of all into a hand, frees what its cells
   hold and the job; `pool->lock` is free. (pool.c) */
void mp_job_free(mp_pool_shm *pool, mp_job_shm *job);

/* Adds the words that take `job` out of the runnable list to a record;
   caller holds the lock. (job.c) */
void mp_job_unlink(mp_pool_shm *pool, mp_job_shm *job, mp_txn *txn);

#endif
