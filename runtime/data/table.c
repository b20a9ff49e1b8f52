/* What all operations of a table are made of, and its life.

   A block comes in so: it is made and filled while it is OWNED, goes into a
   hand and is published, all before the lock; the record that makes the
   entry takes it out of the hand. And goes so: the record that takes it out
   of the entry puts it into a hand, and it is freed after the lock. */
#include "data/table.h"

#include <errno.h>
#include <string.h>

#include "data/table_shm.h"
#include "mem/heap.h"
#include "mem/slot.h"

/* ---- the lock ------------------------------------------------------- */

void mp_table_lock(mp_table_shm *t) {
    mp_mutex_lock(&t->lock);
    if (atomic_load_explicit(&t->pending, memory_order_relaxed))
        mp_table_finish(t);
}

/* What is pending still was left by one who died. */
void mp_table_unlock(mp_table_shm *t) {
    bool left = atomic_load_explicit(&t->pending, memory_order_relaxed) != 0;
    mp_mutex_unlock(&t->lock);
    if (left) mp_table_retire(t);
}

/* A gap at an end is none; who died may have left one there. */
static void tidy(view *v) {
    if (v->gap && v->hole == 0) {
        v->head += v->gap;
        if (v->head >= v->room) v->head -= v->room;
    }
    if (v->hole == 0 || v->hole == v->n) v->gap = 0;
    if (v->gap == 0) v->hole = 0;
    if (v->n == 0) v->head = 0;
}

view mp_table_view(mp_table_shm *t) {
    uint64_t place = mine(&t->place), size = mine(&t->size);
    uint64_t shape = mine(&t->shape);
    mp_ref store = mine(&t->store);
    view v = {.t = t, .room = LOW(shape), .head = LOW(place), .n = LOW(size)};
    v.hole = HIGH(place);
    v.gap = HIGH(size);
    if (!t->indexed) tidy(&v);
    if (!store) return v;
    v.item = mp_at(store);
    if (!t->indexed) return v;
    v.cells = (uint64_t *)(void *)(v.pairs->pair + v.room);
    v.mask = ((uint64_t)1 << HIGH(shape)) - 1;
    return v;
}

void mp_table_record(mp_txn *txn, view *v, uint64_t changes) {
    mp_table_shm *t = v->t;
    if (!t->indexed) tidy(v);
    mp_txn_set64(txn, &t->place, BOTH(v->head, v->hole));
    mp_txn_set64(txn, &t->size, BOTH(v->n, v->gap));
    mp_txn_set64(txn, &t->changes, mine(&t->changes) + changes);
}

/* ---- what comes ----------------------------------------------------- */

int mp_table_hands(void) {
    int n = 0;
    for (int i = 0; i < MP_HANDS; i++)
        n += mine(&mp_me->slot->hands[i].block) == 0;
    return n < HANDS_WANTED ? -EMFILE : 0;
}

/* 0: no memory; *gone: one of its objects is no more. */
static mp_ref new_bytes(const mp_table_value *v, bool *gone) {
    uint64_t at = sizeof(bytes_shm) + v->n_handles * sizeof(uint32_t);
    at = (at + 7) & ~(uint64_t)7;
    if (at > UINT32_MAX || v->length > SIZE_MAX - at) return 0;
    mp_ref block = mp_alloc((size_t)at + v->length);
    if (!block) return 0;
    bytes_shm *b = mp_at(block);
    memset(b, 0, (size_t)at);
    b->head.length = at - sizeof b->head + v->length;
    b->head.handles_at = sizeof *b;
    b->bytes_at = (uint32_t)at;
    b->n = (uint32_t)v->n_handles;
    memcpy((unsigned char *)b + at, v->data, v->length);
    if (v->n_handles) mp_mark_handles(block);
    for (size_t i = 0; i < v->n_handles; i++)
        if (mp_message_hold(block, v->handles[i].id, v->handles[i].gen) < 0) {
            *gone = true;
            mp_free(block);
            return 0;
        }
    return block;
}

int mp_table_bring(const mp_table_value *value, coming *c) {
    bool gone = false;
    *c = (coming){value->word, KIND_WORD | (uint64_t)value->tag << 2, -1};
    if (!value->data) return 0;
    mp_ref block = new_bytes(value, &gone);
    if (!block) return gone ? -ESTALE : -ENOMEM;
    c->word = block;
    c->form = KIND_BYTES | (uint64_t)value->tag << 2;
    c->hand = mp_hand_take(block, NULL, 0); /* there is one, by HANDS_WANTED */
    mp_publish(block);
    return 0;
}

void mp_table_refuse(const coming *c) {
    if (c->hand < 0) return;
    mp_free(c->word);
    mp_hand_drop(c->hand);
}

static _Atomic uint64_t *in_hand(int hand) {
    return &mp_me->slot->hands[hand].block;
}

void mp_table_admit(mp_txn *txn, const coming *c) {
    if (c->hand >= 0) mp_txn_set64(txn, in_hand(c->hand), 0);
}

/* ---- what goes ------------------------------------------------------ */

void mp_table_expel(mp_txn *txn, unsigned kind, uint64_t word, leaving *l,
                    int not_hand) {
    *l = (leaving){0, -1};
    if (kind != KIND_BYTES) return;
    int hand = 0;
    while (hand == not_hand || mine(in_hand(hand))) hand++;
    mp_me->slot->hands[hand].at = 0;
    mp_txn_set64(txn, in_hand(hand), word);
    *l = (leaving){word, hand};
}

void mp_table_free(const leaving *l) {
    if (l->hand < 0) return;
    mp_free(l->ref);
    mp_hand_drop(l->hand);
}

/* ---- what is there -------------------------------------------------- */

int mp_table_expects(uint64_t expect, uint64_t version) {
    return expect == MP_TABLE_ANY || expect == version ? 0 : -EAGAIN;
}

bool mp_table_same(uint64_t word, uint64_t meta, const mp_table_value *v) {
    if (META_TAG(meta) != v->tag) return false;
    if (!v->data) return META_KIND(meta) == KIND_WORD && word == v->word;
    if (META_KIND(meta) != KIND_BYTES) return false;
    const bytes_shm *b = bytes_of(word);
    return length_of(b) == v->length &&
           memcmp(data_of(b), v->data, v->length) == 0;
}

void mp_table_show(uint64_t word, uint64_t meta, mp_table_value *out) {
    *out = (mp_table_value){.tag = META_TAG(meta)};
    if (META_KIND(meta) == KIND_BYTES) {
        out->data = data_of(bytes_of(word));
        out->length = length_of(bytes_of(word));
    } else {
        out->word = word;
    }
}

/* ---- life and death ------------------------------------------------- */

/* Takes what `word` names into a hand, with what the caller has put into the
   record, and frees it. */
static void destroy_bytes(mp_txn *txn, uint64_t word) {
    leaving l;
    mp_table_expel(txn, KIND_BYTES, word, &l, -1);
    mp_txn_commit(txn);
    mp_table_free(&l);
}

/* From the last one down; where the gap is does not matter below it. */
static void destroy_items(view *v) {
    mp_table_shm *t = v->t;
    for (uint64_t i = v->n; i-- > 0;) {
        const item_shm *item = &v->item[slot_of(v, i)];
        if (META_KIND(item->meta) != KIND_BYTES) continue;
        uint64_t hole = v->hole < i ? v->hole : i;
        mp_txn txn = mp_txn_begin();
        mp_txn_set64(&txn, &t->size, BOTH(i, v->gap));
        mp_txn_set64(&txn, &t->place, BOTH(v->head, hole));
        destroy_bytes(&txn, item->value);
    }
}

/* The value, then the key. Until it has lost both, a pair is one. */
static void destroy_pair(pair_shm *p) {
    mp_txn txn = mp_txn_begin();
    if (is_live(p) && META_KIND(p->item.meta) == KIND_BYTES) {
        mp_txn_set64(&txn, &p->item.meta, KIND_WORD);
        destroy_bytes(&txn, p->item.value);
    }
    if (META_KIND(p->key_meta) == KIND_BYTES) {
        txn = mp_txn_begin();
        mp_txn_set64(&txn, &p->key_meta, KIND_NONE);
        destroy_bytes(&txn, p->key);
    }
}

/* Only one runs at a time, and nobody else uses the table; but it may die
   anywhere, and the next one goes on. A table within dies when this is done
   (mem/object.c), not within it, however deep they lie. */
static void table_destroy(void *object) {
    mp_table_shm *t = object;
    mp_object_unhold(&t->pending);
    if (!mine(&t->store)) return;
    view v = mp_table_view(t);
    if (t->indexed)
        for (uint64_t i = v.head; i < v.tail; i++)
            destroy_pair(&v.pairs->pair[i]);
    else
        destroy_items(&v);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &t->store, 0);
    mp_txn_set64(&txn, &t->shape, 0);
    mp_txn_set64(&txn, &t->size, 0);
    mp_txn_set64(&txn, &t->place, 0);
    destroy_bytes(&txn, mine(&t->store));
}

void mp_table_declare(void) {
    static const mp_object_ops ops = {
        .name = "Table",
        .destroy = table_destroy,
        .check = mp_table_check};
    mp_object_declare(MP_TYPE_TABLE, &ops);
}

int mp_table_create(unsigned kind, bool indexed, uint32_t *id,
                    uint32_t *gen) {
    mp_ref block = mp_alloc(sizeof(mp_table_shm));
    if (!block) return -ENOMEM;
    mp_table_shm *t = mp_at(block);
    memset(t, 0, sizeof *t);
    t->kind = (uint16_t)kind;
    t->indexed = indexed;
    int r = mp_object_create(MP_TYPE_TABLE, block, id, gen);
    if (r < 0) mp_free(block);
    return r;
}
