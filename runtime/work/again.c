/* Items that are run again: those that failed, or were lost with their worker,
   in a job that wants it (mp_controls). Such an item leaves its worker's claim
   without being done, and waits in the job's list, which is by the time at
   which each is due; whoever finds it first in the list and due claims it
   alone. A waiting item occupies nobody.

   Each step is one record under the pool's lock. */
#include "os/random.h"
#include "work/pool_shm.h"

static mp_try_shm *try_of(const mp_job_shm *job, uint64_t i) {
    mp_try_shm *tries = (void *)(mp_me->base + job->tries);
    return &tries[i & (job->window - 1)];
}

/* Failed runs of item i, as `runs` has them. */
static uint64_t runs_of(const mp_job_shm *job, uint64_t i) {
    const mp_try_shm *its = job->tries ? try_of(job, i) : NULL;
    return its && its->item == i + 1 ? its->runs : 0;
}

void mp_job_tries(const mp_job_shm *job, uint64_t i, uint32_t *runs,
                  uint32_t *deaths) {
    uint64_t its = runs_of(job, i);
    *runs = (uint32_t)its;
    *deaths = (uint32_t)(its >> 32);
}

/* ---- when ----------------------------------------------------------- */

/* How long to wait after `runs` (1..) failed ones. */
static uint64_t pause_of(const mp_controls *with, uint32_t runs) {
    double ns = (double)with->wait_ns, most = (double)with->most_wait_ns;
    double factor = with->factor / 1024.0;
    for (uint32_t i = 1; i < runs && ns < most && factor != 1; i++)
        ns *= factor;
    if (ns > most) ns = most;
    uint32_t chance = 0;
    if (with->jitter) {
        mp_random_bytes(&chance, sizeof chance);
        ns -= ns * with->jitter / 1024 * (chance / 4294967296.0);
    }
    return (uint64_t)ns;
}

/* ---- whether -------------------------------------------------------- */

/* Of a death by its own time an item is not said to have killed its
   worker. */
static bool has_another(const mp_controls *with, uint32_t runs,
                        uint32_t deaths, bool death) {
    if (with->crashes && death && deaths >= with->crashes) return false;
    /* Where only deaths are forgiven, errors are not. */
    if (!with->retries) return death && with->crashes;
    return runs <= with->retries;
}

/* ---- the list ------------------------------------------------------- */

/* The word behind which an item that is due then belongs. */
static _Atomic uint64_t *place_of(mp_job_shm *job, uint64_t due,
                                  uint64_t *next) {
    _Atomic uint64_t *at = &job->again;
    while ((*next = mp_get(at)) != 0) {
        mp_try_shm *its = try_of(job, *next - 1);
        if (its->due > due) break;
        at = (_Atomic uint64_t *)&its->link;
    }
    return at;
}

/* At most 14 words. */
static void note(mp_pool_shm *pool, mp_worker_shm *w, mp_job_shm *job,
                 uint64_t i, uint64_t runs, uint64_t due, bool orphan) {
    uint64_t next, low = mp_get(&w->claim.low);
    _Atomic uint64_t *before = place_of(job, due, &next);
    mp_try_shm *its = try_of(job, i);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &its->item, i + 1);
    mp_txn_set64(&txn, &its->link, next);
    mp_txn_set64(&txn, &its->due, due);
    mp_txn_set64(&txn, &its->runs, runs);
    mp_txn_set64(&txn, before, i + 1);
    mp_txn_set64(&txn, &job->waiting, mp_get(&job->waiting) + 1);
    mp_txn_set64(&txn, &job->done, mp_get(&job->done) + i - low);
    mp_txn_set64(&txn, &w->claim.low, i + 1);
    mp_txn_set64(&txn, &w->claim.at, i + 1);
    if (orphan) {
        mp_txn_set64(&txn, &w->claim.orphan, 1);
        mp_txn_set64(&txn, &pool->orphans, mp_get(&pool->orphans) + 1);
    }
    if (!atomic_load(&job->runnable)) mp_job_enlist(pool, job, &txn);
    mp_txn_commit(&txn);
}

bool mp_again_note(mp_pool_shm *pool, mp_worker_shm *w, uint64_t i,
                   bool death, bool late, bool wanted) {
    mp_job_shm *job = mp_job_at(mp_get(&w->claim.job));
    if (!job->tries || mp_job_cancelled(job)) return false;
    uint64_t known = runs_of(job, i);
    bool crash = death && !late;
    uint32_t runs = (uint32_t)known + 1;
    uint32_t deaths = (uint32_t)(known >> 32) + crash;
    mp_try_shm *its = try_of(job, i);
    if (!wanted || !has_another(&job->with, runs, deaths, crash)) {
        /* What is told of it with its result; nobody else has its entry. */
        mp_txn txn = mp_txn_begin();
        mp_txn_set64(&txn, &its->item, i + 1);
        mp_txn_set64(&txn, &its->runs, (uint64_t)deaths << 32 | runs);
        mp_txn_commit(&txn);
        return false;
    }
    uint64_t due = (uint64_t)mp_now_ns() + pause_of(&job->with, runs);
    note(pool, w, job, i, (uint64_t)deaths << 32 | runs, due,
         death && i + 1 < mp_get(&w->claim.high));
    atomic_store_explicit(&w->retried, mp_get(&w->retried) + 1,
                          memory_order_relaxed);
    return true;
}

uint64_t mp_again_due(const mp_job_shm *job, uint64_t now, uint64_t *due) {
    uint64_t first = mp_get(&job->again);
    *due = first ? try_of(job, first - 1)->due : UINT64_MAX;
    return *due <= now ? first : 0;
}

void mp_again_take(mp_pool_shm *pool, mp_job_shm *job, mp_txn *txn) {
    uint64_t waiting = mp_get(&job->waiting) - 1;
    mp_txn_set64(txn, &job->again,
                 try_of(job, mp_get(&job->again) - 1)->link);
    mp_txn_set64(txn, &job->waiting, waiting);
    if (!waiting && mp_job_all_claimed(job)) mp_job_unlink(pool, job, txn);
}

/* ---- the end of a job by an error ------------------------------------ */

void mp_again_stop(mp_pool_shm *pool, mp_job_shm *job, uint64_t i) {
    if (!(job->with.flags & MP_WITH_STOP) || mp_get(&job->dropped)) return;
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &job->dropped, MP_JOB_STOPPED);
    mp_txn_set64(&txn, &job->stop, i + 1);
    if (atomic_load(&job->runnable)) mp_job_unlink(pool, job, &txn);
    mp_txn_commit(&txn);
}

/* ---- a worker -------------------------------------------------------- */

bool mp_worker_again(mp_pool_shm *pool, uint32_t index, uint64_t i,
                     bool wanted) {
    mp_worker_shm *w = &pool->worker[index];
    mp_job_shm *job = mp_job_at(mp_get(&w->claim.job));
    if (!job->tries) return false;
    mp_mutex_lock(&pool->lock);
    bool again = !(mp_get(&w->claim.at) & MP_AT_DOOMED) &&
                 mp_again_note(pool, w, i, false, false, wanted);
    mp_mutex_unlock(&pool->lock);
    /* Who runs long has others take it. */
    if (again) mp_pool_stir_workers(pool);
    return again;
}

void mp_worker_failed(mp_pool_shm *pool, mp_job_shm *job, uint64_t i) {
    if (!(job->with.flags & MP_WITH_STOP)) return;
    mp_mutex_lock(&pool->lock);
    mp_again_stop(pool, job, i);
    mp_mutex_unlock(&pool->lock);
    mp_wait_notify(&pool->done, INT_MAX);
}
