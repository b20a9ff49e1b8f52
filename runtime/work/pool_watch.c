/* Looking at a pool from outside of any one job: for whoever waits for the
   first of several, in one pool or more. */
#include <errno.h>

#include "mem/slot.h"
#include "work/pool_shm.h"

uint32_t mp_pool_watch(mp_pool_shm *pool) {
    return mp_wait_announce(&pool->done);
}

int mp_pool_sleep(mp_pool_shm *pool, uint32_t seen, mp_deadline deadline) {
    uint32_t crew = atomic_load(&pool->crew);
    if (mp_pool_state(pool) >= MP_POOL_TERMINATE) return 0;
    if (!mp_tag_alive(crew)) return -EOWNERDEAD;
    return mp_wait_sleep_on(&pool->done, seen, crew, deadline);
}

bool mp_job_begun(const mp_job_shm *job) {
    return mp_get(&job->next) > 0;
}

uint64_t mp_job_progress(mp_pool_shm *pool, const mp_job_shm *job) {
    mp_mutex_lock(&pool->lock);
    uint64_t done = mp_get(&job->done);
    for (uint32_t i = 0; i < mp_pool_all_places(pool); i++) {
        const mp_claim_shm *claim = &pool->worker[i].claim;
        if (mp_get(&claim->job) == job->self)
            done += (mp_get(&claim->at) & ~MP_AT_DOOMED) -
                    mp_get(&claim->low);
    }
    mp_mutex_unlock(&pool->lock);
    return done;
}

static uint64_t count_waiting(const mp_job_shm *job) {
    uint64_t fed = atomic_load_explicit(&job->fed, memory_order_acquire);
    return fed - mp_get(&job->next) + mp_get(&job->waiting);
}

void mp_pool_load(mp_pool_shm *pool, uint64_t *waiting, uint32_t *busy) {
    *waiting = *busy = 0;
    mp_mutex_lock(&pool->lock);
    for (int level = 0; level < MP_LEVELS; level++)
        for (mp_job_shm *job = mp_job_at(mp_get(&pool->first[level])); job;
             job = mp_job_at(mp_get(&job->link)))
            *waiting += count_waiting(job);
    for (uint32_t i = 0; i < mp_pool_all_places(pool); i++) {
        const mp_claim_shm *claim = &pool->worker[i].claim;
        *busy += mp_get(&claim->job) && !mp_get(&claim->orphan);
    }
    mp_mutex_unlock(&pool->lock);
}

/* What is not claimed of it is not run: the words for that. */
static void cancel(mp_pool_shm *pool, mp_job_shm *job) {
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &job->dropped, MP_JOB_CANCELLED);
    mp_job_unlink(pool, job, &txn);
    mp_txn_commit(&txn);
}

bool mp_job_withdraw(mp_pool_shm *pool, mp_job_shm *job) {
    mp_mutex_lock(&pool->lock);
    bool whole = mp_get(&job->next) == 0 && atomic_load(&job->runnable);
    if (whole) cancel(pool, job);
    mp_mutex_unlock(&pool->lock);
    if (whole) mp_job_free(pool, job);
    return whole;
}

/* Cancels one of those jobs; false: there is none. */
static bool forget_one(mp_pool_shm *pool) {
    mp_mutex_lock(&pool->lock);
    mp_job_shm *job = mp_job_at(mp_get(&pool->all));
    while (job && !(mp_get(&job->dropped) == MP_JOB_RELEASED &&
                    atomic_load(&job->runnable)))
        job = mp_job_at(mp_get(&job->after));
    bool idle = job && mp_get(&job->active) == 0;
    if (job) cancel(pool, job);
    mp_mutex_unlock(&pool->lock);
    if (idle) mp_job_free(pool, job);
    return job != NULL;
}

void mp_pool_forget(mp_pool_shm *pool) {
    while (forget_one(pool)) {
    }
}
