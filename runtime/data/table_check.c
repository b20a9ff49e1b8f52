/* A table's entries are as many as it says, each sound, and the index leads
   to each by its hash, and to nothing else. */
#include "data/table_shm.h"
#include "mem/check.h"

/* The words, as they were read once. */
typedef struct seen {
    mp_check *c;
    const mp_table_shm *t;
    bool indexed;
    uint64_t room, bits, head, hole, n, gap, changes;
    const unsigned char *store;
} seen;

static void look(seen *s) {
    const mp_table_shm *t = s->t;
    uint64_t shape = mp_check_u64(s->c, &t->shape);
    uint64_t place = mp_check_u64(s->c, &t->place);
    uint64_t size = mp_check_u64(s->c, &t->size);
    s->indexed = t->indexed;
    s->room = LOW(shape);
    s->bits = HIGH(shape);
    s->head = LOW(place);
    s->hole = HIGH(place);
    s->n = LOW(size);
    s->gap = HIGH(size);
    s->changes = mp_check_u64(s->c, &t->changes);
}

/* ---- what an entry names -------------------------------------------- */

/* The bytes of a key or value, as they are hashed; of a word, itself. */
typedef struct content {
    uint64_t word, length;
    const void *data;
} content;

static bool check_bytes(const seen *s, const char *what, uint64_t slot,
                        mp_ref ref, content *out) {
    const bytes_shm *b = mp_check_block(s->c, ref, sizeof(bytes_shm), what);
    if (!b) return false;
    uint64_t length = mp_check_u64(s->c, &b->head.length);
    uint64_t at = mp_check_u32(s->c, &b->bytes_at);
    uint64_t n = mp_check_u32(s->c, &b->n);
    uint64_t most = mp_check_block_size(s->c, ref) - sizeof b->head;
    uint64_t end = length + sizeof b->head;
    if (length <= most && at >= sizeof *b + n * 4 && at <= end) {
        out->data = (const unsigned char *)b + at;
        out->length = end - at;
        return true;
    }
    mp_check_report(s->c, "the %s in slot %ju has bytes from %ju to %ju, and "
                          "%ju handles: expected all within its %ju bytes",
                    what, (uintmax_t)slot, (uintmax_t)at, (uintmax_t)end,
                    (uintmax_t)n, (uintmax_t)(most + sizeof b->head));
    return false;
}

/* `out` stays where it is. */
static bool check_form(const seen *s, const char *what, uint64_t slot,
                       uint64_t word, uint64_t meta, content *out) {
    unsigned kind = META_KIND(meta);
    *out = (content){.word = word, .length = 8, .data = &out->word};
    if (kind == KIND_WORD) return true;
    if (kind == KIND_BYTES) return check_bytes(s, what, slot, word, out);
    mp_check_report(s->c, "the %s in slot %ju is of kind %u, expected %d or "
                          "%d", what, (uintmax_t)slot, kind, KIND_WORD,
                    KIND_BYTES);
    return false;
}

static void check_item(const seen *s, uint64_t slot, const item_shm *item) {
    uint64_t meta = mp_check_u64(s->c, &item->meta);
    uint64_t version = META_VERSION(meta);
    if (version == 0 || version > s->changes)
        mp_check_report(s->c, "the value in slot %ju is of version %ju, "
                              "expected 1 to %ju", (uintmax_t)slot,
                        (uintmax_t)version, (uintmax_t)s->changes);
    content ignored;
    check_form(s, "value", slot, mp_check_u64(s->c, &item->value), meta,
               &ignored);
}

/* ---- a list --------------------------------------------------------- */

static void check_list(const seen *s) {
    const item_shm *item = (const void *)s->store;
    if (s->n + s->gap > s->room || s->hole > s->n ||
        (s->head >= s->room && s->n > 0)) {
        mp_check_report(s->c, "%ju entries from slot %ju, a gap of %ju behind "
                              "%ju: expected all within %ju slots",
                        (uintmax_t)s->n, (uintmax_t)s->head,
                        (uintmax_t)s->gap, (uintmax_t)s->hole,
                        (uintmax_t)s->room);
        return;
    }
    for (uint64_t i = 0; i < s->n; i++) {
        uint64_t slot = s->head + i + (i < s->hole ? 0 : s->gap);
        if (slot >= s->room) slot -= s->room;
        check_item(s, slot, &item[slot]);
    }
}

/* ---- an indexed table ----------------------------------------------- */

static bool live_in(const seen *s, const pair_shm *p) {
    return META_KIND(mp_check_u64(s->c, &p->key_meta)) != KIND_NONE;
}

static void check_pair(const seen *s, uint64_t slot) {
    const pairs_shm *pairs = (const void *)s->store;
    const pair_shm *p = &pairs->pair[slot];
    uint64_t meta = mp_check_u64(s->c, &p->key_meta);
    content key;
    check_item(s, slot, &p->item);
    if (!check_form(s, "key", slot, mp_check_u64(s->c, &p->key), meta, &key))
        return;
    uint32_t hash = META_HASH(meta);
    uint32_t wanted =
        mp_table_hash(pairs->seed, META_TAG(meta), key.data, key.length);
    if (hash != wanted)
        mp_check_report(s->c, "the key in slot %ju has the hash 0x%x, "
                              "expected 0x%x", (uintmax_t)slot, hash, wanted);
}

/* Is the pair in `slot` found, with all cells full from its hash on? */
static void check_found(const seen *s, uint64_t slot, const uint64_t *cells) {
    const pairs_shm *pairs = (const void *)s->store;
    uint64_t hash =
        META_HASH(mp_check_u64(s->c, &pairs->pair[slot].key_meta));
    uint64_t mask = ((uint64_t)1 << s->bits) - 1;
    for (uint64_t i = 0; i <= mask; i++) {
        uint64_t cell = mp_check_u64(s->c, &cells[(hash + i) & mask]);
        if (cell == BOTH(slot + CELL_FIRST, hash)) return;
        if (cell == CELL_EMPTY) break;
    }
    mp_check_report(s->c, "the pair in slot %ju is not found by its hash "
                          "0x%jx",
                    (uintmax_t)slot, (uintmax_t)hash);
}

/* As many cells name a pair as there are pairs, each of which is found: so no
   cell names another. */
static void check_cells(const seen *s, const uint64_t *cells) {
    uint64_t used = 0, named = 0;
    for (uint64_t i = 0; i < (uint64_t)1 << s->bits; i++) {
        uint64_t cell = mp_check_u64(s->c, &cells[i]);
        used += cell != CELL_EMPTY;
        named += cell >= CELL_FIRST;
    }
    if (used != s->gap || named != s->n)
        mp_check_report(s->c, "%ju cells in use, %ju of them for a pair: "
                              "expected %ju, and %ju", (uintmax_t)used,
                        (uintmax_t)named, (uintmax_t)s->gap,
                        (uintmax_t)s->n);
}

static void check_pairs(const seen *s) {
    const pairs_shm *pairs = (const void *)s->store;
    const uint64_t *cells = (const void *)(pairs->pair + s->room);
    uint64_t tail = s->hole, live = 0;
    if (s->head > tail || tail > s->room) {
        mp_check_report(s->c, "pairs from slot %ju to %ju, expected within "
                              "%ju slots", (uintmax_t)s->head,
                        (uintmax_t)tail, (uintmax_t)s->room);
        return;
    }
    for (uint64_t slot = s->head; slot < tail; slot++) {
        if (!live_in(s, &pairs->pair[slot])) continue;
        live++;
        check_pair(s, slot);
        check_found(s, slot, cells);
    }
    if (live != s->n)
        mp_check_report(s->c, "%ju pairs, expected %ju", (uintmax_t)live,
                        (uintmax_t)s->n);
    check_cells(s, cells);
}

/* ---- the table ------------------------------------------------------ */

static uint64_t size_of(const seen *s) {
    return s->indexed ? pairs_size(s->room, (uint64_t)1 << s->bits)
                      : s->room * sizeof(item_shm);
}

static bool check_shape(const seen *s) {
    if (s->indexed ? s->bits >= 3 && s->bits <= 33 &&
                         s->room <= ((uint64_t)1 << s->bits) / 8 * 5
                   : s->bits == 0)
        return true;
    mp_check_report(s->c, "room for %ju entries and 2^%ju cells, expected %s",
                    (uintmax_t)s->room, (uintmax_t)s->bits,
                    s->indexed ? "8 cells for 5 entries" : "no cells");
    return false;
}

static void check_pending(const seen *s) {
    uint64_t at, size;
    uint32_t id = mp_check_u32(s->c, &s->t->pending);
    if (id) mp_check_hold(s->c, id, "pending", &at, &size);
}

void mp_table_check(mp_check *c, const void *object) {
    seen s = {.c = c, .t = object};
    if (!mp_check_size(c, sizeof *s.t)) return;
    mp_check_mutex(c, &s.t->lock, "lock");
    mp_ref store = mp_check_u64(c, &s.t->store);
    look(&s);
    check_pending(&s);
    if (!store) {
        if (s.room || s.n || s.hole)
            mp_check_report(c, "%ju entries and room for %ju, but no store",
                            (uintmax_t)s.n, (uintmax_t)s.room);
        return;
    }
    if (!check_shape(&s)) return;
    s.store = mp_check_block(c, store, size_of(&s), "store");
    if (!s.store) return;
    if (s.indexed)
        check_pairs(&s);
    else
        check_list(&s);
}
