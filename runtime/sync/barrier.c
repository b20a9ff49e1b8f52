/* pending: 0           nothing is decided
            RELEASE     the round is over
            RESET       it is broken, the next is whole
            BREAK       it is broken, and so are the next
   The store of `pending` decides. Then each waiter gets its state by a
   record of its own, and the last record ends the round. Whoever locks the
   mutex does first what a dead one left of that, so a round is never seen
   half decided. */
#include "sync/barrier.h"

#include <errno.h>

#include "mem/check.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/futex.h"
#include "sync/create.h"

enum { RELEASED = 1, BROKEN }; /* states besides MP_WAITER_WAITING */
enum { RELEASE = 1, RESET, BREAK };
enum { SPINS = 100 };

static uint32_t load(const _Atomic uint32_t *word) {
    return atomic_load_explicit(word, memory_order_acquire);
}

static uint32_t state_of(mp_ref node) {
    return load(&mp_waiter_at(node)->state);
}

/* ---- the round's end, under the mutex ------------------------------- */

static void give_out(mp_barrier_shm *barrier) {
    uint32_t pending = load(&barrier->pending);
    if (!pending) return;
    uint32_t state = pending == RELEASE ? RELEASED : BROKEN;
    while (atomic_load(&barrier->waiters.waiting)) {
        mp_txn txn = mp_txn_begin();
        mp_waiters_settle(&barrier->waiters, state, &txn);
        mp_txn_commit(&txn);
    }
    mp_txn txn = mp_txn_begin();
    mp_txn_set32(&txn, &barrier->count, 0);
    mp_txn_set32(&txn, &barrier->broken, pending == BREAK);
    if (pending == RESET) mp_txn_set32(&txn, &barrier->lost, 0);
    mp_txn_set32(&txn, &barrier->pending, 0);
    mp_txn_commit(&txn);
}

static void decide(mp_barrier_shm *barrier, uint32_t pending) {
    atomic_store_explicit(&barrier->pending, pending, memory_order_release);
    give_out(barrier);
}

static void lock(mp_barrier_shm *barrier) {
    mp_mutex_lock(&barrier->waiters.mutex);
    give_out(barrier);
}

static void unlock(mp_barrier_shm *barrier) {
    mp_mutex_unlock(&barrier->waiters.mutex);
}

static void end_round(mp_barrier_shm *barrier, uint32_t pending) {
    lock(barrier);
    decide(barrier, pending);
    unlock(barrier);
    mp_wait_notify(&barrier->wait, INT_MAX);
}

void mp_barrier_break(mp_barrier_shm *barrier) {
    end_round(barrier, BREAK);
}

void mp_barrier_reset(mp_barrier_shm *barrier) {
    end_round(barrier, RESET);
}

/* ---- a party's way -------------------------------------------------- */

/* Remembers that I am a party. */
static void make_known(mp_barrier_shm *barrier) {
    uint32_t i = mp_me->index;
    atomic_fetch_or_explicit(&barrier->known[i / 64], (uint64_t)1 << i % 64,
                             memory_order_relaxed);
    if (load(&barrier->maker) == mp_me->tag)
        atomic_store_explicit(&barrier->maker, 0, memory_order_relaxed);
}

static int enter(mp_barrier_shm *barrier, mp_waiter *waiter) {
    uint32_t count = load(&barrier->count);
    if (load(&barrier->broken)) return -EPIPE;
    if (count >= barrier->parties) return -EAGAIN;
    make_known(barrier);
    mp_waiter_at(waiter->ref)->rank = count;
    mp_txn txn = mp_txn_begin();
    mp_waiters_link(&barrier->waiters, waiter, &txn);
    mp_txn_set32(&txn, &barrier->count, count + 1);
    mp_txn_commit(&txn);
    return count + 1 == barrier->parties;
}

int mp_barrier_arrive(mp_barrier_shm *barrier, mp_ref *node) {
    mp_waiter waiter;
    int r = mp_waiter_new(&waiter);
    if (r < 0) return r;
    *node = waiter.ref;
    lock(barrier);
    r = enter(barrier, &waiter);
    unlock(barrier);
    if (r < 0) mp_waiter_free(&waiter);
    return r;
}

int mp_barrier_wait_turn(mp_barrier_shm *barrier) {
    while (load(&barrier->count) >= barrier->parties) {
        uint32_t seen = mp_wait_announce(&barrier->wait);
        if (load(&barrier->count) < barrier->parties) break;
        int r = mp_wait_sleep(&barrier->wait, seen, MP_FOREVER);
        if (r < 0) return r;
    }
    return 0;
}

void mp_barrier_trip(mp_barrier_shm *barrier, mp_ref node) {
    lock(barrier);
    if (state_of(node) == MP_WAITER_WAITING) decide(barrier, RELEASE);
    unlock(barrier);
    mp_wait_notify(&barrier->wait, INT_MAX);
}

void mp_barrier_fail(mp_barrier_shm *barrier, mp_ref node) {
    lock(barrier);
    if (state_of(node) == MP_WAITER_WAITING) decide(barrier, BREAK);
    unlock(barrier);
    mp_wait_notify(&barrier->wait, INT_MAX);
}

/* A party's time is up. When all have come, it may yet last as long as the
   last one acts. */
static mp_deadline give_up(mp_barrier_shm *barrier, mp_ref node) {
    if (load(&barrier->count) < barrier->parties)
        mp_barrier_fail(barrier, node);
    return MP_FOREVER;
}

static void spin(mp_ref node) {
    for (int i = 0; i < SPINS && state_of(node) == MP_WAITER_WAITING; i++)
        mp_cpu_relax();
}

/* Are the holders, without `dead` of them, too few for a round? */
static bool too_few(mp_barrier_shm *barrier, uint64_t dead) {
    uint64_t left = mp_object_refs(barrier->id) - dead;
    uint32_t maker = load(&barrier->maker);
    if (maker && mp_tag_alive(maker)) left--;
    return left < barrier->parties;
}

int mp_barrier_wait(mp_barrier_shm *barrier, mp_ref node,
                    mp_deadline deadline) {
    if (mp_cpu_several()) spin(node);
    while (state_of(node) == MP_WAITER_WAITING) {
        if (mp_deadline_passed(deadline))
            deadline = give_up(barrier, node);
        uint32_t seen = mp_wait_announce(&barrier->wait);
        if (state_of(node) != MP_WAITER_WAITING) break;
        int r = mp_wait_sleep(&barrier->wait, seen, deadline);
        if (r != -EINTR) continue;
        /* Nobody came for so long, and somebody never will. */
        if (mp_wait_is_long() && load(&barrier->lost) && too_few(barrier, 0))
            mp_barrier_fail(barrier, node);
        return r;
    }
    return state_of(node) == RELEASED ? 0 : -EPIPE;
}

static void take_out(mp_barrier_shm *barrier, mp_ref node) {
    mp_txn txn = mp_txn_begin();
    mp_waiter out = mp_waiters_unlink(&barrier->waiters, node, &txn);
    mp_txn_commit(&txn);
    mp_waiter_free(&out);
}

uint32_t mp_barrier_leave(mp_barrier_shm *barrier, mp_ref node) {
    uint32_t rank = mp_waiter_at(node)->rank;
    lock(barrier);
    take_out(barrier, node);
    unlock(barrier);
    return rank;
}

/* ---- the type ------------------------------------------------------- */

/* The first node of `tag` at or behind `node`, or 0. */
static mp_ref find(mp_ref node, uint32_t tag) {
    while (node && mp_waiter_at(node)->tag != tag)
        node = atomic_load(&mp_waiter_at(node)->next);
    return node;
}

static bool breaks(mp_barrier_shm *barrier, uint32_t dead, bool known) {
    if (find(atomic_load(&barrier->waiters.waiting), dead)) return true;
    if (mp_slot_farewelled(dead)) return false;
    if (known || (load(&barrier->count) > 0 && too_few(barrier, 1)))
        return true;
    atomic_store_explicit(&barrier->lost, 1, memory_order_release);
    return false;
}

static void on_death(void *object, uint32_t dead_tag) {
    mp_barrier_shm *barrier = object;
    uint32_t index = dead_tag % MP_SLOTS;
    uint64_t bit = (uint64_t)1 << index % 64;
    _Atomic uint64_t *known = &barrier->known[index / 64];
    lock(barrier);
    if (breaks(barrier, dead_tag, atomic_load(known) & bit))
        decide(barrier, BREAK);
    mp_ref node;
    while ((node = find(atomic_load(&barrier->waiters.head), dead_tag)) != 0)
        take_out(barrier, node);
    /* Last: should this reaper die, the next one must know it, too. */
    atomic_fetch_and_explicit(known, ~bit, memory_order_relaxed);
    unlock(barrier);
    mp_wait_notify_late(&barrier->wait);
}

static void destroy(void *object) {
    mp_barrier_shm *barrier = object;
    mp_waiters_destroy(&barrier->waiters);
    mp_ref action = atomic_load(&barrier->action);
    if (action) mp_free(action); /* twice after a death: stale, no harm */
}

static void check_word(mp_check *c, const char *name, uint32_t value,
                       uint32_t most) {
    if (value > most)
        mp_check_report(c, "%s is %u, expected at most %u", name, value,
                        most);
}

static void check_words(mp_check *c, const mp_barrier_shm *barrier) {
    uint32_t maker = mp_check_u32(c, &barrier->maker);
    check_word(c, "broken", mp_check_u32(c, &barrier->broken), 1);
    check_word(c, "lost", mp_check_u32(c, &barrier->lost), 1);
    /* Left over by a dead one, it is done by the next who comes. */
    check_word(c, "pending", mp_check_u32(c, &barrier->pending),
               mp_check_quiet(c) ? 0 : BREAK);
    if (barrier->id != mp_check_id(c))
        mp_check_report(c, "id is %u, expected %u", barrier->id,
                        mp_check_id(c));
    if (maker && mp_check_tag(c, maker) == MP_TAG_FALSE)
        mp_check_report(c, "maker is 0x%x, which nobody ever was", maker);
}

static void check(mp_check *c, const void *object) {
    const mp_barrier_shm *barrier = object;
    if (!mp_check_size(c, sizeof *barrier)) return;
    mp_ref action = mp_check_u64(c, &barrier->action);
    if (action) mp_check_block(c, action, sizeof(mp_message_shm), "action");
    check_words(c, barrier);
    bool decided = mp_check_u32(c, &barrier->pending) != 0;
    int64_t n =
        mp_waiters_check(c, &barrier->waiters, BROKEN, !decided);
    uint32_t count = mp_check_u32(c, &barrier->count);
    if (n >= 0 && !decided && count != n)
        mp_check_report(c, "count is %u, expected %jd: so many wait", count,
                        (intmax_t)n);
    check_word(c, "count", count,
               mp_check_u32(c, &barrier->broken) ? 0 : barrier->parties);
}

static const mp_object_ops ops = {.name = "Barrier",
                                  .destroy = destroy,
                                  .on_death = on_death,
                                  .check = check};

void mp_barrier_open(void) {
    mp_object_declare(MP_TYPE_BARRIER, &ops);
}

/* From me to the barrier. */
static int give_action(mp_barrier_shm *barrier, mp_ref action) {
    int hand = mp_hand_take(action, NULL, 0);
    if (hand < 0) return hand;
    mp_publish(action);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &barrier->action, action);
    mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, 0);
    mp_txn_commit(&txn);
    return 0;
}

int mp_barrier_create(uint32_t parties, double timeout, mp_ref action,
                      uint32_t *id, uint32_t *gen) {
    int r = mp_sync_create(MP_TYPE_BARRIER, sizeof(mp_barrier_shm), id, gen);
    if (r < 0) {
        mp_free(action);
        return r;
    }
    mp_barrier_shm *barrier = mp_object_block(*id);
    barrier->parties = parties;
    barrier->timeout = timeout;
    barrier->id = *id;
    barrier->maker = mp_me->tag;
    r = action ? give_action(barrier, action) : 0;
    if (r < 0) {
        mp_free(action);
        mp_object_detach(*id);
    }
    return r;
}
