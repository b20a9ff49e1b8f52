/* The pool under threads: workers, the caller, and what the crew does when a
   worker is lost, in one process; the ones who start the workers stand for
   the crew. */
#include "fsck_tools.h"
#include "pool_fixture.h"
#include "threads.h"
#include "work/pool_shm.h"

static const double LASTS = 0.4; /* seconds */
enum { LEAST = 10 };             /* rounds of each, however long */
enum { WORKERS = 3 };

SPEC_PREPARE { prepare_pools(); }

/* f       the pool
   lossy   workers may end amid an item, as if they were killed
   lost    how often one did */
typedef struct works {
    fixture f;
    bool lossy;
    _Atomic unsigned lost;
} works;

/* The items of a range; false when it is lost on the way. */
static bool work_range(works *w, mp_worker_shm *self, const mp_range *range,
                       unsigned *seed) {
    for (uint64_t i = range->low; i < range->high; i++) {
        mp_worker_at(self, i);
        if (w->lossy && rand_r(seed) % 200 == 0) {
            new_block(13); /* owned, goes with its owner */
            atomic_fetch_add(&w->lost, 1);
            return false;
        }
        if (!mp_job_cancelled(range->job)) run_item(&w->f.plan, range->job, i);
    }
    mp_worker_at(self, range->high);
    return true;
}

/* As work() of the fixture, but that it returns. */
static void work_on(void *context, int index) {
    works *w = context;
    mp_pool_shm *pool = w->f.pool;
    mp_worker_shm *self = mp_pool_worker(pool, (uint32_t)index);
    unsigned seed = mp_me->tag;
    atomic_store(&self->tag, mp_me->tag);
    mp_worker_ready(pool, (uint32_t)index);
    for (;;) {
        mp_range range;
        int r = mp_worker_claim(pool, (uint32_t)index, &range);
        if (r == -EPIPE) return;
        if (r == 0 && !work_range(w, self, &range, &seed)) return;
    }
}

/* Starts a worker as often as it ends, as long as there is work. */
static void supervise(void *context, int index) {
    works *w = context;
    mp_pool_shm *pool = w->f.pool;
    while (mp_pool_state(pool) == MP_POOL_RUN || mp_pool_has_work(pool)) {
        spec_thread t;
        mp_pool_worker(pool, (uint32_t)index)->items = 0;
        spec_thread_start(&t, work_on, w, index);
        spec_thread_finish(&t);
        mp_crew_bury(pool, (uint32_t)index, -SIGKILL);
    }
}

/* Jobs that are run to their end, and jobs that are dropped on the way. */
static void come_and_go(works *w, unsigned *seed) {
    uint64_t count = 1 + (uint64_t)rand_r(seed) % 200;
    uint64_t until = (uint64_t)rand_r(seed) % (count + 1);
    job j = add_job(&w->f, count, (uint64_t)rand_r(seed) % 9,
                    rand_r(seed) % 2 ? MP_JOB_CELLS : MP_JOB_RANGE);
    feed(&w->f, &j);
    take_until(&w->f, &j, until);
    bool released = j.fed == count && rand_r(seed) % 2;
    mp_job_drop(w->f.pool, j.shm,
                released ? MP_JOB_RELEASED : MP_JOB_CANCELLED);
    CHECK(w->lossy || j.lost == 0);
}

static void run_works(uint64_t most, bool lossy) {
    works w = {.lossy = lossy};
    spec_thread t[WORKERS];
    unsigned seed = 1, rounds = 0;
    create_pool(&w.f, WORKERS, most, no_plan());
    /* The caller waits for a result or the crew's death: its own will do. */
    atomic_store(&w.f.pool->crew, mp_me->tag);
    for (int i = 0; i < WORKERS; i++)
        spec_thread_start(&t[i], supervise, &w, i);
    double end = spec_now() + LASTS;
    for (; rounds < LEAST || spec_now() < end; rounds++)
        come_and_go(&w, &seed);
    uint64_t missed = run_job(&w.f, 100, 0, MP_JOB_RANGE);
    CHECK(lossy || missed == 0);
    mp_pool_close(w.f.pool);
    for (int i = 0; i < WORKERS; i++) spec_thread_finish(&t[i]);
    CHECK(!lossy || w.lost > 0);
    CHECK_CLEAN();
    drop_pool(&w.f);
}

SPEC("threads: a pool's items are claimed once and their results come") {
    run_works(0, false);
}

SPEC("threads: a pool's workers end after their share, and others come") {
    run_works(50, false);
}

SPEC("threads: a pool's item is lost with its worker, and no other") {
    run_works(0, true);
}
