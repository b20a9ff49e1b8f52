/* An arena with something of everything in it, for the specs of mp_fsck; and
   damage to it that is undone. */
#ifndef MP_SPEC_FSCK_FIXTURE_H
#define MP_SPEC_FSCK_FIXTURE_H

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "data/queue_shm.h"
#include "fsck_tools.h"
#include "mem/heap.h"
#include "mem/heap_shm.h"
#include "mem/object.h"
#include "mem/object_shm.h"
#include "mem/slot.h"
#include "proc/proc.h"
#include "sync/barrier.h"
#include "sync/cond.h"
#include "sync/event.h"
#include "sync/sem.h"
#include "work/pool_shm.h"

enum { WORKERS = 3, WINDOW = 8, LARGE = 3 * (int)MP_UNIT };

typedef struct object {
    uint32_t id, gen;
    void *shm;
} object;

/* child is the slot of one that has ended. */
typedef struct world {
    object lock, rlock, sem, event, cond, given_cond, barrier, value, array,
        given_array, queue, pool;
    mp_cond_wait waits[2];
    mp_ref node, owned, large, wide, input;
    mp_job_shm *job, *other, *buried;
    uint32_t child;
} world;

static inline void seen(object *o, int result) {
    CHECK_OK(result);
    o->shm = mp_object_block(o->id);
}

/* ---- its parts ------------------------------------------------------ */

static inline mp_ref new_message(size_t size) {
    mp_ref block = mp_alloc(sizeof(mp_message_shm) + 8 + size);
    CHECK(block != 0);
    mp_message_shm *m = mp_at(block);
    memset(m, 0, sizeof *m + 8);
    m->length = size;
    return block;
}

static inline mp_ref new_message_with(const object *o) {
    mp_ref block = new_message(10);
    mp_message_shm *m = mp_at(block);
    m->handles_at = sizeof *m;
    mp_mark_handles(block);
    CHECK_OK(mp_message_hold(block, o->id, o->gen));
    return block;
}

static inline void make_sync(world *w) {
    seen(&w->lock, mp_lock_create(&w->lock.id, &w->lock.gen));
    seen(&w->rlock, mp_rlock_create(&w->rlock.id, &w->rlock.gen));
    seen(&w->sem, mp_sem_create(2, 5, &w->sem.id, &w->sem.gen));
    seen(&w->event, mp_event_create(&w->event.id, &w->event.gen));
    seen(&w->cond, mp_cond_create(0, NULL, false, &w->cond.id, &w->cond.gen));
    seen(&w->given_cond,
         mp_cond_create(w->lock.id, w->lock.shm, false, &w->given_cond.id,
                        &w->given_cond.gen));
    seen(&w->barrier,
         mp_barrier_create(3, -1, new_message(100), &w->barrier.id,
                           &w->barrier.gen));
    mp_event_set(w->event.shm);
    CHECK_OK(mp_rlock_acquire(w->rlock.shm, MP_AT_ONCE));
}

/* One notified, one that waits; one of three at a barrier. */
static inline void make_waiters(world *w) {
    for (int i = 0; i < 2; i++) {
        CHECK_OK(mp_cond_acquire(w->cond.shm, MP_AT_ONCE));
        CHECK_OK(mp_cond_wait_begin(w->cond.shm, &w->waits[i]));
    }
    CHECK_OK(mp_cond_acquire(w->cond.shm, MP_AT_ONCE));
    CHECK_OK(mp_cond_notify(w->cond.shm, 1));
    CHECK_OK(mp_cond_release(w->cond.shm));
    CHECK_EQ(mp_barrier_arrive(w->barrier.shm, &w->node), 0);
}

static inline void make_arrays(world *w) {
    mp_guard own = {.kind = MP_GUARD_OWN};
    mp_guard given = {MP_GUARD_LOCK, w->lock.id, w->lock.gen, 0};
    seen(&w->value, mp_array_create(MP_TYPE_VALUE, MP_CELL_d, 1, &own,
                                    &w->value.id, &w->value.gen));
    seen(&w->array, mp_array_create(MP_TYPE_ARRAY, MP_CELL_i, 40000, &own,
                                    &w->array.id, &w->array.gen));
    seen(&w->given_array,
         mp_array_create(MP_TYPE_ARRAY, MP_CELL_q, 3, &given,
                         &w->given_array.id, &w->given_array.gen));
}

static inline void put_one(const world *w, const mp_queue_item *item) {
    uint32_t patience = 0;
    CHECK_EQ(mp_queue_put(w->queue.shm, item, 1, &patience, MP_AT_ONCE), 1);
}

/* Items of each kind over three segments; some were taken. */
static inline void make_queue(world *w) {
    static unsigned char bytes[MP_QUEUE_INLINE];
    mp_queue_item item = {.kind = MP_QUEUE_BYTES, .data = bytes,
                          .length = sizeof bytes};
    uint32_t patience = 0;
    seen(&w->queue, mp_queue_create(500, &w->queue.id, &w->queue.gen));
    for (int i = 0; i < 70; i++) put_one(w, &item);
    put_one(w, &(mp_queue_item){.kind = MP_QUEUE_WORD, .value = 1});
    put_one(w, &(mp_queue_item){.kind = MP_QUEUE_BLOCK,
                                .value = new_message_with(&w->sem)});
    for (int i = 0; i < 3; i++)
        CHECK_EQ(mp_queue_get(w->queue.shm, &item, 1, bytes, sizeof bytes,
                              &patience, MP_AT_ONCE), 1);
    CHECK_OK(mp_queue_done(w->queue.shm));
}

static inline mp_job_shm *add_job(const world *w, const char *name,
                                  uint32_t source, uint64_t fed) {
    mp_job_spec its = {.source = source, .window = WINDOW, .chunk = 2,
                        .count = fed + 1, .step = 1};
    mp_job_shm *job;
    mp_ref message = new_message(8);
    strcpy((char *)mp_at(message) + sizeof(mp_message_shm), name);
    CHECK_OK(mp_pool_function(w->pool.shm, message, &its.function));
    CHECK_OK(mp_pool_add(w->pool.shm, &its, &job));
    mp_job_feed(w->pool.shm, job, fed);
    return job;
}

static inline void claim_range(const world *w, uint32_t worker,
                               const mp_job_shm *job) {
    mp_range range;
    CHECK_OK(mp_worker_claim(w->pool.shm, worker, &range));
    CHECK(range.job == job);
}

/* Worker 0 has run one item of two, an orphan is left of worker 1, worker 2
   has left a job that was dropped meanwhile, and claims from another. */
static inline void make_pool(world *w) {
    const mp_pool_spec wanted = {.workers = WORKERS, .places = WORKERS};
    seen(&w->pool, mp_pool_make(&wanted, &w->pool.id, &w->pool.gen));
    w->buried = add_job(w, "buried", MP_JOB_RANGE, 2);
    claim_range(w, 2, w->buried);
    w->other = add_job(w, "other", MP_JOB_RANGE, 4);
    w->job = add_job(w, "job", MP_JOB_CELLS, 0);
    mp_job_drop(w->pool.shm, w->buried, MP_JOB_CANCELLED);
    claim_range(w, 2, w->other);
    claim_range(w, 1, w->other);
    mp_crew_bury(w->pool.shm, 1, -9);
    w->input = new_message(100);
    for (uint64_t i = 0; i < 6; i++) mp_job_in(w->job, i)->mark = 1;
    mp_job_in(w->job, 5)->mark = MP_CELL_BLOCK;
    mp_job_in(w->job, 5)->value = w->input;
    /* The orphan would be first. */
    atomic_store(&((mp_pool_shm *)w->pool.shm)->orphans, 0);
    w->job->count = 7;
    mp_job_feed(w->pool.shm, w->job, 6);
    claim_range(w, 0, w->job);
    atomic_store(&((mp_pool_shm *)w->pool.shm)->orphans, 1);
    mp_worker_result(w->job, 0, MP_CELL_BLOCK, new_message(20));
    mp_worker_at(mp_pool_worker(w->pool.shm, 0), 1);
}

/* ---- the whole ------------------------------------------------------ */

/* For SPEC_PREPARE. */
static inline void prepare_world(void) {
    object first;
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_sem_open();
    mp_event_open();
    mp_cond_open();
    mp_barrier_open();
    mp_array_open();
    mp_queue_declare();
    mp_pool_open();
    CHECK_OK(mp_lock_create(&first.id, &first.gen));
    mp_object_detach(first.id);
}

/* It leaves a span without owner, with an item of the queue in it. */
static inline uint32_t run_child(const world *w) {
    mp_proc proc;
    int r = mp_proc_fork(&proc, 0);
    CHECK_OK(r);
    if (r == 1) {
        put_one(w, &(mp_queue_item){.kind = MP_QUEUE_BLOCK,
                                    .value = new_message(1000)});
        mp_proc_exit(0);
    }
    while ((r = mp_proc_wait(&proc, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_OK(r);
    mp_proc_close(&proc);
    CHECK_EQ(proc.exitcode, 0);
    return proc.tag % MP_SLOTS;
}

static inline void open_world(world *w) {
    memset(w, 0, sizeof *w);
    make_sync(w);
    make_waiters(w);
    make_arrays(w);
    make_queue(w);
    make_pool(w);
    w->owned = mp_alloc(100);
    w->large = mp_alloc(LARGE);
    w->wide = mp_alloc(10000);
    w->child = run_child(w);
}

static inline void close_world(world *w) {
    mp_free(w->owned);
    mp_free(w->large);
    mp_free(w->wide);
    for (int i = 0; i < 2; i++)
        mp_cond_wait_end(w->cond.shm, &w->waits[i], false);
    mp_barrier_break(w->barrier.shm);
    mp_barrier_leave(w->barrier.shm, w->node);
    const object *all[] = {&w->lock, &w->rlock, &w->sem, &w->event, &w->cond,
                           &w->given_cond, &w->barrier, &w->value, &w->array,
                           &w->given_array, &w->queue, &w->pool};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mp_object_detach(all[i]->id);
    CHECK_EQ(mp_object_count(), 0);
}

/* ---- damage --------------------------------------------------------- */

/* What was poked, to be undone. */
typedef struct poked {
    void *at;
    uint64_t old;
    size_t size;
} poked;

static poked pokes[16];
static size_t n_pokes;

static inline void poke(void *at, const void *value, size_t size) {
    CHECK(n_pokes < sizeof pokes / sizeof pokes[0]);
    pokes[n_pokes] = (poked){.at = at, .size = size};
    memcpy(&pokes[n_pokes++].old, at, size);
    memcpy(at, value, size);
}

static inline void poke64(volatile void *at, uint64_t value) {
    poke((void *)(uintptr_t)at, &value, sizeof value);
}

static inline void poke32(volatile void *at, uint32_t value) {
    poke((void *)(uintptr_t)at, &value, sizeof value);
}

static inline void poke8(volatile void *at, uint8_t value) {
    poke((void *)(uintptr_t)at, &value, sizeof value);
}

static inline void undo(void) {
    while (n_pokes > 0) {
        poked *p = &pokes[--n_pokes];
        memcpy(p->at, &p->old, p->size);
    }
}

/* ---- what is found -------------------------------------------------- */

/* Looks for `words` in the findings. */
typedef struct search {
    const char *words;
    char all[4000];
    bool found;
} search;

static inline void look_for(void *ctx, const char *finding) {
    search *s = ctx;
    size_t n = strlen(s->all);
    s->found |= strstr(finding, s->words) != NULL;
    snprintf(s->all + n, sizeof s->all - n, "\n      %s", finding);
}

/* Damage was done: it is found and described by a line with these words, by
   each strength that is asked for; then it is undone. */
static inline void expect_of(const char *file, int line, const char *words,
                             bool live) {
    for (int i = 0; i <= live; i++) {
        search s = {.words = words};
        int n = mp_fsck(i ? MP_FSCK_LIVE : MP_FSCK_QUIET, look_for, &s);
        if (n <= 0 || !s.found)
            spec_fail(file, line, "«%s» is not among %d findings:%s", words,
                      n, s.all);
    }
    undo();
    fsck_check_clean(file, line, MP_FSCK_QUIET);
}

/* Found by both. */
#define EXPECT(words) expect_of(__FILE__, __LINE__, words, true)

/* What is in order while others run. */
#define EXPECT_QUIET(words) expect_of(__FILE__, __LINE__, words, false)

#endif
