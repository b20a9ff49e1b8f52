/* Slots, and the way of a child into its own. */
#include "mem/slot.h"

#include "crash.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "region_tools.h"
#include "sync/lock.h"

#define LOCK_FIXTURE
#include "lock_fixture.h"

SPEC_PREPARE { open_with_locks(); }

enum { PEERS = 2 };

/* HELD       the victim has the lock when it dies
   ABANDONED  how many were told so */
enum { HELD, ABANDONED };

/* No slot is left behind, none is given twice, and nobody but the living
   holds the object. */
static void check(void) {
    CHECK_EQ(slots_in_use(), 1 + PEERS);
    CHECK_EQ(mp_object_refs(id), 1 + PEERS);
}

/* ---- a fork that fails ------------------------------------------------ */

static void reserve_and_release(void) {
    uint32_t index, other;
    CHECK_OK(mp_slot_reserve(&index));
    CHECK_OK(mp_slot_reserve(&other));
    CHECK(index != other);
    mp_slot_release(index);
    mp_slot_release(other);
}

static void peer_reserves(int which) {
    (void)which;
    reserve_and_release();
}

static const crash_region slot_reserve = {
    .name = "slot: reserve two, release them",
    .set_up = set_up,
    .run = reserve_and_release,
    .peers = PEERS,
    .peer = peer_reserves,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(slot_reserve)

static void have_room(void) { warm_up(4096); }

/* With what the child was to hold. */
static void reserve_with_ledger(void) {
    uint32_t index;
    CHECK_OK(mp_slot_reserve(&index));
    CHECK_OK(mp_object_copy_ledger(index));
    CHECK_EQ(mp_object_refs(id) - 1 - PEERS, 2);
    mp_slot_release(index);
}

static const crash_region slot_ledger = {
    .name = "slot: reserve, copy the ledger, release",
    .set_up = set_up,
    .begin = have_room,
    .run = reserve_with_ledger,
    .most = 600,
    .peers = PEERS,
    .peer = peer_reserves,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(slot_ledger)

/* ---- a thread of its own accord ---------------------------------------- */

/* What a thread does that nobody started, done in this one: its robust list
   has two words then, and the slot has no parent. */
static void take_part_and_leave(void) {
    mp_self *self = mp_me;
    mp_me = NULL;
    CHECK_OK(mp_open());
    CHECK(mp_me->tag != self->tag);
    mp_close();
    mp_me = self;
}

static void peer_sweeps(int which) {
    (void)which;
    mp_reap_sweep();
}

static const crash_region slot_take = {
    .name = "slot: take part without a parent, and leave",
    .set_up = set_up,
    .begin = have_room,
    .run = take_part_and_leave,
    .most = 1500,
    .peers = PEERS,
    .peer = peer_sweeps,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(slot_take)

/* A thread is asked to end: here, its asker is. */
static void ask_peer(void) { mp_slot_ask(mp_tag_of(1, 0), 0); }

static const crash_region slot_ask = {
    .name = "slot: ask another to end",
    .set_up = set_up,
    .run = ask_peer,
    .peers = PEERS,
    .peer = peer_reserves,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(slot_ask)

/* ---- birth ------------------------------------------------------------ */

static void acquire_and_release(void) {
    if (acquire_lock() == MP_LOCK_ABANDONED) crash_count(ABANDONED);
    CHECK_EQ(mp_lock_release(lock), 0);
}

static void peer_acquires(int which) {
    (void)which;
    acquire_and_release();
}

static void look_who_has_it(void) {
    uint32_t word = atomic_load(&lock->word);
    crash_note(HELD, (word & MP_TAG_MASK) == crash_victim());
}

static void check_birth(void) {
    check();
    CHECK_EQ(crash_noted(ABANDONED), crash_noted(HELD));
}

static const crash_region slot_claim = {
    .name = "slot: a child becomes a participant",
    .set_up = set_up,
    .from_birth = true,
    .run = acquire_and_release,
    .dying = look_who_has_it,
    .peers = PEERS,
    .peer = peer_acquires,
    .check = check_birth,
    .tear_down = tear_down};
CRASH_REGION(slot_claim)
