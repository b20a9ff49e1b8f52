/* Arrays and values. What is whole at any time is a cell; who enters does not
   hide from the next user of the lock that a holder died. */
#include "data/array.h"

#include "crash.h"
#include "mem/heap.h"
#include "mem/slot.h"
#include "region_tools.h"

enum { LENGTH = 12, PEERS = 2, TIMES = 3 };

/* LEFT  the victim has the lock when it dies, or died with it before
   DONE  changes that somebody knows to have made, per cell */
enum { LEFT, DONE };

typedef struct handle {
    uint32_t id, gen;
} handle;

static handle array, lock;
static mp_array_shm *a;

static handle new_array(int type, uint64_t length, const mp_guard *guard) {
    handle h;
    int object = length == 1 ? MP_TYPE_VALUE : MP_TYPE_ARRAY;
    CHECK_OK(mp_array_create(object, type, length, guard, &h.id, &h.gen));
    return h;
}

SPEC_PREPARE {
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_array_open();
    mp_guard own = {.kind = MP_GUARD_OWN};
    mp_object_detach(new_array(MP_CELL_q, 1, &own).id);
}

static void set_up_by(const mp_guard *guard) {
    array = new_array(MP_CELL_Q, LENGTH, guard);
    a = mp_object_block(array.id);
}

static void set_up(void) {
    mp_guard own = {.kind = MP_GUARD_OWN};
    set_up_by(&own);
}

static void tear_down(void) { mp_object_detach(array.id); }

/* The array alone holds the lock. */
static void set_up_with_lock(void) {
    mp_guard guard = {.kind = MP_GUARD_LOCK};
    CHECK_OK(mp_lock_create(&guard.id, &guard.gen));
    set_up_by(&guard);
    mp_object_detach(guard.id);
}

static mp_lock_shm *lock_of(void) {
    mp_guard guard = mp_array_guard(a);
    return guard.id ? mp_object_block(guard.id) : &a->own.lock;
}

/* ---- entering --------------------------------------------------------- */

/* A word whose halves are alike. */
static uint64_t pattern(uint64_t n) { return n << 32 | n; }

static bool is_pattern(uint64_t word) {
    return word >> 32 == (word & UINT32_MAX);
}

static void enter(mp_array_hold *hold) {
    int r;
    while ((r = mp_array_enter(a, hold)) == -EINTR) {
    }
    CHECK_EQ(r, 0);
}

/* Nobody changes cells who has not entered, so each is as it was. */
static void enter_and_change(void) {
    mp_array_hold hold;
    enter(&hold);
    for (uint64_t i = 0; i < LENGTH; i += LENGTH - 1) {
        uint64_t word = mp_cell_load(MP_CELL_Q, a->cells, i);
        mp_cell_store(MP_CELL_Q, a->cells, i, word + pattern(1));
        CHECK(mp_cell_load(MP_CELL_Q, a->cells, i) == word + pattern(1));
    }
    mp_array_leave(&hold);
}

static void victim_enters(void) {
    enter_and_change();
    crash_note(DONE, 1);
}

static void peer_enters(int which) {
    (void)which;
    for (int i = 0; i < TIMES; i++) enter_and_change();
}

static void clear(void) { mp_array_fill(a, 0, LENGTH, 0); }

static void look_who_has_it(void) {
    uint32_t word = atomic_load(&lock_of()->word);
    crash_note(LEFT, (word & MP_TAG_MASK) == crash_victim());
}

/* Each has made its changes, the victim perhaps. The next user is told if the
   victim died in it, and only then. */
static void check(void) {
    for (uint64_t i = 0; i < LENGTH; i += LENGTH - 1) {
        uint64_t word = mp_cell_load(MP_CELL_Q, a->cells, i);
        uint64_t n = (word & UINT32_MAX) - PEERS * TIMES;
        CHECK(is_pattern(word));
        CHECK(n == 1 || (n == 0 && !crash_noted(DONE)));
    }
    int r = mp_lock_acquire(lock_of(), MP_AT_ONCE);
    CHECK_EQ(r, crash_noted(LEFT) ? MP_LOCK_ABANDONED : 0);
    CHECK_EQ(mp_lock_release(lock_of()), 0);
    CHECK_EQ(atomic_load(&lock_of()->word), 0);
}

static const crash_region array_enter = {
    .name = "array: enter, change, leave",
    .set_up = set_up,
    .ready = clear,
    .run = victim_enters,
    .dying = look_who_has_it,
    .peers = PEERS,
    .peer = peer_enters,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(array_enter)

static const crash_region array_enter_lock = {
    .name = "array: enter by another's lock",
    .set_up = set_up_with_lock,
    .ready = clear,
    .run = victim_enters,
    .dying = look_who_has_it,
    .peers = PEERS,
    .peer = peer_enters,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(array_enter_lock)

/* Who holds it as a user enters freely. */
static void victim_holds(void) {
    CHECK_EQ(mp_rlock_acquire(&a->own, MP_FOREVER), 0);
    CHECK_EQ(mp_rlock_acquire(&a->own, MP_FOREVER), 0);
    enter_and_change();
    CHECK_EQ(mp_rlock_release(&a->own), 0);
    CHECK_EQ(mp_rlock_release(&a->own), 0);
    crash_note(DONE, 1);
}

static const crash_region array_hold = {
    .name = "array: hold the lock, enter, release",
    .set_up = set_up,
    .ready = clear,
    .run = victim_holds,
    .dying = look_who_has_it,
    .peers = PEERS,
    .peer = peer_enters,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(array_hold)

/* ---- with others ------------------------------------------------------ */

static void have_it(void) {
    clear();
    CHECK_EQ(mp_rlock_acquire(&a->own, MP_AT_ONCE), 0);
}

static void give_it_back(void) {
    if (mp_lock_mine(&a->own.lock)) CHECK_EQ(mp_rlock_release(&a->own), 0);
}

static void let_all_wait(int n) {
    if (n == 0) crash_begin_peers();
    give_it_back();
}

static const crash_region array_wait = {
    .name = "array: wait to enter, woken before others",
    .set_up = set_up,
    .ready = have_it,
    .run = victim_enters,
    .wake = let_all_wait,
    .dying = look_who_has_it,
    .after = give_it_back,
    .peers = PEERS,
    .peer = peer_enters,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(array_wait)

/* Somebody died in it before: the mark stays when the victim leaves. */
static void die_within(void) {
    mp_array_hold hold;
    enter(&hold);
}

static void leave_one_within(void) {
    clear();
    mp_proc dead = leave_dead(die_within);
    bury_dead(&dead);
    CHECK(atomic_load(&a->own.lock.word) & MP_LOCK_LEFT);
}

static void note_left(void) { crash_note(LEFT, 1); }

static const crash_region array_left = {
    .name = "array: enter where another died",
    .set_up = set_up,
    .ready = leave_one_within,
    .poised = note_left,
    .run = victim_enters,
    .peers = PEERS,
    .peer = peer_enters,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(array_left)

/* ---- several cells at once -------------------------------------------- */

static void write_all(uint64_t n) {
    uint64_t buffer[LENGTH];
    for (int i = 0; i < LENGTH; i++) buffer[i] = pattern(n);
    mp_array_write(a, 0, LENGTH, buffer);
    mp_array_read(a, 0, LENGTH, buffer);
    for (int i = 0; i < LENGTH; i++)
        CHECK(is_pattern(buffer[i]) && (buffer[i] & 0xff) <= 6);
    mp_array_fill(a, 3, LENGTH - 3, pattern(n + 3));
}

static void write_in_victim(void) { write_all(1); }
static void write_in_peer(int which) { write_all(2 + (uint64_t)which % 2); }

/* What the victim wrote last is gone: the peers came later. */
static void check_cells(void) {
    for (uint64_t i = 0; i < LENGTH; i++) {
        uint64_t word = mp_cell_load(MP_CELL_Q, a->cells, i);
        uint64_t n = (word & UINT32_MAX) - (i < 3 ? 0 : 3);
        CHECK(is_pattern(word) && (n == 2 || n == 3));
    }
}

static const crash_region array_cells = {
    .name = "array: write, read, fill without a lock",
    .set_up = set_up,
    .run = write_in_victim,
    .peers = PEERS,
    .peer = write_in_peer,
    .check = check_cells,
    .tear_down = tear_down};
CRASH_REGION(array_cells)

/* ---- changes without a lock ------------------------------------------- */

static const int types[] = {MP_CELL_B, MP_CELL_h, MP_CELL_i, MP_CELL_q,
                            MP_CELL_f, MP_CELL_d};
enum { TYPES = sizeof types / sizeof *types };

static uint64_t number(int type, uint64_t n) {
    return mp_cell_types[type].kind == MP_CELL_FLOAT
               ? mp_cell_of_double((double)n)
               : n;
}

/* Each type's cell has a line of the array to itself: cell i of `q`. */
static void *cell_of(int i) { return a->cells + i * 8; }

static void add_one(int i) {
    uint64_t sum, type = (uint64_t)types[i];
    CHECK_EQ(mp_cell_add((int)type, cell_of(i), 0, number((int)type, 1),
                         &sum), 0);
}

/* The same by comparing. */
static void exchange_one(int i) {
    int type = types[i];
    for (;;) {
        uint64_t old = mp_cell_load(type, cell_of(i), 0), sum;
        CHECK_EQ(mp_cell_sum(type, old, number(type, 1), &sum), 0);
        if (mp_cell_exchange(type, cell_of(i), 0, old, sum)) return;
    }
}

static void add_in_victim(void) {
    for (int i = 0; i < TYPES; i++) {
        add_one(i);
        crash_note(DONE + i, 1);
    }
    for (int i = 0; i < TYPES; i++) {
        exchange_one(i);
        crash_note(DONE + i, 2);
    }
}

static void add_in_peer(int which) {
    for (int k = 0; k < 5; k++)
        for (int i = 0; i < TYPES; i++)
            if ((which + k) % 2)
                add_one(i);
            else
                exchange_one(i);
}

static void check_sums(void) {
    for (int i = 0; i < TYPES; i++) {
        uint64_t word = mp_cell_load(types[i], cell_of(i), 0);
        uint64_t known = 5 * PEERS + crash_noted(DONE + i);
        CHECK(word == number(types[i], known) ||
              word == number(types[i], known + 1));
    }
}

static const crash_region cell_add = {
    .name = "cells: add, compare and exchange",
    .set_up = set_up,
    .ready = clear,
    .run = add_in_victim,
    .peers = PEERS,
    .peer = add_in_peer,
    .check = check_sums,
    .tear_down = tear_down};
CRASH_REGION(cell_add)

/* ---- life and death --------------------------------------------------- */

static void set_up_lock(void) {
    CHECK_OK(mp_lock_create(&lock.id, &lock.gen));
}

static void drop_lock(void) { mp_object_detach(lock.id); }

/* An array by that lock, and a value of its own, come and go. */
static void come_and_go(void) {
    mp_guard other = {.kind = MP_GUARD_LOCK, .id = lock.id, .gen = lock.gen};
    mp_guard own = {.kind = MP_GUARD_OWN};
    handle by_lock = new_array(MP_CELL_d, 5, &other);
    handle value = new_array(MP_CELL_i, 1, &own);
    mp_object_detach(by_lock.id);
    mp_object_detach(value.id);
}

static void peer_comes(int which) {
    (void)which;
    for (int i = 0; i < TIMES; i++) come_and_go();
}

/* Held by killer and peers, who were forked when it held it. */
static void check_lock(void) {
    CHECK_EQ(mp_object_refs(lock.id), 1 + PEERS);
}

static void warm_spans(void) {
    warm_up(64);
    warm_up(100);
}

static const crash_region array_create = {
    .name = "array: create and destroy, with another's lock",
    .set_up = set_up_lock,
    .begin = warm_spans,
    .run = come_and_go,
    .peers = PEERS,
    .peer = peer_comes,
    .check = check_lock,
    .tear_down = drop_lock};
CRASH_REGION(array_create)
