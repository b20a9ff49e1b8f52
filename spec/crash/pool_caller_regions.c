/* A pool goes with its caller, whatever it was about to do. Victim and peers
   are callers here, each with a pool of its own, and its workers, too. */
#include "pool_tools.h"

SPEC_PREPARE { prepare_pools(); }

static void begin_job(void) {
    add_job(MP_JOB_CELLS, MP_JOB_OPEN, CHUNK);
    feed(job, CHUNK + 1);
}

/* A job is given up while a range of it is under way: it is freed when that
   is over, by the caller. */
static void drop_under_way(void) {
    mp_range range;
    mp_job_shm *other = add(MP_JOB_RANGE, 2, CHUNK);
    CHECK_OK(mp_worker_claim(pool, VICTIM, &range));
    CHECK(range.job == job);
    mp_job_drop(pool, job, MP_JOB_CANCELLED);
    feed(other, 2);
    CHECK(work_once(VICTIM));
    mp_job_finish_input(pool, other, 2);
    mp_job_drop(pool, other, MP_JOB_RELEASED);
    mp_pool_close(pool);
    CHECK(!work_once(VICTIM));
    begin_job();
}

static void drop_pool(void) { mp_object_detach(pool_id); }

static void live_as_caller(void) {
    open_pool();
    begin_job();
    drop_under_way();
    drop_pool();
}

static void peer_calls(int which) {
    (void)which;
    for (int i = 0; i < 2; i++) live_as_caller();
}

static void begin_as_caller(void) {
    open_pool();
    victim_begins();
}

#define REGION(region, what, begins, runs)                               \
    static const crash_region region = {                                 \
        .name = what, .begin = begins, .run = runs, .peers = PEERS,      \
        .peer = peer_calls};                                             \
    CRASH_REGION(region)

REGION(pool_add, "pool: the caller adds a job and feeds it", begin_as_caller,
       begin_job)

static void begin_with_job(void) {
    begin_as_caller();
    begin_job();
}

REGION(pool_drop, "pool: the caller drops jobs under way", begin_with_job,
       drop_under_way)

REGION(pool_destroy, "pool: the caller drops the pool with a job",
       begin_with_job, drop_pool)

/* What nobody wants is taken out before anything of it is claimed: a job that
   he has, and one that he has let go. */
static void withdraw_and_forget(void) {
    mp_job_shm *other = add(MP_JOB_CELLS, 2, CHUNK);
    feed(other, 2);
    CHECK(mp_job_withdraw(pool, other));
    mp_job_drop(pool, job, MP_JOB_RELEASED);
    mp_pool_forget(pool);
    begin_job();
}

REGION(pool_withdraw, "pool: the caller takes jobs back", begin_with_job,
       withdraw_and_forget)

/* The pool keeps 32 functions that no job has; with the next, one goes. */
static void begin_with_functions(void) {
    begin_as_caller();
    for (uint64_t i = 0; i < 33; i++) function_of(100 + i);
}

static void add_functions(void) {
    function_of(1);
    function_of(1);
}

REGION(pool_function, "pool: the caller adds a function too many",
       begin_with_functions, add_functions)
