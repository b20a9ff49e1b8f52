#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pool_fixture.h"

SPEC_PREPARE { prepare_pools(); }

/* Somebody kills workers, and the crew too if so told, at random. It is no
   participant and knows nothing but the pids; it ends with the spec. */
typedef struct killer {
    mp_pool_shm *pool;
    uint32_t workers;
    int most_us;
    pid_t spec;
    _Atomic int stop, crew;
    _Atomic unsigned kills;
} killer;

static void pause_us(long us) {
    struct timespec t = {.tv_nsec = us * 1000};
    nanosleep(&t, NULL);
}

/* Kills a process of this spec's group, and no other: a pid may have passed
   to a stranger, but what a pidfd names stays the same. (Where there are
   none, nobody is killed.) */
static bool kill_ours(pid_t pid) {
    int fd = pid > 1 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (fd < 0) return false;
    bool ours = getpgid(pid) == getpgrp() &&
                syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0;
    close(fd);
    return ours;
}

static void kill_some(void *argument) {
    killer *k = argument;
    unsigned seed = (unsigned)getpid(), n = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (!atomic_load(&k->stop) && getppid() == k->spec) {
        uint32_t i = (uint32_t)rand_r(&seed) % k->workers;
        pid_t pid = (pid_t)atomic_load(&mp_pool_worker(k->pool, i)->pid);
        int crew = atomic_load(&k->crew);
        if (crew && ++n % 10 == 0) pid = crew;
        if (kill_ours(pid)) atomic_fetch_add(&k->kills, 1);
        pause_us(1 + rand_r(&seed) % k->most_us);
    }
}

static killer *start_killer(fixture *f, uint32_t workers, int most_us,
                            pid_t *pid) {
    killer *k = spec_shared(sizeof *k);
    k->pool = f->pool;
    k->workers = workers;
    k->most_us = most_us;
    k->spec = getpid();
    *pid = spec_fork(kill_some, k);
    return k;
}

static unsigned stop_killer(killer *k, pid_t pid) {
    atomic_store(&k->stop, 1);
    CHECK_EQ(spec_wait(pid), 0);
    return k->kills;
}

static void check_kills(unsigned kills, unsigned least) {
    CHECK(kills > least || !spec_has_pidfds());
}

enum { WORKERS = 4, LEAST = 20 };

/* A job while the killer is about, `lost` of whose items are lost; false: time
   was up before it was done. Every item is run once at most. */
static bool run_under_kills(fixture *f, _Atomic unsigned char *notes,
                            uint32_t source, uint64_t chunk, double seconds,
                            uint64_t *lost) {
    for (uint64_t i = 0; i < MOST_ITEMS; i++) atomic_store(&notes[i], 0);
    double end = spec_now() + seconds;
    job j = add_job(f, MOST_ITEMS, chunk, source);
    while (j.taken < MOST_ITEMS && spec_now() < end)
        take_until(f, &j, j.taken + WINDOW / 2);
    CHECK(j.taken > 100);
    for (uint64_t i = 0; i < j.taken; i++) CHECK(notes[i] <= 1);
    *lost += j.lost;
    mp_job_drop(f->pool, j.shm, MP_JOB_CANCELLED);
    return j.taken == MOST_ITEMS;
}

/* One after the other, until enough was killed: every item comes out once,
   computed or lost. */
static void storm(uint32_t source, uint64_t chunk, int64_t spin_ns,
                  uint64_t most, double seconds) {
    enum { KILLS = 50 };
    fixture f;
    pid_t pid;
    plan p = no_plan();
    uint64_t lost = 0;
    p.spin_ns = spin_ns;
    p.notes = spec_shared(MOST_ITEMS);
    open_pool(&f, WORKERS, most, p);
    killer *k = start_killer(&f, WORKERS, 1500, &pid);
    double latest = spec_now() + 20;
    bool done;
    do {
        done = run_under_kills(&f, p.notes, source, chunk, seconds, &lost);
    } while (done && k->kills <= KILLS && spec_now() < latest);
    unsigned kills = stop_killer(k, pid);
    check_kills(kills, KILLS);
    CHECK(lost <= kills);
    CHECK_EQ(run_job(&f, 100, 0, MP_JOB_CELLS), 0);
    close_pool(&f);
}

SPEC_WITHIN(60, "pool: under kills, every item of cells comes once") {
    storm(MP_JOB_CELLS, 1, 2000, 0, 2);
}

SPEC_WITHIN(60, "pool: under kills, every item of a range comes once") {
    storm(MP_JOB_RANGE, 5, 2000, 0, 2);
}

SPEC_WITHIN(60, "pool: under kills, adaptive chunks lose single items") {
    storm(MP_JOB_CELLS, 0, 1000, 0, 2);
}

SPEC_WITHIN(60, "pool: under kills, workers that end by themselves, too") {
    storm(MP_JOB_CELLS, 2, 2000, 10, 2);
}

SPEC_WITHIN(60, "pool: jobs come and go under kills, and leave no byte") {
    fixture f;
    pid_t pid;
    plan p = no_plan();
    p.spin_ns = 5000;
    open_pool(&f, WORKERS, 0, p);
    killer *k = start_killer(&f, WORKERS, 1500, &pid);
    unsigned seed = (unsigned)getpid(), rounds = 0;
    double end = spec_now() + 3;
    for (; rounds < LEAST || spec_now() < end; rounds++) {
        uint64_t count = 1 + (uint64_t)rand_r(&seed) % 200;
        uint64_t until = (uint64_t)rand_r(&seed) % (count + 1);
        job j = add_job(&f, count, (uint64_t)rand_r(&seed) % 9,
                        rand_r(&seed) % 2 ? MP_JOB_CELLS : MP_JOB_RANGE);
        feed(&f, &j);
        take_until(&f, &j, until);
        bool released = j.fed == count && rand_r(&seed) % 2;
        mp_job_drop(f.pool, j.shm,
                    released ? MP_JOB_RELEASED : MP_JOB_CANCELLED);
    }
    check_kills(stop_killer(k, pid), 50);
    close_pool(&f);
}

SPEC_WITHIN(60, "pool: crews are killed among their workers") {
    fixture f;
    pid_t pid;
    plan p = no_plan();
    p.spin_ns = 30000;
    p.notes = spec_shared(MOST_ITEMS);
    open_pool(&f, WORKERS, 0, p);
    /* Not so fast that no worker ever gets ready: that breaks a pool. */
    killer *k = start_killer(&f, WORKERS, 6000, &pid);
    f.target = &k->crew;
    atomic_store(f.target, (int)f.crew.pid);
    job j = add_job(&f, MOST_ITEMS, 3, MP_JOB_CELLS);
    double end = spec_now() + 3;
    while (j.taken < MOST_ITEMS && spec_now() < end)
        take_until(&f, &j, j.taken + WINDOW / 2);
    atomic_store(f.target, 0);
    check_kills(stop_killer(k, pid), 20);
    for (uint64_t i = 0; i < j.taken; i++) CHECK(p.notes[i] <= 1);
    mp_job_drop(f.pool, j.shm, MP_JOB_CANCELLED);
    /* It may be dying already, and its workers would be killed at a job. */
    CHECK_EQ(kill(f.crew.pid, SIGKILL), 0);
    restart(&f);
    CHECK_EQ(run_job(&f, 100, 0, MP_JOB_CELLS), 0);
    close_pool(&f);
}

/* A caller that makes pools and uses them until it is killed. */
static void call_for_ever(void) {
    for (unsigned round = 0;; round++) {
        fixture f;
        open_pool(&f, 2, 0, no_plan());
        job jobs[3];
        for (int i = 0; i < 3; i++) {
            jobs[i] = add_job(&f, 1000, (uint64_t)i, MP_JOB_CELLS);
            feed(&f, &jobs[i]);
        }
        take_until(&f, &jobs[1], 200);
        mp_job_drop(f.pool, jobs[0].shm, MP_JOB_CANCELLED);
        mp_job_drop(f.pool, jobs[1].shm, MP_JOB_CANCELLED);
        if (round % 2) mp_pool_terminate(f.pool, &f.crew);
        mp_job_drop(f.pool, jobs[2].shm, MP_JOB_CANCELLED);
        mp_pool_close(f.pool);
        await_crew(&f);
        mp_object_detach(f.id);
    }
}

static uint64_t used_now(void) {
    mp_reap_sweep();
    return mp_heap_used();
}

SPEC_WITHIN(60, "pool: a killed caller takes all along, and leaves no byte") {
    uint64_t used = mp_heap_used();
    unsigned seed = (unsigned)getpid();
    double end = spec_now() + 4;
    for (int round = 0; round < 200 && spec_now() < end; round++) {
        mp_proc caller;
        int r = mp_proc_fork(&caller, 0);
        CHECK_OK(r);
        if (r == 1) call_for_ever();
        pause_us(rand_r(&seed) % 15000);
        mp_proc_signal(&caller, SIGKILL);
        while (mp_proc_wait(&caller, MP_FOREVER) == -EINTR) {
        }
        mp_proc_close(&caller);
        CHECK_SOON(used_now() == used);
        CHECK_EQ(mp_object_count(), 0);
    }
}
