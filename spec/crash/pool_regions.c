/* Workers of a pool and its crew: the killer is the caller, and buries workers
   as a crew does; the victim and the peers are workers. Each item is run once
   and comes out, or is lost with the worker that ran it. */
#include "pool_tools.h"

SPEC_PREPARE { prepare_pools(); }

/* A job that is fed; who finds no more work ends. */
static void open_with_work(void) {
    open_pool();
    add_job(MP_JOB_CELLS, ITEMS, CHUNK);
    feed(job, ITEMS);
    mp_pool_close(pool);
}

static void victim_works(void) { work(VICTIM); }

static void peer_works(int which) {
    peer_begins();
    work(FIRST_PEER + (uint32_t)which);
    mp_object_detach(pool_id);
}

/* ---- the end ---------------------------------------------------------- */

/* Takes item i's result; true: it is lost. */
static bool take(uint64_t i) {
    unsigned tag = mp_job_result(job, i);
    uint64_t value = mp_cell_value(mp_job_out(job, i));
    uint64_t ran = crash_noted(RAN + (int)i);
    if (tag == MP_CELL_LOST) {
        CHECK(ran <= 1);
        CHECK_EQ((int32_t)value, -SIGKILL);
        return true;
    }
    CHECK_EQ(ran, 1);
    CHECK_EQ(tag, i % 3 ? NUMBER : MP_CELL_BLOCK);
    CHECK_EQ(i % 3 ? value : read_message(value), 2 * (100 + i));
    if (i % 3) return false;
    CHECK(mp_free(value));
    mp_cell_forget(mp_job_out(job, i));
    return false;
}

static void close_pool(void) {
    mp_job_drop(pool, job, MP_JOB_RELEASED);
    CHECK_EQ(atomic_load(&pool->all), 0);
    CHECK(!mp_pool_any(pool));
    CHECK_EQ(atomic_load(&pool->orphans), 0);
    mp_object_detach(pool_id);
}

/* Half of the inputs are left for the job to free. */
static void check(void) {
    uint64_t lost = 0;
    crash_fsck();
    CHECK(mp_job_finished(job));
    CHECK_EQ(atomic_load(&job->active), 0);
    for (uint64_t i = 0; i < ITEMS; i++) lost += take(i);
    CHECK(lost <= crash_noted(LOST) + !crash_left());
    CHECK(lost >= crash_noted(LOST));
    close_pool();
}

static const crash_region pool_work = {
    .name = "pool: claim, run, result, until the end",
    .ready = open_with_work,
    .begin = victim_begins,
    .run = victim_works,
    .after = bury_victim,
    .peers = PEERS,
    .peer = peer_works,
    .check = check};
CRASH_REGION(pool_work)

/* ---- ranges of the dead ----------------------------------------------- */

/* Claims a range and dies in its item number `die_in`. */
static uint64_t die_in;

static void die_at_work(void) {
    mp_range range;
    become_worker(GHOST);
    CHECK_OK(mp_worker_claim(pool, GHOST, &range));
    mp_worker_shm *w = mp_pool_worker(pool, GHOST);
    for (uint64_t i = range.low; i < range.low + die_in; i++) {
        mp_worker_at(w, i);
        run_item(range.job, i);
    }
    mp_worker_at(w, range.low + die_in);
}

static void lose_worker(uint64_t in) {
    die_in = in;
    mp_proc dead = leave_dead(die_at_work);
    bury_dead(&dead);
    crash_note(LOST, in < CHUNK);
}

static void open_with_orphan(void) {
    open_with_work();
    lose_worker(0);
    mp_crew_bury(pool, GHOST, -SIGKILL);
    CHECK_EQ(atomic_load(&pool->orphans), 1);
}

static void victim_works_once(void) { work_once(VICTIM); }

static const crash_region pool_orphan = {
    .name = "pool: claim a dead one's range, run it",
    .ready = open_with_orphan,
    .begin = victim_begins,
    .run = victim_works_once,
    .after = bury_victim,
    .peers = PEERS,
    .peer = peer_works,
    .check = check};
CRASH_REGION(pool_orphan)

static void open_with_dead_first(void) {
    open_with_work();
    lose_worker(0);
}

static const crash_region pool_bury_rest = {
    .name = "pool: crew dies as it buries, a range is left",
    .ready = open_with_dead_first,
    .run = bury_ghost,
    .after = caller_buries,
    .peers = PEERS,
    .peer = peer_works,
    .check = check};
CRASH_REGION(pool_bury_rest)

static void open_with_dead_last(void) {
    open_with_work();
    lose_worker(CHUNK - 1);
}

static const crash_region pool_bury_last = {
    .name = "pool: crew dies as it buries, all was run",
    .ready = open_with_dead_last,
    .run = bury_ghost,
    .after = caller_buries,
    .peers = PEERS,
    .peer = peer_works,
    .check = check};
CRASH_REGION(pool_bury_last)

static void open_with_dead_done(void) {
    open_with_work();
    lose_worker(CHUNK);
}

static const crash_region pool_bury_done = {
    .name = "pool: crew dies as it buries, nothing is lost",
    .ready = open_with_dead_done,
    .run = bury_ghost,
    .after = caller_buries,
    .peers = PEERS,
    .peer = peer_works,
    .check = check};
CRASH_REGION(pool_bury_done)

/* ---- waiting ---------------------------------------------------------- */

static void open_without_work(void) {
    open_pool();
    add_job(MP_JOB_RANGE, ITEMS, 0);
}

/* All sleep; what is fed wakes one. (No lock is taken here: the victim may
   stand still with it.) If it sleeps again, others were faster, and there
   will be no more. */
static void feed_sleepers(int n) {
    if (n > 0) {
        mp_pool_close(pool);
        return;
    }
    crash_begin_peers();
    feed(job, ITEMS);
}

/* If the victim never slept, nothing was fed. */
static void bury_and_feed(void) {
    bury_victim();
    if (atomic_load(&job->fed) == 0) feed(job, ITEMS);
    mp_pool_close(pool);
}

static const crash_region pool_sleep = {
    .name = "pool: wait for work, woken before others",
    .ready = open_without_work,
    .begin = victim_begins,
    .run = victim_works_once,
    .wake = feed_sleepers,
    .after = bury_and_feed,
    .peers = PEERS,
    .peer = peer_works,
    .check = check};
CRASH_REGION(pool_sleep)

/* The peer waits for the end as the caller does, for which the killer passes
   as a living crew. All is run but not yet counted; if the victim does not,
   the killer works in its place. */
static void open_with_crew(void) {
    open_with_work();
    atomic_store(&pool->crew, mp_me->tag);
}

static void peer_waits(int which) {
    (void)which;
    peer_begins();
    while (!mp_job_finished(job)) {
        int r = mp_job_wait(pool, job, ITEMS, MP_JOB_OPEN,
                            mp_deadline_in(10));
        CHECK(r == 0 || r == -EINTR);
    }
    mp_object_detach(pool_id);
}

static void victim_begins_end(void) {
    victim_begins();
    for (int i = 0; i < ITEMS / CHUNK; i++) CHECK(work_once(VICTIM));
}

static void bury_and_work(void) {
    bury_victim();
    work(KILLER);
}

static const crash_region pool_tell = {
    .name = "pool: finish what the caller waits for",
    .ready = open_with_crew,
    .begin = victim_begins_end,
    .poised = crash_begin_peers,
    .run = victim_works,
    .after = bury_and_work,
    .peers = 1,
    .peer = peer_waits,
    .check = check};
CRASH_REGION(pool_tell)

/* ---- a worker that cannot start --------------------------------------- */

static void victim_breaks(void) { mp_worker_broke(pool, new_message(13)); }

/* The state tells the peers, or else the end. */
static void check_broken(void) {
    bool broken = mp_pool_state(pool) == MP_POOL_BROKEN;
    mp_ref reason = mp_pool_reason(pool);
    crash_fsck();
    CHECK(!broken || reason);
    CHECK(broken || !crash_left());
    if (reason) CHECK_EQ(read_message(reason), 13);
    for (int i = 0; i < ITEMS; i++) CHECK(crash_noted(RAN + i) <= 1);
    close_pool();
}

static const crash_region pool_broke = {
    .name = "pool: a worker cannot start, and says why",
    .ready = open_with_work,
    .begin = victim_begins,
    .run = victim_breaks,
    .after = bury_victim,
    .peers = PEERS,
    .peer = peer_works,
    .check = check_broken};
CRASH_REGION(pool_broke)

static void break_before(void) {
    open_with_work();
    mp_proc dead = leave_dead(victim_breaks);
    bury_dead(&dead);
    CHECK_EQ(mp_pool_state(pool), MP_POOL_BROKEN);
}

static const crash_region pool_broke_too = {
    .name = "pool: another one cannot start",
    .ready = break_before,
    .begin = victim_begins,
    .run = victim_breaks,
    .after = bury_victim,
    .peers = PEERS,
    .peer = peer_works,
    .check = check_broken};
CRASH_REGION(pool_broke_too)
