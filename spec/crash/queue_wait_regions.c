/* Queues, full and empty: who waits, and who lets the others go on. */
#include "mem/mutex.h"
#include "queue_tools.h"

SPEC_PREPARE { prepare_queues(); }

/* ---- full and empty --------------------------------------------------- */

enum { ROOM = 2 };

static void set_up_small(void) { set_up_bounded(ROOM); }

static void fill(void) {
    begin_life(0);
    put_some(KILLER, ROOM);
}

/* Peers that come to an empty queue. One item is enough for them. */
static void get_and_put(int which) {
    for (int i = 0; i < TIMES; i++) {
        get((uint64_t)which);
        put((uint64_t)which);
    }
}

/* The victim is dead; what it has committed, if it died in that, is done by
   the next who comes to its end of the queue. */
static void settle(void) {
    mp_mutex_lock(&q->put_lock);
    mp_mutex_unlock(&q->put_lock);
    mp_mutex_lock(&q->get_lock);
    mp_mutex_unlock(&q->get_lock);
}

/* If it has not done what the peers wait for, the killer does. */
static void put_if_empty(void) {
    settle();
    if (mp_queue_size(q) == 0) put(KILLER);
}

static void get_if_full(void) {
    settle();
    if (mp_queue_size(q) == ROOM) get(KILLER);
}

static void victim_gets(void) { get(VICTIM); }
static void victim_puts(void) { put_items(VICTIM, made, 1); }

static void lose_one(void) { begin_life(1); }

static void give_it_one(int n) {
    if (n == 0) put(KILLER);
}

static const crash_region queue_empty = {
    .name = "queue: wait for an item, get it",
    .set_up = set_up,
    .ready = lose_one,
    .run = victim_gets,
    .wake = give_it_one,
    .after = put_if_empty,
    .peers = PEERS,
    .peer = get_and_put,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_empty)

/* It slept before the others did, so it is woken. */
static void give_all_one(int n) {
    if (n > 0) return;
    crash_begin_peers();
    put(KILLER);
}

static const crash_region queue_empty_woken = {
    .name = "queue: woken for an item before others",
    .set_up = set_up,
    .ready = lose_one,
    .run = victim_gets,
    .wake = give_all_one,
    .after = put_if_empty,
    .peers = PEERS,
    .peer = get_and_put,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_empty_woken)

static const crash_region queue_empty_put = {
    .name = "queue: put while others sleep for an item",
    .set_up = set_up,
    .ready = lose_nothing,
    .begin = make_items,
    .poised = crash_begin_peers,
    .run = victim_puts,
    .after = put_if_empty,
    .peers = PEERS,
    .peer = get_and_put,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_empty_put)

static void make_room(int n) {
    if (n == 0) get(KILLER);
}

static const crash_region queue_full = {
    .name = "queue: wait for room, put",
    .set_up = set_up_small,
    .ready = fill,
    .begin = make_items,
    .run = victim_puts,
    .wake = make_room,
    .after = get_if_full,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_full)

static void make_room_for_all(int n) {
    if (n > 0) return;
    crash_begin_peers();
    get(KILLER);
}

static const crash_region queue_full_woken = {
    .name = "queue: woken for room before others",
    .set_up = set_up_small,
    .ready = fill,
    .begin = make_items,
    .run = victim_puts,
    .wake = make_room_for_all,
    .after = get_if_full,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_full_woken)

static void fill_for_victim(void) {
    fill();
    batch = 1;
}

static const crash_region queue_full_get = {
    .name = "queue: get while others sleep for room",
    .set_up = set_up_small,
    .ready = fill_for_victim,
    .poised = crash_begin_peers,
    .run = victim_gets,
    .after = get_if_full,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_full_get)

/* ---- tasks ------------------------------------------------------------ */

/* Two items are taken and not yet worked off; the rest is, whatever the
   life before was. */
static void finish_tasks(void) {
    while (mp_queue_done(q) == 0) {
    }
}

static void begin_tasks(void) {
    finish_tasks();
    begin_life(0);
    put_some(KILLER, 2);
    for (int i = 0; i < 2; i++) get(KILLER);
}

static void join(void) {
    int r;
    while ((r = mp_queue_join(q, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_EQ(r, 0);
}

static void peer_joins(int which) {
    join();
    CHECK_EQ(atomic_load(&q->dones), COUNT(atomic_load(&q->puts)));
    crash_count(which);
}

static void work_off(void) {
    for (int i = 0; i < 2; i++) CHECK_EQ(mp_queue_done(q), 0);
}

static void check_tasks(void) {
    CHECK_EQ(mp_queue_done(q), -EINVAL);
    check();
}

static const crash_region queue_done = {
    .name = "queue: the last task while others join",
    .set_up = set_up,
    .ready = begin_tasks,
    .poised = crash_begin_peers,
    .run = work_off,
    .after = finish_tasks,
    .peers = PEERS,
    .peer = peer_joins,
    .check = check_tasks,
    .tear_down = tear_down};
CRASH_REGION(queue_done)

static void let_all_join(int n) {
    if (n > 0) return;
    crash_begin_peers();
    finish_tasks();
}

static const crash_region queue_join = {
    .name = "queue: join, woken with others",
    .set_up = set_up,
    .ready = begin_tasks,
    .run = join,
    .wake = let_all_join,
    .after = finish_tasks,
    .peers = PEERS,
    .peer = peer_joins,
    .check = check_tasks,
    .tear_down = tear_down};
CRASH_REGION(queue_join)
