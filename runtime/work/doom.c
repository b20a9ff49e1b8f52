/* Whose time is up, and whose job was cancelled: the crew looks at workers. */
#include "work/pool_shm.h"

/* The worker is to be killed for the item that it is at, unless that ends just
   now. Its place says so before the lock is free, so it claims nothing
   more. */
static int doom(mp_worker_shm *w, uint64_t at, uint64_t *next) {
    if (!atomic_compare_exchange_strong(&w->claim.at, &at,
                                        at | MP_AT_DOOMED)) {
        *next = 0; /* it went on: look at what it is at now */
        return MP_CREW_LEAVE;
    }
    atomic_store(&w->doomed, 1);
    return MP_CREW_KILL;
}

static int look_at(mp_worker_shm *w, const mp_job_shm *job, uint64_t now,
                   uint64_t *next) {
    uint64_t at = atomic_load_explicit(&w->claim.at, memory_order_acquire);
    if (at >= mp_get(&w->claim.high)) return MP_CREW_LEAVE;
    uint64_t limit = mp_job_limit(job), since = mp_get(&w->since), when;
    bool dropped = mp_job_cancelled(job) &&
                   mp_get(&job->dropped) != MP_JOB_STOPPED;
    if (dropped)
        when = mp_get(&job->kill_ns);
    else if (limit && since)
        when = since + limit;
    else
        return MP_CREW_LEAVE;
    if (when <= now && when) return doom(w, at, next);
    if (when && when < *next) *next = when;
    return mp_get(&job->dropped) == MP_JOB_ASKED ? MP_CREW_ASK
                                                 : MP_CREW_LEAVE;
}

int mp_crew_look(mp_pool_shm *pool, uint32_t index, uint64_t now,
                 uint64_t *next) {
    mp_worker_shm *w = &pool->worker[index];
    /* Most have nothing; who claims just now, claims what is not late. */
    if (!mp_get(&w->claim.job) || atomic_load(&w->doomed))
        return MP_CREW_LEAVE;
    mp_mutex_lock(&pool->lock);
    const mp_job_shm *job = mp_job_at(mp_get(&w->claim.job));
    int action = job && !mp_get(&w->claim.orphan)
                     ? look_at(w, job, now, next)
                     : MP_CREW_LEAVE;
    mp_mutex_unlock(&pool->lock);
    return action;
}
