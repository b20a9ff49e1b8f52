/* A pool seen from outside of its jobs: what is begun, taken back, under way,
   and who waits for the first of several. */
#include <errno.h>

#include "pool_fixture.h"

SPEC_PREPARE { prepare_pools(); }

/* One worker, who sleeps for ever at item 0. */
static fixture sleeper(job *j) {
    fixture f;
    plan p = no_plan();
    p.sleep_at = 0;
    open_pool(&f, 1, 0, p);
    *j = add_job(&f, 10, 1, MP_JOB_RANGE);
    feed(&f, j);
    while (!mp_job_begun(j->shm)) spec_pause();
    return f;
}

SPEC("pool: takes back what is not begun, and only that") {
    job asleep;
    fixture f = sleeper(&asleep);
    uint64_t used = mp_heap_used();
    job j = add_job(&f, 3, 1, MP_JOB_CELLS);
    feed(&f, &j);
    CHECK(!mp_job_begun(j.shm));
    CHECK(mp_job_withdraw(f.pool, j.shm));
    CHECK(!mp_job_withdraw(f.pool, asleep.shm));
    CHECK(mp_heap_used() - used < sizeof(mp_job_shm));
    terminate_pool(&f);
}

SPEC("pool: forgets released jobs, and no others") {
    job asleep;
    fixture f = sleeper(&asleep);
    job kept = add_job(&f, 3, 1, MP_JOB_RANGE);
    job gone = add_job(&f, 4, 1, MP_JOB_CELLS);
    uint64_t waiting;
    uint32_t busy;
    feed(&f, &kept);
    feed(&f, &gone);
    mp_pool_load(f.pool, &waiting, &busy);
    CHECK_EQ(waiting, 9 + 3 + 4);
    CHECK_EQ(busy, 1);
    mp_job_drop(f.pool, gone.shm, MP_JOB_RELEASED);
    mp_pool_forget(f.pool);
    mp_pool_load(f.pool, &waiting, &busy);
    CHECK_EQ(waiting, 9 + 3);
    CHECK(mp_job_withdraw(f.pool, kept.shm));
    terminate_pool(&f);
}

SPEC("pool: counts what is done in a range that is not") {
    fixture f;
    plan p = no_plan();
    p.sleep_at = 7;
    open_pool(&f, 1, 0, p);
    job j = add_job(&f, 10, 10, MP_JOB_RANGE);
    feed(&f, &j);
    mp_deadline deadline = mp_deadline_in(20);
    while (mp_job_progress(f.pool, j.shm) < 7) {
        CHECK(!mp_deadline_passed(deadline));
        spec_pause();
    }
    CHECK_EQ(mp_job_progress(f.pool, j.shm), 7);
    CHECK(!mp_job_finished(j.shm));
    terminate_pool(&f);
}

SPEC("pool: wakes who waits for the first of several jobs") {
    job asleep;
    fixture f = sleeper(&asleep);
    uint32_t seen = mp_pool_watch(f.pool);
    CHECK_EQ(mp_pool_sleep(f.pool, seen, mp_deadline_in(0.002)), -ETIMEDOUT);
    terminate_pool(&f);
    plan none = no_plan();
    open_pool(&f, 2, 0, none);
    job first = add_job(&f, 1, 1, MP_JOB_RANGE);
    job second = add_job(&f, 1, 1, MP_JOB_RANGE);
    mp_job_announce_end(first.shm);
    mp_job_announce_end(second.shm);
    feed(&f, &second);
    mp_deadline deadline = mp_deadline_in(20);
    for (;;) {
        seen = mp_pool_watch(f.pool);
        if (mp_job_finished(second.shm)) break;
        int r = mp_pool_sleep(f.pool, seen, deadline);
        CHECK(r == 0 || r == -EINTR);
    }
    CHECK(!mp_job_finished(first.shm));
    feed(&f, &first);
    mp_job_drop(f.pool, first.shm, MP_JOB_RELEASED);
    mp_job_drop(f.pool, second.shm, MP_JOB_RELEASED);
    close_pool(&f);
}
