/* RLock: acquired twice, released twice. */
#include "crash.h"
#include "mem/object.h"
#include "sync/lock.h"

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    CHECK_OK(mp_rlock_create(&id, &gen));
    mp_object_detach(id);
}

static uint32_t id, gen;
static mp_rlock_shm *rlock;

static void set_up(void) {
    CHECK_OK(mp_rlock_create(&id, &gen));
    rlock = mp_object_block(id);
}

static void tear_down(void) { mp_object_detach(id); }

/* As in lock_regions.c. */
enum { HELD, ABANDONED, ACQUIRED };

static void acquire(void) {
    int r;
    while ((r = mp_rlock_acquire(rlock, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK(r == 0 || r == MP_LOCK_ABANDONED);
    if (r == MP_LOCK_ABANDONED) crash_count(ABANDONED);
}

static void release(void) { CHECK_EQ(mp_rlock_release(rlock), 0); }

static void acquire_twice(void) {
    acquire();
    acquire();
}

static void release_twice(void) {
    release();
    CHECK(mp_lock_mine(&rlock->lock));
    release();
}

static void acquire_and_release(void) {
    acquire_twice();
    release_twice();
}

/* It is held as often as this one acquired it, whatever count the dead one
   left. */
static void peer(int which) {
    (void)which;
    acquire();
    CHECK_EQ(atomic_load(&rlock->count), 1);
    acquire();
    CHECK_EQ(atomic_load(&rlock->count), 2);
    release_twice();
    crash_count(ACQUIRED);
}

static void look_who_has_it(void) {
    uint32_t word = atomic_load(&rlock->lock.word);
    crash_note(HELD, (word & MP_TAG_MASK) == crash_victim());
}

static void check(void) {
    if (atomic_load(&rlock->lock.word)) acquire_and_release();
    CHECK_EQ(crash_noted(ABANDONED), crash_noted(HELD));
    CHECK_EQ(crash_noted(ACQUIRED), 2);
}

static const crash_region rlock_free = {
    .name = "rlock: acquire and release twice",
    .set_up = set_up,
    .run = acquire_and_release,
    .dying = look_who_has_it,
    .peers = 2,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(rlock_free)

static void release_mine(void) {
    if (mp_lock_mine(&rlock->lock)) release();
}

static void let_it_be_first(int n) {
    (void)n;
    crash_begin_peers();
    release_mine();
}

static const crash_region rlock_woken = {
    .name = "rlock: woken before others, have twice",
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
CRASH_REGION(rlock_woken)

static const crash_region rlock_release = {
    .name = "rlock: release twice while others sleep",
    .set_up = set_up,
    .begin = acquire_twice,
    .poised = crash_begin_peers,
    .run = release_twice,
    .dying = look_who_has_it,
    .peers = 2,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(rlock_release)
