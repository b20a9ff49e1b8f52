/* The eventcount by itself, as queues and pools use it: what is waited for
   are items in a shelf, which are never lost and never doubled; and whoever
   dies between an item and its notify delays the others by a slice. */
#include "sync/wait.h"

#include <errno.h>

#include "crash.h"
#include "mem/slot.h"
#include "region_tools.h"

SPEC_PREPARE { CHECK_OK(mp_open()); }

/* SHELF   items on it; and in units of TAKEN, those that peers took: both in
           one word, so that none is in between
   STAGE   what the victim has done: below
   VICTIM  its tag
   SEEN    peers that saw it end */
enum { SHELF, STAGE, VICTIM, SEEN };

#define TAKEN ((uint64_t)1 << 32)

enum { NOTHING, CHANGED, TOOK };
enum { PEERS = 2 };

/* Not an object: nobody is told of a death, so slices must do. */
static mp_wait_shm *changes;

static void set_up(void) { changes = spec_shared(sizeof *changes); }

static uint64_t items(void) { return crash_noted(SHELF) % TAKEN; }

/* Items that are there or were taken by peers. */
static uint64_t accounted(void) {
    uint64_t shelf = crash_noted(SHELF);
    return shelf % TAKEN + shelf / TAKEN;
}

static void put(uint64_t n) {
    atomic_fetch_add(&crash_shared()->n[SHELF], n);
}

/* `mark` is added for the item: TAKEN, or 0. */
static bool take(uint64_t mark) {
    _Atomic uint64_t *shelf = &crash_shared()->n[SHELF];
    uint64_t n = atomic_load(shelf);
    while (n % TAKEN > 0)
        if (atomic_compare_exchange_weak(shelf, &n, n - 1 + mark))
            return true;
    return false;
}

/* As a queue's consumer: who was woken sees to it that others are. */
static void await_item(uint64_t mark) {
    while (!take(mark)) {
        uint32_t seen = mp_wait_announce(changes);
        if (items() > 0) continue;
        int r = mp_wait_sleep(changes, seen, mp_deadline_in(10));
        CHECK(r == 0 || r == -EINTR);
    }
    mp_wait_chain(changes);
    if (items() > 0) mp_wait_notify(changes, 1);
}

static void peer(int which) {
    (void)which;
    await_item(TAKEN);
}

static void check(void) {
    CHECK_EQ(crash_noted(SHELF) / TAKEN, PEERS);
    CHECK_EQ(items(), 0);
}

/* ---- notifying -------------------------------------------------------- */

static void put_for_all(void) {
    put(PEERS);
    crash_note(STAGE, CHANGED);
    mp_wait_notify(changes, INT_MAX);
}

static void put_instead(void) {
    crash_await_rest();
    uint64_t n = accounted();
    CHECK(n == PEERS || (n == 0 && crash_noted(STAGE) == NOTHING));
    if (n > 0) return;
    put(PEERS);
    mp_wait_notify(changes, INT_MAX);
}

static const crash_region wait_notify = {
    .name = "wait: change, notify all",
    .set_up = set_up,
    .poised = crash_begin_peers,
    .run = put_for_all,
    .after = put_instead,
    .peers = PEERS,
    .peer = peer,
    .check = check};
CRASH_REGION(wait_notify)

/* ---- waiting ---------------------------------------------------------- */

/* The victim is the first of three that sleep. */
static void let_one_go(int n) {
    (void)n;
    crash_begin_peers();
    put(1);
    mp_wait_notify(changes, 1);
}

static void take_one(void) {
    await_item(0);
    crash_note(STAGE, TOOK);
}

/* What it left there serves a peer. */
static void put_the_rest(void) {
    if (crash_noted(STAGE) == TOOK) CHECK_EQ(items(), 0);
    crash_await_rest();
    while (accounted() < PEERS) {
        put(1);
        mp_wait_notify(changes, 1);
    }
    /* What was put for it, as the peers had taken what was before. */
    while (accounted() > PEERS) CHECK(take(0));
}

static const crash_region wait_woken = {.name = "wait: woken before others",
                                        .set_up = set_up,
                                        .run = take_one,
                                        .wake = let_one_go,
                                        .after = put_the_rest,
                                        .peers = PEERS,
                                        .peer = peer,
                                        .check = check};
CRASH_REGION(wait_woken)

/* ---- for the end of one ----------------------------------------------- */

static void sleep_on_victim(int which) {
    (void)which;
    uint32_t tag = (uint32_t)crash_noted(VICTIM);
    while (mp_tag_alive(tag) && items() == 0) {
        uint32_t seen = mp_wait_announce(changes);
        if (items() > 0) break;
        int r = mp_wait_sleep_on(changes, seen, tag, mp_deadline_in(10));
        CHECK(r == 0 || r == -EINTR);
    }
    crash_count(SEEN);
}

static void begin_on_victim(void) {
    crash_note(VICTIM, crash_victim());
    crash_begin_peers();
}

static void check_seen(void) { CHECK_EQ(crash_noted(SEEN), PEERS); }

static const crash_region wait_on = {.name = "wait: others sleep on its life",
                                     .set_up = set_up,
                                     .poised = begin_on_victim,
                                     .run = put_for_all,
                                     .peers = PEERS,
                                     .peer = sleep_on_victim,
                                     .check = check_seen};
CRASH_REGION(wait_on)
