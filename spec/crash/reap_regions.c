/* The reaper itself dies. A ghost is one that died in the middle of its
   work and that nobody has noticed; the victim reaps it; after the victim's
   death all must be as if nobody had been killed in between. */
#include "mem/reap.h"

#include <string.h>
#include <unistd.h>

#include "crash.h"
#include "lock_fixture.h"
#include "mem/mutex.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "mem/txn.h"
#include "region_tools.h"
#include "sync/barrier.h"
#include "sync/cond.h"

SPEC_PREPARE {
    open_with_locks();
    mp_cond_open();
    mp_barrier_open();
}

enum { PEERS = 2, MOST_POINTS = 200 }; /* long ways to each */

/* ABANDONED  how many peers were told that the ghost died with the lock
   DONE       peers that came to their end */
enum { ABANDONED, DONE };

/* What outlives the ghost.
   a, b     equal whenever the mutex is free
   arrived  1: what was in the ghost's hand is here
   block    that */
typedef struct shelf {
    mp_mutex_shm mutex;
    uint32_t pad;
    _Atomic uint64_t a, b, arrived, block;
} shelf;

static uint32_t id, gen;
static mp_lock_shm *lock;
static mp_ref shelf_block;
static shelf *g;
static mp_proc ghost;
static uint64_t before;

static void set_up(void) {
    CHECK_OK(mp_lock_create(&id, &gen));
    lock = mp_object_block(id);
    shelf_block = mp_alloc(sizeof *g);
    g = mp_at(shelf_block);
    memset(g, 0, sizeof *g);
}

static void tear_down(void) {
    CHECK(mp_free(shelf_block));
    mp_object_detach(id);
}

static void acquire(void) {
    int r;
    while ((r = mp_lock_acquire(lock, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK(r == 0 || r == MP_LOCK_ABANDONED);
    if (r == MP_LOCK_ABANDONED) crash_count(ABANDONED);
}

static void peer(int which) {
    (void)which;
    acquire();
    CHECK_EQ(mp_lock_release(lock), 0);
    mp_mutex_lock(&g->mutex);
    CHECK_EQ(g->a, g->b);
    mp_mutex_unlock(&g->mutex);
    crash_count(DONE);
}

static void reap_ghost(void) { mp_reap(ghost.tag); }

/* ---- what the ghost was about ----------------------------------------- */

static void have_blocks(void) {
    static const size_t sizes[] = {40, 600, 5000, 20000, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CHECK(mp_alloc(sizes[i]) != 0);
}

/* One block on its way, and one that has arrived. */
static void fill_hands(void) {
    mp_ref one = mp_alloc(100), other = mp_alloc(100);
    CHECK_OK(mp_hand_take(one, NULL, 0));
    CHECK_OK(mp_hand_take(other, &g->arrived, 1));
    mp_publish(one);
    mp_publish(other);
    g->block = other;
    g->arrived = 1;
}

/* Nobody else holds the barrier, nor the message that is its action, nor the
   lock whose handle the message carries. */
static void have_barrier(void) {
    uint32_t lock_id, lock_gen, barrier, barrier_gen;
    CHECK_OK(mp_lock_create(&lock_id, &lock_gen));
    mp_ref action = mp_alloc(sizeof(mp_message_shm) + 8);
    mp_message_shm *m = mp_at(action);
    *m = (mp_message_shm){.length = 0, .handles_at = sizeof *m};
    mp_mark_handles(action);
    CHECK_OK(mp_message_hold(action, lock_id, lock_gen));
    mp_object_detach(lock_id);
    CHECK_OK(mp_barrier_create(2, -1, action, &barrier, &barrier_gen));
}

/* ... nor the condition, in which the ghost waits, nor its lock. */
static void wait_alone(void) {
    uint32_t lock_id, lock_gen, cond_id, cond_gen;
    mp_cond_wait w;
    CHECK_OK(mp_lock_create(&lock_id, &lock_gen));
    CHECK_OK(mp_cond_create(lock_id, mp_object_block(lock_id), false,
                            &cond_id, &cond_gen));
    mp_cond_shm *cond = mp_object_block(cond_id);
    CHECK_EQ(mp_cond_acquire(cond, MP_FOREVER), 0);
    CHECK_OK(mp_cond_wait_begin(cond, &w));
}

static void begin_child(void) {
    uint32_t index;
    CHECK_OK(mp_slot_reserve(&index));
    CHECK_OK(mp_object_copy_ledger(index));
}

/* As far as a commit gets when it is killed behind its first word. */
static void begin_change(void) {
    mp_mutex_lock(&g->mutex);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &g->a, g->a + 1);
    mp_txn_set64(&txn, &g->b, g->b + 1);
    atomic_store(&txn.record->n, txn.n);
    atomic_fetch_add(&g->a, 1);
}

static void do_everything(void) {
    acquire();
    have_blocks();
    fill_hands();
    have_barrier();
    wait_alone();
    begin_child();
    begin_change();
}

static void leave_everything(void) {
    g->arrived = 0;
    before = g->a;
    ghost = leave_dead(do_everything);
    CHECK(g->a != g->b);
}

static void check_nothing_left(void) {
    bury_dead(&ghost);
    CHECK_EQ(crash_noted(DONE), PEERS);
    CHECK_EQ(crash_noted(ABANDONED), 1);
    CHECK_EQ(slots_in_use(), 1 + PEERS);
    CHECK_EQ(mp_object_refs(id), 1 + PEERS);
}

static void check_everything(void) {
    check_nothing_left();
    CHECK_EQ(g->a, before + 1);
    CHECK_EQ(g->b, before + 1);
    CHECK(mp_free(g->block));
}

static const crash_region reap_everything = {
    .name = "reap: one that left everything behind",
    .set_up = set_up,
    .ready = leave_everything,
    .most = MOST_POINTS,
    .run = reap_ghost,
    .peers = PEERS,
    .peer = peer,
    .check = check_everything,
    .tear_down = tear_down};
CRASH_REGION(reap_everything)

/* ---- the sweep -------------------------------------------------------- */

/* A child of the ghost has died as it claimed its slot, before the ghost. */
static void leave_claiming(void) {
    uint32_t index;
    acquire();
    begin_child();
    CHECK_OK(mp_slot_reserve(&index));
    CHECK_OK(mp_object_copy_ledger(index));
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    CHECK_EQ(spec_wait(pid), 0);
    /* It had written its life word, of which the kernel never heard. */
    mp_owner owner;
    mp_owner_look(index, &owner);
    atomic_store(owner.life, (uint32_t)pid);
    mp_slot_shm *slot = mp_slot_at(index);
    atomic_store(&slot->state, (uint64_t)pid << 32 | mp_me->tag << 2 |
                                   MP_SLOT_CLAIMING);
}

static void leave_two(void) { ghost = leave_dead(leave_claiming); }

static const crash_region reap_sweep = {
    .name = "reap: sweep: a dead one and its dead children",
    .set_up = set_up,
    .ready = leave_two,
    .most = MOST_POINTS,
    .run = mp_reap_sweep,
    .peers = PEERS,
    .peer = peer,
    .check = check_nothing_left,
    .tear_down = tear_down};
CRASH_REGION(reap_sweep)
