/* What processes wait on, under threads: each guards or announces plain
   memory, so that a sanitizer tells when it does not. */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "data/array.h"
#include "harness.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "sync/barrier.h"
#include "sync/cond.h"
#include "sync/event.h"
#include "sync/lock.h"
#include "sync/sem.h"
#include "threads.h"

static const double LASTS = 0.3; /* seconds */
enum { LEAST = 10 };             /* rounds of each, however long */

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_sem_open();
    mp_event_open();
    mp_cond_open();
    mp_barrier_open();
    mp_array_open();
    /* The first object brings the object table with it, which stays. */
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_object_detach(id);
}

/* Under test, and what it guards: `plain` by the holder of it alone.
   inside   holders at this moment
   rounds   of all threads */
typedef struct contest {
    uint32_t id, gen;
    void *object;
    double end;
    uint64_t plain;
    _Atomic int inside;
    _Atomic uint64_t rounds;
} contest;

static void begin(contest *c) {
    c->object = mp_object_block(c->id);
    c->end = spec_now() + LASTS;
}

/* In there alone: at most `most`, that is. */
static void be_inside(contest *c, int most) {
    CHECK(atomic_fetch_add_explicit(&c->inside, 1, memory_order_relaxed) <
          most);
    atomic_fetch_sub_explicit(&c->inside, 1, memory_order_relaxed);
}

/* Calls again what gave up for a slice's sake. */
#define AGAIN(r, call)                                                    \
    do                                                                    \
        r = (call);                                                       \
    while (r == -EINTR)

static void count(contest *c, uint64_t rounds) {
    atomic_fetch_add_explicit(&c->rounds, rounds, memory_order_relaxed);
}

/* ---- Lock, RLock -------------------------------------------------------- */

static void use_lock(void *context, int number) {
    contest *c = context;
    uint64_t n = 0;
    (void)number;
    while (n < LEAST || spec_now() < c->end) {
        int r;
        AGAIN(r, mp_lock_acquire(c->object, mp_deadline_in(10)));
        CHECK_EQ(r, 0);
        be_inside(c, 1);
        c->plain++;
        CHECK_EQ(mp_lock_release(c->object), 0);
        n++;
    }
    count(c, n);
}

SPEC("threads: a lock guards what is done under it") {
    contest c = {0};
    CHECK_OK(mp_lock_create(&c.id, &c.gen));
    begin(&c);
    spec_threads(4, use_lock, &c);
    CHECK_EQ(c.plain, c.rounds);
    CHECK(c.rounds > 0);
    mp_object_detach(c.id);
}

static void use_rlock(void *context, int number) {
    contest *c = context;
    uint64_t n = 0;
    while (n < LEAST || spec_now() < c->end) {
        int r, depth = 1 + (number + (int)n) % 3;
        for (int i = 0; i < depth; i++) {
            AGAIN(r, mp_rlock_acquire(c->object, mp_deadline_in(10)));
            CHECK_EQ(r, 0);
        }
        c->plain++;
        be_inside(c, 1);
        for (int i = 0; i < depth; i++)
            CHECK_EQ(mp_rlock_release(c->object), 0);
        CHECK_EQ(mp_rlock_release(c->object), -EPERM);
        n++;
    }
    count(c, n);
}

SPEC("threads: an rlock is held by its owner, as often as acquired") {
    contest c = {0};
    CHECK_OK(mp_rlock_create(&c.id, &c.gen));
    begin(&c);
    spec_threads(4, use_rlock, &c);
    CHECK_EQ(c.plain, c.rounds);
    CHECK(c.rounds > 0);
    mp_object_detach(c.id);
}

/* ---- Semaphore ---------------------------------------------------------- */

enum { PERMITS = 2 };

/* Two at a time; and one at a time by a second one, which guards. */
typedef struct permits {
    contest many, one;
} permits;

static void acquire_permit(contest *c) {
    int r;
    AGAIN(r, mp_sem_acquire(c->object, mp_deadline_in(10)));
    CHECK_EQ(r, 0);
}

static void use_sem(void *context, int number) {
    permits *p = context;
    uint64_t n = 0;
    (void)number;
    for (; n < LEAST || spec_now() < p->many.end; n++) {
        acquire_permit(&p->many);
        be_inside(&p->many, PERMITS);
        acquire_permit(&p->one);
        p->one.plain++;
        CHECK_EQ(mp_sem_release(p->one.object, 1), 0);
        CHECK_EQ(mp_sem_release(p->many.object, 1), 0);
    }
    count(&p->one, n);
}

SPEC("threads: a semaphore lets in as many as it has permits") {
    permits p = {0};
    CHECK_OK(mp_sem_create(PERMITS, PERMITS, &p.many.id, &p.many.gen));
    CHECK_OK(mp_sem_create(1, 1, &p.one.id, &p.one.gen));
    begin(&p.many);
    begin(&p.one);
    spec_threads(4, use_sem, &p);
    CHECK_EQ(p.one.plain, p.one.rounds);
    CHECK_EQ(mp_sem_value(p.many.object), PERMITS);
    CHECK_EQ(mp_sem_release(p.many.object, 1), -EOVERFLOW);
    mp_object_detach(p.many.id);
    mp_object_detach(p.one.id);
}

/* ---- Event -------------------------------------------------------------- */

/* A ball that goes around; each thread has an event, and who has set it for
   the next has written the ball before. */
enum { PLAYERS = 3 };

typedef struct ring {
    uint32_t id[PLAYERS];
    mp_event_shm *event[PLAYERS];
    uint64_t ball; /* plain */
    double end;
    bool over;
} ring;

static void play(void *context, int number) {
    ring *g = context;
    mp_event_shm *mine = g->event[number];
    for (bool over = false; !over;) {
        int r;
        uint32_t sets = mp_event_sets(mine);
        AGAIN(r, mp_event_wait(mine, sets, mp_deadline_in(10)));
        CHECK_EQ(r, 0);
        mp_event_clear(mine);
        CHECK_EQ(g->ball % PLAYERS, number);
        g->ball++;
        over = g->over;
        if (number == 0 && g->ball > LEAST && spec_now() >= g->end)
            over = g->over = true;
        mp_event_set(g->event[(number + 1) % PLAYERS]);
    }
}

SPEC("threads: who sees an event set sees what was done before") {
    ring g = {.end = spec_now() + LASTS};
    for (int i = 0; i < PLAYERS; i++) {
        uint32_t gen;
        CHECK_OK(mp_event_create(&g.id[i], &gen));
        g.event[i] = mp_object_block(g.id[i]);
    }
    mp_event_set(g.event[0]);
    spec_threads(PLAYERS, play, &g);
    CHECK(g.ball > PLAYERS);
    for (int i = 0; i < PLAYERS; i++) mp_object_detach(g.id[i]);
}

/* ---- Condition ---------------------------------------------------------- */

/* A plain store of goods, guarded by the condition's lock. */
typedef struct shop {
    contest c;
    int goods;
    uint64_t bought, sold;
    bool closed;
} shop;

enum { ROOM = 3 };

static void enter(mp_cond_shm *cond) {
    int r;
    AGAIN(r, mp_cond_acquire(cond, mp_deadline_in(10)));
    CHECK_EQ(r, 0);
}

static void wait_in(mp_cond_shm *cond) {
    mp_cond_wait wait;
    int r;
    CHECK_OK(mp_cond_wait_begin(cond, &wait));
    AGAIN(r, mp_cond_wait_sleep(&wait, mp_deadline_in(10)));
    CHECK_EQ(r, 0);
    AGAIN(r, mp_cond_wait_relock(cond, &wait));
    CHECK_EQ(r, 0);
    CHECK(mp_cond_wait_end(cond, &wait, false));
}

static void sell(shop *s) {
    mp_cond_shm *cond = s->c.object;
    for (bool over = false; !over;) {
        enter(cond);
        while (s->goods == ROOM) wait_in(cond);
        s->goods++;
        s->sold++;
        over = s->closed = s->sold > LEAST && spec_now() >= s->c.end;
        CHECK_OK(mp_cond_notify(cond, over ? INT_MAX : 1));
        CHECK_OK(mp_cond_release(cond));
    }
}

static void buy(shop *s) {
    mp_cond_shm *cond = s->c.object;
    for (bool over = false; !over;) {
        enter(cond);
        while (s->goods == 0 && !s->closed) wait_in(cond);
        over = s->goods == 0;
        if (!over) {
            s->goods--;
            s->bought++;
            /* To one of the buyers it may go as well as to the seller. */
            CHECK_OK(mp_cond_notify(cond, INT_MAX));
        }
        CHECK_OK(mp_cond_release(cond));
    }
}

static void trade(void *context, int number) {
    if (number == 0)
        sell(context);
    else
        buy(context);
}

static void run_shop(uint32_t lock_id, void *lock) {
    shop s = {.goods = 0};
    CHECK_OK(mp_cond_create(lock_id, lock, !lock_id, &s.c.id, &s.c.gen));
    begin(&s.c);
    spec_threads(4, trade, &s);
    CHECK_EQ(s.bought, s.sold);
    CHECK(s.sold > ROOM);
    CHECK_EQ(mp_cond_waiting(s.c.object), 0);
    mp_object_detach(s.c.id);
}

SPEC("threads: a condition's waiters are told, and find what it guards") {
    run_shop(0, NULL);
}

SPEC("threads: a condition does so with a lock that it was given") {
    uint32_t id, gen;
    CHECK_OK(mp_lock_create(&id, &gen));
    run_shop(id, mp_object_block(id));
    mp_object_detach(id);
}

/* ---- Barrier ------------------------------------------------------------ */

enum { PARTIES = 3 };

/* Each writes its own number and, behind the barrier, reads the others'. */
typedef struct rounds {
    contest c;
    uint64_t written[2][PARTIES];
    bool over; /* by the last one, while it acts */
} rounds;

/* True for the one that was the last. */
static bool arrive(mp_barrier_shm *barrier, mp_ref *node) {
    int r;
    while ((r = mp_barrier_arrive(barrier, node)) == -EAGAIN)
        mp_barrier_wait_turn(barrier);
    CHECK_OK(r);
    return r == 1;
}

static void pass(rounds *g) {
    mp_barrier_shm *barrier = g->c.object;
    mp_ref node;
    int r;
    if (arrive(barrier, &node)) {
        g->over = g->c.rounds > LEAST && spec_now() >= g->c.end;
        mp_barrier_trip(barrier, node);
    }
    AGAIN(r, mp_barrier_wait(barrier, node, mp_deadline_in(10)));
    CHECK_EQ(r, 0);
    CHECK(mp_barrier_leave(barrier, node) < PARTIES);
}

static void meet(void *context, int number) {
    rounds *g = context;
    for (uint64_t n = 1; !g->over; n++) {
        g->written[n % 2][number] = n;
        pass(g);
        for (int i = 0; i < PARTIES; i++)
            CHECK_EQ(g->written[n % 2][i], n);
        pass(g);
        if (number == 0) count(&g->c, 1);
    }
}

SPEC("threads: who has passed a barrier sees what all did before it") {
    rounds g = {.over = false};
    CHECK_OK(mp_barrier_create(PARTIES, -1, 0, &g.c.id, &g.c.gen));
    begin(&g.c);
    spec_threads(PARTIES, meet, &g);
    CHECK(g.c.rounds > 2);
    CHECK(!mp_barrier_broken(g.c.object));
    mp_object_detach(g.c.id);
}

/* ---- Value -------------------------------------------------------------- */

static void add_up(void *context, int number) {
    contest *c = context;
    mp_array_shm *value = c->object;
    uint64_t n = 0, sum;
    (void)number;
    for (; n < LEAST || spec_now() < c->end; n++) {
        mp_array_hold hold;
        int r;
        CHECK_OK(mp_cell_add(MP_CELL_q, value->cells, 0, 1, &sum));
        AGAIN(r, mp_array_enter(value, &hold));
        CHECK_EQ(r, 0);
        c->plain++;
        mp_cell_store(MP_CELL_q, value->cells, 1,
                      mp_cell_load(MP_CELL_q, value->cells, 1) + 1);
        mp_array_leave(&hold);
    }
    count(c, n);
}

SPEC("threads: sums in an array are kept, with its lock and without") {
    contest c = {0};
    mp_guard own = {.kind = MP_GUARD_OWN};
    CHECK_OK(mp_array_create(MP_TYPE_ARRAY, MP_CELL_q, 2, &own, &c.id,
                             &c.gen));
    begin(&c);
    spec_threads(4, add_up, &c);
    mp_array_shm *value = c.object;
    CHECK_EQ(c.plain, c.rounds);
    CHECK_EQ(mp_cell_load(MP_CELL_q, value->cells, 0), c.rounds);
    CHECK_EQ(mp_cell_load(MP_CELL_q, value->cells, 1), c.rounds);
    mp_object_detach(c.id);
}
