#include "sync/waiters.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "mem/heap.h"
#include "mem/slot.h"

static uint64_t load(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

int mp_waiter_new(mp_waiter *waiter) {
    waiter->ref = mp_alloc(sizeof(mp_waiter_shm));
    if (!waiter->ref) return -ENOMEM;
    mp_waiter_shm *node = mp_waiter_at(waiter->ref);
    memset(node, 0, sizeof *node);
    node->tag = mp_me->tag;
    waiter->hand = mp_hand_take(waiter->ref, NULL, 0);
    if (waiter->hand < 0) {
        mp_free(waiter->ref);
        return waiter->hand;
    }
    /* Not mine any more, when the hand is empty and I die in the list. */
    mp_publish(waiter->ref);
    return 0;
}

void mp_waiter_free(mp_waiter *waiter) {
    mp_free(waiter->ref);
    mp_hand_drop(waiter->hand);
}

void mp_waiters_link(mp_waiters_shm *list, mp_waiter *waiter, mp_txn *txn) {
    uint64_t tail = load(&list->tail);
    mp_txn_set64(txn, &mp_waiter_at(waiter->ref)->prev, tail);
    mp_txn_set64(txn, tail ? &mp_waiter_at(tail)->next : &list->head,
                 waiter->ref);
    mp_txn_set64(txn, &list->tail, waiter->ref);
    if (!load(&list->waiting))
        mp_txn_set64(txn, &list->waiting, waiter->ref);
    mp_txn_set64(txn, &mp_me->slot->hands[waiter->hand].block, 0);
}

mp_waiter mp_waiters_unlink(mp_waiters_shm *list, mp_ref ref, mp_txn *txn) {
    mp_waiter_shm *node = mp_waiter_at(ref);
    uint64_t next = load(&node->next), prev = load(&node->prev);
    int hand = mp_hand_free();
    assert(hand >= 0); /* hands are held for moments, see mem/slot.h */
    mp_hand_shm *mine = &mp_me->slot->hands[hand];
    mine->at = 0;
    mp_txn_set64(txn, prev ? &mp_waiter_at(prev)->next : &list->head, next);
    mp_txn_set64(txn, next ? &mp_waiter_at(next)->prev : &list->tail, prev);
    if (load(&list->waiting) == ref)
        mp_txn_set64(txn, &list->waiting, next);
    mp_txn_set64(txn, &mine->block, ref);
    return (mp_waiter){ref, hand};
}

mp_ref mp_waiters_settle(mp_waiters_shm *list, uint32_t state, mp_txn *txn) {
    mp_ref ref = load(&list->waiting);
    mp_waiter_shm *node = mp_waiter_at(ref);
    mp_txn_set32(txn, &node->state, state);
    mp_txn_set64(txn, &list->waiting, load(&node->next));
    return ref;
}

void mp_waiters_destroy(mp_waiters_shm *list) {
    for (mp_ref ref; (ref = load(&list->head)) != 0;) {
        mp_mutex_lock(&list->mutex);
        mp_txn txn = mp_txn_begin();
        mp_waiter waiter = mp_waiters_unlink(list, ref, &txn);
        mp_txn_commit(&txn);
        mp_mutex_unlock(&list->mutex);
        mp_waiter_free(&waiter);
    }
}
