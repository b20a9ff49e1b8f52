/* The pool's shared structure, for the files of this folder only. */
#ifndef MP_WORK_POOL_SHM_H
#define MP_WORK_POOL_SHM_H

#include <stdalign.h>

#include "mem/mutex.h"
#include "mem/txn.h"
#include "work/pool.h"

/* A function that jobs refer to. In the list `functions`; written by the
   caller. `uses`: jobs that refer to it (the caller's own count). `parcels`:
   not 0, its message holds some, so it goes with its last job. It comes and
   goes by a record under `lock`, which moves both blocks between the list and
   hands; one of a worker's own is in its job's instead. */
typedef struct mp_function_shm {
    _Atomic uint64_t link;
    mp_ref message;
    uint64_t hash, length;
    uint64_t uses, parcels;
} mp_function_shm;

/* Frees those that are not used, but for the newest ones. The caller. */
void mp_pool_trim(mp_pool_shm *pool);

/* What a worker that left has said. In the list `left`, to which it comes by a
   record under `lock`, and is not changed any more; before that both blocks
   are in the worker's hands. */
typedef struct mp_left_shm {
    mp_ref link, message;
    uint64_t index;
} mp_left_shm;

/* What is written by whom stands on lines of its own:
   id, gen, places, most, most_bytes, caller   fixed
   workers   how many there are to be, of the places (caller). Behind the
             places there are as many for guests: workers that wait
   state     RUN -> CLOSING -> TERMINATE (caller), RUN -> BROKEN (a worker)
   started   0; 1 the workers run; -errno why not (crew)
   crew      tag of the crew (crew)
   reason    message: why BROKEN; under `lock`
   setup     message: what a worker that is no copy of the caller is to know
             (caller, before the start)
   lock      guards the lists, the claims and the jobs' (w) fields
   first, last  runnable jobs of each level, linked by `link`
   all       all jobs, linked by `after`, `previous`
   grave     jobs that nobody needs any more, linked by `link`; the caller
             frees them
   functions list of mp_function_shm
   left      list of mp_left_shm
   orphans   claims whose worker died
   timed     jobs with a timeout that kills; under `lock`
   quickest  the shortest time in which one of them kills (ns; caller; never
             grows)
   looks     when the crew looks at the workers next (ns; crew)
   bell      the crew's descriptor that its workers write to (crew)
   posted    counts the caller's changes that may make work (caller)
   stirred   the same of the workers' and the crew's (any)
   turn      heirs sleep here until a place is theirs
   work      idle workers sleep here; spinning: tag of the one that spins
   done      the caller sleeps here; patience: how long it spins first (ns)
   Repair: all changes of more than one word are records under `lock`. */
struct mp_pool_shm {
    uint32_t id, gen;
    uint32_t places, caller;
    uint64_t most, most_bytes;
    _Atomic uint32_t state, crew;
    _Atomic int32_t started;
    _Atomic uint32_t workers;
    _Atomic uint64_t reason, setup;
    alignas(64) mp_mutex_shm lock;
    uint32_t pad;
    _Atomic uint64_t all, grave, functions, left, orphans, timed;
    _Atomic uint64_t first[MP_LEVELS], last[MP_LEVELS];
    alignas(64) _Atomic uint64_t quickest, looks;
    _Atomic int32_t bell;
    mp_wait_shm turn;
    alignas(64) mp_wait_shm work;
    _Atomic uint32_t spinning;
    _Atomic uint64_t stirred;
    alignas(64) _Atomic uint64_t posted;
    alignas(64) mp_wait_shm done;
    uint32_t patience;
    alignas(64) mp_worker_shm worker[];
};
_Static_assert(sizeof(mp_function_shm) == 48, "no padding");
_Static_assert(sizeof(mp_pool_shm) % 64 == 0, "workers begin on a line");
_Static_assert(sizeof(mp_claim_shm) == 40, "no padding");
_Static_assert(sizeof(mp_cell_shm) == 16, "cells are packed");
_Static_assert(sizeof(mp_left_shm) == 24, "no padding");
_Static_assert(sizeof(mp_try_shm) == 32, "no padding");
_Static_assert(sizeof(mp_worker_shm) == 192, "a worker's lines are its own");
_Static_assert(sizeof(mp_job_shm) % 128 == 0, "cells begin on a line");
_Static_assert(offsetof(mp_job_shm, next) % 128 == 0,
               "workers' fields on a line of their own");

static inline uint64_t mp_get(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Spinning pays where another processor answers soon, and takes from those
   who work where it does not: so a lost bet halves the next stake, and a won
   one doubles it. */
enum {
    MP_MOST_PATIENCE_NS = 30000, /* what waking another processor costs */
    MP_LEAST_PATIENCE_NS = 500
};

static inline void mp_learn_patience(uint32_t *patience, bool won) {
    uint32_t ns = won ? *patience * 2 : *patience / 2;
    if (ns < MP_LEAST_PATIENCE_NS) ns = MP_LEAST_PATIENCE_NS;
    *patience = ns > MP_MOST_PATIENCE_NS ? MP_MOST_PATIENCE_NS : ns;
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

/* Adds the words that take `job` out of its runnable list to a record, or put
   it there, at the end; caller holds the lock. (job.c) */
void mp_job_unlink(mp_pool_shm *pool, mp_job_shm *job, mp_txn *txn);
void mp_job_enlist(mp_pool_shm *pool, mp_job_shm *job, mp_txn *txn);

/* Is anything runnable? Caller holds the lock, or wants a hint. */
static inline bool mp_pool_any(const mp_pool_shm *pool) {
    return mp_get(&pool->first[0]) || mp_get(&pool->first[1]) ||
           mp_get(&pool->first[2]) || mp_get(&pool->first[3]);
}

/* With those of guests. */
static inline uint32_t mp_pool_all_places(const mp_pool_shm *pool) {
    return 2 * pool->places;
}

/* Nothing of it is left to claim but what is to be run again. */
static inline bool mp_job_all_claimed(const mp_job_shm *j) {
    return mp_get(&j->next) == mp_get(&j->count);
}

/* Does the crew have to kill for its timeout? In how many ns. */
static inline uint64_t mp_job_limit(const mp_job_shm *j) {
    uint64_t grace = j->with.grace_ns;
    return j->with.timeout_ns && grace != UINT64_MAX
               ? j->with.timeout_ns + grace
               : 0;
}

/* ---- again.c: items that are run again. The caller holds the lock ---- */

/* Item i of w's claim, which it was at, failed or was lost (`death`): is it to
   be run again? Then it is noted so, and the claim begins behind it; of a
   death what is left is an orphan. Not `wanted`: no, but it is counted. */
bool mp_again_note(mp_pool_shm *pool, mp_worker_shm *w, uint64_t i,
                   bool death, bool late, bool wanted);

/* The first item of the job that is due at `now`: index + 1; 0: none is, and
   *due tells when (UINT64_MAX: none waits). */
uint64_t mp_again_due(const mp_job_shm *job, uint64_t now, uint64_t *due);

/* Adds the words that take that item out of the list to a record: 2, and 4
   where the job is not runnable any more. */
void mp_again_take(mp_pool_shm *pool, mp_job_shm *job, mp_txn *txn);

/* Item i failed for good: ends the job, if it is one that ends by that. */
void mp_again_stop(mp_pool_shm *pool, mp_job_shm *job, uint64_t i);

/* The worker `tag` is dead: its jobs are nobody's. (job.c) */
void mp_job_bereave(mp_pool_shm *pool, uint32_t tag);

/* There may be work for others, by a worker or the crew. */
void mp_pool_stir_workers(mp_pool_shm *pool);

#endif
