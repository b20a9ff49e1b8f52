/* Events: a flag that processes wait for.

   Invariant: a `set` is seen by everybody who waited before it, also when
   `clear` follows at once: the word counts the sets.

   word: sets << 2 | somebody may sleep << 1 | the flag
   Nothing needs repair; a setter that dies before it woke the sleepers is
   made up for by the reaper.
   Safe: threads, processes. Blocks: only what takes a deadline. */
#ifndef MP_SYNC_EVENT_H
#define MP_SYNC_EVENT_H

#include "base/deadline.h"
#include "mem/arena.h"

typedef struct mp_event_shm {
    _Atomic uint32_t word;
} mp_event_shm;
_Static_assert(sizeof(mp_event_shm) == 4, "one word");

static inline bool mp_event_is_set(const mp_event_shm *event) {
    /* Acquire pairs with the release in mp_event_set. */
    return atomic_load_explicit(&event->word, memory_order_acquire) & 1;
}

void mp_event_set(mp_event_shm *event);
void mp_event_clear(mp_event_shm *event);

/* The next set rings the bell (sync/bell.h), unless it is set already. */
void mp_event_announce(mp_event_shm *event);

/* What a wait begins with, once. */
static inline uint32_t mp_event_sets(const mp_event_shm *event) {
    return atomic_load_explicit(&event->word, memory_order_relaxed) >> 2;
}

/* 0: the flag is set, or was since `sets`; -ETIMEDOUT; -EINTR as in
   sync/wait.h (call again with the same `sets`). */
int mp_event_wait(mp_event_shm *event, uint32_t sets, mp_deadline deadline);

/* Declares the type MP_TYPE_EVENT. */
void mp_event_open(void);

/* Makes an event that is not set. 0 or -ENOMEM. */
int mp_event_create(uint32_t *id, uint32_t *gen);

#endif
