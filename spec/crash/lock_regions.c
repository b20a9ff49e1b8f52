/* Lock. The killer is the one that holds it meanwhile. */
#include "sync/lock.h"

#include "crash.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "region_tools.h"

#define LOCK_FIXTURE
#include "lock_fixture.h"

SPEC_PREPARE { open_with_locks(); }

/* HELD       the victim has it when it dies
   ABANDONED  how many were told that its holder died
   ACQUIRED   how many peers had it
   DEADLINE   of the victim's acquire, ns */
enum { HELD, ABANDONED, ACQUIRED, DEADLINE };

static void acquire(void) {
    if (acquire_lock() == MP_LOCK_ABANDONED) crash_count(ABANDONED);
}

static void release(void) { CHECK_EQ(mp_lock_release(lock), 0); }

static void acquire_and_release(void) {
    acquire();
    release();
}

static void peer(int which) {
    (void)which;
    acquire_and_release();
    crash_count(ACQUIRED);
}

static void look_who_has_it(void) {
    uint32_t word = atomic_load(&lock->word);
    crash_note(HELD, (word & MP_TAG_MASK) == crash_victim());
}

/* Nobody has it, everybody had it; that the victim died with it was told
   once, and nothing else. (If the peers were faster than the victim, nobody
   had it since.) */
static void check(void) {
    if (atomic_load(&lock->word)) acquire_and_release();
    CHECK_EQ(crash_noted(ABANDONED), crash_noted(HELD));
    CHECK_EQ(crash_noted(ACQUIRED), 2);
}

static const crash_region lock_free = {.name = "lock: acquire, release",
                                       .set_up = set_up,
                                       .run = acquire_and_release,
                                       .dying = look_who_has_it,
                                       .peers = 2,
                                       .peer = peer,
                                       .check = check,
                                       .tear_down = tear_down};
CRASH_REGION(lock_free)

/* ---- with others ------------------------------------------------------ */

static void let_it_have(int n) {
    (void)n;
    release();
}

static void release_mine(void) {
    if (mp_lock_mine(lock)) release();
}

static const crash_region lock_waits = {.name = "lock: wait, have, release",
                                        .set_up = set_up,
                                        .ready = acquire,
                                        .run = acquire_and_release,
                                        .wake = let_it_have,
                                        .dying = look_who_has_it,
                                        .after = release_mine,
                                        .peers = 2,
                                        .peer = peer,
                                        .check = check,
                                        .tear_down = tear_down};
CRASH_REGION(lock_waits)

/* The victim is the first of three that sleep, so it is the one that a
   release wakes. */
static void let_it_be_first(int n) {
    (void)n;
    crash_begin_peers();
    release_mine();
}

static const crash_region lock_woken = {
    .name = "lock: woken before others, have, release",
    .set_up = set_up,
    .ready = acquire,
    .run = acquire_and_release,
    .wake = let_it_be_first,
    .dying = look_who_has_it,
    .after = release_mine,
    .peers = 2,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(lock_woken)

static const crash_region lock_release = {
    .name = "lock: release while others sleep on it",
    .set_up = set_up,
    .begin = acquire,
    .poised = crash_begin_peers,
    .run = release,
    .dying = look_who_has_it,
    .peers = 2,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(lock_release)

/* Anybody may release it. */
static const crash_region lock_release_other = {
    .name = "lock: release another's while others sleep",
    .set_up = set_up,
    .ready = acquire,
    .poised = crash_begin_peers,
    .run = release,
    .dying = look_who_has_it,
    .after = release_mine,
    .peers = 2,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(lock_release_other)

/* ---- time is up ------------------------------------------------------- */

static mp_deadline deadline;

static void choose_deadline(void) { deadline = short_deadline(DEADLINE); }

static void give_up(void) {
    int r;
    while ((r = mp_lock_acquire(lock, deadline)) == -EINTR) {
    }
    CHECK_EQ(r, -ETIMEDOUT);
}

static void let_time_pass(int n) {
    (void)n;
    await_deadline(DEADLINE);
}

static const crash_region lock_timeout = {
    .name = "lock: wait until time is up",
    .set_up = set_up,
    .ready = acquire,
    .begin = choose_deadline,
    .poised = crash_begin_peers,
    .run = give_up,
    .wake = let_time_pass,
    .dying = look_who_has_it,
    .after = release_mine,
    .peers = 2,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(lock_timeout)

/* ---- its holder died -------------------------------------------------- */

static mp_proc holder;

/* word is not 0 until somebody has released it after the death. */
static void look_if_left(void) {
    crash_note(HELD, atomic_load(&lock->word) != 0);
}

static void leave_held(void) { holder = leave_dead(acquire); }

static void acquire_left(void) {
    CHECK_EQ(acquire_lock(), MP_LOCK_ABANDONED);
    release();
}

static void check_after_holder(void) {
    bury_dead(&holder);
    check();
}

static const crash_region lock_left = {
    .name = "lock: acquire a dead one's, which reaps it",
    .set_up = set_up,
    .ready = leave_held,
    .most = 600,
    .run = acquire_left,
    .dying = look_if_left,
    .peers = 2,
    .peer = peer,
    .check = check_after_holder,
    .tear_down = tear_down};
CRASH_REGION(lock_left)
