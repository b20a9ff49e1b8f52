/* What the specs of the pool share: a pool whose workers run C, and a caller
   that feeds it and takes what comes. */
#ifndef MP_SPEC_POOL_FIXTURE_H
#define MP_SPEC_POOL_FIXTURE_H

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "proc/proc.h"
#include "work/pool.h"

enum { NUMBER = 7, WINDOW = 64, MOST_ITEMS = 200000 };

/* What a worker does with an item, by its number. `notes` counts per item how
   often it was run, in memory of the harness. */
typedef struct plan {
    int64_t spin_ns;
    uint64_t die_at, sleep_at; /* item, UINT64_MAX = none */
    int fail_start;            /* workers report that they cannot start */
    _Atomic unsigned char *notes;
} plan;

static inline plan no_plan(void) {
    return (plan){.die_at = UINT64_MAX, .sleep_at = UINT64_MAX};
}

typedef struct fixture {
    uint32_t id, gen;
    mp_pool_shm *pool;
    mp_proc crew;
    plan plan;
    uint64_t used; /* bytes of the arena before */
    _Atomic int *target; /* where a killer of crews reads its pid, or NULL */
} fixture;

/* A block that holds a number, large for some. */
static inline mp_ref new_block(uint64_t number) {
    mp_ref block = mp_alloc(number % 50 ? 64 : 100000);
    CHECK(block != 0);
    *(uint64_t *)mp_at(block) = number;
    return block;
}

static inline uint64_t read_block(mp_ref block) {
    return *(uint64_t *)mp_at(block);
}

static inline uint64_t answer_to(uint64_t number) {
    return number * 3 + 1;
}

static inline uint64_t read_input(const mp_job_shm *job, uint64_t i) {
    if (job->source == MP_JOB_RANGE)
        return (uint64_t)(job->start + (int64_t)i * job->step);
    const mp_cell_shm *cell = mp_job_in(job, i);
    uint64_t value = mp_cell_value(cell);
    return (cell->mark & 0xff) == MP_CELL_BLOCK ? read_block(value) : value;
}

static inline void run_item(const plan *p, const mp_job_shm *job,
                            uint64_t i) {
    if (p->notes) atomic_fetch_add(&p->notes[i], 1);
    if (i == p->die_at) raise(SIGKILL);
    while (i == p->sleep_at) spec_pause();
    uint64_t number = answer_to(read_input(job, i));
    for (int64_t end = mp_now_ns() + p->spin_ns; mp_now_ns() < end;) {
    }
    if (i % 3 == 0)
        mp_worker_result(job, i, MP_CELL_BLOCK, new_block(number));
    else
        mp_worker_result(job, i, NUMBER, number);
}

static inline void work(mp_pool_shm *pool, uint32_t index, void *ctx) {
    const plan *p = ctx;
    mp_worker_shm *w = mp_pool_worker(pool, index);
    if (p->fail_start) {
        mp_worker_broke(pool, new_block(13));
        mp_proc_exit(1);
    }
    mp_worker_ready(pool, index);
    if (mp_worker_await(pool, index) < 0) mp_proc_exit(0);
    for (;;) {
        mp_range range;
        int r = mp_worker_claim(pool, index, &range);
        if (r == -EPIPE) mp_proc_exit(0);
        if (r < 0) continue;
        for (uint64_t i = range.low; i < range.high; i++) {
            mp_worker_at(w, i);
            if (!mp_job_cancelled(range.job)) run_item(p, range.job, i);
        }
        mp_worker_at(w, range.high);
    }
}

static inline void create_pool(fixture *f, uint32_t workers, uint64_t most,
                               plan p) {
    *f = (fixture){.used = mp_heap_used(), .plan = p};
    const mp_pool_spec wanted = {
        .workers = workers, .places = workers, .most = most};
    CHECK_OK(mp_pool_make(&wanted, &f->id, &f->gen));
    f->pool = mp_object_block(f->id);
}

static inline void open_pool(fixture *f, uint32_t workers, uint64_t most,
                             plan p) {
    create_pool(f, workers, most, p);
    CHECK_OK(mp_pool_start(f->pool, &f->crew, work, &f->plan));
}

static inline int await_crew(fixture *f) {
    mp_deadline deadline = mp_deadline_in(10);
    int r;
    while ((r = mp_proc_wait(&f->crew, deadline)) == -EINTR) {
    }
    CHECK_OK(r);
    mp_proc_close(&f->crew);
    if (f->crew.exitcode != 0) mp_pool_bury(f->pool);
    return f->crew.exitcode;
}

/* The pool has ended: nothing of it may be left. */
static inline void drop_pool(fixture *f) {
    mp_object_detach(f->id);
    mp_reap_sweep();
    CHECK_EQ(mp_object_count(), 0);
    CHECK_EQ(mp_heap_used(), f->used);
}

static inline void close_pool(fixture *f) {
    mp_pool_close(f->pool);
    CHECK_EQ(await_crew(f), 0);
    drop_pool(f);
}

static inline void terminate_pool(fixture *f) {
    mp_pool_terminate(f->pool, &f->crew);
    await_crew(f);
    drop_pool(f);
}

/* A function: a message of `length` bytes, told apart by `kind`. */
static inline mp_ref new_function(fixture *f, uint32_t kind,
                                  uint32_t length) {
    mp_ref message = mp_alloc(sizeof(mp_message_shm) + length), function;
    CHECK(message != 0);
    mp_message_shm *m = mp_at(message);
    memset(m, (int)kind, sizeof *m + length);
    m->length = length;
    m->handles_at = 0;
    atomic_store(&m->n_handles, 0);
    CHECK_OK(mp_pool_function(f->pool, message, &function));
    return MP_REF_OFFSET(function);
}

/* A job under way, as its caller sees it. */
typedef struct job {
    mp_job_shm *shm;
    uint64_t count, fed, taken, lost, bad;
} job;

static inline job add_job(fixture *f, uint64_t count, uint64_t chunk,
                          uint32_t source) {
    mp_job_spec what = {.function = new_function(f, 1, 10),
                        .source = source,
                        .start = 5,
                        .step = -2,
                        .count = count,
                        .window = WINDOW,
                        .chunk = chunk,
                        .eager = chunk == 1};
    job j = {.count = count};
    CHECK_OK(mp_pool_add(f->pool, &what, &j.shm));
    return j;
}

static inline uint64_t number_of(const job *j, uint64_t i) {
    return j->shm->source == MP_JOB_RANGE ? (uint64_t)(5 - 2 * (int64_t)i)
                                          : i + 1000;
}

static inline void feed(fixture *f, job *j) {
    uint64_t before = j->fed;
    for (; j->fed < j->count && j->fed < j->taken + WINDOW; j->fed++) {
        if (j->shm->source == MP_JOB_RANGE) continue;
        mp_cell_shm *cell = mp_job_in(j->shm, j->fed);
        uint64_t number = number_of(j, j->fed);
        bool block = j->fed % 2 == 0;
        cell->value = block ? new_block(number) : number;
        cell->mark = block ? MP_CELL_BLOCK : NUMBER;
        if (block) mp_publish(cell->value);
    }
    if (j->fed != before) mp_job_feed(f->pool, j->shm, j->fed);
}

/* Checks item i's result and gives its memory back. */
static inline void take(job *j, uint64_t i, unsigned tag) {
    mp_cell_shm *cell = mp_job_out(j->shm, i);
    uint64_t value = mp_cell_value(cell);
    uint64_t wanted = answer_to(number_of(j, i));
    if (tag == MP_CELL_LOST) {
        j->lost++;
    } else if (tag == MP_CELL_BLOCK) {
        CHECK_EQ(read_block(value), wanted);
        CHECK(mp_free(value));
        mp_cell_forget(cell);
    } else {
        CHECK_EQ(tag, NUMBER);
        CHECK_EQ(value, wanted);
    }
    if (j->shm->source != MP_JOB_CELLS) return;
    cell = mp_job_in(j->shm, i);
    if ((cell->mark & 0xff) != MP_CELL_BLOCK) return;
    CHECK(mp_free(mp_cell_value(cell)));
    mp_cell_forget(cell);
}

/* The crew was killed. */
static inline void restart(fixture *f) {
    if (f->target) atomic_store(f->target, 0);
    CHECK_OK(mp_pool_restart(f->pool, &f->crew, work, &f->plan));
    if (f->target) atomic_store(f->target, (int)f->crew.pid);
}

/* Waits for the next result, replacing a crew that was killed. Returns its
   tag, or 0 when the pool is over. */
static inline unsigned await_next(fixture *f, job *j) {
    unsigned tag;
    mp_deadline deadline = mp_deadline_in(20);
    while (!(tag = mp_job_result(j->shm, j->taken))) {
        if (mp_pool_state(f->pool) >= MP_POOL_TERMINATE) return 0;
        int r = mp_job_wait(f->pool, j->shm, j->taken + 1, j->taken,
                            deadline);
        CHECK(r == 0 || r == -EINTR || r == -EOWNERDEAD);
        if (r == -EOWNERDEAD) restart(f);
    }
    return tag;
}

/* Feeds and takes until `until` items are taken. */
static inline void take_until(fixture *f, job *j, uint64_t until) {
    while (j->taken < until) {
        if (j->taken % (WINDOW / 2) == 0) feed(f, j);
        unsigned tag = await_next(f, j);
        CHECK(tag != 0);
        take(j, j->taken, tag);
        j->taken++;
    }
}

/* The whole of a job; returns how many of its items were lost. */
static inline uint64_t run_job(fixture *f, uint64_t count, uint64_t chunk,
                               uint32_t source) {
    job j = add_job(f, count, chunk, source);
    take_until(f, &j, count);
    mp_job_drop(f->pool, j.shm, MP_JOB_RELEASED);
    return j.lost;
}

/* For SPEC_PREPARE: the first of each kind of object stays. */
static inline void prepare_pools(void) {
    CHECK_OK(mp_open());
    mp_pool_open();
    fixture f;
    create_pool(&f, 1, 0, (plan){0});
    mp_object_detach(f.id);
}

#endif
