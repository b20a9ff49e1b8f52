/* What mp_fsck finds in tables, by damage done on purpose to each of their
   invariants. */
#include "data/table_shm.h"
#include "fsck_fixture.h"

SPEC_PREPARE {
    prepare_world();
    mp_table_declare();
}

/* A list "1 2 - bytes" with a gap, and a dict {1: 1, bytes: bytes}, where a
   key was deleted between. */
typedef struct tables {
    object list, dict;
    mp_table_shm *l, *d;
    item_shm *items;
    pairs_shm *pairs;
    uint64_t *cells;
} tables;

static mp_table_value word(uint64_t w) {
    return (mp_table_value){.word = w};
}

static mp_table_value long_text(void) {
    return (mp_table_value){.data = "twenty bytes of text", .length = 20};
}

static void make_list(tables *f) {
    mp_table_value v[] = {word(1), word(2), word(3), word(4), long_text()};
    seen(&f->list, mp_table_create(0, false, &f->list.id, &f->list.gen));
    f->l = f->list.shm;
    for (int i = 0; i < 5; i++)
        CHECK_OK(mp_table_insert(f->l, INT64_MAX, &v[i]));
    CHECK_OK(mp_table_delete_at(f->l, 2, MP_TABLE_ANY, NULL));
    f->items = mp_at(f->l->store);
}

static void make_dict(tables *f) {
    mp_table_value v[] = {word(1), word(2), long_text()};
    seen(&f->dict, mp_table_create(0, true, &f->dict.id, &f->dict.gen));
    f->d = f->dict.shm;
    for (int i = 0; i < 3; i++)
        CHECK_OK(mp_table_set(f->d, &v[i], &v[i], MP_TABLE_ANY));
    CHECK_OK(mp_table_delete(f->d, &v[1], MP_TABLE_ANY, NULL));
    f->pairs = mp_at(f->d->store);
    f->cells = (uint64_t *)(void *)(f->pairs->pair + LOW(f->d->shape));
}

static tables f;

static void open_tables(void) {
    make_list(&f);
    make_dict(&f);
    CHECK_CLEAN();
}

static void close_tables(void) {
    mp_object_detach(f.list.id);
    mp_object_detach(f.dict.id);
}

SPEC("fsck: finds a table's words that cannot be") {
    open_tables();
    poke32(&f.l->lock.word, 0x5001); /* a generation that never was */
    EXPECT("object 1 (Table): its mutex lock is 0x5001, expected 0 or");
    poke32(&f.l->lock.word, mp_me->tag);
    EXPECT_QUIET("(Table): its mutex lock is held by slot 1");
    poke64(&f.l->shape, BOTH(4, 3));
    EXPECT("(Table): room for 4 entries and 2^3 cells, expected no cells");
    poke64(&f.d->shape, BOTH(6, 3));
    EXPECT("(Table): room for 6 entries and 2^3 cells, expected 8 cells");
    poke64(&f.d->shape, BOTH(5, 60));
    EXPECT("(Table): room for 5 entries and 2^60 cells, expected 8 cells");
    poke64(&f.l->shape, BOTH(1000, 0));
    EXPECT("store");
    poke64(&f.l->store, 0);
    EXPECT("(Table): 4 entries and room for");
    poke64(&f.l->store, f.d->store);
    EXPECT("store");
    poke32(&f.l->pending, 77);
    EXPECT("(Table): its pending names object 77, expected 1 to 2");
    poke32(&f.l->pending, f.dict.id);
    EXPECT("refs is 1, expected 2: so many hold it");
    close_tables();
}

SPEC("fsck: finds entries of a list that cannot be") {
    open_tables();
    poke64(&f.l->size, BOTH(5, 1 << 20));
    EXPECT("(Table): 5 entries from slot 0, a gap of 1048576 behind 2");
    poke64(&f.l->place, BOTH(0, 5));
    EXPECT("(Table): 4 entries from slot 0, a gap of 1 behind 5");
    poke64(&f.l->place, BOTH(1000, 2));
    EXPECT("(Table): 4 entries from slot 1000, a gap of 1 behind 2");
    poke64(&f.items[1].meta, WITH_VERSION(KIND_WORD, 0));
    EXPECT("(Table): the value in slot 1 is of version 0, expected 1 to 8");
    poke64(&f.items[1].meta, WITH_VERSION(KIND_WORD, 9));
    EXPECT("(Table): the value in slot 1 is of version 9, expected 1 to 8");
    poke64(&f.l->changes, 4);
    EXPECT("(Table): the value in slot 3 is of version 5, expected 1 to 4");
    poke64(&f.items[1].meta, WITH_VERSION(3, 2));
    EXPECT("(Table): the value in slot 1 is of kind 3, expected 1 or 2");
    poke64(&f.items[1].meta, WITH_VERSION(KIND_BYTES, 2));
    EXPECT("value");
    poke64(&f.l->size, BOTH(3, 1));
    EXPECT("published, but nothing refers to it");
    close_tables();
}

SPEC("fsck: finds bytes of a table that do not fit into their block") {
    open_tables();
    bytes_shm *b = mp_at(f.items[4].value);
    poke64(&b->head.length, 1 << 20);
    EXPECT("(Table): the value in slot 4 has bytes from 24 to 1048592, and 0 "
           "handles: expected all within its 64 bytes");
    poke32(&b->bytes_at, 100);
    EXPECT("(Table): the value in slot 4 has bytes from 100 to 44");
    poke32(&b->n, 2);
    EXPECT("(Table): the value in slot 4 has bytes from 24 to 44, and 2");
    close_tables();
}

SPEC("fsck: finds pairs of a table that cannot be") {
    open_tables();
    pair_shm *p = f.pairs->pair;
    poke64(&f.d->place, BOTH(0, 6));
    EXPECT("(Table): pairs from slot 0 to 6, expected within 5 slots");
    poke64(&f.d->place, BOTH(4, 3));
    EXPECT("(Table): pairs from slot 4 to 3, expected within 5 slots");
    poke64(&f.d->place, BOTH(1, 3));
    EXPECT("(Table): 1 pairs, expected 2");
    poke64(&p[0].key, 5);
    EXPECT("(Table): the key in slot 0 has the hash 0x");
    poke64(&p[0].key_meta, p[0].key_meta | 3);
    EXPECT("(Table): the key in slot 0 is of kind 3, expected 1 or 2");
    poke64(&p[2].key, p[2].item.value);
    EXPECT("key");
    poke64(&p[2].key_meta, KIND_NONE);
    EXPECT("(Table): 1 pairs, expected 2");
    poke64(&p[0].item.meta, WITH_VERSION(KIND_WORD, 99));
    EXPECT("(Table): the value in slot 0 is of version 99, expected 1 to 5");
    close_tables();
}

SPEC("fsck: finds an index that leads astray") {
    open_tables();
    view v = mp_table_view(f.d);
    uint64_t *cell = &f.cells[mp_table_cell_of(&v, 0)];
    uint64_t *empty = f.cells;
    while (*empty != CELL_EMPTY) empty++;
    poke64(cell, CELL_LEFT);
    EXPECT("(Table): the pair in slot 0 is not found by its hash 0x");
    poke64(cell, *cell + 1);
    EXPECT("(Table): the pair in slot 0 is not found by its hash 0x");
    uint64_t used = v.used; /* where the hashes meet, one is given up */
    char words[100];
    poke64(empty, CELL_FIRST);
    EXPECT("cells in use, 3 of them for a pair: expected");
    poke64(empty, CELL_LEFT);
    snprintf(words, sizeof words, "%ju cells in use, 2 of them for a pair: "
             "expected %ju, and 2", (uintmax_t)used + 1, (uintmax_t)used);
    EXPECT(words);
    poke64(&f.d->size, BOTH(2, used + 3));
    snprintf(words, sizeof words, "%ju cells in use, 2 of them for a pair: "
             "expected %ju, and 2", (uintmax_t)used, (uintmax_t)used + 3);
    EXPECT(words);
    close_tables();
}
