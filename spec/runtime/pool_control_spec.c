/* What is asked of a pool's jobs beyond their items, with a crew: that they
   are run again, in time, in turn, or not at all; and of its workers, that
   there are more or fewer. */
#include "pool_fixture.h"

SPEC_PREPARE { prepare_pools(); }

enum { BAD = 7, COUNT = 40 };

/* What a worker does with item BAD, `times` times over all. */
enum { FAIL, DIE, HANG };

typedef struct trouble {
    int what, times;
    _Atomic int seen;       /* how often BAD began */
    _Atomic int begun;
} trouble;

static trouble *shared;

static void run_one(mp_pool_shm *pool, uint32_t index, mp_job_shm *j,
                    uint64_t i) {
    atomic_fetch_add(&shared->begun, 1);
    if (i == BAD && atomic_fetch_add(&shared->seen, 1) < shared->times) {
        if (shared->what == DIE) raise(SIGKILL);
        while (shared->what == HANG) spec_pause();
        if (mp_worker_again(pool, index, i, true)) return;
        mp_worker_result(j, i, MP_CELL_ERROR, new_block(i));
        mp_worker_failed(pool, j, i);
        return;
    }
    mp_worker_result(j, i, NUMBER, 2 * i);
}

static void serve(mp_pool_shm *pool, uint32_t index, void *ctx) {
    (void)ctx;
    mp_worker_shm *w = mp_pool_worker(pool, index);
    mp_worker_ready(pool, index);
    if (mp_worker_await(pool, index) < 0) mp_proc_exit(0);
    for (;;) {
        mp_range range;
        int r = mp_worker_claim(pool, index, &range);
        if (r == -EPIPE) mp_proc_exit(0);
        if (r < 0) continue;
        for (uint64_t i = range.low; i < range.high; i++) {
            if (!mp_worker_step(w, i, (uint64_t)mp_now_ns())) spec_pause();
            if (!mp_job_cancelled(range.job))
                run_one(pool, index, range.job, i);
        }
        mp_worker_step(w, range.high, 0);
    }
}

static void open_troubled(fixture *f, const mp_pool_spec *wanted, int what,
                          int times) {
    *f = (fixture){.used = mp_heap_used(), .plan = no_plan()};
    shared = spec_shared(sizeof *shared);
    shared->what = what;
    shared->times = times;
    CHECK_OK(mp_pool_make(wanted, &f->id, &f->gen));
    f->pool = mp_object_block(f->id);
    CHECK_OK(mp_pool_start(f->pool, &f->crew, serve, NULL));
}

static mp_job_shm *add_with(fixture *f, mp_controls with, uint64_t chunk) {
    mp_job_spec what = {.function = new_function(f, 1, 10),
                        .source = MP_JOB_RANGE,
                        .count = COUNT,
                        .window = WINDOW,
                        .chunk = chunk,
                        .with = with};
    mp_job_shm *j;
    CHECK_OK(mp_pool_add(f->pool, &what, &j));
    if (mp_job_is_urgent(f->pool, j)) mp_pool_stir(&f->crew);
    mp_job_feed(f->pool, j, COUNT);
    return j;
}

static void await_end(fixture *f, mp_job_shm *j) {
    mp_deadline deadline = mp_deadline_in(20);
    while (!mp_job_finished(j)) {
        int r = mp_job_wait(f->pool, j, COUNT, MP_JOB_OPEN, deadline);
        CHECK(r == 0 || r == -EINTR);
    }
}

/* All items but BAD are done; its tag. */
static unsigned check_items(mp_job_shm *j) {
    for (uint64_t i = 0; i < COUNT; i++)
        if (i != BAD) {
            CHECK_EQ(mp_job_result(j, i), NUMBER);
            CHECK_EQ(mp_cell_value(mp_job_out(j, i)), 2 * i);
        }
    return mp_job_result(j, BAD);
}

static const mp_pool_spec two = {.workers = 2, .places = 4};

SPEC("pool: items that fail or are lost are run again") {
    for (int what = FAIL; what <= DIE; what++) {
        fixture f;
        uint32_t runs, deaths;
        open_troubled(&f, &two, what, 2);
        mp_job_shm *j =
            add_with(&f, (mp_controls){.retries = 2, .wait_ns = 1000000,
                                       .most_wait_ns = 1000000,
                                       .factor = 1024}, 10);
        await_end(&f, j);
        CHECK_EQ(check_items(j), NUMBER);
        CHECK_EQ(shared->seen, 3);
        CHECK_EQ(shared->begun, COUNT + 2);
        mp_job_tries(j, BAD, &runs, &deaths);
        CHECK_EQ(runs, 2);
        CHECK_EQ(deaths, what == DIE ? 2 : 0);
        mp_job_drop(f.pool, j, MP_JOB_RELEASED);
        close_pool(&f);
    }
}

SPEC("pool: an item that kills its workers is poison at last") {
    fixture f;
    open_troubled(&f, &two, DIE, 100);
    mp_job_shm *j =
        add_with(&f, (mp_controls){.retries = 50, .crashes = 3}, 10);
    await_end(&f, j);
    CHECK_EQ(check_items(j), MP_CELL_LOST);
    CHECK_EQ(shared->seen, 3);
    mp_job_drop(f.pool, j, MP_JOB_RELEASED);
    close_pool(&f);
}

SPEC("pool: an item whose time is up is killed, and no other") {
    fixture f;
    open_troubled(&f, &two, HANG, 1);
    int64_t begin = mp_now_ns();
    mp_job_shm *j = add_with(
        &f, (mp_controls){.timeout_ns = 100000000, .grace_ns = 100000000}, 10);
    await_end(&f, j);
    CHECK(mp_now_ns() - begin >= 200000000);
    CHECK_EQ(check_items(j), MP_CELL_LATE);
    CHECK_EQ(shared->begun, COUNT);
    mp_job_drop(f.pool, j, MP_JOB_RELEASED);
    close_pool(&f);
}

SPEC("pool: who runs an item of a cancelled job is killed") {
    fixture f;
    mp_deadline deadline = mp_deadline_in(10);
    open_troubled(&f, &(mp_pool_spec){.workers = 1, .places = 1}, HANG, 1);
    mp_job_shm *j = add_with(&f, (mp_controls){0}, 10);
    while (shared->seen == 0 && !mp_deadline_passed(deadline)) spec_pause();
    uint32_t pid = atomic_load(&mp_pool_worker(f.pool, 0)->pid);
    CHECK(mp_job_cancel(f.pool, j, MP_JOB_CANCELLED, 0));
    mp_pool_stir(&f.crew);
    j = add_with(&f, (mp_controls){0}, 10);
    await_end(&f, j);
    CHECK_EQ(check_items(j), NUMBER);
    CHECK(pid != atomic_load(&mp_pool_worker(f.pool, 0)->pid));
    CHECK_EQ(shared->begun, BAD + 1 + COUNT);
    mp_job_drop(f.pool, j, MP_JOB_RELEASED);
    close_pool(&f);
}

SPEC("pool: an error ends a job that wants that") {
    fixture f;
    open_troubled(&f, &(mp_pool_spec){.workers = 1, .places = 1}, FAIL, 1);
    mp_job_shm *j = add_with(&f, (mp_controls){.flags = MP_WITH_STOP}, 10);
    await_end(&f, j);
    CHECK_EQ(mp_job_stopped(j), BAD + 1);
    CHECK_EQ(mp_job_result(j, BAD), MP_CELL_ERROR);
    mp_job_cancel(f.pool, j, MP_JOB_CANCELLED, UINT64_MAX);
    close_pool(&f);
    CHECK_EQ(shared->begun, BAD + 1);
}

static uint32_t count_ready(const fixture *f) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < 4; i++) {
        mp_worker_shm *w = mp_pool_worker(f->pool, i);
        n += mp_tag_alive(atomic_load(&w->tag)) && atomic_load(&w->ready);
    }
    return n;
}

SPEC("pool: grows and shrinks as it is told") {
    fixture f;
    static const uint32_t sizes[] = {4, 1, 3};
    open_troubled(&f, &two, FAIL, 0);
    for (int i = 0; i < 3; i++) {
        mp_deadline deadline = mp_deadline_in(10);
        mp_pool_resize(f.pool, sizes[i]);
        mp_pool_stir(&f.crew);
        while (count_ready(&f) != sizes[i]) {
            CHECK(!mp_deadline_passed(deadline));
            spec_pause();
        }
    }
    mp_job_shm *j = add_with(&f, (mp_controls){0}, 1);
    await_end(&f, j);
    CHECK_EQ(check_items(j), NUMBER);
    mp_job_drop(f.pool, j, MP_JOB_RELEASED);
    close_pool(&f);
}

