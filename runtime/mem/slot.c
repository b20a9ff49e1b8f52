#include "mem/slot.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#include "mem/mutex.h"
#include "mem/reap.h"
#include "os/futex.h"

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

static bool claim_free(const mp_self *self, uint32_t index, uint64_t to) {
    const unsigned char *slots = self->base + MP_SUPER_SIZE;
    mp_slot_shm *slot = (mp_slot_shm *)(void *)(uintptr_t)slots + index;
    uint64_t from = MP_SLOT_FREE;
    return atomic_compare_exchange_strong_explicit(
        &slot->state, &from, to, memory_order_acq_rel, memory_order_relaxed);
}

/* Lowest first keeps the sweep short; 131,072 generations of a slot outlast
   any stale tag. */
static int find_free(const mp_self *self, uint64_t to, uint32_t *index) {
    mp_super_shm *super = self->super;
    uint32_t high = atomic_load_explicit(&super->slots, memory_order_acquire);
    for (uint32_t i = 1; i < MP_SLOTS; i++) {
        if (i >= high) {
            uint32_t seen = i;
            atomic_compare_exchange_strong(&super->slots, &seen, i + 1);
        }
        if (claim_free(self, i, to)) {
            *index = i;
            return 0;
        }
    }
    return -EAGAIN;
}

int mp_slot_reserve(uint32_t *index) {
    uint64_t forking = mp_me->tag << 2 | MP_SLOT_FORKING;
    int r = find_free(mp_me, forking, index);
    if (r == -EAGAIN) {
        mp_reap_sweep();
        r = find_free(mp_me, forking, index);
    }
    return r;
}

void mp_slot_release(uint32_t index) {
    /* My own: its generation stays until I give it back. */
    mp_reap_reserved(mp_tag_of(index, atomic_load(&mp_slot_at(index)->gen)),
                     true);
}

/* The slot is CLAIMING by this process, for `parent`: makes it LIVE. */
static int come_alive(mp_self *self, uint32_t index, uint32_t parent) {
    self->index = index;
    self->notified = NULL; /* the parent's, after a fork */
    self->slot =
        (mp_slot_shm *)(void *)(self->base + MP_SUPER_SIZE) + index;
    self->tag = mp_tag_of(index, atomic_load(&self->slot->gen));
    atomic_store(&self->slot->pid, (uint32_t)getpid());
    /* The life word before the state: a LIVE slot is never taken for dead
       because it has not registered yet. */
    int r = mp_robust_register(&self->slot->life,
                               (int)self->super->life_at);
    if (r < 0) return r;
    atomic_store(&self->slot->state, parent << 2 | MP_SLOT_LIVE);
    return 0;
}

/* A child that is late finds that its slot was given back, and perhaps to
   another: it must not write its life over the other's, which the kernel
   would then never mark. While a slot is CLAIMING nobody takes it; should its
   owner die then, the pid, which comes by the same exchange, tells
   (mem/reap.c). */
static uint64_t claiming(uint32_t parent) {
    return (uint64_t)getpid() << 32 | parent << 2 | MP_SLOT_CLAIMING;
}

int mp_slot_claim(mp_self *self, uint32_t index) {
    uint32_t parent = self->tag;
    mp_slot_shm *slot =
        (mp_slot_shm *)(void *)(self->base + MP_SUPER_SIZE) + index;
    uint64_t forking = parent << 2 | MP_SLOT_FORKING;
    if (!atomic_compare_exchange_strong(&slot->state, &forking,
                                        claiming(parent)))
        return -EOWNERDEAD;
    return come_alive(self, index, parent);
}

int mp_slot_take(mp_self *self) {
    uint32_t index;
    int r = find_free(self, claiming(0), &index);
    return r < 0 ? r : come_alive(self, index, 0);
}

int mp_slot_sleep(mp_deadline deadline) {
    if (mp_deadline_passed(deadline)) return 0;
    mp_deadline slice = mp_deadline_slice(deadline, MP_SLICE_NS);
    int r = mp_futex_wait(&mp_me->slot->asked, 0, slice);
    while (r == 0 && !mp_slot_asked())
        r = mp_futex_wait(&mp_me->slot->asked, 0, slice);
    return r == -ETIMEDOUT && slice.ns == deadline.ns ? 0 : -EINTR;
}

void mp_slot_ask(uint32_t tag, uint32_t signal) {
    mp_slot_shm *slot = mp_slot_at(tag % MP_SLOTS);
    uint32_t index = tag % MP_SLOTS;
    mp_mutex_lock(&slot->reaper); /* its generation stays */
    /* One that is not yet born hears of it, too. */
    if (mp_tag_of(index, atomic_load(&slot->gen)) == tag) {
        atomic_store(&slot->asked, signal);
        mp_futex_wake(&slot->asked, INT_MAX);
    }
    mp_mutex_unlock(&slot->reaper);
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
