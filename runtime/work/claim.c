/* How workers claim from jobs, and what becomes of a dead one's claim.
   Everything that is guarded by the pool's lock changes by one record per
   step, so a worker that dies in a claim leaves either the old claim or the
   new one. */
#include <errno.h>
#include <unistd.h>

#include "mem/heap.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/futex.h"
#include "work/pool_shm.h"

enum {
    TARGET_NS = 200000, /* what a claim by duration should take */
    SLOW_NS = 50000     /* a claim as long as this is worth a wake */
};

/* ---- claiming ------------------------------------------------------- */

/* What a worker is to take next: from `job` as it comes, or an item of it that
   is run `again`, or the range of the dead worker `orphan`. Nothing: the next
   item that waits is due then. */
typedef struct pick {
    mp_job_shm *job;
    mp_worker_shm *orphan;
    uint64_t low, high, due;
    bool again;
} pick;

/* `only`: of that job; NULL: of any. */
static bool pick_orphan(mp_pool_shm *pool, uint32_t index,
                        const mp_job_shm *only, pick *p) {
    uint32_t n = mp_pool_all_places(pool);
    for (uint32_t k = 0; k < n; k++) {
        mp_worker_shm *w = &pool->worker[(index + k) % n];
        if (!mp_get(&w->claim.orphan) ||
            (only && mp_get(&w->claim.job) != only->self))
            continue;
        *p = (pick){.job = mp_job_at(mp_get(&w->claim.job)),
                    .orphan = w,
                    .low = mp_get(&w->claim.low),
                    .high = mp_get(&w->claim.high)};
        return true;
    }
    return false;
}

/* How many of `available` items to take. By duration: as many as fill the
   target, at most an equal share of half of what is left, so that the
   workers end together. */
static uint64_t chunk_of(const mp_pool_shm *pool, const mp_job_shm *job,
                         uint64_t available, uint64_t last) {
    uint64_t n = job->chunk;
    if (n == 0) {
        uint64_t ns = mp_get(&job->span_ns);
        uint64_t share = available /
                         (2 * (uint64_t)mp_pool_workers(pool));
        n = ns ? TARGET_NS / ns : 1;
        /* No leap: the first items may be the light ones. */
        if (n > last * 8) n = last * 8;
        if (n > share) n = share;
        if (n == 0) n = 1;
    }
    return n < available ? n : available;
}

/* An item of `job` that is run again, if one is due. */
static bool pick_again(mp_job_shm *job, uint64_t now, pick *p) {
    uint64_t due, item = mp_again_due(job, now, &due);
    if (due < p->due) p->due = due;
    if (!item) return false;
    *p = (pick){.job = job, .low = item - 1, .high = item, .again = true};
    return true;
}

/* `most`: items that this worker may still run. */
static bool pick_fresh(mp_pool_shm *pool, mp_job_shm *job, uint64_t last,
                       uint64_t most, pick *p) {
    uint64_t fed = atomic_load_explicit(&job->fed, memory_order_acquire);
    uint64_t next = mp_get(&job->next);
    if (fed == next) return false;
    uint64_t n = chunk_of(pool, job, fed - next, last);
    if (n > most) n = most;
    *p = (pick){.job = job, .low = next, .high = next + n};
    return true;
}

/* From the highest level that has any. */
static bool pick_any(mp_pool_shm *pool, uint64_t last, uint64_t most,
                     uint64_t now, pick *p) {
    for (int level = MP_LEVELS - 1; level >= 0; level--)
        for (mp_job_shm *job = mp_job_at(mp_get(&pool->first[level])); job;
             job = mp_job_at(mp_get(&job->link))) {
            if (mp_get(&job->waiting) && pick_again(job, now, p)) return true;
            if (pick_fresh(pool, job, last, most, p)) return true;
        }
    return false;
}

static void add_active(mp_txn *txn, mp_job_shm *job, int64_t delta) {
    if (delta)
        mp_txn_set64(txn, &job->active,
                     mp_get(&job->active) + (uint64_t)delta);
}

/* The words that count the finished range, and put the job into the grave if
   that was all that was wanted of it. `leaves`: it has one claim less then. */
static void settle(mp_pool_shm *pool, mp_txn *txn, mp_worker_shm *w,
                   mp_job_shm *job, bool leaves) {
    uint64_t done = mp_get(&job->done) + mp_get(&w->claim.high) -
                    mp_get(&w->claim.low);
    mp_txn_set64(txn, &job->done, done);
    uint64_t dropped = mp_get(&job->dropped);
    if (!dropped || dropped == MP_JOB_STOPPED || !leaves ||
        mp_get(&job->active) != 1)
        return;
    if (dropped == MP_JOB_RELEASED && done != mp_get(&job->count)) return;
    mp_txn_set64(txn, &job->link, mp_get(&pool->grave));
    mp_txn_set64(txn, &pool->grave, job->self);
}

static void take(mp_pool_shm *pool, mp_txn *txn, mp_worker_shm *w,
                 const pick *p) {
    if (p->orphan) {
        mp_txn_set64(txn, &p->orphan->claim.orphan, 0);
        mp_txn_set64(txn, &pool->orphans, mp_get(&pool->orphans) - 1);
        if (p->orphan != w) mp_txn_set64(txn, &p->orphan->claim.job, 0);
    } else if (p->again) {
        mp_again_take(pool, p->job, txn);
    } else {
        mp_txn_set64(txn, &p->job->next, p->high);
        if (p->high == mp_get(&p->job->count) && !mp_get(&p->job->waiting))
            mp_job_unlink(pool, p->job, txn);
    }
    mp_txn_set64(txn, &w->claim.job, p->job->self);
    mp_txn_set64(txn, &w->claim.low, p->low);
    mp_txn_set64(txn, &w->claim.high, p->high);
    mp_txn_set64(txn, &w->claim.at, p->low);
}

/* The finished range is counted, and nothing is taken. */
static void let_go(mp_pool_shm *pool, mp_worker_shm *w,
                   mp_job_shm *finished) {
    mp_txn txn = mp_txn_begin();
    settle(pool, &txn, w, finished, true);
    add_active(&txn, finished, -1);
    mp_txn_set64(&txn, &w->claim.job, 0);
    mp_txn_commit(&txn);
}

/* The finished range is counted and the next one taken, in one record; or in
   two, where it would not hold the words. */
static void exchange(mp_pool_shm *pool, mp_worker_shm *w,
                     mp_job_shm *finished, const pick *p) {
    if (finished && p->again) {
        let_go(pool, w, finished);
        finished = NULL;
    }
    mp_txn txn = mp_txn_begin();
    int64_t gain = p->job && !p->orphan ? 1 : 0;
    bool same = finished && finished == p->job;
    if (finished) {
        settle(pool, &txn, w, finished, !same || !gain);
        add_active(&txn, finished, same ? gain - 1 : -1);
    }
    if (p->job && !same) add_active(&txn, p->job, gain);
    if (p->job)
        take(pool, &txn, w, p);
    else if (finished)
        mp_txn_set64(&txn, &w->claim.job, 0);
    mp_txn_commit(&txn);
}

/* Smoothed duration of an item: quick to rise, slow to fall, so that a claim
   is rather too small. */
static void learn(mp_job_shm *job, uint64_t ns, uint64_t items) {
    uint64_t now = ns / items + 1, old = mp_get(&job->span_ns);
    atomic_store_explicit(&job->span_ns,
                          now > old ? now : (7 * old + now) / 8,
                          memory_order_relaxed);
}

/* Is the caller to be woken? `done`: a job reached the mark it waits for. */
static void tell_caller(mp_pool_shm *pool, bool done, bool slow,
                        bool eager) {
    if (!(atomic_load_explicit(&pool->done.word, memory_order_relaxed) & 1))
        return;
    if (done || (eager && slow)) mp_wait_notify_slow(&pool->done, INT_MAX);
}

static void count(mp_worker_shm *w, uint64_t items, uint64_t took) {
    w->items += items;
    atomic_store_explicit(&w->done, mp_get(&w->done) + items,
                          memory_order_relaxed);
    atomic_store_explicit(&w->busy_ns, mp_get(&w->busy_ns) + took,
                          memory_order_relaxed);
}

/* Has this worker done its share, or is it one too many, or not to be? */
static bool leaves(const mp_pool_shm *pool, uint32_t index,
                   const mp_worker_shm *w) {
    return mp_pool_state(pool) >= MP_POOL_TERMINATE ||
           (pool->most && w->items >= pool->most) ||
           index >= mp_pool_workers(pool) || atomic_load(&w->doomed) ||
           (atomic_load(&w->wish) && atomic_load(&w->heir));
}

/* From one job alone, which its owner has not dropped. */
static bool pick_own(mp_pool_shm *pool, mp_job_shm *job, uint64_t last,
                     uint64_t now, pick *p) {
    if (!atomic_load(&job->runnable)) return false;
    return (mp_get(&job->waiting) && pick_again(job, now, p)) ||
           pick_fresh(pool, job, last, UINT64_MAX, p);
}

static void pick_next(mp_pool_shm *pool, uint32_t index,
                      const mp_worker_shm *w, mp_job_shm *only,
                      uint64_t last, uint64_t now, pick *p) {
    if (mp_get(&pool->orphans) && pick_orphan(pool, index, only, p)) return;
    if (only)
        pick_own(pool, only, last, now, p);
    else
        pick_any(pool, last, pool->most ? pool->most - w->items : UINT64_MAX,
                 now, p);
}

/* One step under the lock. 1 when something was taken. `only`: for a guest,
   the job that it works on (inline, since claims have none). */
static inline int step(mp_pool_shm *pool, uint32_t index, mp_worker_shm *w,
                       mp_job_shm *only, pick *p) {
    uint64_t now = (uint64_t)mp_now_ns();
    mp_mutex_lock(&pool->lock);
    mp_job_shm *finished = mp_get(&w->claim.orphan)
                               ? NULL
                               : mp_job_at(mp_get(&w->claim.job));
    uint64_t items = 1, took = 0;
    bool done = false, eager = false;
    if (finished) {
        items = mp_get(&w->claim.high) - mp_get(&w->claim.low);
        took = now - w->claimed_ns;
        count(w, items, took);
        if (items) learn(finished, took, items);
        else items = 1;
    }
    atomic_store_explicit(&w->since, 0, memory_order_relaxed);
    *p = (pick){.due = UINT64_MAX};
    bool over = only ? atomic_load(&w->doomed) : leaves(pool, index, w);
    if (!over) pick_next(pool, index, w, only, items, now, p);
    exchange(pool, w, finished, p);
    if (finished) {
        /* Pairs with mp_job_wait: it stores the mark, announces itself, and
           looks at `done` again. Either we see the mark, or it sees this. */
        atomic_thread_fence(memory_order_seq_cst);
        done = mp_get(&finished->done) >=
               atomic_load_explicit(&finished->mark, memory_order_relaxed);
        eager = finished->eager;
    }
    bool drained =
        !p->job && !mp_pool_any(pool) && !mp_get(&pool->orphans);
    mp_mutex_unlock(&pool->lock);
    w->claimed_ns = now;
    if (finished)
        tell_caller(pool, done, took >= SLOW_NS || !p->job, eager);
    if (p->job && !only && pool->most &&
        w->items + p->high - p->low >= pool->most)
        mp_worker_wish(pool, index);
    if (p->job) return 1;
    bool closing = mp_pool_state(pool) == MP_POOL_CLOSING;
    return over || (closing && drained) ? -EPIPE : 0;
}

/* What counts up when there may be work. */
static uint64_t news(mp_pool_shm *pool) {
    return atomic_load_explicit(&pool->posted, memory_order_acquire) +
           atomic_load_explicit(&pool->stirred, memory_order_acquire);
}

void mp_pool_stir_workers(mp_pool_shm *pool) {
    atomic_fetch_add(&pool->stirred, 1);
    mp_wait_notify(&pool->work, 1);
}

static bool changed(mp_pool_shm *pool, uint64_t posted) {
    return news(pool) != posted || mp_get(&pool->orphans) ||
           mp_pool_state(pool) >= MP_POOL_TERMINATE;
}

/* At most one idle worker spins: the others would take the processor from
   those who work. */
static bool spin_for_work(mp_pool_shm *pool, mp_worker_shm *w,
                          uint64_t posted) {
    uint32_t spinner = atomic_load(&pool->spinning);
    if (!mp_cpu_several() || (spinner && mp_tag_alive(spinner)) ||
        !atomic_compare_exchange_strong(&pool->spinning, &spinner,
                                        mp_me->tag))
        return false;
    int64_t end = mp_now_ns() + w->patience;
    bool found;
    do {
        for (int k = 0; k < 20; k++) mp_cpu_relax();
        found = changed(pool, posted);
    } while (!found && mp_now_ns() < end);
    mp_learn_patience(&w->patience, found);
    atomic_store(&pool->spinning, 0);
    return found;
}

/* Sleeps until something may have changed, or is due; then it is up to this
   worker to wake the next. */
static int sleep_for_work(mp_pool_shm *pool, uint64_t posted, uint64_t due) {
    uint32_t seen = mp_wait_announce(&pool->work);
    if (changed(pool, posted)) return 0;
    return mp_wait_sleep(&pool->work, seen,
                         due < INT64_MAX ? (mp_deadline){(int64_t)due}
                                         : MP_FOREVER);
}

int mp_worker_claim(mp_pool_shm *pool, uint32_t index, mp_range *range) {
    mp_worker_shm *w = &pool->worker[index];
    bool slept = false;
    for (;;) {
        uint64_t posted = news(pool);
        pick p;
        int r = step(pool, index, w, NULL, &p);
        if (r != 0 && slept) {
            mp_wait_chain(&pool->work);
            if (mp_pool_any(pool)) mp_wait_notify(&pool->work, 1);
        }
        if (r < 0) return r;
        if (r > 0) {
            *range = (mp_range){p.job, p.low, p.high};
            return 0;
        }
        if (spin_for_work(pool, w, posted)) continue;
        r = sleep_for_work(pool, posted, p.due);
        slept = true;
        if (r == -EINTR) return r;
    }
}

/* ---- guests --------------------------------------------------------- */

int mp_worker_enter(mp_pool_shm *pool) {
    for (uint32_t i = pool->places; i < mp_pool_all_places(pool); i++) {
        mp_worker_shm *w = &pool->worker[i];
        uint32_t nobody = 0;
        if (!atomic_compare_exchange_strong(&w->tag, &nobody, mp_me->tag))
            continue;
        atomic_store(&w->doomed, 0);
        atomic_store(&w->pid, (uint32_t)getpid());
        return (int)i;
    }
    return -EAGAIN;
}

bool mp_worker_help(mp_pool_shm *pool, uint32_t guest, mp_job_shm *job,
                    mp_range *range) {
    pick p;
    if (step(pool, guest, &pool->worker[guest], job, &p) <= 0) return false;
    *range = (mp_range){p.job, p.low, p.high};
    return true;
}

static void move_count(_Atomic uint64_t *from, _Atomic uint64_t *to) {
    atomic_fetch_add(to, atomic_exchange(from, 0));
}

/* The time is in the item that waits. */
static void move_counts(mp_worker_shm *from, mp_worker_shm *to) {
    move_count(&from->done, &to->done);
    move_count(&from->failed, &to->failed);
    move_count(&from->retried, &to->retried);
    move_count(&from->lost, &to->lost);
    move_count(&from->late, &to->late);
    atomic_store(&from->busy_ns, 0);
}

/* Its claim is empty. */
void mp_worker_depart(mp_pool_shm *pool, uint32_t index, uint32_t guest) {
    move_counts(&pool->worker[guest], &pool->worker[index]);
    atomic_store(&pool->worker[guest].tag, 0);
}

void mp_worker_result(const mp_job_shm *job, uint64_t i, unsigned tag,
                      uint64_t value) {
    mp_cell_shm *cell = mp_job_out(job, i);
    uint64_t mark = (i + 1) << 8 | tag;
    int hand = -1;
    if (tag == MP_CELL_BLOCK || tag == MP_CELL_ERROR) {
        hand = mp_hand_take(value, &cell->mark, mark);
        mp_publish(value);
    }
    mp_cell_result(cell, i, tag, value);
    if (hand >= 0) mp_hand_drop(hand);
}

/* ---- for the crew --------------------------------------------------- */

bool mp_pool_has_work(mp_pool_shm *pool) {
    mp_mutex_lock(&pool->lock);
    bool work = mp_pool_any(pool) || mp_get(&pool->orphans);
    mp_mutex_unlock(&pool->lock);
    return work;
}

/* Item i's result stands, or stood there: the caller may have taken it and
   given the cell to a later item. */
static bool has_result(const mp_job_shm *job, uint64_t i) {
    return mp_get(&mp_job_out(job, i)->mark) >> 8 > i;
}

/* The worker died at item i: it is to be run again (true: it is no more of the
   claim), or is marked as lost, unless it was done. */
static bool lose(mp_pool_shm *pool, mp_worker_shm *w, mp_job_shm *job,
                 uint64_t i, bool late, int exitcode) {
    if (!has_result(job, i)) {
        atomic_fetch_add(late ? &w->late : &w->lost, 1);
        if (mp_again_note(pool, w, i, true, late, true)) return true;
        uint64_t pid = atomic_load(&w->pid);
        mp_worker_result(job, i, late ? MP_CELL_LATE : MP_CELL_LOST,
                         pid << 32 | (uint32_t)exitcode);
    }
    unsigned tag = mp_job_result(job, i);
    if (tag == MP_CELL_LATE || tag == MP_CELL_LOST)
        mp_again_stop(pool, job, i);
    return false;
}

/* What is left of the range, from `at` on, is for others; of a job that was
   cancelled nothing is. */
static void leave_claim(mp_pool_shm *pool, mp_worker_shm *w, mp_job_shm *job,
                        uint64_t at) {
    if (at >= mp_get(&w->claim.high) || mp_job_cancelled(job)) {
        let_go(pool, w, job);
        return;
    }
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &job->done,
                 mp_get(&job->done) + at - mp_get(&w->claim.low));
    mp_txn_set64(&txn, &w->claim.low, at);
    mp_txn_set64(&txn, &w->claim.at, at);
    mp_txn_set64(&txn, &w->claim.orphan, 1);
    mp_txn_set64(&txn, &pool->orphans, mp_get(&pool->orphans) + 1);
    mp_txn_commit(&txn);
}

static void bury_claim(mp_pool_shm *pool, mp_worker_shm *w, int exitcode) {
    mp_job_shm *job = mp_job_at(mp_get(&w->claim.job));
    if (!job || mp_get(&w->claim.orphan)) return;
    uint64_t word = mp_get(&w->claim.at), at = word & ~MP_AT_DOOMED;
    bool late = word & MP_AT_DOOMED && job->with.timeout_ns &&
                !mp_job_cancelled(job);
    if (at >= mp_get(&w->claim.high))
        leave_claim(pool, w, job, at);
    else if (!lose(pool, w, job, at, late, exitcode) ||
             !mp_get(&w->claim.orphan))
        leave_claim(pool, w, job, at + 1);
}

/* Its own jobs first: what it, or others, had of them is nobody's then. */
static void bury_guests(mp_pool_shm *pool, mp_worker_shm *host, uint32_t tag,
                        int exitcode) {
    mp_job_bereave(pool, tag);
    for (uint32_t i = pool->places; i < mp_pool_all_places(pool); i++) {
        mp_worker_shm *w = &pool->worker[i];
        if (atomic_load(&w->tag) != tag) continue;
        bury_claim(pool, w, exitcode);
        move_counts(w, host);
        atomic_store(&w->tag, 0);
    }
}

void mp_crew_bury(mp_pool_shm *pool, uint32_t index, int exitcode) {
    mp_worker_shm *w = &pool->worker[index];
    uint32_t tag = atomic_load(&w->tag);
    mp_mutex_lock(&pool->lock);
    if (tag && tag != pool->caller) bury_guests(pool, w, tag, exitcode);
    bury_claim(pool, w, exitcode);
    mp_mutex_unlock(&pool->lock);
    atomic_store(&w->since, 0);
    mp_wait_notify(&pool->done, INT_MAX);
    mp_wait_notify(&pool->work, INT_MAX);
}
