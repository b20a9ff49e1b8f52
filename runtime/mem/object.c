/* dying: a participant's last detach moves the object into the participant's
   own list, in the record that takes `refs` to 0; destroying works on the
   list's head until it is done, and may push others in front of it. So
   nothing recurses, and a reaper goes on where the dead one stopped. */
#include "mem/object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mem/heap.h"
#include "mem/mutex.h"
#include "mem/object_shm.h"
#include "mem/slot.h"
#include "mem/txn.h"

/* What upper floors declared; written before use, always the same: so it does
   not matter which thread's store is seen. */
static const mp_object_ops *_Atomic types[MP_TYPES];

void mp_object_declare(int type, const mp_object_ops *ops) {
    atomic_store_explicit(&types[type], ops, memory_order_relaxed);
}

const mp_object_ops *mp_object_ops_of(int type) {
    if (type <= 0 || type >= MP_TYPES) return NULL;
    return atomic_load_explicit(&types[type], memory_order_relaxed);
}

static entry_shm *entry_of(uint32_t id) {
    mp_ref segment = atomic_load_explicit(
        &mp_me->super->segments[id / PER_SEGMENT], memory_order_acquire);
    return (entry_shm *)mp_at(segment) + id % PER_SEGMENT;
}

static const mp_object_ops *ops_of_entry(const entry_shm *e) {
    return mp_object_ops_of(HEAD_TYPE(
        atomic_load_explicit(&e->head, memory_order_relaxed)));
}

/* ---- ledgers -------------------------------------------------------- */

/* The ledger word with the bit of `id`, or NULL when its page is missing. */
static _Atomic uint64_t *ledger_word(mp_slot_shm *slot, uint32_t id) {
    mp_ref page = atomic_load_explicit(&slot->ledger[id / PER_PAGE],
                                       memory_order_acquire);
    if (!page) return NULL;
    return (_Atomic uint64_t *)mp_at(page) + id % PER_PAGE / 64;
}

/* The same, with a page made if need be; the slot is mine, or one that I
   reserved. */
static _Atomic uint64_t *ledger_word_made(mp_slot_shm *slot, uint32_t id) {
    _Atomic uint64_t *word = ledger_word(slot, id);
    if (word) return word;
    mp_ref page = mp_alloc(PER_PAGE / 8);
    if (!page) return NULL;
    memset(mp_at(page), 0, PER_PAGE / 8);
    int hand = mp_hand_take(page, NULL, 0);
    if (hand < 0) {
        mp_free(page);
        return NULL;
    }
    mp_publish(page);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &slot->ledger[id / PER_PAGE], page);
    mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, 0);
    mp_txn_commit(&txn);
    return ledger_word(slot, id);
}

#define BIT(id) ((uint64_t)1 << (id) % 64)

static uint64_t load(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* ---- private counts ------------------------------------------------- */

static bool room_for_count(uint32_t id) {
    if (id < mp_me->held_cap) return true;
    uint32_t cap = mp_me->held_cap ? mp_me->held_cap : 256;
    while (cap <= id) cap *= 2;
    uint32_t *more = realloc(mp_me->held, cap * sizeof *more);
    if (!more) return false;
    memset(more + mp_me->held_cap, 0,
           (cap - mp_me->held_cap) * sizeof *more);
    mp_me->held = more;
    mp_me->held_cap = cap;
    return true;
}

/* ---- destruction ---------------------------------------------------- */

/* Frees the entry of a destroyed object: out of the dying list, into the
   free list; the block passes through a hand. `slot` is mine, or that of the
   dead one I reap. */
static void bury(mp_slot_shm *slot, uint32_t id, entry_shm *e, int hand) {
    mp_super_shm *super = mp_me->super;
    mp_hand_shm *mine = &mp_me->slot->hands[hand];
    mp_ref block = load(&e->block);
    mine->at = 0;
    mp_mutex_lock(&super->table);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &slot->dying, load(&e->link));
    mp_txn_set64(&txn, &e->head, HEAD(FREE, 0, HEAD_GEN(load(&e->head)) + 1));
    mp_txn_set64(&txn, &e->link, load(&super->free_entry));
    mp_txn_set64(&txn, &super->free_entry, id);
    mp_txn_set64(&txn, &mine->block, block);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&super->table);
    mp_free(block);
    mp_hand_drop(hand);
}

/* Needs a hand; there are more of them than levels of taking. */
static void destroy_list(mp_slot_shm *slot) {
    for (;;) {
        uint32_t id = (uint32_t)load(&slot->dying);
        if (!id) return;
        entry_shm *e = entry_of(id);
        const mp_object_ops *ops = ops_of_entry(e);
        if (ops && ops->destroy) ops->destroy(mp_at(load(&e->block)));
        /* What it referred to may have died with it and stand before it. */
        int hand = mp_hand_free();
        if ((uint32_t)load(&slot->dying) == id && hand >= 0)
            bury(slot, id, e, hand);
    }
}

/* Destroys what is in `slot`'s list, and then what died with that; nothing
   when called from inside a destruction, whose loop goes on anyway. */
static void destroy_dying(mp_slot_shm *slot) {
    if (mp_me->destroying) return;
    mp_me->destroying = true;
    destroy_list(slot);
    destroy_list(mp_me->slot);
    mp_me->destroying = false;
}

/* Takes one holder away in the record `txn`; caller holds the lock. True:
   the last one, the object is in the caller's dying list. */
static bool drop_ref(mp_txn *txn, uint32_t id, entry_shm *e) {
    uint64_t refs = load(&e->refs) - 1, head = load(&e->head);
    mp_txn_set64(txn, &e->refs, refs);
    if (refs > 0) return false;
    mp_txn_set64(txn, &e->head,
                 HEAD(DYING, HEAD_TYPE(head), HEAD_GEN(head)));
    mp_txn_set64(txn, &e->link, load(&mp_me->slot->dying));
    mp_txn_set64(txn, &mp_me->slot->dying, id);
    return true;
}

/* ---- creation ------------------------------------------------------- */

/* Installs `block` as the segment of entry n, if need be, and makes entry n
   the free list; caller holds super->table. Entry 0 is nobody. */
static void add_entry(uint64_t n, mp_ref block, int hand) {
    mp_super_shm *super = mp_me->super;
    uint64_t id = n ? n : 1;
    mp_txn txn = mp_txn_begin();
    if (block) {
        mp_txn_set64(&txn, &super->segments[n / PER_SEGMENT], block);
        mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, 0);
    }
    mp_txn_set64(&txn, &super->free_entry, id);
    mp_txn_set64(&txn, &super->entries, id + 1);
    mp_txn_commit(&txn);
}

/* A block for one more segment, in a hand; -ENOMEM. */
static int new_segment(mp_ref *block) {
    *block = mp_alloc(PER_SEGMENT * sizeof(entry_shm));
    if (!*block) return -ENOMEM;
    memset(mp_at(*block), 0, PER_SEGMENT * sizeof(entry_shm));
    int hand = mp_hand_take(*block, NULL, 0);
    if (hand < 0)
        mp_free(*block);
    else
        mp_publish(*block);
    return hand < 0 ? -ENOMEM : hand;
}

static int more_entries(void) {
    mp_super_shm *super = mp_me->super;
    uint64_t n = load(&super->entries);
    mp_ref block = 0;
    int hand = 0;
    if (n >= MOST) return -ENOMEM;
    if (n % PER_SEGMENT == 0 && (hand = new_segment(&block)) < 0)
        return hand;
    mp_mutex_lock(&super->table);
    bool needed = load(&super->entries) == n && !load(&super->free_entry);
    if (needed) add_entry(n, block, hand);
    mp_mutex_unlock(&super->table);
    if (!needed && block) {
        mp_free(block);
        mp_hand_drop(hand);
    }
    return 0;
}

/* Locks super->table with a free entry whose ledger page and count exist. */
static int lock_free_entry(uint32_t *id, _Atomic uint64_t **word) {
    mp_super_shm *super = mp_me->super;
    for (;;) {
        *id = (uint32_t)load(&super->free_entry);
        if (!*id) {
            int r = more_entries();
            if (r < 0) return r;
            continue;
        }
        if (!room_for_count(*id)) return -ENOMEM;
        *word = ledger_word_made(mp_me->slot, *id);
        if (!*word) return -ENOMEM;
        mp_mutex_lock(&super->table);
        if (load(&super->free_entry) == *id) return 0;
        mp_mutex_unlock(&super->table);
    }
}

int mp_object_create(int type, mp_ref block, uint32_t *id_out,
                     uint32_t *gen_out) {
    mp_super_shm *super = mp_me->super;
    int hand = mp_hand_take(block, NULL, 0);
    if (hand < 0) return hand;
    uint32_t id;
    _Atomic uint64_t *word;
    int r = lock_free_entry(&id, &word);
    if (r < 0) {
        mp_hand_drop(hand);
        return r;
    }
    mp_publish(block);
    entry_shm *e = entry_of(id);
    uint32_t gen = HEAD_GEN(load(&e->head));
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &super->free_entry, load(&e->link));
    mp_txn_set64(&txn, &e->refs, 1);
    mp_txn_set64(&txn, &e->block, block);
    /* Behind the others: who sees it LIVE sees all of it (lock_live). */
    mp_txn_set64(&txn, &e->head, HEAD(LIVE, type, gen));
    mp_txn_set64(&txn, word, load(word) | BIT(id));
    mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, 0);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&super->table);
    mp_me->held[id] = 1;
    *id_out = id;
    *gen_out = gen;
    return 0;
}

/* ---- holders -------------------------------------------------------- */

/* Is there such an entry? Acquire pairs with add_entry's record: then its
   segment is there, too. */
static bool is_entry(uint32_t id) {
    return id > 0 && id < atomic_load_explicit(&mp_me->super->entries,
                                               memory_order_acquire);
}

/* The entry, locked, if {id, gen} is alive; else NULL. */
static entry_shm *lock_live(uint32_t id, uint32_t gen) {
    if (!is_entry(id)) return NULL;
    entry_shm *e = entry_of(id);
    mp_mutex_lock(&e->lock);
    /* Acquire pairs with mp_object_create's record, which is not made under
       this lock: the handle may have come as a plain number does. */
    uint64_t head = atomic_load_explicit(&e->head, memory_order_acquire);
    if (HEAD_STATE(head) == LIVE && HEAD_GEN(head) == gen) return e;
    mp_mutex_unlock(&e->lock);
    return NULL;
}

static int first_use(uint32_t id, uint32_t gen) {
    if (!is_entry(id)) return -ENOENT;
    if (!room_for_count(id)) return -ENOMEM;
    _Atomic uint64_t *word = ledger_word_made(mp_me->slot, id);
    if (!word) return -ENOMEM;
    entry_shm *e = lock_live(id, gen);
    if (!e) return -ENOENT;
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, word, load(word) | BIT(id));
    mp_txn_set64(&txn, &e->refs, load(&e->refs) + 1);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&e->lock);
    return 0;
}

int mp_object_attach(uint32_t id, uint32_t gen) {
    if (id < mp_me->held_cap && mp_me->held[id] > 0) {
        if (mp_object_gen(id) != gen) return -ENOENT;
    } else {
        int r = first_use(id, gen);
        if (r < 0) return r;
    }
    mp_me->held[id]++;
    return 0;
}

static void drop_ledger_bit(mp_slot_shm *slot, uint32_t id) {
    entry_shm *e = entry_of(id);
    _Atomic uint64_t *word = ledger_word(slot, id);
    mp_mutex_lock(&e->lock);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, word, load(word) & ~BIT(id));
    bool last = drop_ref(&txn, id, e);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&e->lock);
    if (last) destroy_dying(mp_me->slot);
}

void mp_object_detach(uint32_t id) {
    if (--mp_me->held[id] == 0) drop_ledger_bit(mp_me->slot, id);
}

bool mp_object_is_alive(uint32_t id, uint32_t gen) {
    if (!is_entry(id)) return false;
    uint64_t head =
        atomic_load_explicit(&entry_of(id)->head, memory_order_acquire);
    return HEAD_STATE(head) == LIVE && HEAD_GEN(head) == gen;
}

void *mp_object_block(uint32_t id) {
    return mp_at(load(&entry_of(id)->block));
}

size_t mp_object_size(uint32_t id) {
    return mp_block_size(load(&entry_of(id)->block));
}

int mp_object_type(uint32_t id) {
    return HEAD_TYPE(load(&entry_of(id)->head));
}

uint32_t mp_object_gen(uint32_t id) {
    return HEAD_GEN(load(&entry_of(id)->head));
}

uint64_t mp_object_refs(uint32_t id) {
    return load(&entry_of(id)->refs);
}

int mp_object_hold(uint32_t id, uint32_t gen, _Atomic uint32_t *where) {
    entry_shm *e = lock_live(id, gen);
    if (!e) return -ENOENT;
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &e->refs, load(&e->refs) + 1);
    mp_txn_set32(&txn, where, id);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&e->lock);
    return 0;
}

void mp_object_unhold(_Atomic uint32_t *where) {
    uint32_t id = atomic_load_explicit(where, memory_order_relaxed);
    if (!id) return;
    entry_shm *e = entry_of(id);
    mp_mutex_lock(&e->lock);
    mp_txn txn = mp_txn_begin();
    mp_txn_set32(&txn, where, 0);
    bool last = drop_ref(&txn, id, e);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&e->lock);
    if (last) destroy_dying(mp_me->slot);
}

/* ---- messages ------------------------------------------------------- */

static uint32_t *handles_of(mp_message_shm *m) {
    return (uint32_t *)(void *)((unsigned char *)m + m->handles_at);
}

int mp_message_hold(mp_ref block, uint32_t id, uint32_t gen) {
    mp_message_shm *m = mp_at(block);
    entry_shm *e = lock_live(id, gen);
    if (!e) return -ENOENT;
    uint32_t n = atomic_load_explicit(&m->n_handles, memory_order_relaxed);
    handles_of(m)[n] = id;
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &e->refs, load(&e->refs) + 1);
    mp_txn_set32(&txn, &m->n_handles, n + 1);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&e->lock);
    return 0;
}

bool mp_message_holds(mp_ref block, int type) {
    mp_message_shm *m = mp_at(block);
    uint32_t n = atomic_load_explicit(&m->n_handles, memory_order_relaxed);
    while (n > 0)
        if (mp_object_type(handles_of(m)[--n]) == type) return true;
    return false;
}

void mp_message_drop(mp_ref block) {
    mp_message_shm *m = mp_at(block);
    uint32_t n;
    bool last = false;
    while ((n = atomic_load_explicit(&m->n_handles, memory_order_relaxed))) {
        uint32_t id = handles_of(m)[n - 1];
        entry_shm *e = entry_of(id);
        mp_mutex_lock(&e->lock);
        mp_txn txn = mp_txn_begin();
        mp_txn_set32(&txn, &m->n_handles, n - 1);
        last |= drop_ref(&txn, id, e);
        mp_txn_commit(&txn);
        mp_mutex_unlock(&e->lock);
    }
    if (last) destroy_dying(mp_me->slot);
}

/* ---- fork and death ------------------------------------------------- */

/* Calls f for every object in a slot's ledger. */
static int each_held(mp_slot_shm *slot,
                     int (*f)(mp_slot_shm *, uint32_t id, uint32_t arg),
                     uint32_t arg) {
    for (uint32_t page = 0; page < MP_LEDGER_PAGES; page++) {
        mp_ref ref = load(&slot->ledger[page]);
        if (!ref) continue;
        const _Atomic uint64_t *words = mp_at(ref);
        for (uint32_t i = 0; i < PER_PAGE / 64; i++)
            for (uint64_t bits = load(&words[i]); bits; bits &= bits - 1) {
                uint32_t bit = (uint32_t)__builtin_ctzll(bits);
                int r = f(slot, page * PER_PAGE + i * 64 + bit, arg);
                if (r < 0) return r;
            }
    }
    return 0;
}

static int copy_one(mp_slot_shm *mine, uint32_t id, uint32_t child_index) {
    (void)mine;
    entry_shm *e = entry_of(id);
    _Atomic uint64_t *word = ledger_word_made(mp_slot_at(child_index), id);
    if (!word) return -ENOMEM;
    mp_mutex_lock(&e->lock);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, word, load(word) | BIT(id));
    mp_txn_set64(&txn, &e->refs, load(&e->refs) + 1);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&e->lock);
    return 0;
}

int mp_object_copy_ledger(uint32_t child_index) {
    return each_held(mp_me->slot, copy_one, child_index);
}

static int prepare_one(mp_slot_shm *dead, uint32_t id, uint32_t tag) {
    (void)dead;
    entry_shm *e = entry_of(id);
    const mp_object_ops *ops = ops_of_entry(e);
    if (ops && ops->on_dying) ops->on_dying(mp_at(load(&e->block)), tag);
    return 0;
}

static int tell_one(mp_slot_shm *dead, uint32_t id, uint32_t tag) {
    (void)dead;
    entry_shm *e = entry_of(id);
    const mp_object_ops *ops = ops_of_entry(e);
    if (ops && ops->on_death) ops->on_death(mp_at(load(&e->block)), tag);
    return 0;
}

static int drop_one(mp_slot_shm *dead, uint32_t id, uint32_t arg) {
    (void)arg;
    drop_ledger_bit(dead, id);
    return 0;
}

void mp_object_reap(uint32_t index, uint32_t tag, bool call_death) {
    mp_slot_shm *slot = mp_slot_at(index);
    if (call_death) each_held(slot, prepare_one, tag);
    if (call_death) each_held(slot, tell_one, tag);
    destroy_dying(slot);
    each_held(slot, drop_one, 0);
    for (uint32_t page = 0; page < MP_LEDGER_PAGES; page++) {
        mp_ref ref = load(&slot->ledger[page]);
        int hand = ref ? mp_hand_take(ref, NULL, 0) : -1;
        if (hand < 0) continue;
        atomic_store(&slot->ledger[page], 0);
        mp_free(ref);
        mp_hand_drop(hand);
    }
}

uint32_t mp_object_count(void) {
    uint32_t n = 0;
    for (uint32_t id = 1; is_entry(id); id++)
        n += HEAD_STATE(load(&entry_of(id)->head)) == LIVE;
    return n;
}
