#include "mem/reap.h"

#include <limits.h>

#include "mem/heap.h"
#include "mem/mutex.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "mem/txn.h"
#include "os/child.h"
#include "os/futex.h"
#include "os/shelf.h"

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
    for (uint32_t i = 1; i < high; i++) {
        mp_slot_shm *slot = mp_slot_at(i);
        /* The generation first: so it is not that of a later reservation. */
        uint32_t gen = atomic_load(&slot->gen);
        if (atomic_load(&slot->state) == (tag << 2 | MP_SLOT_FORKING))
            mp_reap_reserved(mp_tag_of(i, gen), false);
    }
}

static void recycle(mp_slot_shm *slot, uint32_t index) {
    mp_owner owner;
    mp_owner_look(index, &owner);
    atomic_store(&slot->pid, 0);
    atomic_store(&slot->asked, 0);
    atomic_fetch_add(&slot->gen, 1);
    /* Only now: who reads the word with the old generation sees it dead. */
    atomic_store(owner.life, 0);
    atomic_store(&slot->state, MP_SLOT_FREE);
    /* The kernel woke one sleeper; the others sleep on the word, too. */
    mp_futex_wake(owner.life, INT_MAX);
}

/* It may have taken on to ring the bell (sync/bell.h). */
static void ring(void) {
    if (atomic_load(&mp_me->super->bell) && mp_me->shelf[0] >= 0)
        mp_shelf_ring(mp_me->shelf);
}

static void reap_live(uint32_t tag) {
    uint32_t index = tag % MP_SLOTS;
    mp_slot_shm *slot = mp_slot_at(index);
    mp_txn_replay(tag);
    for (int i = 0; i < MP_HANDS; i++) reap_hand(&slot->hands[i]);
    mp_heap_reap(tag);
    mp_object_reap(index, tag, true);
    ring();
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
static bool seize(mp_slot_shm *slot, uint32_t index, bool gone) {
    uint64_t state = atomic_load(&slot->state);
    uint32_t kind = state & 3;
    if (kind != MP_SLOT_FORKING && !(gone && kind == MP_SLOT_CLAIMING))
        return false;
    if (kind == MP_SLOT_CLAIMING) {
        /* It may have written its life, and died before the kernel heard of
           it: that would never be marked. */
        mp_owner owner;
        mp_owner_look(index, &owner);
        atomic_store(owner.life, 0);
    }
    return atomic_compare_exchange_strong(
        &slot->state, &state, (state & ~(uint64_t)3) | MP_SLOT_LIVE);
}

void mp_reap_reserved(uint32_t tag, bool gone) {
    uint32_t index = tag % MP_SLOTS;
    mp_slot_shm *slot = mp_slot_at(index);
    mp_mutex_lock(&slot->reaper);
    /* Another may have given it back while we came here, and a third have
       reserved it anew; under `reaper` its generation stays. */
    if (mp_tag_of(index, atomic_load(&slot->gen)) == tag &&
        seize(slot, index, gone)) {
        mp_object_reap(index, tag, false);
        recycle(slot, index);
    }
    mp_mutex_unlock(&slot->reaper);
}

/* Did a child die while it claimed, with nobody left to wait for it? It has
   no life word yet, or one that the kernel does not know. */
static bool died_claiming(uint32_t tag, uint64_t state) {
    mp_owner owner;
    mp_owner_look(tag, &owner);
    if (owner.life_word & MP_ROBUST_DEAD) return true;
    return !mp_tag_alive((uint32_t)state >> 2) &&
           mp_child_gone((pid_t)(state >> 32));
}

void mp_reap_sweep(void) {
    uint32_t high = atomic_load(&mp_me->super->slots);
    for (uint32_t i = 1; i < high; i++) {
        mp_slot_shm *slot = mp_slot_at(i);
        uint32_t tag = mp_tag_of(i, atomic_load(&slot->gen));
        uint64_t state = atomic_load(&slot->state);
        if ((state & 3) == MP_SLOT_LIVE && !mp_tag_alive(tag)) mp_reap(tag);
        if ((state & 3) == MP_SLOT_CLAIMING && died_claiming(tag, state))
            mp_reap_reserved(tag, true);
    }
}
