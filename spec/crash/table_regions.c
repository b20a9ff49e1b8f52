/* Tables: what one call does to a dict or a list is done wholly or not at
   all. A region says how the table looks before and after its operation; what
   is left of a life has to look like one of the two. Peers come and go
   without a trace. */
#include "data/table.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "crash.h"
#include "data/table_shm.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "region_tools.h"
#include "sync/lock.h"

typedef struct handle {
    uint32_t id, gen;
} handle;

enum { PEERS = 2, TIMES = 3, FIRST = 100 };

static handle dict, list, other, kept;
static mp_table_shm *d, *l;
static const char *before, *after;

SPEC_PREPARE {
    handle h;
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_table_declare();
    CHECK_OK(mp_lock_create(&h.id, &h.gen));
    mp_object_detach(h.id);
}

static void set_up(void) {
    CHECK_OK(mp_lock_create(&kept.id, &kept.gen));
    CHECK_OK(mp_table_create(1, true, &dict.id, &dict.gen));
    CHECK_OK(mp_table_create(1, false, &list.id, &list.gen));
    d = mp_object_block(dict.id);
    l = mp_object_block(list.id);
}

static void tear_down(void) {
    mp_object_detach(dict.id);
    mp_object_detach(list.id);
    mp_object_detach(kept.id);
}

/* ---- entries ---------------------------------------------------------- */

static mp_table_value word(uint64_t w) {
    return (mp_table_value){.word = w};
}

/* Bytes that name `kept`, or do not. */
static mp_table_value bytes(size_t length, bool named) {
    static const char text[200] = "some bytes";
    static mp_table_handle h;
    h = (mp_table_handle){kept.id, kept.gen};
    return (mp_table_value){.tag = (uint8_t)named, .data = text,
                            .length = length, .handles = &h,
                            .n_handles = named};
}

static void set(mp_table_shm *t, mp_table_value k, mp_table_value v) {
    CHECK_OK(mp_table_set(t, &k, &v, MP_TABLE_ANY));
}

static void set_words(uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) set(d, word(i), word(i));
}

static void push(mp_table_shm *t, mp_table_value v) {
    CHECK_OK(mp_table_insert(t, INT64_MAX, &v));
}

static void push_words(uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) push(l, word(i));
}

/* ---- how it looks ----------------------------------------------------- */

static size_t show(char *at, const mp_table_value *v) {
    if (v->data)
        return (size_t)sprintf(at, "%c%zu", v->tag ? 'h' : 'b', v->length);
    return (size_t)sprintf(at, "%ju", (uintmax_t)v->word);
}

/* "key=value ..." resp. "value ..."; counts what names `kept`. */
static const char *look(mp_table_shm *t, uint64_t *named) {
    static _Alignas(8) unsigned char buffer[8192];
    static char line[2000];
    mp_table_room room = {.at = buffer, .size = sizeof buffer,
                          .keeper = mp_table_keeper(100)};
    mp_table_copy copy;
    mp_table_value k, v;
    char *at = line;
    CHECK_OK(mp_table_copy_all(t, &room, &copy));
    CHECK_EQ(copy.entries, mp_table_length(t));
    *at = 0;
    for (size_t i = 0; mp_table_next(&copy, &i, &k, &v, NULL);) {
        if (at > line) *at++ = ' ';
        if (t->indexed) {
            at += show(at, &k);
            *at++ = '=';
        }
        at += show(at, &v);
        *named += t->indexed && k.data && k.tag;
        *named += v.data && v.tag;
    }
    mp_free(room.keeper);
    return line;
}

static void check_table(mp_table_shm *t) {
    uint64_t named = 0;
    const char *now = look(t, &named);
    if (crash_left() || strcmp(now, before) != 0) CHECK_STR(now, after);
    CHECK_EQ(mp_object_refs(kept.id), 1 + PEERS + named);
    CHECK_OK(mp_table_clear(t));
    CHECK_EQ(mp_object_refs(kept.id), 1 + PEERS);
    CHECK_EQ(mp_object_count(), 3);
}

static void check_dict(void) {
    crash_fsck();
    check_table(d);
}

static void check_list(void) {
    crash_fsck();
    check_table(l);
}

/* ---- peers ------------------------------------------------------------ */

static void use_dict(int which) {
    mp_table_value k = word(FIRST + (uint64_t)which), v = bytes(60, true);
    for (int i = 0; i < TIMES; i++) {
        mp_table_value got;
        set(d, k, v);
        CHECK_OK(mp_table_get(d, &k, NULL, &got, NULL));
        CHECK_EQ(got.length, 60);
        CHECK_OK(mp_table_delete(d, &k, MP_TABLE_ANY, NULL));
    }
}

static void use_list(int which) {
    mp_table_value v = word(FIRST + (uint64_t)which);
    for (int i = 0; i < TIMES; i++) {
        uint64_t position, version;
        int r;
        push(l, v);
        do {
            CHECK_OK(mp_table_find(l, &v, 1, 0, INT64_MAX, &position,
                                   &version));
            r = mp_table_delete_at(l, (int64_t)position, version, NULL);
        } while (r == -EAGAIN || r == -ERANGE);
        CHECK_OK(r);
    }
}

/* What the victim will want, so that it makes no span. */
static void warm(void) {
    for (size_t size = 64; size <= 512; size += 64) warm_up(size);
}

#define DICT_REGION(region, what, prepares, runs)                            \
    static const crash_region region = {                                     \
        .name = what, .set_up = set_up, .ready = prepares, .begin = warm,    \
        .run = runs, .peers = PEERS, .peer = use_dict, .check = check_dict,  \
        .tear_down = tear_down, .most = MOST};                               \
    CRASH_REGION(region)

#define LIST_REGION(region, what, prepares, runs)                            \
    static const crash_region region = {                                     \
        .name = what, .set_up = set_up, .ready = prepares, .begin = warm,    \
        .run = runs, .peers = PEERS, .peer = use_list, .check = check_list,  \
        .tear_down = tear_down, .most = MOST};                               \
    CRASH_REGION(region)

enum { MOST = 200 };

/* ---- one entry of a dict ---------------------------------------------- */

/* The sixth does not fit into the first store. */
static void ready_five(void) {
    set_words(0, 5);
    before = "0=0 1=1 2=2 3=3 4=4";
    after = "0=0 1=1 2=2 3=3 4=4 h40=h50";
}

static void set_sixth(void) { set(d, bytes(40, true), bytes(50, true)); }
DICT_REGION(table_set_grow, "table: set a key that makes the store grow",
            ready_five, set_sixth)

static void ready_bytes(void) {
    set(d, word(1), word(1));
    set(d, bytes(40, true), bytes(50, true));
    before = "1=1 h40=h50";
    after = "1=1 h40=b30";
}

static void replace_bytes(void) {
    set(d, bytes(40, true), bytes(30, false));
}
DICT_REGION(table_replace, "table: set a key that is there", ready_bytes,
            replace_bytes)

static void ready_delete(void) {
    ready_bytes();
    after = "1=1";
}

static void delete_last(void) {
    mp_table_taken taken;
    CHECK_OK(mp_table_delete_at(d, -1, MP_TABLE_ANY, &taken));
    mp_table_release(&taken);
}
DICT_REGION(table_delete, "table: delete the last key", ready_delete,
            delete_last)

/* ---- many of a dict --------------------------------------------------- */

static handle new_table(bool indexed) {
    handle h;
    CHECK_OK(mp_table_create(1, indexed, &h.id, &h.gen));
    return h;
}

static void make_other(void) {
    other = new_table(true);
    mp_table_shm *o = mp_object_block(other.id);
    set(o, word(1), bytes(60, true));
    set(o, bytes(40, true), word(7));
    set(o, bytes(50, false), word(8));
}

static void ready_move(void) {
    ready_bytes();
    before = "1=1 h40=h50";
    after = "1=h60 h40=7 b50=8";
}

static void begin_move(void) {
    warm();
    make_other();
}

static void move_other(void) {
    CHECK_OK(mp_table_move(d, other.id));
    mp_object_detach(other.id);
}

static const crash_region table_move = {
    .name = "table: move a dict into another", .set_up = set_up,
    .ready = ready_move, .begin = begin_move, .run = move_other,
    .peers = PEERS, .peer = use_dict, .check = check_dict,
    .tear_down = tear_down, .most = MOST};
CRASH_REGION(table_move)

/* The victim finishes what one has begun who is dead, and lets go of it. */
static mp_proc dead;

static void die_in_move(void) {
    make_other();
    CHECK_OK(mp_table_reserve(d, 20));
    mp_mutex_lock(&d->lock);
    atomic_store(&d->cursor, 0);
    CHECK_OK(mp_object_hold(other.id, other.gen, &d->pending));
}

static void ready_dead(void) {
    ready_move();
    before = after; /* it was begun: it will be */
    dead = leave_dead(die_in_move);
}

static void count(void) { CHECK_EQ(mp_table_length(d), 3); }

static void bury(void) { bury_dead(&dead); }

static const crash_region table_finish = {
    .name = "table: finish the move of a dead one", .set_up = set_up,
    .ready = ready_dead, .begin = warm, .run = count, .after = bury,
    .peers = PEERS, .peer = use_dict, .check = check_dict,
    .tear_down = tear_down, .most = MOST};
CRASH_REGION(table_finish)

static void ready_clear(void) {
    ready_bytes();
    after = "";
}

static void clear(void) { CHECK_OK(mp_table_clear(d)); }
DICT_REGION(table_clear, "table: clear", ready_clear, clear)

/* ---- one entry of a list ---------------------------------------------- */

/* Eleven slots are taken from the end for a gap, which is then moved. */
static void ready_insert(void) {
    CHECK_OK(mp_table_reserve(l, 14));
    push_words(0, 6);
    before = "0 1 2 3 4 5";
    after = "0 1 h50 2 3 4 5";
}

static void insert_between(void) {
    mp_table_value v = bytes(50, true);
    CHECK_OK(mp_table_insert(l, 2, &v));
}
LIST_REGION(table_insert, "table: insert into a list", ready_insert,
            insert_between)

/* A gap of one slot goes step by step. */
static void ready_remove(void) {
    push_words(0, 6);
    push(l, bytes(50, true));
    push(l, word(7));
    CHECK_OK(mp_table_delete_at(l, 1, MP_TABLE_ANY, NULL));
    before = "0 2 3 4 5 h50 7";
    after = "0 2 3 4 5 7";
}

static void remove_between(void) {
    CHECK_OK(mp_table_delete_at(l, -2, MP_TABLE_ANY, NULL));
}
LIST_REGION(table_remove, "table: delete from a list", ready_remove,
            remove_between)

/* ---- many of a list --------------------------------------------------- */

static void ready_append(void) {
    push_words(0, 2);
    before = "0 1";
    after = "0 1 2 h50 h50 b60 3";
}

/* By a table of its own, and with a new store. */
static void append_many(void) {
    const mp_table_value v[] = {word(2), bytes(50, true), bytes(50, true),
                                bytes(60, false), word(3)};
    other = new_table(false);
    mp_table_shm *o = mp_object_block(other.id);
    for (int i = 0; i < 5; i++) push(o, v[i]);
    CHECK_OK(mp_table_move(l, other.id));
    mp_object_detach(other.id);
}
LIST_REGION(table_append, "table: append many", ready_append, append_many)

/* The last entry stays the last one, for the peers'. */
static void ready_permute(void) {
    push_words(0, 3);
    push(l, bytes(50, true));
    before = "0 1 2 h50";
    after = "2 0 h50 1";
}

static void permute(void) {
    const uint64_t order[] = {2, 0, 3, 1};
    CHECK_OK(mp_table_permute(l, MP_TABLE_ANY, order, 4));
}
LIST_REGION(table_permute, "table: permute a list", ready_permute, permute)

/* ---- destruction ------------------------------------------------------ */

/* Words, bytes and, two levels deep, tables; of which nothing is left. */
static handle nest(bool indexed, handle inner) {
    handle h = new_table(indexed);
    mp_table_shm *t = mp_object_block(h.id);
    mp_table_handle in = {inner.id, inner.gen};
    mp_table_value v = {.data = "inner", .length = 5, .handles = &in,
                        .n_handles = inner.id > 0};
    for (int i = 0; i < 2; i++)
        if (indexed)
            set(t, i ? v : word(1), v);
        else
            push(t, v);
    if (indexed) set(t, bytes(40, true), bytes(50, true));
    if (!indexed) push(t, bytes(50, true));
    if (inner.id) mp_object_detach(inner.id);
    return h;
}

static void begin_destroy(void) {
    warm();
    other = nest(true, nest(false, (handle){0, 0}));
}

static void destroy(void) { mp_object_detach(other.id); }

static void ready_nothing(void) { before = after = ""; }

static const crash_region table_destroy = {
    .name = "table: the last holder lets go", .set_up = set_up,
    .ready = ready_nothing, .begin = begin_destroy, .run = destroy,
    .peers = PEERS, .peer = use_dict, .check = check_dict,
    .tear_down = tear_down, .most = MOST};
CRASH_REGION(table_destroy)

/* ---- to look ---------------------------------------------------------- */

static void ready_look(void) {
    ready_bytes();
    after = before;
}

static void look_all(void) {
    _Alignas(8) unsigned char at[300];
    mp_table_room room = {.at = at, .size = sizeof at};
    mp_table_copy copy;
    mp_table_value v, k = bytes(40, true);
    room.keeper = mp_table_keeper(5);
    CHECK_OK(mp_table_get(d, &k, &room, &v, NULL));
    CHECK_OK(mp_table_copy_all(d, &room, &copy));
    mp_free(room.keeper);
}
DICT_REGION(table_look, "table: get, and copy all", ready_look, look_all)
