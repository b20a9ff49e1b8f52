/* Children, seen from the parent. What a victim forked dies with it. */
#include "proc/proc.h"

#include <sched.h>
#include <unistd.h>

#include "crash.h"
#include "mem/object.h"
#include "region_tools.h"
#include "sync/lock.h"

#define LOCK_FIXTURE
#include "lock_fixture.h"

SPEC_PREPARE { open_with_locks(); }

enum { PEERS = 2 };
enum { ABANDONED, ACQUIRED }; /* notes: of the peers */

static mp_proc child;

static void peer(int which) {
    (void)which;
    if (acquire_lock() == MP_LOCK_ABANDONED) crash_count(ABANDONED);
    CHECK_EQ(mp_lock_release(lock), 0);
    crash_count(ACQUIRED);
}

static void check(void) {
    CHECK_EQ(slots_in_use(), 1 + PEERS);
    CHECK_EQ(mp_object_refs(id), 1 + PEERS);
    CHECK_EQ(crash_noted(ACQUIRED), PEERS);
}

/* The end of a child is no stop of its traced parent. */
static void ignore_children(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

/* ---- fork ------------------------------------------------------------- */

static void begin_fork(void) {
    ignore_children();
    warm_up(4096);
}

/* The child keeps the lock from the others, if it comes so far. */
static void fork_one(void) {
    int r = mp_proc_fork(&child, 0);
    CHECK_OK(r);
    if (r == 0) return;
    acquire_lock();
    for (;;) pause();
}

static const crash_region proc_fork = {
    .name = "proc: fork a child that takes a lock",
    .set_up = set_up,
    .begin = begin_fork,
    .most = 800,
    .run = fork_one,
    .peers = PEERS,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(proc_fork)

/* ---- wait ------------------------------------------------------------- */

/* The child has the lock, and dies with it when it may, or with its parent. */
static void have_child(void) {
    ignore_children();
    int r = mp_proc_fork(&child, 0);
    CHECK_OK(r);
    if (r == 1) {
        acquire_lock();
        pass_gate();
        raise(SIGKILL);
    }
    while (atomic_load(&lock->word) == 0) sched_yield();
}

static void let_child_die(int n) {
    if (n == 0) open_gate();
}

static void wait_for_child(void) {
    int r;
    while ((r = mp_proc_wait(&child, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_EQ(r, 0);
    CHECK_EQ(child.exitcode, -SIGKILL);
    mp_proc_close(&child);
}

static void check_told_once(void) {
    check();
    CHECK_EQ(crash_noted(ABANDONED), 1);
}

static const crash_region proc_wait = {
    .name = "proc: wait for a child, reap it",
    .set_up = set_up,
    .begin = have_child,
    .most = 800,
    .run = wait_for_child,
    .wake = let_child_die,
    .peers = PEERS,
    .peer = peer,
    .check = check_told_once,
    .tear_down = tear_down};
CRASH_REGION(proc_wait)
