/* Conditions and barriers. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "sync/barrier.h"
#include "sync/cond.h"
#include "sync_tools.h"

SPEC_PREPARE {
    prepare_locks();
    mp_cond_open();
    mp_barrier_open();
}

/* ---- Condition ---------------------------------------------------------- */

static mp_cond_shm *new_cond(uint32_t *id) {
    uint32_t gen;
    CHECK_OK(mp_cond_create(0, NULL, true, id, &gen));
    return mp_object_block(*id);
}

static void enter(mp_cond_shm *cond) {
    int r;
    while ((r = mp_cond_acquire(cond, mp_deadline_in(5))) == -EINTR) {
    }
    CHECK(r >= 0);
}

static void leave(mp_cond_shm *cond) {
    CHECK_EQ(mp_cond_release(cond), 0);
}

static bool wait_in(mp_cond_shm *cond, double seconds) {
    mp_cond_wait wait;
    mp_deadline deadline = mp_deadline_in(seconds);
    CHECK_OK(mp_cond_wait_begin(cond, &wait));
    int r;
    while (mp_cond_wait_sleep(&wait, deadline) == -EINTR) {
    }
    while ((r = mp_cond_wait_relock(cond, &wait)) == -EINTR) {
    }
    CHECK(r >= 0);
    return mp_cond_wait_end(cond, &wait, false);
}

SPEC("cond: wants its lock held, and times out") {
    uint32_t id;
    mp_cond_shm *cond = new_cond(&id);
    mp_cond_wait wait;
    CHECK_EQ(mp_cond_wait_begin(cond, &wait), -EPERM);
    CHECK_EQ(mp_cond_notify(cond, 1), -EPERM);
    enter(cond);
    enter(cond);
    CHECK_EQ(mp_cond_notify(cond, 1), 0);
    CHECK(!wait_in(cond, 0));
    CHECK(!wait_in(cond, 0.02));
    leave(cond); /* both levels are back */
    leave(cond);
    CHECK_EQ(mp_cond_release(cond), -EPERM);
    mp_object_detach(id);
}

SPEC("cond: holds the lock that it was given") {
    uint32_t lock_id, lock_gen, id, gen;
    CHECK_OK(mp_lock_create(&lock_id, &lock_gen));
    mp_lock_shm *lock = mp_object_block(lock_id);
    CHECK_OK(mp_cond_create(lock_id, lock, false, &id, &gen));
    mp_object_detach(lock_id);
    mp_cond_shm *cond = mp_object_block(id);
    CHECK_EQ(mp_object_refs(lock_id), 1);
    enter(cond);
    CHECK_EQ(mp_lock_owner(lock), mp_me->tag);
    CHECK(!wait_in(cond, 0.01));
    leave(cond);
    mp_object_detach(id);
}

/* Waiters take tokens; `taken` counts them. */
typedef struct tokens {
    uint32_t id;
    mp_cond_shm *cond;
    _Atomic uint64_t n, taken;
} tokens;

/* No tokens, where children see them; drop_tokens() gives the condition
   back. */
static tokens *new_tokens(void) {
    tokens *t = spec_shared(sizeof *t);
    t->cond = new_cond(&t->id);
    return t;
}

static void drop_tokens(tokens *t) {
    mp_object_detach(t->id);
}

static void take_tokens(void *argument) {
    tokens *t = argument;
    enter(t->cond);
    for (;;) {
        while (atomic_load(&t->n) == 0) wait_in(t->cond, 20);
        atomic_fetch_sub(&t->n, 1);
        atomic_fetch_add(&t->taken, 1);
    }
}

/* Forks a taker, who waits by now as the nth. */
static mp_proc start_taker(tokens *t, uint32_t nth) {
    mp_proc taker = start(take_tokens, t);
    CHECK_SOON(mp_cond_waiting(t->cond) == nth);
    return taker;
}

static void give_token(tokens *t, uint32_t notify) {
    enter(t->cond);
    atomic_fetch_add(&t->n, 1);
    CHECK_OK(mp_cond_notify(t->cond, notify));
    leave(t->cond);
}

SPEC("cond: a notify wakes one, the oldest; notify_all all") {
    tokens *t = new_tokens();
    mp_proc worker[3];
    for (uint32_t i = 0; i < 3; i++) worker[i] = start_taker(t, i + 1);
    uint32_t oldest =
        mp_waiter_at(atomic_load(&t->cond->waiters.waiting))->tag;
    CHECK_EQ(oldest, worker[0].tag);
    enter(t->cond);
    CHECK_OK(mp_cond_notify(t->cond, 1));
    CHECK_EQ(mp_cond_waiting(t->cond), 2);
    CHECK_OK(mp_cond_notify(t->cond, UINT32_MAX));
    CHECK_EQ(mp_cond_waiting(t->cond), 0);
    leave(t->cond);
    CHECK_SOON(mp_cond_waiting(t->cond) == 3);
    kill_all(worker, 3);
    CHECK_EQ(mp_cond_waiting(t->cond), 0);
    drop_tokens(t);
}

static void wait_and_leave(void *argument) {
    enter(argument);
    CHECK(wait_in(argument, 20));
    leave(argument);
}

/* The place that the oldest of those who wait sleeps on. */
static _Atomic uint32_t *bed_of_oldest(mp_cond_shm *cond) {
    return &mp_waiter_at(atomic_load(&cond->waiters.waiting))->state;
}

SPEC("cond: whom the lock's owner notifies is woken as it lets go") {
    tokens *t = new_tokens();
    mp_proc worker[3];
    for (uint32_t i = 0; i < 3; i++) worker[i] = start_taker(t, i + 1);
    enter(t->cond);
    _Atomic uint32_t *bed = bed_of_oldest(t->cond);
    CHECK_OK(mp_cond_notify(t->cond, 1));
    CHECK(mp_me->notified == bed);
    enter(t->cond); /* held twice: to let go once is not to let go */
    leave(t->cond);
    CHECK(mp_me->notified == bed);
    CHECK_OK(mp_cond_notify(t->cond, 1)); /* wakes the one before */
    CHECK(mp_me->notified && mp_me->notified != bed);
    leave(t->cond);
    CHECK(!mp_me->notified);
    CHECK_SOON(mp_cond_waiting(t->cond) == 3);
    kill_all(worker, 3);
    drop_tokens(t);
}

SPEC("cond: a Lock's notified are woken at once: others may release it") {
    uint32_t lock_id, lock_gen, id, gen;
    CHECK_OK(mp_lock_create(&lock_id, &lock_gen));
    CHECK_OK(mp_cond_create(lock_id, mp_object_block(lock_id), false, &id,
                            &gen));
    mp_cond_shm *cond = mp_object_block(id);
    mp_proc waiter = start(wait_and_leave, cond);
    CHECK_SOON(mp_cond_waiting(cond) == 1);
    enter(cond);
    CHECK_OK(mp_cond_notify(cond, 1));
    CHECK(!mp_me->notified);
    leave(cond);
    CHECK_EQ(finish(&waiter), 0);
    mp_object_detach(id);
    mp_object_detach(lock_id);
}

SPEC("cond: a dead waiter is passed over") {
    tokens *t = new_tokens();
    mp_proc first = start_taker(t, 1);
    mp_proc second = start_taker(t, 2);
    mp_proc_signal(&first, SIGKILL);
    CHECK_SOON(!mp_tag_alive(first.tag)); /* dead, and not reaped */
    give_token(t, 1);
    CHECK_SOON(atomic_load(&t->taken) == 1);
    CHECK_EQ(finish(&first), -SIGKILL);
    kill_now(&second);
    drop_tokens(t);
}

/* The lock is another object's, and somebody has it before the condition is
   told of the death: here, an object between the two takes it. */
static mp_lock_shm *snatched;
static uint32_t snatcher; /* the waiter may be the one that reaps */

static void snatch(void *object, uint32_t dead_tag) {
    (void)object, (void)dead_tag;
    if (mp_me->tag != snatcher) return;
    mp_lock_acquire(snatched, MP_AT_ONCE); /* if the notified one has not */
}

static void hold(void *argument) {
    enter(argument);
    for (;;) pause();
}

SPEC("cond: the death of a holder notifies, whoever has the lock since") {
    static const mp_object_ops ops = {.name = "Snatcher", .on_death = snatch};
    uint32_t lock_id, between, id, gen;
    CHECK_OK(mp_lock_create(&lock_id, &gen));
    snatched = mp_object_block(lock_id);
    snatcher = mp_me->tag;
    mp_object_declare(MP_TYPE_POOL, &ops);
    CHECK_OK(mp_object_create(MP_TYPE_POOL, mp_alloc(64), &between, &gen));
    CHECK_OK(mp_cond_create(lock_id, snatched, false, &id, &gen));
    CHECK(lock_id < between && between < id); /* told in this order */
    mp_cond_shm *cond = mp_object_block(id);
    mp_proc waiter = start(wait_and_leave, cond);
    CHECK_SOON(mp_cond_waiting(cond) == 1);
    mp_proc holder = start(hold, cond);
    CHECK_SOON(mp_lock_owner(snatched) == holder.tag);
    kill_now(&holder);
    CHECK_EQ(mp_cond_waiting(cond), 0);
    if (mp_lock_mine(snatched)) leave(cond);
    CHECK_EQ(finish(&waiter), 0);
    mp_object_detach(id);
    mp_object_detach(between);
    mp_object_detach(lock_id);
}

SPEC("cond: who dies notified, before it ran, passes the notify on") {
    tokens *t = new_tokens();
    mp_proc first = start_taker(t, 1);
    mp_proc second = start_taker(t, 2);
    mp_proc_signal(&first, SIGSTOP);
    give_token(t, 1); /* `first` has it now, and sleeps */
    CHECK_EQ(mp_cond_waiting(t->cond), 1);
    kill_now(&first);
    CHECK_SOON(atomic_load(&t->taken) == 1);
    kill_now(&second);
    drop_tokens(t);
}

SPEC("cond: who leaves by an error passes the notify on") {
    tokens *t = new_tokens();
    mp_cond_wait wait;
    enter(t->cond);
    CHECK_OK(mp_cond_wait_begin(t->cond, &wait));
    mp_proc second = start_taker(t, 2);
    give_token(t, 1);
    CHECK_EQ(mp_cond_waiting(t->cond), 1);
    CHECK(mp_cond_wait_end(t->cond, &wait, true));
    CHECK_SOON(atomic_load(&t->taken) == 1);
    kill_now(&second);
    drop_tokens(t);
}

SPEC_WITHIN(60, "cond: waiters that are killed anywhere lose no notify") {
    tokens *t = new_tokens();
    mp_proc worker[3];
    start_all(worker, 3, take_tokens, t);
    for (int i = 0; i < 300; i++) {
        give_token(t, 1);
        random_pause(150);
        kill_now(&worker[i % 3]);
        CHECK_SOON(atomic_load(&t->n) == 0);
        worker[i % 3] = start(take_tokens, t);
    }
    kill_all(worker, 3);
    drop_tokens(t);
}

static void give_tokens(void *argument) {
    tokens *t = argument;
    for (;;) {
        if (atomic_load(&t->n) < 5) give_token(t, 2);
    }
}

SPEC_WITHIN(60, "cond: notifiers that are killed anywhere stop nobody") {
    tokens *t = new_tokens();
    mp_proc taker[2], giver[2];
    for (int i = 0; i < 2; i++) {
        taker[i] = start(take_tokens, t);
        giver[i] = start(give_tokens, t);
    }
    for (int i = 0; i < 300; i++) {
        random_pause(200);
        kill_now(&giver[i % 2]);
        CHECK_PROGRESS(t->taken);
        giver[i % 2] = start(give_tokens, t);
    }
    kill_all(giver, 2);
    give_token(t, 5);
    CHECK_SOON(atomic_load(&t->n) == 0);
    kill_all(taker, 2);
    drop_tokens(t);
}

/* ---- Barrier ------------------------------------------------------------ */

static mp_barrier_shm *new_barrier(uint32_t parties, uint32_t *id) {
    uint32_t gen;
    CHECK_OK(mp_barrier_create(parties, -1, 0, id, &gen));
    return mp_object_block(*id);
}

/* The rank, or -EPIPE. */
static int pass(mp_barrier_shm *barrier, double seconds) {
    mp_deadline deadline = mp_deadline_in(seconds);
    mp_ref node;
    int r;
    while ((r = mp_barrier_arrive(barrier, &node)) == -EAGAIN)
        mp_barrier_wait_turn(barrier);
    if (r < 0) return r;
    if (r == 1) mp_barrier_trip(barrier, node);
    while ((r = mp_barrier_wait(barrier, node, deadline)) == -EINTR) {
    }
    int rank = (int)mp_barrier_leave(barrier, node);
    return r < 0 ? r : rank;
}

SPEC("barrier: of one is no obstacle") {
    uint32_t id;
    mp_barrier_shm *barrier = new_barrier(1, &id);
    for (int i = 0; i < 1000; i++) CHECK_EQ(pass(barrier, 5), 0);
    mp_object_detach(id);
}

enum { ROUNDS = 300 };

typedef struct rounds {
    uint32_t id;
    mp_barrier_shm *barrier;
    _Atomic uint64_t n;
    _Atomic uint32_t ranks[ROUNDS]; /* bits of those that were given */
} rounds;

/* Rounds to come, where children see them; drop_rounds() gives the barrier
   back. */
static rounds *new_rounds(uint32_t parties) {
    rounds *r = spec_shared(sizeof *r);
    r->barrier = new_barrier(parties, &r->id);
    return r;
}

static void drop_rounds(rounds *r) {
    mp_object_detach(r->id);
}

static void run_rounds(void *argument) {
    rounds *r = argument;
    for (int i = 0; i < ROUNDS; i++) {
        int rank = pass(r->barrier, 10);
        CHECK(rank >= 0 && rank < 3);
        uint32_t bit = 1U << rank;
        CHECK_EQ(atomic_fetch_or(&r->ranks[i], bit) & bit, 0);
        for (int j = 0; j < i; j++) /* nobody is a round behind */
            CHECK_EQ(atomic_load(&r->ranks[j]) != 0, 1);
    }
}

SPEC("barrier: gives each rank once in each round") {
    rounds *r = new_rounds(3);
    mp_proc worker[3];
    start_all(worker, 3, run_rounds, r);
    finish_all(worker, 3);
    for (int i = 0; i < ROUNDS; i++) CHECK_EQ(atomic_load(&r->ranks[i]), 7);
    CHECK(!mp_barrier_broken(r->barrier));
    drop_rounds(r);
}

SPEC("barrier: is broken by a timeout, and mended by a reset") {
    uint32_t id;
    mp_barrier_shm *barrier = new_barrier(2, &id);
    CHECK_EQ(pass(barrier, 0.02), -EPIPE);
    CHECK(mp_barrier_broken(barrier));
    CHECK_EQ(pass(barrier, 5), -EPIPE);
    mp_barrier_reset(barrier);
    CHECK(!mp_barrier_broken(barrier));
    CHECK_EQ(mp_barrier_waiting(barrier), 0);
    CHECK_EQ(pass(barrier, 0), -EPIPE);
    mp_object_detach(id);
}

static void expect_broken(void *argument) {
    rounds *r = argument;
    CHECK_EQ(pass(r->barrier, 100), -EPIPE);
    atomic_fetch_add(&r->n, 1);
}

/* Forks one that expects it, who waits by now as the nth. */
static mp_proc start_expecting(rounds *r, uint32_t nth) {
    mp_proc party = start(expect_broken, r);
    CHECK_SOON(mp_barrier_waiting(r->barrier) == nth);
    return party;
}

static void wait_broken(rounds *r, void (*end)(mp_barrier_shm *)) {
    mp_proc worker[2];
    start_all(worker, 2, expect_broken, r);
    CHECK_SOON(mp_barrier_waiting(r->barrier) == 2);
    end(r->barrier);
    finish_all(worker, 2);
    CHECK_EQ(mp_barrier_waiting(r->barrier), 0);
}

SPEC("barrier: abort and reset tell those who wait") {
    rounds *r = new_rounds(3);
    wait_broken(r, mp_barrier_reset);
    CHECK(!mp_barrier_broken(r->barrier));
    wait_broken(r, mp_barrier_break);
    CHECK(mp_barrier_broken(r->barrier));
    drop_rounds(r);
}

static void linger(void *argument) {
    (void)argument;
    for (;;) pause();
}

static void go(void *argument) {
    (void)argument;
}

SPEC("barrier: a party that dies waiting breaks it at once") {
    rounds *r = new_rounds(3);
    mp_proc dying = start_expecting(r, 1);
    mp_proc other = start_expecting(r, 2);
    double before = spec_now();
    kill_now(&dying);
    CHECK_EQ(finish(&other), 0);
    CHECK(spec_now() - before < 1);
    drop_rounds(r);
}

SPEC("barrier: a party that is killed before it came breaks it") {
    rounds *r = new_rounds(3);
    mp_proc first = start(expect_broken, r);
    mp_proc second = start(expect_broken, r);
    mp_proc third = start(linger, r);
    wait_born(&third);
    CHECK_SOON(mp_barrier_waiting(r->barrier) == 2);
    mp_proc_signal(&third, SIGKILL); /* nobody waits for it: they sweep */
    CHECK_EQ(finish(&first), 0);
    CHECK_EQ(finish(&second), 0);
    CHECK_EQ(finish(&third), -SIGKILL);
    drop_rounds(r);
}

static void pass_and_linger(void *argument) {
    rounds *r = argument;
    pass(r->barrier, 10);
    atomic_fetch_add(&r->n, 1);
    linger(NULL);
}

SPEC("barrier: a party that is killed between rounds breaks it") {
    rounds *r = new_rounds(2);
    mp_proc party[2];
    start_all(party, 2, pass_and_linger, r);
    CHECK_SOON(atomic_load(&r->n) == 2);
    kill_now(&party[0]);
    CHECK(mp_barrier_broken(r->barrier));
    kill_now(&party[1]);
    drop_rounds(r);
}

SPEC("barrier: a party that is killed before anybody came breaks it") {
    rounds *r = new_rounds(2);
    mp_proc third = start(linger, r);
    wait_born(&third);
    kill_now(&third);
    mp_proc first = start(expect_broken, r);
    CHECK_EQ(finish(&first), 0);
    drop_rounds(r);
}

static void pass_once(void *argument) {
    rounds *r = argument;
    CHECK(pass(r->barrier, 10) >= 0);
}

SPEC("barrier: those who end as they should do not break it") {
    rounds *r = new_rounds(2);
    mp_proc first = start(pass_once, r), second = start(pass_once, r);
    CHECK_EQ(finish(&first), 0);
    CHECK_EQ(finish(&second), 0);
    first = start(pass_once, r);
    CHECK_SOON(mp_barrier_waiting(r->barrier) == 1);
    mp_proc passer_by = start(go, r);
    CHECK_EQ(finish(&passer_by), 0);
    second = start(pass_once, r);
    CHECK_EQ(finish(&first), 0);
    CHECK_EQ(finish(&second), 0);
    drop_rounds(r);
}

SPEC("barrier: a bystander that is killed does not break it") {
    rounds *r = new_rounds(2);
    mp_proc bystander = start(linger, r);
    wait_born(&bystander);
    mp_proc first = start(pass_once, r), second = start(linger, r);
    wait_born(&second);
    CHECK_SOON(mp_barrier_waiting(r->barrier) == 1);
    kill_now(&bystander);
    CHECK(!mp_barrier_broken(r->barrier));
    CHECK(pass(r->barrier, 5) >= 0);
    CHECK_EQ(finish(&first), 0);
    kill_now(&second);
    drop_rounds(r);
}

static void pass_for_ever(void *argument) {
    rounds *r = argument;
    while (pass(r->barrier, 20) >= 0) {
    }
    atomic_fetch_add(&r->n, 1);
    linger(NULL);
}

SPEC_WITHIN(60, "barrier: a party that is killed anywhere frees the others") {
    rounds *r = new_rounds(3);
    mp_proc party[3];
    for (int i = 0; i < 200; i++) {
        atomic_store(&r->n, 0);
        start_all(party, 3, pass_for_ever, r);
        for (int j = 0; j < 3; j++) wait_born(&party[j]);
        random_pause(500);
        kill_now(&party[i % 3]);
        CHECK_SOON(atomic_load(&r->n) == 2);
        CHECK_EQ(mp_barrier_waiting(r->barrier), 0);
        for (int j = 0; j < 3; j++)
            if (j != i % 3) kill_now(&party[j]);
        mp_barrier_reset(r->barrier);
    }
    drop_rounds(r);
}
