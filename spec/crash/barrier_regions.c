/* Barriers. Whatever the victim has done, all peers of a round see the same
   outcome; and where the killer finds it decided, they see that one. */
#include "sync/barrier.h"

#include <errno.h>

#include "crash.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "region_tools.h"

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_barrier_open();
    CHECK_OK(mp_barrier_create(2, -1, 0, &id, &gen));
    mp_object_detach(id);
}

/* RELEASED  peers that were released
   BROKEN    ... and that saw it broken
   DECIDED   the outcome that the victim has decided when it dies; 0: none
   ARRIVED   it is among the waiters, or was
   ACTED     how often the last one acted
   STAGE     what the victim has done: below
   DEADLINE  of its wait, ns */
enum { RELEASED, BROKEN, DECIDED, ARRIVED, ACTED, STAGE, DEADLINE };

enum { RELEASE = 1, BREAK };
enum { COMING, HERE, GONE };
enum { PEERS = 2, PARTIES = PEERS + 1, MORE = PARTIES + 1 };

static uint32_t id, gen;
static mp_barrier_shm *barrier;

static void make(uint32_t parties) {
    CHECK_OK(mp_barrier_create(parties, -1, 0, &id, &gen));
    barrier = mp_object_block(id);
}

static void set_up(void) { make(PARTIES); }
static void set_up_more(void) { make(MORE); }
static void tear_down(void) { mp_object_detach(id); }
static void mend(void) { mp_barrier_reset(barrier); }

/* ---- a party ---------------------------------------------------------- */

static int wait_here(mp_ref node, mp_deadline deadline) {
    int r;
    while ((r = mp_barrier_wait(barrier, node, deadline)) == -EINTR) {
    }
    mp_barrier_leave(barrier, node);
    return r;
}

/* 0: released; -EPIPE: broken. */
static int take_part(mp_deadline deadline) {
    mp_ref node;
    int r = mp_barrier_arrive(barrier, &node);
    if (r < 0) return r;
    if (r == 1) {
        crash_count(ACTED);
        mp_barrier_trip(barrier, node);
    }
    return wait_here(node, deadline);
}

static void note_outcome(int r) {
    CHECK(r == 0 || r == -EPIPE);
    crash_count(r == 0 ? RELEASED : BROKEN);
}

static void peer(int which) {
    (void)which;
    note_outcome(take_part(mp_deadline_in(10)));
}

/* ---- what is expected ------------------------------------------------- */

/* What a word will hold when the victim's record has been replayed. */
static uint64_t committed(const _Atomic uint64_t *word) {
    mp_txn_shm *txn = &mp_slot_at(crash_victim() % MP_SLOTS)->txn;
    uint64_t value = atomic_load(word);
    for (uint32_t i = 0; i < atomic_load(&txn->n); i++)
        if (txn->w[i].at == mp_offset(word)) value = txn->w[i].value;
    return value;
}

/* The peers wait until somebody decides. */
static bool is_decided(void) {
    crash_await_rest();
    return atomic_load(&barrier->pending) != 0 ||
           committed(&barrier->waiters.waiting) == 0;
}

static void check_one_outcome(void) {
    uint64_t released = crash_noted(RELEASED), broken = crash_noted(BROKEN);
    CHECK_EQ(released + broken, PEERS);
    CHECK(released == 0 || broken == 0);
    CHECK(crash_noted(ACTED) <= 1);
    CHECK_EQ(atomic_load(&barrier->count), 0);
    CHECK_EQ(atomic_load(&barrier->pending), 0);
    CHECK_EQ(atomic_load(&barrier->waiters.head), 0);
}

/* The death of a party breaks it also for those who come later. */
static void check_broken_by_death(void) {
    check_one_outcome();
    CHECK_EQ(mp_barrier_broken(barrier), !crash_left());
}

static void have_room(void) { warm_up(sizeof(mp_waiter_shm)); }

/* ---- the last to arrive ----------------------------------------------- */

static void be_last(void) {
    CHECK_EQ(take_part(MP_FOREVER), 0);
    crash_note(STAGE, GONE);
}

static void see_if_released(void) {
    crash_note(DECIDED, is_decided() ? RELEASE : BREAK);
}

static void check_last(void) {
    check_broken_by_death();
    bool released = crash_left() || crash_noted(DECIDED) == RELEASE;
    CHECK_EQ(crash_noted(RELEASED), released ? PEERS : 0);
    CHECK(!released || crash_noted(ACTED) == 1);
}

static const crash_region barrier_last = {
    .name = "barrier: the last arrives, acts, trips it",
    .set_up = set_up,
    .ready = mend,
    .begin = have_room,
    .poised = crash_begin_peers,
    .run = be_last,
    .most = 700,
    .dying = see_if_released,
    .peers = PEERS,
    .peer = peer,
    .check = check_last,
    .tear_down = tear_down};
CRASH_REGION(barrier_last)

/* ---- the first to arrive ---------------------------------------------- */

static void be_first(void) {
    CHECK_EQ(take_part(MP_FOREVER), 0);
    crash_note(STAGE, GONE);
}

static void let_others_come(int n) {
    (void)n;
    crash_note(ARRIVED, 1);
    crash_begin_peers();
}

/* The peers have not begun if they have not been called. */
static void see_if_arrived(void) {
    uint64_t tail = committed(&barrier->waiters.tail);
    crash_note(ARRIVED, tail != 0 || crash_noted(RELEASED) > 0);
}

/* Who knows that somebody will not come breaks it. */
static void peer_behind_first(int which) {
    if (which == 0 && !crash_noted(ARRIVED)) mp_barrier_break(barrier);
    peer(which);
}

static void after_first(void) {
    if (crash_left()) crash_note(ARRIVED, 1);
}

static void check_first(void) {
    check_broken_by_death();
    if (crash_left()) CHECK_EQ(crash_noted(RELEASED), PEERS);
    if (!crash_noted(ARRIVED)) CHECK_EQ(crash_noted(BROKEN), PEERS);
}

static const crash_region barrier_first = {
    .name = "barrier: the first arrives, is released",
    .set_up = set_up,
    .ready = mend,
    .begin = have_room,
    .run = be_first,
    .most = 700,
    .wake = let_others_come,
    .dying = see_if_arrived,
    .after = after_first,
    .peers = PEERS,
    .peer = peer_behind_first,
    .check = check_first,
    .tear_down = tear_down};
CRASH_REGION(barrier_first)

/* ---- time is up ------------------------------------------------------- */

static mp_deadline deadline;

static void choose_deadline(void) {
    have_room();
    deadline = short_deadline(DEADLINE);
}

static void give_up(void) { CHECK_EQ(take_part(deadline), -EPIPE); }

static void let_time_pass(int n) {
    (void)n;
    await_deadline(DEADLINE);
}

static void check_broken(void) {
    check_one_outcome();
    CHECK(mp_barrier_broken(barrier));
    CHECK_EQ(crash_noted(BROKEN), PEERS);
}

/* One party too few has come. */
static const crash_region barrier_timeout = {
    .name = "barrier: time is up, which breaks it",
    .set_up = set_up_more,
    .ready = mend,
    .begin = choose_deadline,
    .most = 700,
    .poised = crash_begin_peers,
    .run = give_up,
    .wake = let_time_pass,
    .peers = PEERS,
    .peer = peer,
    .check = check_broken,
    .tear_down = tear_down};
CRASH_REGION(barrier_timeout)

/* ---- break and reset -------------------------------------------------- */

static void break_it(void) { mp_barrier_break(barrier); }

static const crash_region barrier_break = {
    .name = "barrier: break while others wait",
    .set_up = set_up,
    .ready = mend,
    .poised = crash_begin_peers,
    .run = break_it,
    .peers = PEERS,
    .peer = peer,
    .check = check_broken,
    .tear_down = tear_down};
CRASH_REGION(barrier_break)

static void see_if_reset(void) {
    crash_note(DECIDED, is_decided() ? RELEASE : BREAK);
}

/* Before it decides, its death breaks the barrier; then nobody waits. */
static void check_reset(void) {
    check_one_outcome();
    CHECK_EQ(crash_noted(BROKEN), PEERS);
    CHECK_EQ(mp_barrier_broken(barrier), crash_noted(DECIDED) == BREAK);
}

static const crash_region barrier_reset = {
    .name = "barrier: reset while others wait",
    .set_up = set_up,
    .ready = mend,
    .poised = crash_begin_peers,
    .run = mend,
    .dying = see_if_reset,
    .peers = PEERS,
    .peer = peer,
    .check = check_reset,
    .tear_down = tear_down};
CRASH_REGION(barrier_reset)

/* ---- the next round --------------------------------------------------- */

/* While the last of a round acts, nobody can arrive: the victim waits for
   its turn. Peer 0 comes first; peer 1, the last, acts until it may go on,
   and is its own round's only one that is asked for the outcome. */
static void peer_that_acts(int which) {
    mp_ref node;
    int r = mp_barrier_arrive(barrier, &node);
    CHECK_OK(r);
    if (r == 1) {
        crash_count(ACTED);
        pass_gate();
        mp_barrier_trip(barrier, node);
    }
    note_outcome(wait_here(node, mp_deadline_in(10)));
    (void)which;
}

static void set_up_two(void) { make(PEERS); }

static void come_too_early(void) {
    mp_ref node;
    CHECK_EQ(mp_barrier_arrive(barrier, &node), -EAGAIN);
    int r;
    while ((r = mp_barrier_wait_turn(barrier)) == -EINTR) {
    }
    CHECK_EQ(r, 0);
    crash_note(STAGE, GONE);
}

static void let_it_act(int n) {
    (void)n;
    open_gate();
}

/* It was no party, so its death harms no round. */
static void check_turn(void) {
    check_one_outcome();
    CHECK_EQ(crash_noted(RELEASED), PEERS);
    CHECK(!mp_barrier_broken(barrier));
}

static const crash_region barrier_turn = {
    .name = "barrier: wait until the last has acted",
    .set_up = set_up_two,
    .ready = mend,
    .begin = have_room,
    .poised = crash_begin_peers,
    .run = come_too_early,
    .wake = let_it_act,
    .after = open_gate,
    .peers = PEERS,
    .peer = peer_that_acts,
    .check = check_turn,
    .tear_down = tear_down};
CRASH_REGION(barrier_turn)
