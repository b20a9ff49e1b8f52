/* Jobs, and how workers claim from them. Everything that is guarded by the
   pool's lock changes by one record per step, so a worker that dies in a
   claim leaves either the old claim or the new one. */
#include <errno.h>
#include <string.h>

#include "mem/heap.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/futex.h"
#include "work/pool_shm.h"

enum {
    TARGET_NS = 200000,    /* what a claim by duration should take */
    SLOW_NS = 50000,       /* a claim as long as this is worth a wake */
    MOST_PATIENCE_NS = 30000, /* about what waking another processor costs */
    LEAST_PATIENCE_NS = 500
};

/* ---- cells ---------------------------------------------------------- */

static mp_cell_shm *cells_at(uint64_t offset) {
    return (mp_cell_shm *)(void *)(mp_me->base + offset);
}

mp_cell_shm *mp_job_in(const mp_job_shm *job, uint64_t i) {
    return cells_at(job->in) + (i & (job->window - 1));
}

mp_cell_shm *mp_job_out(const mp_job_shm *job, uint64_t i) {
    return cells_at(job->out) + (i & (job->window - 1));
}

/* What its reader has freed it has forgotten (mp_cell_forget); should it have
   died between the two, the ref's generation tells. */
static void free_cells(uint64_t offset, uint64_t n) {
    if (!offset) return;
    mp_cell_shm *cells = cells_at(offset);
    for (uint64_t i = 0; i < n; i++) {
        unsigned tag = mp_get(&cells[i].mark) & 0xff;
        if (tag == MP_CELL_BLOCK || tag == MP_CELL_ERROR)
            mp_free(mp_get(&cells[i].value));
    }
}

/* ---- spinning ------------------------------------------------------- */

/* Spinning pays where another processor answers soon, and takes from those
   who work where it does not: so a lost bet halves the next stake, and a won
   one doubles it. */
static void learn_patience(uint32_t *patience, bool won) {
    uint32_t ns = won ? *patience * 2 : *patience / 2;
    if (ns < LEAST_PATIENCE_NS) ns = LEAST_PATIENCE_NS;
    *patience = ns > MOST_PATIENCE_NS ? MOST_PATIENCE_NS : ns;
}

/* ---- adding and dropping -------------------------------------------- */

static void describe(mp_job_shm *job, mp_ref self, const mp_job_spec *spec) {
    uint64_t cells = spec->window * sizeof(mp_cell_shm);
    memset(job, 0, sizeof *job);
    job->self = self;
    job->function = spec->function;
    job->shape = spec->shape;
    job->source = spec->source;
    job->start = spec->start;
    job->step = spec->step;
    job->window = spec->window;
    job->chunk = spec->chunk;
    job->eager = spec->eager;
    job->count = spec->count;
    job->mark = UINT64_MAX;
    job->out = MP_REF_OFFSET(self) + sizeof *job;
    if (spec->source == MP_JOB_CELLS) job->in = job->out + cells;
    memset(cells_at(job->out), 0, job->in ? 2 * cells : cells);
}

/* Puts the job, in hand `hand`, into the lists. */
static void link_job(mp_pool_shm *pool, mp_job_shm *job, int hand) {
    mp_mutex_lock(&pool->lock);
    mp_ref last = mp_get(&pool->last), all = mp_get(&pool->all);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, last ? &mp_job_at(last)->link : &pool->first,
                 job->self);
    mp_txn_set64(&txn, &pool->last, job->self);
    mp_txn_set32(&txn, &job->runnable, 1);
    if (all) mp_txn_set64(&txn, &mp_job_at(all)->previous, job->self);
    mp_txn_set64(&txn, &job->after, all);
    mp_txn_set64(&txn, &pool->all, job->self);
    mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, 0);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&pool->lock);
}

/* Frees what the workers left for us. */
static void empty_grave(mp_pool_shm *pool) {
    while (mp_get(&pool->grave)) {
        mp_mutex_lock(&pool->lock);
        mp_job_shm *job = mp_job_at(mp_get(&pool->grave));
        atomic_store(&pool->grave, mp_get(&job->link));
        mp_mutex_unlock(&pool->lock);
        mp_job_free(pool, job);
    }
}

int mp_pool_add(mp_pool_shm *pool, const mp_job_spec *spec,
                mp_job_shm **job_out) {
    empty_grave(pool);
    size_t per_item = sizeof(mp_cell_shm) *
                      (spec->source == MP_JOB_CELLS ? 2 : 1);
    if (spec->window > SIZE_MAX / 64) return -ENOMEM;
    mp_ref self = mp_alloc(sizeof(mp_job_shm) + spec->window * per_item);
    if (!self) return -ENOMEM;
    int hand = mp_hand_take(self, NULL, 0);
    if (hand < 0) {
        mp_free(self);
        return hand;
    }
    mp_job_shm *job = mp_at(self);
    describe(job, self, spec);
    mp_publish(self);
    link_job(pool, job, hand);
    ((mp_function_shm *)mp_at(job->function))->uses++;
    *job_out = job;
    return 0;
}

void mp_job_unlink(mp_pool_shm *pool, mp_job_shm *job, mp_txn *txn) {
    mp_job_shm *before = NULL;
    for (mp_job_shm *j = mp_job_at(mp_get(&pool->first)); j != job;
         j = mp_job_at(mp_get(&j->link)))
        before = j;
    mp_txn_set64(txn, before ? &before->link : &pool->first,
                 mp_get(&job->link));
    if (mp_get(&pool->last) == job->self)
        mp_txn_set64(txn, &pool->last,
                     before ? before->self : 0);
    mp_txn_set64(txn, &job->link, 0);
    mp_txn_set32(txn, &job->runnable, 0);
}

void mp_job_free(mp_pool_shm *pool, mp_job_shm *job) {
    free_cells(job->in, job->window);
    free_cells(job->out, job->window);
    int hand = mp_hand_take(1, NULL, 0);
    if (hand < 0) return;
    mp_ref self = job->self;
    mp_mutex_lock(&pool->lock);
    mp_ref before = mp_get(&job->previous), after = mp_get(&job->after);
    mp_txn txn = mp_txn_begin();
    if (atomic_load(&job->runnable)) mp_job_unlink(pool, job, &txn);
    mp_txn_set64(&txn, before ? &mp_job_at(before)->after : &pool->all,
                 after);
    if (after) mp_txn_set64(&txn, &mp_job_at(after)->previous, before);
    mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, self);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&pool->lock);
    if (mp_me->tag == pool->caller)
        ((mp_function_shm *)mp_at(job->function))->uses--;
    mp_free(self);
    mp_hand_drop(hand);
}

static bool all_done(const mp_job_shm *job) {
    return mp_get(&job->done) == mp_get(&job->count);
}

void mp_job_drop(mp_pool_shm *pool, mp_job_shm *job, unsigned how) {
    mp_mutex_lock(&pool->lock);
    bool over = pool->state >= MP_POOL_TERMINATE || all_done(job);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &job->dropped, how);
    if (how == MP_JOB_CANCELLED && atomic_load(&job->runnable))
        mp_job_unlink(pool, job, &txn);
    mp_txn_commit(&txn);
    bool idle = mp_get(&job->active) == 0 &&
                (how == MP_JOB_CANCELLED || over);
    mp_mutex_unlock(&pool->lock);
    if (idle) mp_job_free(pool, job);
    empty_grave(pool);
}

/* ---- the caller's side ---------------------------------------------- */

static void post(mp_pool_shm *pool) {
    atomic_store_explicit(
        &pool->posted,
        atomic_load_explicit(&pool->posted, memory_order_relaxed) + 1,
        memory_order_release);
    mp_wait_notify(&pool->work, 1);
}

void mp_job_feed(mp_pool_shm *pool, mp_job_shm *job, uint64_t fed) {
    atomic_store_explicit(&job->fed, fed, memory_order_release);
    post(pool);
}

void mp_job_finish_input(mp_pool_shm *pool, mp_job_shm *job,
                         uint64_t count) {
    mp_mutex_lock(&pool->lock);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &job->count, count);
    if (mp_get(&job->next) == count && atomic_load(&job->runnable))
        mp_job_unlink(pool, job, &txn);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&pool->lock);
    /* Workers of a closed pool may be waiting for just this. */
    post(pool);
}

bool mp_job_finished(const mp_job_shm *job) {
    return atomic_load_explicit(&job->done, memory_order_acquire) ==
           atomic_load_explicit(&job->count, memory_order_relaxed);
}

static bool ready(const mp_pool_shm *pool, const mp_job_shm *job,
                  uint64_t mark, uint64_t i) {
    /* Who waits for one item is not served by any number of others. */
    if (i != MP_JOB_OPEN ? mp_job_result(job, i) != 0
                         : atomic_load_explicit(&job->done,
                                                memory_order_acquire) >= mark)
        return true;
    return mp_pool_state(pool) >= MP_POOL_TERMINATE;
}

static bool spin_for_result(mp_pool_shm *pool, const mp_job_shm *job,
                            uint64_t mark, uint64_t i) {
    int64_t end = mp_now_ns() + pool->patience;
    bool found;
    do {
        for (int k = 0; k < 20; k++) mp_cpu_relax();
        found = ready(pool, job, mark, i);
    } while (!found && mp_now_ns() < end);
    learn_patience(&pool->patience, found);
    return found;
}

int mp_job_wait(mp_pool_shm *pool, mp_job_shm *job, uint64_t mark,
                uint64_t i, mp_deadline deadline) {
    if (ready(pool, job, mark, i)) return 0;
    if (mp_cpu_several() && !mp_deadline_passed(deadline) &&
        spin_for_result(pool, job, mark, i))
        return 0;
    uint64_t done = mp_get(&job->done);
    atomic_store_explicit(&job->mark, mark > done ? mark : done + 1,
                          memory_order_relaxed);
    uint32_t crew = atomic_load(&pool->crew);
    uint32_t seen = mp_wait_announce(&pool->done);
    if (ready(pool, job, mark, i)) return 0;
    /* A crew ends when all is done, too. */
    if (!mp_tag_alive(crew))
        return ready(pool, job, mark, i) ? 0 : -EOWNERDEAD;
    return mp_wait_sleep_on(&pool->done, seen, crew, deadline);
}

void mp_job_announce_end(mp_job_shm *job) {
    atomic_store(&job->mark, mp_get(&job->count));
}

/* ---- claiming ------------------------------------------------------- */

/* What a worker is to take next: from `job` as it comes, or the range of the
   dead worker `orphan`. */
typedef struct pick {
    mp_job_shm *job;
    mp_worker_shm *orphan;
    uint64_t low, high;
} pick;

static bool pick_orphan(mp_pool_shm *pool, uint32_t index, pick *p) {
    for (uint32_t k = 0; k < pool->workers; k++) {
        mp_worker_shm *w = &pool->worker[(index + k) % pool->workers];
        if (!mp_get(&w->claim.orphan)) continue;
        *p = (pick){mp_job_at(mp_get(&w->claim.job)), w,
                    mp_get(&w->claim.low), mp_get(&w->claim.high)};
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
        uint64_t share = available / (2 * (uint64_t)pool->workers);
        n = ns ? TARGET_NS / ns : 1;
        /* No leap: the first items may be the light ones. */
        if (n > last * 8) n = last * 8;
        if (n > share) n = share;
        if (n == 0) n = 1;
    }
    return n < available ? n : available;
}

/* `most`: items that this worker may still run. */
static bool pick_fresh(mp_pool_shm *pool, uint64_t last, uint64_t most,
                       pick *p) {
    for (mp_job_shm *job = mp_job_at(mp_get(&pool->first)); job;
         job = mp_job_at(mp_get(&job->link))) {
        uint64_t fed =
            atomic_load_explicit(&job->fed, memory_order_acquire);
        uint64_t next = mp_get(&job->next);
        if (fed == next) continue;
        uint64_t n = chunk_of(pool, job, fed - next, last);
        if (n > most) n = most;
        *p = (pick){job, NULL, next, next + n};
        return true;
    }
    return false;
}

/* The words that count the finished range; true when the job is then for the
   grave. */
static void add_active(mp_txn *txn, mp_job_shm *job, int64_t delta) {
    if (delta)
        mp_txn_set64(txn, &job->active,
                     mp_get(&job->active) + (uint64_t)delta);
}

static void settle(mp_pool_shm *pool, mp_txn *txn, mp_worker_shm *w,
                   mp_job_shm *job, bool leaves) {
    uint64_t done = mp_get(&job->done) + mp_get(&w->claim.high) -
                    mp_get(&w->claim.low);
    mp_txn_set64(txn, &job->done, done);
    uint64_t dropped = mp_get(&job->dropped);
    if (!dropped || !leaves || mp_get(&job->active) != 1) return;
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
    } else {
        mp_txn_set64(txn, &p->job->next, p->high);
        if (p->high == mp_get(&p->job->count))
            mp_job_unlink(pool, p->job, txn);
    }
    mp_txn_set64(txn, &w->claim.job, p->job->self);
    mp_txn_set64(txn, &w->claim.low, p->low);
    mp_txn_set64(txn, &w->claim.high, p->high);
    mp_txn_set64(txn, &w->claim.at, p->low);
}

/* The finished range is counted and the next one taken, in one record. */
static void exchange(mp_pool_shm *pool, mp_worker_shm *w,
                     mp_job_shm *finished, const pick *p) {
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

/* One step under the lock. 1 when something was taken. */
static int step(mp_pool_shm *pool, uint32_t index, mp_worker_shm *w,
                pick *p) {
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
        w->items += items;
        learn(finished, took, items);
    }
    *p = (pick){NULL, NULL, 0, 0};
    bool over = mp_pool_state(pool) >= MP_POOL_TERMINATE ||
                (pool->most && w->items >= pool->most);
    if (!over && !(mp_get(&pool->orphans) && pick_orphan(pool, index, p)))
        pick_fresh(pool, items,
                   pool->most ? pool->most - w->items : UINT64_MAX, p);
    exchange(pool, w, finished, p);
    if (finished) {
        /* Pairs with mp_job_wait: it stores the mark, announces itself, and
           looks at `done` again. Either we see the mark, or it sees this. */
        atomic_thread_fence(memory_order_seq_cst);
        done = mp_get(&finished->done) >=
               atomic_load_explicit(&finished->mark, memory_order_relaxed);
        eager = finished->eager;
    }
    bool drained = !mp_get(&pool->first) && !mp_get(&pool->orphans);
    mp_mutex_unlock(&pool->lock);
    w->claimed_ns = now;
    if (finished)
        tell_caller(pool, done, took >= SLOW_NS || !p->job, eager);
    if (p->job) return 1;
    bool closing = mp_pool_state(pool) == MP_POOL_CLOSING;
    return over || (closing && drained) ? -EPIPE : 0;
}

static bool changed(mp_pool_shm *pool, uint64_t posted) {
    return atomic_load_explicit(&pool->posted, memory_order_acquire) !=
               posted ||
           mp_get(&pool->orphans) || mp_pool_state(pool) >= MP_POOL_TERMINATE;
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
    learn_patience(&w->patience, found);
    atomic_store(&pool->spinning, 0);
    return found;
}

/* Sleeps until something may have changed; then it is up to this worker to
   wake the next. */
static int sleep_for_work(mp_pool_shm *pool, uint64_t posted) {
    uint32_t seen = mp_wait_announce(&pool->work);
    if (changed(pool, posted)) return 0;
    return mp_wait_sleep(&pool->work, seen, MP_FOREVER);
}

int mp_worker_claim(mp_pool_shm *pool, uint32_t index, mp_range *range) {
    mp_worker_shm *w = &pool->worker[index];
    bool slept = false;
    for (;;) {
        uint64_t posted =
            atomic_load_explicit(&pool->posted, memory_order_acquire);
        pick p;
        int r = step(pool, index, w, &p);
        if (r != 0 && slept) {
            mp_wait_chain(&pool->work);
            if (mp_get(&pool->first)) mp_wait_notify(&pool->work, 1);
        }
        if (r < 0) return r;
        if (r > 0) {
            *range = (mp_range){p.job, p.low, p.high};
            return 0;
        }
        if (spin_for_work(pool, w, posted)) continue;
        r = sleep_for_work(pool, posted);
        slept = true;
        if (r == -EINTR) return r;
    }
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
    bool work = mp_get(&pool->first) || mp_get(&pool->orphans);
    mp_mutex_unlock(&pool->lock);
    return work;
}

/* Marks the item that ran as lost, unless its result stands, or stood there:
   the caller may have taken it and given the cell to a later item. */
static void mark_lost(mp_job_shm *job, mp_worker_shm *w, uint64_t i,
                      int exitcode) {
    if (mp_get(&mp_job_out(job, i)->mark) >> 8 > i) return;
    uint64_t pid = atomic_load(&w->pid);
    mp_worker_result(job, i, MP_CELL_LOST, pid << 32 | (uint32_t)exitcode);
}

void mp_crew_bury(mp_pool_shm *pool, uint32_t index, int exitcode) {
    mp_worker_shm *w = &pool->worker[index];
    mp_mutex_lock(&pool->lock);
    mp_job_shm *job = mp_job_at(mp_get(&w->claim.job));
    if (job && !mp_get(&w->claim.orphan)) {
        uint64_t high = mp_get(&w->claim.high), at = mp_get(&w->claim.at);
        if (at < high) mark_lost(job, w, at++, exitcode);
        mp_txn txn = mp_txn_begin();
        bool rest = at < high;
        if (rest) {
            mp_txn_set64(&txn, &job->done,
                         mp_get(&job->done) + at - mp_get(&w->claim.low));
            mp_txn_set64(&txn, &w->claim.low, at);
            mp_txn_set64(&txn, &w->claim.at, at);
            mp_txn_set64(&txn, &w->claim.orphan, 1);
            mp_txn_set64(&txn, &pool->orphans, mp_get(&pool->orphans) + 1);
        } else {
            settle(pool, &txn, w, job, true);
            add_active(&txn, job, -1);
            mp_txn_set64(&txn, &w->claim.job, 0);
        }
        mp_txn_commit(&txn);
    }
    mp_mutex_unlock(&pool->lock);
    mp_wait_notify(&pool->done, INT_MAX);
    mp_wait_notify(&pool->work, INT_MAX);
}
