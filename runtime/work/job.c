/* Jobs as their caller has them. Everything that is guarded by the pool's lock
   changes by one record per step. */
#include <errno.h>
#include <string.h>

#include "mem/heap.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/futex.h"
#include "work/pool_shm.h"

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

/* ---- adding and dropping -------------------------------------------- */

static bool has_tries(const mp_job_spec *spec) {
    return spec->with.retries || spec->with.crashes;
}

/* Their bytes. */
static size_t cells_per_item(const mp_job_spec *spec) {
    return (spec->source == MP_JOB_CELLS ? 2 : 1) * sizeof(mp_cell_shm) +
           (has_tries(spec) ? sizeof(mp_try_shm) : 0);
}

static void describe(mp_job_shm *job, mp_ref self, const mp_job_spec *spec) {
    uint64_t cells = spec->window * sizeof(mp_cell_shm);
    memset(job, 0, sizeof *job);
    job->self = self;
    job->owner = mp_me->tag;
    job->function = spec->function;
    job->shape = spec->shape;
    job->source = spec->source;
    job->start = spec->start;
    job->step = spec->step;
    job->window = spec->window;
    job->chunk = spec->chunk;
    job->eager = spec->eager;
    job->with = spec->with;
    job->count = spec->count;
    job->mark = UINT64_MAX;
    job->out = MP_REF_OFFSET(self) + sizeof *job;
    if (spec->source == MP_JOB_CELLS) job->in = job->out + cells;
    if (has_tries(spec)) job->tries = job->out + (job->in ? 2 : 1) * cells;
    size_t size = spec->window * cells_per_item(spec);
    memset(cells_at(job->out), 0, size);
}

void mp_job_enlist(mp_pool_shm *pool, mp_job_shm *job, mp_txn *txn) {
    uint32_t level = job->with.level;
    mp_ref last = mp_get(&pool->last[level]);
    mp_txn_set64(txn, last ? &mp_job_at(last)->link : &pool->first[level],
                 job->self);
    mp_txn_set64(txn, &pool->last[level], job->self);
    mp_txn_set32(txn, &job->runnable, 1);
}

/* Adds the word that counts a job whose timeout the crew enforces. */
static void count_timed(mp_pool_shm *pool, const mp_job_shm *job,
                        mp_txn *txn, int64_t delta) {
    if (mp_job_limit(job))
        mp_txn_set64(txn, &pool->timed,
                     mp_get(&pool->timed) + (uint64_t)delta);
}

/* A block is in the job's hands from now on, as the record says. */
static void give(mp_txn *txn, int hand) {
    mp_txn_set64(txn, &mp_me->slot->hands[hand].block, 0);
}

/* Puts the job into the lists; what it is made of is in these hands (two of
   which may be -1). */
static void link_job(mp_pool_shm *pool, mp_job_shm *job, const int *hands) {
    mp_mutex_lock(&pool->lock);
    mp_ref all = mp_get(&pool->all);
    mp_txn txn = mp_txn_begin();
    mp_job_enlist(pool, job, &txn);
    count_timed(pool, job, &txn, 1);
    if (all) mp_txn_set64(&txn, &mp_job_at(all)->previous, job->self);
    mp_txn_set64(&txn, &job->after, all);
    mp_txn_set64(&txn, &pool->all, job->self);
    for (int i = 0; i < 3; i++)
        if (hands[i] >= 0) give(&txn, hands[i]);
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

/* The job's blocks into hands: its own, and those of a function that is its
   own; else -1. */
static int take_hands(const mp_job_spec *spec, mp_ref self, bool mine,
                      int hands[3]) {
    const mp_function_shm *f = mp_at(spec->function);
    mp_ref blocks[3] = {self, mine ? 0 : spec->function,
                        mine ? 0 : f->message};
    for (int i = 0; i < 3; i++) {
        hands[i] = blocks[i] ? mp_hand_take(blocks[i], NULL, 0) : -1;
        if (!blocks[i] || hands[i] >= 0) continue;
        int r = hands[i];
        while (i-- > 0)
            if (hands[i] >= 0) mp_hand_drop(hands[i]);
        return r;
    }
    for (int i = 0; i < 3; i++)
        if (blocks[i]) mp_publish(blocks[i]);
    return 0;
}

/* The job's function, which is its own, is not needed. */
static void free_own(mp_ref function) {
    mp_free(((mp_function_shm *)mp_at(function))->message);
    mp_free(function);
}

static void note_limit(mp_pool_shm *pool, const mp_job_shm *job) {
    uint64_t limit = mp_job_limit(job), known = mp_get(&pool->quickest);
    while (limit && (!known || limit < known) &&
           !atomic_compare_exchange_weak(&pool->quickest, &known, limit)) {
    }
}

int mp_pool_add(mp_pool_shm *pool, const mp_job_spec *spec,
                mp_job_shm **job_out) {
    bool mine = mp_me->tag == pool->caller;
    if (mine) empty_grave(pool);
    size_t per_item = cells_per_item(spec);
    int hands[3], r = -ENOMEM;
    mp_ref self = spec->window > SIZE_MAX / 128
                      ? 0
                      : mp_alloc(sizeof(mp_job_shm) +
                                 spec->window * per_item);
    if (self) {
        mp_job_shm *job = mp_at(self);
        describe(job, self, spec);
        r = take_hands(spec, self, mine, hands);
        if (r < 0) mp_free(self);
    }
    if (r < 0) {
        if (!mine) free_own(spec->function);
        return r;
    }
    mp_job_shm *job = mp_at(self);
    link_job(pool, job, hands);
    if (mine) ((mp_function_shm *)mp_at(job->function))->uses++;
    note_limit(pool, job);
    *job_out = job;
    return 0;
}

/* Either we see when the crew looks next, or it sees that there is a job with
   a timeout, and how short it is (crew.c, look_at_time). */
bool mp_job_is_urgent(mp_pool_shm *pool, const mp_job_shm *job) {
    uint64_t limit = mp_job_limit(job);
    if (!limit) return false;
    atomic_thread_fence(memory_order_seq_cst);
    return mp_get(&pool->looks) > (uint64_t)mp_now_ns() + limit;
}

void mp_job_unlink(mp_pool_shm *pool, mp_job_shm *job, mp_txn *txn) {
    mp_job_shm *before = NULL;
    uint32_t level = job->with.level;
    for (mp_job_shm *j = mp_job_at(mp_get(&pool->first[level])); j != job;
         j = mp_job_at(mp_get(&j->link)))
        before = j;
    mp_txn_set64(txn, before ? &before->link : &pool->first[level],
                 mp_get(&job->link));
    if (mp_get(&pool->last[level]) == job->self)
        mp_txn_set64(txn, &pool->last[level],
                     before ? before->self : 0);
    mp_txn_set64(txn, &job->link, 0);
    mp_txn_set32(txn, &job->runnable, 0);
}

/* An own function's blocks go in the same record, before which it is still
   the job's. */
void mp_job_free(mp_pool_shm *pool, mp_job_shm *job) {
    free_cells(job->in, job->window);
    free_cells(job->out, job->window);
    bool own = job->owner != pool->caller;
    mp_function_shm *f = mp_at(job->function);
    mp_ref blocks[3] = {job->self, own ? job->function : 0,
                        own ? f->message : 0};
    int hands[3], n = own ? 3 : 1;
    for (int i = 0; i < n; i++)
        if ((hands[i] = mp_hand_take(1, NULL, 0)) < 0) return;
    mp_mutex_lock(&pool->lock);
    mp_ref before = mp_get(&job->previous), after = mp_get(&job->after);
    mp_txn txn = mp_txn_begin();
    if (atomic_load(&job->runnable)) mp_job_unlink(pool, job, &txn);
    count_timed(pool, job, &txn, -1);
    mp_txn_set64(&txn, before ? &mp_job_at(before)->after : &pool->all,
                 after);
    if (after) mp_txn_set64(&txn, &mp_job_at(after)->previous, before);
    for (int i = 0; i < n; i++)
        mp_txn_set64(&txn, &mp_me->slot->hands[hands[i]].block, blocks[i]);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&pool->lock);
    if (!own && mp_me->tag == pool->caller && --f->uses == 0 && f->parcels)
        mp_pool_trim(pool);
    for (int i = 0; i < n; i++) {
        mp_free(blocks[i]);
        mp_hand_drop(hands[i]);
    }
}

/* ---- of a worker that died ------------------------------------------- */

static bool is_buried(const mp_pool_shm *pool, const mp_job_shm *job) {
    mp_ref ref = mp_get(&pool->grave);
    while (ref && ref != job->self) ref = mp_get(&mp_job_at(ref)->link);
    return ref != 0;
}

/* Who works on it puts it into the grave; if nobody does, we do. */
static void orphan(mp_pool_shm *pool, mp_job_shm *job) {
    bool idle = mp_get(&job->active) == 0 && !is_buried(pool, job);
    if (mp_get(&job->dropped) == MP_JOB_CANCELLED && !idle) return;
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &job->dropped, MP_JOB_CANCELLED);
    if (atomic_load(&job->runnable)) mp_job_unlink(pool, job, &txn);
    if (idle) {
        mp_txn_set64(&txn, &job->link, mp_get(&pool->grave));
        mp_txn_set64(&txn, &pool->grave, job->self);
    }
    mp_txn_commit(&txn);
}

void mp_job_bereave(mp_pool_shm *pool, uint32_t tag) {
    for (mp_job_shm *job = mp_job_at(mp_get(&pool->all)); job;
         job = mp_job_at(mp_get(&job->after)))
        if (job->owner == tag) orphan(pool, job);
}

static bool all_done(const mp_job_shm *job) {
    return mp_get(&job->done) == mp_get(&job->count);
}

/* True: somebody still works on it. */
static bool drop(mp_pool_shm *pool, mp_job_shm *job, unsigned how) {
    bool cancels = how & MP_JOB_CANCELLED;
    mp_mutex_lock(&pool->lock);
    bool over = pool->state >= MP_POOL_TERMINATE || all_done(job);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &job->dropped, how);
    if (cancels && atomic_load(&job->runnable))
        mp_job_unlink(pool, job, &txn);
    mp_txn_commit(&txn);
    bool active = mp_get(&job->active) != 0;
    mp_mutex_unlock(&pool->lock);
    if (!active && (cancels || over)) mp_job_free(pool, job);
    if (mp_me->tag == pool->caller) empty_grave(pool);
    return active;
}

/* Who waits in a stopped job for an item that never will be: it is not run,
   however it is dropped. */
void mp_job_drop(mp_pool_shm *pool, mp_job_shm *job, unsigned how) {
    drop(pool, job, mp_job_cancelled(job) ? MP_JOB_CANCELLED : how);
}

bool mp_job_cancel(mp_pool_shm *pool, mp_job_shm *job, unsigned how,
                   uint64_t ns) {
    uint64_t now = (uint64_t)mp_now_ns();
    atomic_store(&job->kill_ns, ns < UINT64_MAX - now ? now + ns : UINT64_MAX);
    return drop(pool, job, how);
}

/* ---- the caller's side ---------------------------------------------- */

static void post(mp_pool_shm *pool) {
    if (mp_me->tag != pool->caller) {
        mp_pool_stir_workers(pool);
        return;
    }
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
    if (mp_get(&job->next) == count && mp_get(&job->waiting) == 0 &&
        atomic_load(&job->runnable))
        mp_job_unlink(pool, job, &txn);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&pool->lock);
    /* Workers of a closed pool may be waiting for just this. */
    post(pool);
}

bool mp_job_finished(const mp_job_shm *job) {
    return atomic_load_explicit(&job->done, memory_order_acquire) ==
               atomic_load_explicit(&job->count, memory_order_relaxed) ||
           mp_job_stopped(job);
}

static bool ready(const mp_pool_shm *pool, const mp_job_shm *job,
                  uint64_t mark, uint64_t i) {
    /* Who waits for one item is not served by any number of others. */
    if (i != MP_JOB_OPEN ? mp_job_result(job, i) != 0
                         : atomic_load_explicit(&job->done,
                                                memory_order_acquire) >= mark)
        return true;
    return mp_job_stopped(job) || mp_pool_state(pool) >= MP_POOL_TERMINATE;
}

static bool spin_for_result(mp_pool_shm *pool, const mp_job_shm *job,
                            uint64_t mark, uint64_t i) {
    int64_t end = mp_now_ns() + pool->patience;
    bool found;
    do {
        for (int k = 0; k < 20; k++) mp_cpu_relax();
        found = ready(pool, job, mark, i);
    } while (!found && mp_now_ns() < end);
    mp_learn_patience(&pool->patience, found);
    return found;
}

int mp_job_wait(mp_pool_shm *pool, mp_job_shm *job, uint64_t mark,
                uint64_t i, mp_deadline deadline) {
    if (ready(pool, job, mark, i)) return 0;
    if (mp_me->tag == pool->caller && mp_cpu_several() &&
        !mp_deadline_passed(deadline) &&
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
