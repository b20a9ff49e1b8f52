/* What lies in a table's blocks, and what its files share; for the files of
   this folder only.

   A *list* has items in a ring of `room` slots. Entry i stands i slots behind
   the first one, or, from `hole` on, i + gap: so many slots there are free, to
   be moved to where an entry comes or goes. Moving copies entries into the
   gap, where nobody reads, and then one store says where the gap is. A gap
   at an end is none.

   An *indexed* table has pairs in slots that are filled in order; where one
   was taken out a hole stays (its key has no kind) until the store is made
   anew. Behind the pairs stand the cells of the index: 0 empty, 1 given up,
   else the pair's slot + 2 | hash << 32. A key's cell is the first that fits
   from `hash` on, none being empty between.

   What stands in slots outside of those in use exists for nobody. */
#ifndef MP_DATA_TABLE_SHM_H
#define MP_DATA_TABLE_SHM_H

#include "data/table.h"
#include "mem/mutex.h"
#include "mem/object.h"
#include "mem/txn.h"

/* All of these change by a record under the table's lock, or where nobody
   reads: in slots that are not in use, and in a store that is not yet the
   table's. So a death leaves nothing to repair but its record.

   meta: kind | the caller's tag << 2 | version << 10 */
typedef struct item_shm {
    uint64_t value, meta;
} item_shm;

/* key_meta: kind | the caller's tag << 2 | hash << 32 */
typedef struct pair_shm {
    item_shm item;
    uint64_t key, key_meta;
} pair_shm;

/* Before the pairs. seed: of the hash, drawn for each store that is the first
   of a table. */
typedef struct pairs_shm {
    uint64_t seed[2], padding[2];
    pair_shm pair[];
} pairs_shm;

/* The block of a key or value of kind BYTES: this, n ids, and the bytes up to
   the end of the payload. */
typedef struct bytes_shm {
    mp_message_shm head;
    uint32_t bytes_at, n;
} bytes_shm;

enum { KIND_NONE, KIND_WORD, KIND_BYTES };
enum { CELL_EMPTY, CELL_LEFT, CELL_FIRST };

_Static_assert(sizeof(mp_table_shm) == 64, "a line");
_Static_assert(offsetof(mp_table_shm, store) == 8, "aligned");
_Static_assert(offsetof(mp_table_shm, pending) == 48, "aligned");
_Static_assert(sizeof(item_shm) == 16, "an item");
_Static_assert(sizeof(pair_shm) == 32, "a pair is in one line");
_Static_assert(sizeof(pairs_shm) == 32, "pairs are aligned");
_Static_assert(sizeof(bytes_shm) == 24, "the head of bytes");

#define META_KIND(m) ((unsigned)((m) & 3))
#define META_TAG(m) ((uint8_t)((m) >> 2 & 0xff))
#define META_FORM(m) ((m) & 0x3ff) /* kind and tag */
#define META_VERSION(m) ((m) >> 10)
#define META_HASH(m) ((uint32_t)((m) >> 32))
#define WITH_VERSION(form, v) (META_FORM(form) | (uint64_t)(v) << 10)
#define WITH_HASH(form, h) (META_FORM(form) | (uint64_t)(h) << 32)

/* Two numbers in one word. */
#define LOW(w) ((w) & 0xffffffffU)
#define HIGH(w) ((w) >> 32)
#define BOTH(low, high) ((uint64_t)(low) | (uint64_t)(high) << 32)
#define MOST_ENTRIES 0x7fffffffU

/* Hands that a call wants to see free: for what it takes out or brings in,
   and those that the destruction by what it frees needs. */
enum { HANDS_WANTED = 4 };

/* A table's words, as they are under its lock, and where its entries are. */
typedef struct view {
    mp_table_shm *t;
    union {
        item_shm *item;
        pairs_shm *pairs;
    };
    uint64_t *cells;   /* indexed */
    uint64_t room;     /* slots */
    uint64_t mask;     /* cells - 1 */
    uint64_t head;     /* first slot in use */
    uint64_t n;        /* entries */
    union {
        uint64_t hole; /* list: entries before the gap */
        uint64_t tail; /* indexed: slot after the last */
    };
    union {
        uint64_t gap;  /* list: its slots */
        uint64_t used; /* indexed: cells that are not empty */
    };
} view;

/* What comes in: as it is stored. hand: that of its block, -1: none. */
typedef struct coming {
    uint64_t word, form;
    int hand;
} coming;

/* What goes out. */
typedef struct leaving {
    uint64_t ref;
    int hand;
} leaving;

static inline uint64_t mine(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline uint64_t next_version(const mp_table_shm *t) {
    return mine(&t->changes) + 1;
}

static inline const bytes_shm *bytes_of(mp_ref ref) { return mp_at(ref); }

static inline uint64_t length_of(const bytes_shm *b) {
    return b->head.length + sizeof b->head - b->bytes_at;
}

static inline const void *data_of(const bytes_shm *b) {
    return (const unsigned char *)b + b->bytes_at;
}

static inline uint64_t cells_for(uint64_t room) {
    uint64_t cells = 8;
    while (cells / 8 * 5 < room) cells *= 2;
    return cells;
}

static inline uint64_t pairs_size(uint64_t room, uint64_t cells) {
    return sizeof(pairs_shm) + room * sizeof(pair_shm) + cells * 8;
}

/* Entry i of a list. */
static inline uint64_t slot_of(const view *v, uint64_t i) {
    uint64_t slot = v->head + i + (i < v->hole ? 0 : v->gap);
    return slot < v->room ? slot : slot - v->room;
}

static inline bool is_live(const pair_shm *p) {
    return META_KIND(p->key_meta) != KIND_NONE;
}

/* ---- table.c: the lock, what comes, what goes ------------------------ */

/* Under the lock nothing is pending. */
void mp_table_lock(mp_table_shm *t);
void mp_table_unlock(mp_table_shm *t);

view mp_table_view(mp_table_shm *t);

/* Puts into the record what `v` says of its table, which changed `changes`
   times. A list is made tidy before: no gap at an end. */
void mp_table_record(mp_txn *txn, view *v, uint64_t changes);

/* -EMFILE when too few hands are free. */
int mp_table_hands(void);

/* Brings a value in: its block, if it needs one, is in a hand. 0; -ENOMEM,
   -ESTALE. */
int mp_table_bring(const mp_table_value *value, coming *c);

/* What was brought in vain. */
void mp_table_refuse(const coming *c);

/* Puts into the record that the hand lets go of it. */
void mp_table_admit(mp_txn *txn, const coming *c);

/* Puts into the record that what stood there goes into a hand. `l`: empty at
   first (hand -1); stays so for a word. `not_hand`: one that is taken. */
void mp_table_expel(mp_txn *txn, unsigned kind, uint64_t word, leaving *l,
                    int not_hand);
void mp_table_free(const leaving *l);

/* Fits `expect`? 0 or -EAGAIN; version 0: absent. */
int mp_table_expects(uint64_t expect, uint64_t version);

/* Is what is stored the same as `v`? */
bool mp_table_same(uint64_t word, uint64_t meta, const mp_table_value *v);

/* The value in another's hands. */
void mp_table_show(uint64_t word, uint64_t meta, mp_table_value *out);

/* ---- table_store.c --------------------------------------------------- */

/* Locks when there is room for `more` entries behind the last one. 0, or
   -ENOMEM without the lock. */
int mp_table_lock_with_room(mp_table_shm *t, uint64_t more);
bool mp_table_has_room(view *v, uint64_t more);

/* Makes the store anew, with room for `room` entries. The lock is free. */
int mp_table_resize(mp_table_shm *t, uint64_t room);

/* ... for `more` entries. */
int mp_table_grow(mp_table_shm *t, uint64_t more);

/* Gives room back when hardly any is used; after the lock. */
void mp_table_shrink(mp_table_shm *t, const view *v);

/* Puts the store `fresh`, OWNED by me and filled as `v` says, into the table
   in place of its old one. Unlocks. */
void mp_table_install(view *v, mp_ref fresh, uint64_t changes);

/* ---- table_list.c ---------------------------------------------------- */

/* Moves the gap, which there is, before entry p. */
void mp_table_move_gap(view *v, uint64_t p);

/* The entry of a list at a position, NULL: there is none. */
item_shm *mp_table_item(const view *v, int64_t position);

/* ---- table_index.c --------------------------------------------------- */

/* Where a key is, or would be: its pair's slot (UINT64_MAX: it is not there)
   and cell. */
typedef struct found {
    uint64_t slot, cell;
    uint32_t hash;
} found;

found mp_table_seek(const view *v, const mp_table_value *key);

/* The cell of the pair in `slot`. */
uint64_t mp_table_cell_of(const view *v, uint64_t slot);

/* mp_table_delete_at of an indexed table. */
int mp_table_delete_end(mp_table_shm *t, bool last, uint64_t expect,
                        mp_table_taken *taken);

/* Puts into the record that the cell at f names v->tail, which is in use then,
   and counts it. */
void mp_table_enter(mp_txn *txn, view *v, const found *f);

/* ... that the cell is given up, and the pair in `slot` is a hole. */
void mp_table_leave(mp_txn *txn, view *v, uint64_t slot, uint64_t cell);

/* Enters all pairs of a new store into its cells, which are empty. */
void mp_table_fill(const view *v);

/* The hash of a key: its bytes, or the eight of its word. */
uint32_t mp_table_hash(const uint64_t seed[2], uint8_t tag, const void *data,
                       size_t length);

/* ---- table_many.c ---------------------------------------------------- */

/* Finishes what is pending; the lock is held. */
void mp_table_finish(mp_table_shm *t);

/* Lets go of what was pending and is finished; the lock is free. */
int mp_table_retire(mp_table_shm *t);

/* ---- table_check.c --------------------------------------------------- */

struct mp_check;
void mp_table_check(struct mp_check *c, const void *object);

#endif
