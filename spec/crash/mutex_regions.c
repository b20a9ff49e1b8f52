/* The internal lock, and the redo record under it: who takes the lock sees
   all words of a change or none. */
#include <errno.h>
#include <string.h>

#include "crash.h"
#include "mem/heap.h"
#include "mem/mutex.h"
#include "mem/txn.h"
#include "region_tools.h"

SPEC_PREPARE { CHECK_OK(mp_open()); }

/* All numbers are equal whenever the lock is free. */
typedef struct guarded {
    mp_mutex_shm mutex;
    _Atomic uint32_t a;
    _Atomic uint64_t b, c, d;
} guarded;

enum { TIMES = 3, PEERS = 2 };
enum { CHANGED, BY_GHOST }; /* notes: changes that are known to be made */

static mp_ref block;
static guarded *g;
static uint64_t before;

static void set_up(void) {
    block = mp_alloc(sizeof *g);
    g = mp_at(block);
    memset(g, 0, sizeof *g);
}

static void tear_down(void) { CHECK(mp_free(block)); }

static bool is_whole(void) {
    return g->a == g->b && g->b == g->c && g->c == g->d;
}

static mp_txn describe_change(void) {
    uint64_t n = g->b + 1;
    mp_txn txn = mp_txn_begin();
    mp_txn_set32(&txn, &g->a, (uint32_t)n);
    mp_txn_set64(&txn, &g->b, n);
    mp_txn_set64(&txn, &g->c, n);
    mp_txn_set64(&txn, &g->d, n);
    return txn;
}

static void change_locked(void) {
    mp_txn txn = describe_change();
    mp_txn_commit(&txn);
}

static void change(void) {
    mp_mutex_lock(&g->mutex);
    change_locked();
    mp_mutex_unlock(&g->mutex);
    crash_note(CHANGED, 1);
}

static void peer(int which) {
    (void)which;
    for (int i = 0; i < TIMES; i++) {
        mp_mutex_lock(&g->mutex);
        CHECK(is_whole());
        change_locked();
        mp_mutex_unlock(&g->mutex);
    }
}

static void remember(void) { before = g->b; }

static void check(void) {
    uint64_t made = g->b - before - TIMES * PEERS - crash_noted(BY_GHOST);
    /* The victim's, if the peers had it before: the next one gets it. */
    if (g->mutex.word) {
        mp_mutex_lock(&g->mutex);
        mp_mutex_unlock(&g->mutex);
    }
    CHECK_EQ(g->mutex.word, 0);
    CHECK(is_whole());
    CHECK(made == 1 || (made == 0 && !crash_noted(CHANGED)));
}

static const crash_region mutex_free = {
    .name = "mutex: lock, change words, unlock",
    .set_up = set_up,
    .ready = remember,
    .run = change,
    .peers = PEERS,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(mutex_free)

/* ---- with others ------------------------------------------------------ */

static void have_it(void) {
    remember();
    mp_mutex_lock(&g->mutex);
}

static void give_it_back(void) {
    if ((g->mutex.word & MP_TAG_MASK) == mp_me->tag)
        mp_mutex_unlock(&g->mutex);
}

static void let_it_have(int n) {
    (void)n;
    give_it_back();
}

static const crash_region mutex_waits = {
    .name = "mutex: wait, lock, unlock",
    .set_up = set_up,
    .ready = have_it,
    .run = change,
    .wake = let_it_have,
    .after = give_it_back,
    .peers = PEERS,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(mutex_waits)

/* The victim slept first, so it is woken first. */
static void let_it_be_first(int n) {
    (void)n;
    crash_begin_peers();
    give_it_back();
}

static const crash_region mutex_woken = {
    .name = "mutex: woken before others",
    .set_up = set_up,
    .ready = have_it,
    .run = change,
    .wake = let_it_be_first,
    .after = give_it_back,
    .peers = PEERS,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(mutex_woken)

static void lock(void) { mp_mutex_lock(&g->mutex); }

static void change_and_unlock(void) {
    change_locked();
    mp_mutex_unlock(&g->mutex);
    crash_note(CHANGED, 1);
}

static const crash_region mutex_held = {
    .name = "mutex: held while others sleep on it",
    .set_up = set_up,
    .ready = remember,
    .begin = lock,
    .poised = crash_begin_peers,
    .run = change_and_unlock,
    .peers = PEERS,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(mutex_held)

/* ---- one who repairs dies --------------------------------------------- */

static mp_proc ghost;

/* As far as a commit gets when it is killed behind its first word. */
static void change_half(void) {
    mp_mutex_lock(&g->mutex);
    mp_txn txn = describe_change();
    atomic_store(&txn.record->n, txn.n);
    atomic_store(&g->a, (uint32_t)g->b + 1);
}

static void leave_half(void) {
    remember();
    ghost = leave_dead(change_half);
    crash_note(BY_GHOST, 1);
    CHECK(!is_whole());
}

static void check_after_ghost(void) {
    bury_dead(&ghost);
    check();
}

static const crash_region mutex_replay = {
    .name = "mutex: replay a dead owner's record",
    .set_up = set_up,
    .ready = leave_half,
    .run = change,
    .peers = PEERS,
    .peer = peer,
    .check = check_after_ghost,
    .tear_down = tear_down};
CRASH_REGION(mutex_replay)
