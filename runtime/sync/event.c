/* The states of the word:

   n, 0, 0 -> n, may sleep, 0        a waiter, before it sleeps
   n, any, 0 -> n + 1, 0, set        set; wakes all if some may sleep
   n, 0, set -> n, 0, 0              clear */
#include "sync/event.h"

#include <errno.h>
#include <limits.h>

#include "mem/check.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/futex.h"
#include "sync/bell.h"
#include "sync/create.h"
#include "sync/wait.h"

enum { SET = 1, SLEEPERS = 2, COUNT = 4, SPINS = 100 };

static uint32_t load(const mp_event_shm *event) {
    return atomic_load_explicit(&event->word, memory_order_acquire);
}

void mp_event_set(mp_event_shm *event) {
    uint32_t word = atomic_load_explicit(&event->word, memory_order_relaxed);
    do {
        if (word & SET) return;
        /* Release: who sees the flag sees what was done before. */
    } while (!atomic_compare_exchange_weak_explicit(
        &event->word, &word, ((word & ~3U) + COUNT) | SET,
        memory_order_release, memory_order_relaxed));
    if (!(word & SLEEPERS)) return;
    mp_futex_wake(&event->word, INT_MAX);
    mp_bell_ring();
}

void mp_event_announce(mp_event_shm *event) {
    uint32_t word = load(event);
    /* A store in any case: either who sets it reads this one, and with it
       `bell` (sync/bell.h), or the caller's next look sees the flag. */
    while (!(word & SET) &&
           !atomic_compare_exchange_weak_explicit(
               &event->word, &word, word | SLEEPERS, memory_order_seq_cst,
               memory_order_acquire)) {
    }
}

void mp_event_clear(mp_event_shm *event) {
    atomic_fetch_and_explicit(&event->word, ~(uint32_t)SET,
                              memory_order_acq_rel);
}

static bool happened(uint32_t word, uint32_t sets) {
    return (word & SET) || word >> 2 != sets;
}

static bool spin(const mp_event_shm *event, uint32_t sets) {
    for (int i = 0; i < SPINS; i++) {
        if (happened(load(event), sets)) return true;
        mp_cpu_relax();
    }
    return false;
}

static int sleep_on(mp_event_shm *event, uint32_t word,
                    mp_deadline deadline) {
    if (!(word & SLEEPERS) &&
        !atomic_compare_exchange_strong_explicit(
            &event->word, &word, word | SLEEPERS, memory_order_relaxed,
            memory_order_relaxed))
        return 0;
    mp_deadline slice = mp_wait_slice(event, word | SLEEPERS, deadline);
    int r = mp_futex_wait(&event->word, word | SLEEPERS, slice);
    return mp_wait_slept(r, slice, deadline);
}

int mp_event_wait(mp_event_shm *event, uint32_t sets, mp_deadline deadline) {
    if (deadline.ns > 0 && mp_cpu_several() && spin(event, sets)) return 0;
    for (;;) {
        uint32_t word = load(event);
        if (happened(word, sets)) return 0;
        if (mp_deadline_passed(deadline)) return -ETIMEDOUT;
        int r = sleep_on(event, word, deadline);
        /* At the deadline the last word counts, too. */
        if (r == -EINTR || (r < 0 && !happened(load(event), sets)))
            return r;
    }
}

/* The dead one may have set it, and not yet woken those who slept. */
static void on_death(void *object, uint32_t dead_tag) {
    (void)dead_tag;
    mp_event_shm *event = object;
    mp_futex_wake(&event->word, INT_MAX);
}

/* Who sets it takes the sleepers' bit away, and nobody sleeps while it is
   set. */
static void check(mp_check *c, const void *object) {
    const mp_event_shm *event = object;
    if (!mp_check_size(c, sizeof *event)) return;
    uint32_t word = mp_check_u32(c, &event->word);
    if ((word & SET) && (word & SLEEPERS))
        mp_check_report(c, "its word is 0x%x: set, and with sleepers, "
                           "expected either", word);
}

static const mp_object_ops ops = {
    .name = "Event", .on_death = on_death, .check = check};

void mp_event_open(void) {
    mp_object_declare(MP_TYPE_EVENT, &ops);
}

int mp_event_create(uint32_t *id, uint32_t *gen) {
    return mp_sync_create(MP_TYPE_EVENT, sizeof(mp_event_shm), id, gen);
}
