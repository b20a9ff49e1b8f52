/* The reaper dies as it reaps one on whom others wait. Those sleep, and have
   the patience not to look around themselves; a last peer, the witness,
   notices first the reaper's death and then the other's. */
#include <unistd.h>

#include "crash.h"
#include "lock_fixture.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "region_tools.h"
#include "sync/barrier.h"
#include "sync/cond.h"

SPEC_PREPARE {
    open_with_locks();
    mp_cond_open();
    mp_barrier_open();
}

enum { SLEEPERS = 3, PEERS = SLEEPERS + 1, MOST_POINTS = 150 };

/* WOKEN   sleepers that came back
   VICTIM  its tag
   GHOST   the tag of the one that it reaps */
enum { WOKEN, VICTIM, GHOST };

static uint32_t id, gen;
static mp_cond_shm *cond;
static mp_barrier_shm *barrier;
static mp_proc ghost;

static void tear_down(void) { mp_object_detach(id); }

/* A participant that does `act` and then does nothing. */
static void start_ghost(void (*act)(void)) {
    int r = mp_proc_fork(&ghost, 0);
    CHECK_OK(r);
    if (r == 1) {
        act();
        for (;;) pause();
    }
    crash_note(GHOST, ghost.tag);
}

static void kill_ghost(void) {
    siginfo_t info;
    mp_proc_signal(&ghost, SIGKILL);
    CHECK_OK(waitid(P_PID, (id_t)ghost.pid, &info, WEXITED | WNOWAIT));
}

static void reap_ghost(void) { mp_reap(ghost.tag); }

static void tell_witness(void) {
    crash_note(VICTIM, crash_victim());
    open_gate();
}

static void be_patient(void) { mp_me->first_slice_ns = 4000000000U; }

static void be_witness(void) {
    pass_gate();
    uint32_t tag = (uint32_t)crash_noted(VICTIM);
    CHECK_SOON(!mp_tag_alive(tag));
    mp_reap(tag);
    mp_reap((uint32_t)crash_noted(GHOST));
}

static void check(void) {
    bury_dead(&ghost);
    CHECK_EQ(crash_noted(WOKEN), SLEEPERS);
    CHECK_EQ(slots_in_use(), 1 + PEERS);
    CHECK_EQ(mp_object_refs(id), 1 + PEERS);
}

/* ---- a waiter that was notified --------------------------------------- */

static void set_up_cond(void) {
    CHECK_OK(mp_cond_create(0, NULL, false, &id, &gen));
    cond = mp_object_block(id);
}

static void acquire(void) {
    int r;
    while ((r = mp_cond_acquire(cond, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK(r == 0 || r == MP_LOCK_ABANDONED);
}

static void release(void) { CHECK_EQ(mp_cond_release(cond), 0); }

static void begin_to_wait(mp_cond_wait *w) {
    acquire();
    CHECK_OK(mp_cond_wait_begin(cond, w));
}

static void wait_first(void) {
    mp_cond_wait w;
    begin_to_wait(&w);
}

static void wait_behind(void) {
    mp_cond_wait w;
    int r;
    begin_to_wait(&w);
    while ((r = mp_cond_wait_sleep(&w, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_EQ(r, 0);
    while ((r = mp_cond_wait_relock(cond, &w)) == -EINTR) {
    }
    CHECK(r == 0 || r == MP_LOCK_ABANDONED);
    CHECK(mp_cond_wait_end(cond, &w, false));
    release();
    crash_count(WOKEN);
}

/* The ghost's notify has gone to just one. */
static void look_at_waiters(void) {
    CHECK_SOON(crash_noted(WOKEN) >= 1);
    acquire();
    CHECK_EQ(mp_cond_waiting(cond), SLEEPERS - 1);
    CHECK_OK(mp_cond_notify(cond, UINT32_MAX));
    release();
}

static void cond_peer(int which) {
    be_patient();
    if (which < SLEEPERS) {
        wait_behind();
    } else {
        be_witness();
        look_at_waiters();
    }
}

static void leave_notified(void) {
    start_ghost(wait_first);
    CHECK_SOON(atomic_load(&cond->waiters.head) != 0 &&
               atomic_load(&cond->own.lock.word) == 0);
    crash_begin_peers();
    acquire();
    CHECK_OK(mp_cond_notify(cond, 1));
    release();
    kill_ghost();
}

static void check_cond(void) {
    check();
    CHECK_EQ(atomic_load(&cond->waiters.head), 0);
    CHECK_EQ(atomic_load(&cond->own.lock.word), 0);
}

static const crash_region reap_notified = {
    .name = "reap: a waiter that was notified",
    .set_up = set_up_cond,
    .ready = leave_notified,
    .most = MOST_POINTS,
    .run = reap_ghost,
    .after = tell_witness,
    .peers = PEERS,
    .peer = cond_peer,
    .check = check_cond,
    .tear_down = tear_down};
CRASH_REGION(reap_notified)

/* ---- a party of a barrier --------------------------------------------- */

/* With the ghost there is one too few. */
static void set_up_barrier(void) {
    CHECK_OK(mp_barrier_create(SLEEPERS + 2, -1, 0, &id, &gen));
    barrier = mp_object_block(id);
}

static void arrive(void) {
    mp_ref node;
    CHECK_EQ(mp_barrier_arrive(barrier, &node), 0);
}

static void arrive_and_wait(void) {
    mp_ref node;
    int r;
    CHECK_EQ(mp_barrier_arrive(barrier, &node), 0);
    mp_deadline deadline = mp_deadline_in(10);
    while ((r = mp_barrier_wait(barrier, node, deadline)) == -EINTR) {
    }
    CHECK_EQ(r, -EPIPE);
    mp_barrier_leave(barrier, node);
    crash_count(WOKEN);
}

static void barrier_peer(int which) {
    be_patient();
    if (which < SLEEPERS)
        arrive_and_wait();
    else
        be_witness();
}

static void leave_arrived(void) {
    mp_barrier_reset(barrier);
    start_ghost(arrive);
    CHECK_SOON(mp_barrier_waiting(barrier) == 1);
    crash_begin_peers();
    kill_ghost();
}

static void check_barrier(void) {
    check();
    CHECK(mp_barrier_broken(barrier));
    CHECK_EQ(atomic_load(&barrier->waiters.head), 0);
    CHECK_EQ(mp_barrier_waiting(barrier), 0);
}

static const crash_region reap_party = {
    .name = "reap: a party of a barrier",
    .set_up = set_up_barrier,
    .ready = leave_arrived,
    .most = MOST_POINTS,
    .run = reap_ghost,
    .after = tell_witness,
    .peers = PEERS,
    .peer = barrier_peer,
    .check = check_barrier,
    .tear_down = tear_down};
CRASH_REGION(reap_party)
