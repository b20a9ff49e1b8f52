#include "mem/slot.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/reap.h"

_Thread_local mp_self *mp_me;

/* Set in the child of a fork that was not ours: its parent's slot is not
   its own, so it must not take part. Fork generation, see architecture. */
static bool orphaned_by_fork;

static _Atomic uint32_t *life_of(uint32_t index) {
    return (_Atomic uint32_t *)(void *)(mp_slot_at(index)->life.bytes +
                                        mp_me->super->life_at);
}

bool mp_owner_look(uint32_t tag, mp_owner *owner) {
    uint32_t index = tag % MP_SLOTS;
    const mp_slot_shm *slot = mp_slot_at(index);
    owner->life = life_of(index);
    /* The life word first: if the slot is recycled between the two loads,
       its generation tells. */
    owner->life_word =
        atomic_load_explicit(owner->life, memory_order_acquire);
    uint32_t gen = atomic_load_explicit(&slot->gen, memory_order_acquire);
    return owner->life_word && !(owner->life_word & MP_ROBUST_DEAD) &&
           ((tag ^ mp_tag_of(index, gen)) & 0x1fffffffU) == 0;
}

static bool claim_free(uint32_t index, uint32_t parent) {
    uint64_t from = MP_SLOT_FREE;
    return atomic_compare_exchange_strong_explicit(
        &mp_slot_at(index)->state, &from, parent << 2 | MP_SLOT_FORKING,
        memory_order_acq_rel, memory_order_relaxed);
}

/* Lowest first keeps the sweep short; 131,072 generations of a slot outlast
   any stale tag. */
static int find_free(uint32_t parent, uint32_t *index) {
    mp_super_shm *super = mp_me->super;
    uint32_t high = atomic_load_explicit(&super->slots, memory_order_acquire);
    for (uint32_t i = 1; i < MP_SLOTS; i++) {
        if (i >= high) {
            uint32_t seen = i;
            atomic_compare_exchange_strong(&super->slots, &seen, i + 1);
        }
        if (claim_free(i, parent)) {
            *index = i;
            return 0;
        }
    }
    return -EAGAIN;
}

int mp_slot_reserve(uint32_t *index) {
    int r = find_free(mp_me->tag, index);
    if (r == -EAGAIN) {
        mp_reap_sweep();
        r = find_free(mp_me->tag, index);
    }
    return r;
}

void mp_slot_release(uint32_t index) {
    /* My own: its generation stays until I give it back. */
    mp_reap_reserved(mp_tag_of(index, atomic_load(&mp_slot_at(index)->gen)),
                     true);
}

int mp_slot_claim(mp_self *self, uint32_t index) {
    uint32_t parent = self->tag; /* 0: nobody, the first of a family */
    self->index = index;
    self->slot =
        (mp_slot_shm *)(void *)(self->base + MP_SUPER_SIZE) + index;
    self->tag = mp_tag_of(index, atomic_load(&self->slot->gen));
    /* A child that is late finds that its slot was given back, and perhaps
       to another: it must not write its life over the other's, which the
       kernel would then never mark. While it is CLAIMING nobody takes it;
       should it die then, its pid, which comes by the same exchange, tells
       (mem/reap.c). */
    uint32_t pid = (uint32_t)getpid();
    uint64_t forking = parent << 2 | MP_SLOT_FORKING;
    if (!atomic_compare_exchange_strong(
            &self->slot->state, &forking,
            (uint64_t)pid << 32 | parent << 2 | MP_SLOT_CLAIMING))
        return -EOWNERDEAD;
    atomic_store(&self->slot->pid, pid);
    /* The life word before the state: a LIVE slot is never taken for dead
       because it has not registered yet. */
    int r = mp_robust_register(&self->slot->life,
                               (int)self->super->life_at);
    if (r < 0) return r;
    atomic_store(&self->slot->state, parent << 2 | MP_SLOT_LIVE);
    return 0;
}

static void on_fork_in_child(void) {
    if (mp_me) orphaned_by_fork = true;
    mp_me = NULL;
}

static int open_first(mp_self *self) {
    int r = mp_arena_create(self);
    if (r < 0) return r;
    mp_me = self; /* helpers below go by mp_me */
    uint32_t index;
    r = find_free(0, &index);
    if (r == 0) r = mp_slot_claim(self, index);
    if (r < 0) mp_me = NULL;
    return r;
}

int mp_open(void) {
    static mp_self first;
    if (mp_me) return 0;
    if (orphaned_by_fork) return -EOWNERDEAD;
    /* One arena per process; a second thread joins it by way of
       proc/start, which hands it a slot. */
    if (first.base) return -EBUSY;
    int r = open_first(&first);
    if (r < 0) {
        first.base = NULL;
        return r;
    }
    r = pthread_atfork(NULL, NULL, on_fork_in_child);
    return r == 0 ? 0 : -r;
}

int mp_hand_free(void) {
    for (int i = 0; i < MP_HANDS; i++)
        if (atomic_load_explicit(&mp_me->slot->hands[i].block,
                                 memory_order_relaxed) == 0)
            return i;
    return -EMFILE;
}

int mp_hand_take(mp_ref block, const _Atomic uint64_t *at, uint64_t value) {
    int i = mp_hand_free();
    if (i < 0) return i;
    mp_hand_shm *hand = &mp_me->slot->hands[i];
    hand->at = at ? mp_offset(at) : 0;
    hand->value = value;
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&hand->block, block, memory_order_release);
    return i;
}
