#include "sync/waiters.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "mem/check.h"
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

/* ---- checking ------------------------------------------------------- */

static void check_node(mp_check *c, const mp_waiter_shm *node, mp_ref prev,
                       uint32_t least, uint32_t most) {
    uintmax_t back = mp_check_u64(c, &node->prev);
    uint32_t state = mp_check_u32(c, &node->state);
    int is = mp_check_tag(c, node->tag);
    if (back != prev)
        mp_check_report(c, "a waiter's prev is 0x%jx, expected 0x%jx", back,
                        (uintmax_t)prev);
    if (state < least || state > most)
        mp_check_report(c, "a waiter's state is %u, expected %u to %u", state,
                        least, most);
    if (is == MP_TAG_FALSE || (is != MP_TAG_ALIVE && mp_check_quiet(c)))
        mp_check_report(c, "a waiter's tag is 0x%x, expected a participant "
                           "that lives", node->tag);
}

int64_t mp_waiters_check(mp_check *c, const mp_waiters_shm *list,
                         uint32_t last, bool ranked) {
    mp_ref waiting = mp_check_u64(c, &list->waiting), prev = 0;
    int64_t n = 0;
    bool waits = false;
    mp_check_mutex(c, &list->mutex, "of waiters");
    for (mp_ref ref = mp_check_u64(c, &list->head); ref;) {
        const mp_waiter_shm *node =
            mp_check_block(c, ref, sizeof *node, "waiter");
        if (!node) return -1;
        waits |= ref == waiting;
        check_node(c, node, prev, waits ? MP_WAITER_WAITING : 1,
                   waits ? MP_WAITER_WAITING : last);
        if (waits && ranked && node->rank != n)
            mp_check_report(c, "a waiter's rank is %u, expected %jd",
                            node->rank, (intmax_t)n);
        n += waits;
        prev = ref;
        ref = mp_check_u64(c, &node->next);
    }
    if (mp_check_u64(c, &list->tail) != prev)
        mp_check_report(c, "the tail of its waiters is 0x%jx, expected 0x%jx",
                        (uintmax_t)mp_check_u64(c, &list->tail),
                        (uintmax_t)prev);
    if (waiting && !waits)
        mp_check_report(c, "the first that waits is 0x%jx, which is not in "
                           "the list", (uintmax_t)waiting);
    return n;
}
