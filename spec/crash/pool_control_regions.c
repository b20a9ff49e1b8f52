/* What is asked of a pool's jobs beyond their items: that they are run again,
   in time, or not at all. Killer, victim and peers as in pool_regions.c. Each
   item has a result in the end, however often it was run. */
#include "pool_tools.h"

SPEC_PREPARE { prepare_pools(); }

/* The first run of each of these fails. */
enum { BAD = 1, BAD_TOO = 4, FAILED = RAN + ITEMS };

static bool is_bad(uint64_t i) { return i == BAD || i == BAD_TOO; }

static void add_with(mp_controls with) {
    mp_job_spec said = {.function = function_of(1),
                        .source = MP_JOB_CELLS,
                        .count = ITEMS,
                        .window = WINDOW,
                        .chunk = CHUNK,
                        .with = with};
    CHECK_OK(mp_pool_add(pool, &said, &job));
    crash_note(JOB, mp_offset(job));
}

static void open_with(mp_controls with) {
    open_pool();
    add_with(with);
    feed(job, ITEMS);
    mp_pool_close(pool);
}

/* One range; a bad item fails once, for all workers, and is run again. */
static bool work_some(uint32_t index) {
    mp_range range;
    int r;
    while ((r = mp_worker_claim(pool, index, &range)) == -EINTR) {
    }
    CHECK(r == 0 || r == -EPIPE);
    if (r < 0) return false;
    mp_worker_shm *w = mp_pool_worker(pool, index);
    for (uint64_t i = range.low; i < range.high; i++) {
        mp_worker_at(w, i);
        if (mp_job_cancelled(range.job)) continue;
        if (is_bad(i) && crash_noted(FAILED + (int)i) == 0) {
            crash_count(FAILED + (int)i);
            if (mp_worker_again(pool, index, i, true)) continue;
            mp_worker_result(range.job, i, MP_CELL_ERROR, new_message(13));
            mp_worker_failed(pool, range.job, i);
            continue;
        }
        run_item(range.job, i);
    }
    mp_worker_at(w, range.high);
    return true;
}

static void work_all(uint32_t index) {
    while (work_some(index)) {
    }
}

static void warm_controls(void) {
    victim_begins();
    warm_up(sizeof(mp_job_shm) +
            WINDOW * (2 * sizeof(mp_cell_shm) + sizeof(mp_try_shm)));
}

static void victim_works(void) { work_all(VICTIM); }

static void peer_works(int which) {
    peer_begins();
    work_all(FIRST_PEER + (uint32_t)which);
    mp_object_detach(pool_id);
}

static void close_pool(void) {
    CHECK(!mp_pool_any(pool));
    CHECK_EQ(atomic_load(&pool->orphans), 0);
    CHECK_EQ(atomic_load(&pool->timed), 0);
    mp_object_detach(pool_id);
}

/* Each item's result, which is freed; how many have the tag. */
static uint64_t take_all(unsigned wanted) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < ITEMS; i++) {
        unsigned tag = mp_job_result(job, i);
        n += tag == wanted;
        if (tag != MP_CELL_BLOCK && tag != MP_CELL_ERROR) continue;
        mp_cell_shm *cell = mp_job_out(job, i);
        CHECK(mp_free(mp_cell_value(cell)));
        mp_cell_forget(cell);
    }
    return n;
}

/* The victim works until the end. */
#define WORK_REGION(region, what, prepares, checks)                      \
    static const crash_region region = {                                 \
        .name = what, .ready = prepares, .begin = warm_controls,         \
        .run = victim_works, .after = bury_victim, .most = 400,          \
        .peers = PEERS, .peer = peer_works, .check = checks};            \
    CRASH_REGION(region)

/* ---- run again -------------------------------------------------------- */

static void open_again(void) {
    open_with((mp_controls){.retries = 3, .crashes = 3});
}

/* Nothing is lost, since what a death costs is run again, too. */
static void check_again(void) {
    crash_fsck();
    CHECK(mp_job_finished(job));
    CHECK_EQ(atomic_load(&job->active), 0);
    CHECK_EQ(atomic_load(&job->waiting), 0);
    CHECK_EQ(take_all(MP_CELL_LOST), 0);
    for (int i = 0; i < ITEMS; i++) CHECK(crash_noted(RAN + i) >= 1);
    CHECK(crash_noted(FAILED + BAD) >= 1);
    mp_job_drop(pool, job, MP_JOB_RELEASED);
    close_pool();
}

WORK_REGION(pool_again, "pool: items fail and are run again", open_again,
            check_again)

/* Dies with the first of a range, which is to be run again. */
static void die_at_first(void) {
    mp_range range;
    become_worker(GHOST);
    CHECK_OK(mp_worker_claim(pool, GHOST, &range));
}

static void open_with_dead(void) {
    open_again();
    mp_proc dead = leave_dead(die_at_first);
    bury_dead(&dead);
}

/* Only the first item of the range was the death of somebody. */
static void check_bury_again(void) {
    uint32_t runs, deaths;
    mp_job_tries(job, 1, &runs, &deaths);
    CHECK_EQ(deaths, 0);
    check_again();
}

static const crash_region pool_bury_again = {
    .name = "pool: crew dies as it buries, the item is run again",
    .ready = open_with_dead,
    .run = bury_ghost,
    .after = caller_buries,
    .peers = PEERS,
    .peer = peer_works,
    .check = check_bury_again};
CRASH_REGION(pool_bury_again)

/* ---- in time ---------------------------------------------------------- */

static void open_late(void) {
    open_with((mp_controls){.timeout_ns = 1, .grace_ns = 0});
    mp_proc dead = leave_dead(die_at_first);
    bury_dead(&dead);
    atomic_store(&mp_pool_worker(pool, GHOST)->since, 1);
}

/* The victim is the crew. Who was dead before it was to be killed, is the
   same to it. */
static void crew_kills(void) {
    uint64_t next = UINT64_MAX;
    int what = mp_crew_look(pool, GHOST, (uint64_t)mp_now_ns(), &next);
    CHECK(what == MP_CREW_KILL);
    mp_crew_bury(pool, GHOST, -SIGKILL);
}

static void check_late(void) {
    crash_fsck();
    CHECK(mp_job_finished(job));
    uint64_t late = take_all(MP_CELL_LATE);
    CHECK(late == 1 || (late == 0 && !crash_left()));
    mp_job_drop(pool, job, MP_JOB_RELEASED);
    close_pool();
}

static const crash_region pool_late = {
    .name = "pool: crew dies as it ends an item whose time is up",
    .ready = open_late,
    .run = crew_kills,
    .after = caller_buries,
    .peers = PEERS,
    .peer = peer_works,
    .check = check_late};
CRASH_REGION(pool_late)

/* ---- not at all ------------------------------------------------------- */

static void open_stop(void) {
    open_with((mp_controls){.flags = MP_WITH_STOP});
}

/* An error ends the job, or all was run. */
static void check_stopped(void) {
    crash_fsck();
    CHECK(mp_job_finished(job));
    uint64_t stop = mp_job_stopped(job);
    if (stop) {
        unsigned tag = mp_job_result(job, stop - 1);
        CHECK(tag == MP_CELL_ERROR || tag == MP_CELL_LOST);
    }
    CHECK(stop || !crash_left());
    take_all(MP_CELL_ERROR);
    mp_job_drop(pool, job, MP_JOB_CANCELLED);
    close_pool();
}

WORK_REGION(pool_stop, "pool: an error ends its job", open_stop, check_stopped)

/* ---- the last word ---------------------------------------------------- */

static void say_last(void) {
    mp_worker_left(pool, VICTIM, new_message(13));
}

static void begin_last(void) {
    victim_begins();
    warm_up(sizeof(mp_left_shm));
}

static void open_idle(void) {
    open_pool();
    mp_pool_close(pool);
}

static void check_left(void) {
    uint32_t index = WORKERS;
    mp_ref message = mp_pool_left(pool, 0, &index);
    crash_fsck();
    CHECK(message || !crash_left());
    if (message) {
        CHECK_EQ(index, VICTIM);
        CHECK_EQ(read_message(message), 13);
    }
    CHECK_EQ(mp_pool_left(pool, 1, &index), 0);
    mp_object_detach(pool_id);
}

static const crash_region pool_left = {
    .name = "pool: a worker leaves, and says something",
    .ready = open_idle,
    .begin = begin_last,
    .run = say_last,
    .after = bury_victim,
    .check = check_left};
CRASH_REGION(pool_left)

/* ---- the caller ------------------------------------------------------- */

/* A job with a timeout is cancelled while it runs; each caller has a pool of
   its own. */
static void live_as_caller(void) {
    mp_range range;
    open_pool();
    add_with((mp_controls){.timeout_ns = 1000, .retries = 1, .level = 3});
    feed(job, ITEMS);
    CHECK_OK(mp_worker_claim(pool, VICTIM, &range));
    mp_worker_at(mp_pool_worker(pool, VICTIM), range.low);
    CHECK(mp_worker_again(pool, VICTIM, range.low, true));
    CHECK(mp_job_cancel(pool, job, MP_JOB_CANCELLED, 0));
    mp_pool_resize(pool, 1);
    uint64_t next = UINT64_MAX;
    CHECK_EQ(mp_crew_look(pool, VICTIM, (uint64_t)mp_now_ns(), &next),
             MP_CREW_KILL);
    mp_crew_bury(pool, VICTIM, -SIGKILL);
    mp_object_detach(pool_id);
}

static void peer_calls(int which) {
    (void)which;
    live_as_caller();
}

static void begin_as_caller(void) {
    open_pool();
    warm_controls();
    mp_object_detach(pool_id);
}

static const crash_region pool_cancel = {
    .name = "pool: the caller cancels what runs",
    .begin = begin_as_caller,
    .run = live_as_caller,
    .most = 400,
    .peers = PEERS,
    .peer = peer_calls};
CRASH_REGION(pool_cancel)

/* ---- a task that waits for tasks -------------------------------------- */

/* Both items of a range of the caller's; in the first, a job of the victim's
   own, on which it works as a guest, and the peers work, too. */
static void wait_for_own(void) {
    mp_ref function;
    mp_job_shm *own;
    mp_range range, inner;
    int guest = mp_worker_enter(pool);
    CHECK(guest >= WORKERS);
    CHECK_OK(mp_pool_own_function(new_message(2), &function));
    mp_job_spec said = {.function = function,
                        .source = MP_JOB_RANGE,
                        .start = 100,
                        .step = 1,
                        .count = ITEMS,
                        .window = WINDOW,
                        .chunk = CHUNK};
    CHECK_OK(mp_worker_claim(pool, VICTIM, &range));
    mp_worker_at(mp_pool_worker(pool, VICTIM), range.low);
    CHECK_OK(mp_pool_add(pool, &said, &own));
    mp_job_feed(pool, own, ITEMS);
    mp_worker_shm *w = mp_pool_worker(pool, (uint32_t)guest);
    while (mp_worker_help(pool, (uint32_t)guest, own, &inner)) {
        for (uint64_t i = inner.low; i < inner.high; i++) {
            mp_worker_at(w, i);
            run_item(inner.job, i);
        }
        mp_worker_at(w, inner.high);
    }
    mp_worker_depart(pool, VICTIM, (uint32_t)guest);
    mp_job_drop(pool, own, MP_JOB_RELEASED);
    for (uint64_t i = range.low; i < range.high; i++) {
        mp_worker_at(mp_pool_worker(pool, VICTIM), i);
        mp_worker_result(range.job, i, NUMBER, i);
    }
    mp_worker_at(mp_pool_worker(pool, VICTIM), range.high);
    while (mp_worker_claim(pool, VICTIM, &range) == 0) {
        for (uint64_t i = range.low; i < range.high; i++) {
            mp_worker_at(mp_pool_worker(pool, VICTIM), i);
            mp_worker_result(range.job, i, NUMBER, i);
        }
        mp_worker_at(mp_pool_worker(pool, VICTIM), range.high);
    }
}

static void open_plain(void) { open_with((mp_controls){.level = 1}); }

static void begin_waiting(void) {
    victim_begins();
    warm_up(sizeof(mp_job_shm) + WINDOW * sizeof(mp_cell_shm));
    warm_up(sizeof(mp_function_shm));
}

/* Of the victim's job nothing is left. */
static void check_waited(void) {
    crash_fsck();
    CHECK(mp_job_finished(job));
    CHECK_EQ(atomic_load(&job->active), 0);
    CHECK(take_all(MP_CELL_LOST) <= 1);
    mp_job_drop(pool, job, MP_JOB_RELEASED);
    CHECK_EQ(atomic_load(&pool->all), 0);
    close_pool();
}

static const crash_region pool_guest = {
    .name = "pool: a worker waits for a job of its own",
    .ready = open_plain,
    .begin = begin_waiting,
    .run = wait_for_own,
    .after = bury_victim,
    .most = 700,
    .peers = PEERS,
    .peer = peer_works,
    .check = check_waited};
CRASH_REGION(pool_guest)
