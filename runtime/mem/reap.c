#include "mem/reap.h"

#include <limits.h>

#include "mem/heap.h"
#include "mem/mutex.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "mem/txn.h"
#include "os/child.h"
#include "os/futex.h"

/* A block between two owners: committed means that the new one has it. */
static void reap_hand(mp_hand_shm *hand) {
    mp_ref block = atomic_load_explicit(&hand->block, memory_order_acquire);
    if (!block) return;
    bool committed = false;
    if (hand->at) {
        uint64_t seen = atomic_load_explicit(
            (_Atomic uint64_t *)mp_at(hand->at), memory_order_acquire);
        committed = (int64_t)(seen - hand->value) >= 0;
    }
    if (!committed) mp_free(block);
    atomic_store_explicit(&hand->block, 0, memory_order_release);
}

/* Children for whom it reserved a slot, and which never claimed it. */
static void reap_unborn(uint32_t tag) {
    uint32_t high = atomic_load(&mp_me->super->slots);
    for (uint32_t i = 1; i < high; i++)
        if (atomic_load(&mp_slot_at(i)->state) ==
            (tag << 2 | MP_SLOT_FORKING))
            mp_reap_reserved(i, false);
}

static void recycle(mp_slot_shm *slot, uint32_t index) {
    mp_owner owner;
    mp_owner_look(index, &owner);
    atomic_store(&slot->pid, 0);
    atomic_fetch_add(&slot->gen, 1);
    /* Only now: who reads the word with the old generation sees it dead. */
    atomic_store(owner.life, 0);
    atomic_store(&slot->state, MP_SLOT_FREE);
    /* The kernel woke one sleeper; the others sleep on the word, too. */
    mp_futex_wake(owner.life, INT_MAX);
}

static void reap_live(uint32_t tag) {
    uint32_t index = tag % MP_SLOTS;
    mp_slot_shm *slot = mp_slot_at(index);
    mp_txn_replay(tag);
    for (int i = 0; i < MP_HANDS; i++) reap_hand(&slot->hands[i]);
    mp_heap_reap(tag);
    mp_object_reap(index, tag, true);
    reap_unborn(tag);
    recycle(slot, index);
}

void mp_reap(uint32_t tag) {
    mp_slot_shm *slot = mp_slot_at(tag % MP_SLOTS);
    mp_mutex_lock(&slot->reaper);
    if ((atomic_load(&slot->state) & 3) == MP_SLOT_LIVE &&
        mp_tag_of(tag % MP_SLOTS, atomic_load(&slot->gen)) ==
            (tag & MP_TAG_MASK) &&
        !mp_tag_alive(tag))
        reap_live(tag & MP_TAG_MASK);
    mp_mutex_unlock(&slot->reaper);
}

/* Makes a slot that is not yet LIVE one that is, with no life; caller holds
   `reaper`. A late child cannot claim it then, and should we die here, it is
   reaped like any other. */
static bool seize(mp_slot_shm *slot, uint32_t from) {
    uint32_t state = atomic_load(&slot->state);
    return (state & 3) == from &&
           atomic_compare_exchange_strong(&slot->state, &state,
                                          (state & ~3U) | MP_SLOT_LIVE);
}

void mp_reap_reserved(uint32_t index, bool gone) {
    mp_slot_shm *slot = mp_slot_at(index);
    mp_mutex_lock(&slot->reaper);
    if (seize(slot, MP_SLOT_FORKING) ||
        (gone && seize(slot, MP_SLOT_CLAIMING))) {
        mp_object_reap(index, mp_tag_of(index, atomic_load(&slot->gen)),
                       false);
        recycle(slot, index);
    }
    mp_mutex_unlock(&slot->reaper);
}

/* Did a child die while it claimed, with nobody left to wait for it? It has
   no life word yet, or one that the kernel does not know. (A late child may
   have left its name in a slot that is another's by now; its generation
   tells.) */
static bool died_claiming(const mp_slot_shm *slot, uint32_t index,
                          uint32_t state) {
    mp_owner owner;
    uint32_t tag = mp_tag_of(index, atomic_load(&slot->gen));
    uint32_t claimer = atomic_load(&slot->claimer);
    uint32_t pid = claimer & 0x3fffffU;
    mp_owner_look(tag, &owner);
    if (owner.life_word & MP_ROBUST_DEAD) return true;
    return !mp_tag_alive(state >> 2) && mp_claimer_of(pid, tag) == claimer &&
           mp_child_gone((pid_t)pid);
}

void mp_reap_sweep(void) {
    uint32_t high = atomic_load(&mp_me->super->slots);
    for (uint32_t i = 1; i < high; i++) {
        mp_slot_shm *slot = mp_slot_at(i);
        uint32_t tag = mp_tag_of(i, atomic_load(&slot->gen));
        uint32_t state = atomic_load(&slot->state);
        if ((state & 3) == MP_SLOT_LIVE && !mp_tag_alive(tag)) mp_reap(tag);
        if ((state & 3) == MP_SLOT_CLAIMING && died_claiming(slot, i, state))
            mp_reap_reserved(i, true);
    }
}
