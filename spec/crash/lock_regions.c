/* Lock. The killer is the one that holds it meanwhile. */
#include <errno.h>

#include "crash.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "sync/lock.h"

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_object_detach(id);
}

static uint32_t id, gen;
static mp_lock_shm *lock;

static void set_up(void) {
    CHECK_OK(mp_lock_create(&id, &gen));
    lock = mp_object_block(id);
}

static void tear_down(void) { mp_object_detach(id); }

enum { ABANDONED, ACQUIRED };

static void acquire(void) {
    int r;
    while ((r = mp_lock_acquire(lock, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK(r == 0 || r == MP_LOCK_ABANDONED);
    atomic_fetch_add(&crash_shared()->n[ABANDONED], r == MP_LOCK_ABANDONED);
}

static void release(void) { CHECK_EQ(mp_lock_release(lock), 0); }

static void acquire_and_release(void) {
    acquire();
    release();
}

static void peer(int which) {
    (void)which;
    acquire_and_release();
    atomic_fetch_add(&crash_shared()->n[ACQUIRED], 1);
}

/* Nobody has it; that the victim died with it was told once at most. */
static void check(void) {
    CHECK_EQ(atomic_load(&lock->word), 0);
    CHECK(atomic_load(&crash_shared()->n[ABANDONED]) <= !crash_left());
    CHECK_EQ(atomic_load(&crash_shared()->n[ACQUIRED]), 2);
}

static const crash_region lock_free = {.name = "lock: acquire, release",
                                       .set_up = set_up,
                                       .run = acquire_and_release,
                                       .peers = 2,
                                       .peer = peer,
                                       .check = check,
                                       .tear_down = tear_down};
CRASH_REGION(lock_free)

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
    .after = release_mine,
    .peers = 2,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(lock_woken)
