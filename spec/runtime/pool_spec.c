#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "pool_fixture.h"

SPEC_PREPARE { prepare_pools(); }

/* Workers that count the runs of each item. */
static plan to_note(void) {
    plan p = no_plan();
    p.notes = spec_shared(MOST_ITEMS);
    return p;
}

/* Workers of which the one that comes to this item sleeps for ever. */
static plan to_sleep_at(uint64_t item) {
    plan p = no_plan();
    p.sleep_at = item;
    return p;
}

static void drop_and_close(fixture *f, job *j) {
    mp_job_drop(f->pool, j->shm, MP_JOB_RELEASED);
    close_pool(f);
}

SPEC("pool: computes every item, from cells and from a range") {
    fixture f;
    open_pool(&f, 3, 0, no_plan());
    static const uint64_t chunks[] = {0, 1, 7, 64, 1000, UINT64_MAX};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        CHECK_EQ(run_job(&f, 5000, chunks[i], MP_JOB_CELLS), 0);
        CHECK_EQ(run_job(&f, 5000, chunks[i], MP_JOB_RANGE), 0);
    }
    close_pool(&f);
}

SPEC("pool: several jobs at a time, each with its own results") {
    fixture f;
    open_pool(&f, 3, 0, no_plan());
    job jobs[5];
    for (int i = 0; i < 5; i++)
        jobs[i] = add_job(&f, 1000, (uint64_t)i, MP_JOB_CELLS);
    for (uint64_t until = 100; until <= 1000; until += 100)
        for (int i = 0; i < 5; i++) take_until(&f, &jobs[i], until);
    for (int i = 0; i < 5; i++)
        mp_job_drop(f.pool, jobs[i].shm, MP_JOB_RELEASED);
    close_pool(&f);
}

SPEC("pool: a job of nothing is finished at once") {
    fixture f;
    open_pool(&f, 1, 0, no_plan());
    job j = add_job(&f, MP_JOB_OPEN, 0, MP_JOB_CELLS);
    CHECK(!mp_job_finished(j.shm));
    mp_job_finish_input(f.pool, j.shm, 0);
    CHECK(mp_job_finished(j.shm));
    drop_and_close(&f, &j);
}

SPEC("pool: a worker's death loses the item it ran, and that alone") {
    for (uint64_t chunk = 0; chunk < 40; chunk += 13) {
        fixture f;
        plan p = to_note();
        p.die_at = 17;
        open_pool(&f, 2, 0, p);
        job j = add_job(&f, 100, chunk, MP_JOB_CELLS);
        take_until(&f, &j, 17);
        CHECK_EQ(await_next(&f, &j), MP_CELL_LOST);
        uint64_t value = mp_cell_value(mp_job_out(j.shm, 17));
        CHECK_EQ((int32_t)(uint32_t)value, -SIGKILL);
        CHECK(value >> 32 > 1);
        take_until(&f, &j, 100);
        CHECK_EQ(j.lost, 1);
        for (int i = 0; i < 100; i++) CHECK_EQ(p.notes[i], 1);
        drop_and_close(&f, &j);
    }
}

SPEC("pool: a result that stands is no lost one, however late its worker dies "
     "and whatever became of the cell") {
    fixture f;
    create_pool(&f, 1, 0, no_plan());
    job j = add_job(&f, 200, 100, MP_JOB_RANGE);
    feed(&f, &j);
    mp_range range;
    CHECK_OK(mp_worker_claim(f.pool, 0, &range));
    mp_worker_at(mp_pool_worker(f.pool, 0), 3);
    /* The caller has taken item 3, and a later lap's result is there. */
    mp_worker_result(j.shm, 3 + WINDOW, NUMBER, 99);
    mp_crew_bury(f.pool, 0, -SIGKILL);
    CHECK_EQ(mp_job_result(j.shm, 3 + WINDOW), NUMBER);
    CHECK_EQ(mp_cell_value(mp_job_out(j.shm, 3 + WINDOW)), 99);
    /* What is behind it waits for the next. */
    CHECK_OK(mp_worker_claim(f.pool, 0, &range));
    CHECK_EQ(range.low, 4);
    drop_pool(&f);
}

SPEC("pool: a worker ends after its share, and another comes") {
    fixture f;
    open_pool(&f, 2, 3, no_plan());
    CHECK_EQ(run_job(&f, 300, 1, MP_JOB_CELLS), 0);
    CHECK_EQ(run_job(&f, 300, 0, MP_JOB_RANGE), 0);
    close_pool(&f);
}

SPEC("pool: close lets everything be done that was fed") {
    fixture f;
    plan p = to_note();
    open_pool(&f, 2, 0, p);
    job j = add_job(&f, WINDOW, 1, MP_JOB_CELLS);
    feed(&f, &j);
    drop_and_close(&f, &j);
    for (int i = 0; i < WINDOW; i++) CHECK_EQ(p.notes[i], 1);
}

SPEC("pool: close waits for an input that is still open") {
    fixture f;
    open_pool(&f, 2, 0, no_plan());
    job j = add_job(&f, MP_JOB_OPEN, 1, MP_JOB_RANGE);
    mp_pool_close(f.pool);
    j.count = 100;
    take_until(&f, &j, 100);
    CHECK_EQ(mp_proc_wait(&f.crew, mp_deadline_in(0.05)), -ETIMEDOUT);
    mp_job_finish_input(f.pool, j.shm, 100);
    CHECK_EQ(await_crew(&f), 0);
    mp_job_drop(f.pool, j.shm, MP_JOB_RELEASED);
    drop_pool(&f);
}

SPEC("pool: terminate stops what runs, at once, and frees all") {
    fixture f;
    open_pool(&f, 3, 0, to_sleep_at(10));
    job j = add_job(&f, MOST_ITEMS, 1, MP_JOB_CELLS);
    feed(&f, &j);
    take_until(&f, &j, 10);
    double begin = spec_now();
    mp_pool_terminate(f.pool, &f.crew);
    await_crew(&f);
    CHECK(spec_now() - begin < 1);
    CHECK_EQ(mp_job_wait(f.pool, j.shm, 11, 10, mp_deadline_in(5)), 0);
    CHECK_EQ(mp_job_result(j.shm, 10), 0);
    drop_pool(&f);
}

SPEC("pool: a cancelled job is not run on, and is freed when idle") {
    fixture f;
    plan p = to_note();
    p.spin_ns = 1000000;
    open_pool(&f, 2, 0, p);
    for (int round = 0; round < 20; round++) {
        uint64_t chunk = round % 2 ? 1 : WINDOW;
        job j = add_job(&f, WINDOW, chunk, MP_JOB_CELLS);
        feed(&f, &j);
        if (chunk == 1) take_until(&f, &j, 1);
        mp_job_drop(f.pool, j.shm, MP_JOB_CANCELLED);
    }
    uint64_t ran = 0;
    for (int i = 0; i < WINDOW; i++) ran += p.notes[i];
    CHECK(ran < 20 * WINDOW / 4);
    close_pool(&f);
}

SPEC("pool: equal functions are kept once, unused ones not for ever") {
    fixture f;
    open_pool(&f, 1, 0, no_plan());
    mp_ref first = new_function(&f, 1, 10);
    CHECK_EQ(new_function(&f, 1, 10), first);
    CHECK(new_function(&f, 2, 10) != first);
    CHECK(new_function(&f, 1, 11) != first);
    for (uint32_t i = 0; i < 200; i++) new_function(&f, i, 1000);
    uint64_t used = mp_heap_used();
    for (uint32_t i = 0; i < 200; i++) new_function(&f, i, 1001);
    CHECK(mp_heap_used() <= used + 4096);
    close_pool(&f);
}

SPEC("pool: breaks, with the reason, when a worker cannot start") {
    fixture f;
    plan p = no_plan();
    p.fail_start = 1;
    open_pool(&f, 3, 0, p);
    CHECK_SOON(mp_pool_state(f.pool) == MP_POOL_BROKEN);
    CHECK_EQ(read_block(mp_pool_reason(f.pool)), 13);
    await_crew(&f);
    drop_pool(&f);
}

SPEC("pool: leaves nothing when it cannot start") {
    fixture f;
    create_pool(&f, 4, 0, no_plan());
    struct rlimit old, none;
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &old));
    none = old;
    int next = dup(0);
    CHECK_OK(next);
    close(next);
    none.rlim_cur = (rlim_t)next;
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &none));
    int r = mp_pool_start(f.pool, &f.crew, work, &f.plan);
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &old));
    CHECK_EQ(r, -EMFILE);
    drop_pool(&f);
}

SPEC("pool: a killed crew is replaced; what ran is lost, the rest is not") {
    fixture f;
    open_pool(&f, 2, 0, to_sleep_at(20));
    job j = add_job(&f, 500, 4, MP_JOB_CELLS);
    take_until(&f, &j, 20);
    CHECK_OK(mp_proc_signal(&f.crew, SIGKILL));
    take_until(&f, &j, 500);
    CHECK(j.lost >= 1 && j.lost <= 2);
    drop_and_close(&f, &j);
}

SPEC("pool: who waits for one item sleeps, though many others are done") {
    fixture f;
    open_pool(&f, 2, 0, to_sleep_at(0));
    job j = add_job(&f, WINDOW, 1, MP_JOB_RANGE);
    feed(&f, &j);
    CHECK_SOON(mp_job_result(j.shm, WINDOW - 1));
    clock_t used = clock();
    mp_deadline deadline = mp_deadline_in(0.3);
    int r;
    do
        r = mp_job_wait(f.pool, j.shm, 1, 0, deadline);
    while (r == 0 || r == -EINTR);
    CHECK_EQ(r, -ETIMEDOUT);
    CHECK(clock() - used < CLOCKS_PER_SEC / 20);
    terminate_pool(&f);
}
