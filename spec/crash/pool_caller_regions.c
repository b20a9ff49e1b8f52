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

static const crash_region pool_add = {
    .name = "pool: the caller adds a job and feeds it",
    .begin = begin_as_caller,
    .run = begin_job,
    .peers = PEERS,
    .peer = peer_calls};
CRASH_REGION(pool_add)

static void begin_with_job(void) {
    begin_as_caller();
    begin_job();
}

static const crash_region pool_drop = {
    .name = "pool: the caller drops jobs under way",
    .begin = begin_with_job,
    .run = drop_under_way,
    .peers = PEERS,
    .peer = peer_calls};
CRASH_REGION(pool_drop)

static const crash_region pool_destroy = {
    .name = "pool: the caller drops the pool with a job",
    .begin = begin_with_job,
    .run = drop_pool,
    .peers = PEERS,
    .peer = peer_calls};
CRASH_REGION(pool_destroy)

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

static const crash_region pool_withdraw = {
    .name = "pool: the caller takes jobs back",
    .begin = begin_with_job,
    .run = withdraw_and_forget,
    .peers = PEERS,
    .peer = peer_calls};
CRASH_REGION(pool_withdraw)

/* The pool keeps 32 functions that no job has; with the next, one goes. */
static void begin_with_functions(void) {
    begin_as_caller();
    for (uint64_t i = 0; i < 33; i++) function_of(100 + i);
}

static void add_functions(void) {
    function_of(1);
    function_of(1);
}

static const crash_region pool_function = {
    .name = "pool: the caller adds a function too many",
    .begin = begin_with_functions,
    .run = add_functions,
    .peers = PEERS,
    .peer = peer_calls};
CRASH_REGION(pool_function)
