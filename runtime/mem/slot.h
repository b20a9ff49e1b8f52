/* Slots: who takes part, and who is dead.

   Invariant: a tag {generation, slot} names one participant for ever; it is
   dead when the slot's life word carries the kernel's mark or the slot has a
   newer generation. Nothing else (pid, tid, time) is asked.
   Safe: threads, processes. Blocks: never, but for internal locks. */
#ifndef MP_MEM_SLOT_H
#define MP_MEM_SLOT_H

#include "base/deadline.h"
#include "mem/arena.h"

/* No sleep is longer than a slice without a look around. The first slices
   of a wait are short, since a death that nobody else notices harms those
   most who have just begun to wait; each is twice as long as the one
   before. */
enum { MP_SLICE_NS = 100000000, MP_SLICE_FIRST_NS = 2000000 };

static inline uint32_t mp_tag_of(uint32_t index, uint32_t gen) {
    return (gen & 0x1ffffU) << 12 | index;
}

/* A live owner: where its life word is, and what it holds, to sleep on. */
typedef struct mp_owner {
    _Atomic uint32_t *life;
    uint32_t life_word;
} mp_owner;

/* Is the participant named by a lock word (other bits are ignored) alive?
   If so, fills `owner`. */
bool mp_owner_look(uint32_t tag, mp_owner *owner);

static inline bool mp_tag_alive(uint32_t tag) {
    mp_owner owner;
    return mp_owner_look(tag, &owner);
}

/* Said by a participant that ends as it should: its death is no accident.
   An on_death may ask for it. */
static inline void mp_slot_farewell(void) {
    atomic_store_explicit(&mp_me->slot->pid, 0, memory_order_release);
}

static inline bool mp_slot_farewelled(uint32_t tag) {
    return atomic_load_explicit(&mp_slot_at(tag % MP_SLOTS)->pid,
                                memory_order_acquire) == 0;
}

/* Reserves a slot in state FORKING for a child of the calling participant.
   0 or -EAGAIN (all in use). */
int mp_slot_reserve(uint32_t *index);

/* Gives a reserved slot back (the fork failed). */
void mp_slot_release(uint32_t index);

/* In the child: makes `index` the calling thread's participant, which
   self->tag has reserved for it. `self` is filled; -EOWNERDEAD when the parent
   died meanwhile and the slot was reclaimed. */
int mp_slot_claim(mp_self *self, uint32_t index);

/* Makes a free slot the calling thread's, which has no parent: 0, -EAGAIN. */
int mp_slot_take(mp_self *self);

/* Asks participant `tag`, a thread, to end: `signal` says how. It hears of it
   in its next wait. No-op when it is dead. */
void mp_slot_ask(uint32_t tag, uint32_t signal);

/* Sleeps. 0; -EINTR: a signal, or this thread was asked to end; or a slice is
   over, since the signal may have come just before the sleep. */
int mp_slot_sleep(mp_deadline deadline);

/* Was this thread asked to end? The signal, or 0. */
static inline uint32_t mp_slot_asked(void) {
    return mp_me ? atomic_load_explicit(&mp_me->slot->asked,
                                        memory_order_relaxed)
                 : 0;
}

/* Puts `block` into a free hand: it is freed if this participant dies while
   it is there, unless *at reached `value` (see mp_hand_shm). Nobody else may
   move *at before this participant is reaped: not so for a word behind a
   lock, which passes on sooner; there, the record that commits empties the
   hand. Returns the hand's number, or -EMFILE when all are full. */
int mp_hand_take(mp_ref block, const _Atomic uint64_t *at, uint64_t value);

/* A free hand's number for a record of one's own, or -EMFILE. */
int mp_hand_free(void);

static inline void mp_hand_drop(int hand) {
    atomic_store_explicit(&mp_me->slot->hands[hand].block, 0,
                          memory_order_release);
}

#endif
