#include <signal.h>
#include <stdatomic.h>

#include "fsck_tools.h"
#include "table_fixture.h"

SPEC_PREPARE { prepare_tables(); }

/* Those who use a list and a dict are killed at random. A life has a row of
   its own: how far it meant to append, how far it knows it did, and how often
   each of its items came out. An item is `row << 32 | number`; its number
   decides its form and how many are appended at once. */
enum { LIVES = 4000, ROW = 1200, MANY = 8, CREW = 6 };

/* counted   increments of the dict's counter that it knows of, and meant */
typedef struct row {
    _Atomic uint32_t meant, known, counted, meant_count;
    _Atomic unsigned char came[ROW];
} row;

static row *rows;
static table list, dict, held;
static mp_table_handle handle;

/* ---- the list --------------------------------------------------------- */

static uint64_t item_at(uint64_t life, uint32_t i) { return life << 32 | i; }

/* A word, bytes, or bytes that name `held`. */
static mp_table_value value_of(uint64_t item, unsigned char *at) {
    if (item % 3 == 0) return word(item);
    memset(at, (int)(item & 0x7f), 100);
    memcpy(at, &item, sizeof item);
    mp_table_value v = bytes(at, 100);
    v.handles = &handle;
    v.n_handles = item % 3 == 1;
    return v;
}

static uint64_t identify(const mp_table_value *v) {
    uint64_t item;
    if (!v->data) return v->word;
    CHECK_EQ(v->length, 100);
    memcpy(&item, v->data, sizeof item);
    const unsigned char *at = v->data;
    for (int i = 8; i < 100; i++) CHECK_EQ(at[i], item & 0x7f);
    return item;
}

/* As one. */
static void append_all(const mp_table_value *values, uint32_t n) {
    table from;
    open_table(&from, false);
    for (uint32_t i = 0; i < n; i++)
        CHECK_OK(mp_table_insert(from.t, INT64_MAX, &values[i]));
    CHECK_OK(mp_table_move(list.t, from.id));
    close_table(&from);
}

static void append_some(uint64_t life, row *r, unsigned *seed) {
    static unsigned char at[MANY][100];
    mp_table_value v[MANY];
    uint32_t first = r->meant, n = first % 5 ? 1 : MANY;
    if (first + n > ROW) return;
    for (uint32_t i = 0; i < n; i++)
        v[i] = value_of(item_at(life, first + i), at[i]);
    r->meant = first + n;
    if (n == 1)
        CHECK_OK(mp_table_insert(list.t, rand_r(seed) % 300, v));
    else
        append_all(v, n);
    r->known = first + n;
}

static void enter(const mp_table_value *v) {
    uint64_t item = identify(v);
    CHECK(item >> 32 < LIVES && (uint32_t)item < ROW);
    CHECK_EQ(rows[item >> 32].came[(uint32_t)item]++, 0);
}

static bool take_one(int64_t position) {
    mp_table_taken taken;
    int r = mp_table_delete_at(list.t, position, MP_TABLE_ANY, &taken);
    if (r == -ERANGE) return false;
    CHECK_OK(r);
    enter(&taken.value);
    mp_table_release(&taken);
    return true;
}

static void reorder(unsigned *seed) {
    CHECK_OK(mp_table_permute(list.t, MP_TABLE_ANY, NULL, 0));
    if (rand_r(seed) % 4 == 0) CHECK_OK(mp_table_reserve(list.t, 2000));
}

/* ---- the dict --------------------------------------------------------- */

/* MANY keys always have the same value: they are set as one. */
static void set_all_keys(uint64_t value) {
    table from;
    open_table(&from, true);
    for (uint64_t k = 0; k < MANY; k++) {
        unsigned char at[100];
        mp_table_value key = k % 2 ? text("a key of bytes") : word(k);
        mp_table_value v = value_of(value * 3 + k % 3, at);
        if (k % 2) key.length -= k;
        CHECK_OK(mp_table_set(from.t, &key, &v, MP_TABLE_ANY));
    }
    CHECK_OK(mp_table_move(dict.t, from.id));
    close_table(&from);
}

static void check_keys(void) {
    static _Alignas(8) unsigned char buffer[1 << 16];
    mp_table_room room = {.at = buffer, .size = sizeof buffer,
                          .keeper = mp_table_keeper(200)};
    mp_table_copy copy;
    mp_table_value k, v;
    uint64_t value = 0, n = 0;
    CHECK(room.keeper != 0);
    CHECK_OK(mp_table_copy_all(dict.t, &room, &copy));
    for (size_t at = 0; mp_table_next(&copy, &at, &k, &v, NULL);) {
        if (!k.data && k.word >= 1000) continue; /* others' */
        uint64_t is = identify(&v) / 3;
        if (n++ == 0) value = is;
        CHECK_EQ(is, value);
    }
    CHECK(n == 0 || n == MANY);
    mp_free(room.keeper);
}

enum { COUNTER = 1000 };

/* As update_with does. */
static void count_one(row *r) {
    mp_table_value k = word(COUNTER), v;
    uint64_t version;
    int done;
    r->meant_count++;
    do {
        version = MP_TABLE_ABSENT;
        int got = mp_table_get(dict.t, &k, NULL, &v, &version);
        v = word(got == 0 ? v.word + 1 : 1);
        done = mp_table_set(dict.t, &k, &v, version);
    } while (done == -EAGAIN);
    CHECK_OK(done);
    r->counted++;
}

static void change_keys(uint64_t life, unsigned *seed) {
    unsigned char at[100];
    uint64_t k = 2000 + (uint64_t)rand_r(seed) % 100;
    mp_table_value key = word(k), v = value_of(life * 7 + k, at);
    if (rand_r(seed) % 2)
        CHECK_OK(mp_table_set(dict.t, &key, &v, MP_TABLE_ANY));
    else
        mp_table_delete(dict.t, &key, MP_TABLE_ANY, NULL);
}

/* ---- lives ------------------------------------------------------------ */

static void live(uint64_t life, bool takes) {
    unsigned seed = (unsigned)(life * 7919 + 1);
    row *r = &rows[life];
    for (uint64_t i = 1;; i++) {
        unsigned dice = (unsigned)rand_r(&seed) % 16;
        if (dice < 5 && !takes) append_some(life, r, &seed);
        if (dice < 6 && takes) take_one(rand_r(&seed) % 200 - 1);
        if (dice == 6 && i % 8 == 0) reorder(&seed);
        if (dice == 7) set_all_keys(i);
        if (dice == 8) check_keys();
        if (dice >= 9 && dice < 12) count_one(r);
        if (dice >= 12) change_keys(life, &seed);
    }
}

static mp_proc start(uint64_t life, bool takes) {
    mp_proc proc;
    int r = mp_proc_fork(&proc, 0);
    CHECK_OK(r);
    if (r == 1) {
        live(life, takes);
        mp_proc_exit(0);
    }
    return proc;
}

static void finish(mp_proc *proc) {
    int r;
    CHECK_OK(mp_proc_signal(proc, SIGKILL));
    do
        r = mp_proc_wait(proc, mp_deadline_in(15));
    while (r == -EINTR);
    CHECK_OK(r);
    mp_proc_close(proc);
    CHECK_EQ(proc->exitcode, -SIGKILL);
}

/* Every item that was known to be there came out, but for one of each dead
   taker; of the rest none that was not meant, and of those meant as one all
   or none. */
static void check_rows(uint64_t lives, uint64_t dead_takers) {
    uint64_t lost = 0, came = 0, least = 0, most = 0;
    for (uint64_t i = 0; i < lives; i++) {
        row *r = &rows[i];
        uint64_t of_last = 0;
        for (uint32_t k = 0; k < ROW; k++) {
            if (k < r->known) lost += r->came[k] == 0;
            if (k >= r->known && k < r->meant) of_last += r->came[k];
            if (k >= r->meant) CHECK_EQ(r->came[k], 0);
            came += r->came[k];
        }
        if (of_last > 0) lost += r->meant - r->known - of_last;
        least += r->counted;
        most += r->meant_count;
    }
    CHECK(lost <= dead_takers);
    CHECK(came > 0);
    uint64_t count = get_word(dict.t, COUNTER);
    CHECK(count >= least && count <= most);
}

static void open_all(void) {
    open_table(&list, false);
    open_table(&dict, true);
    open_table(&held, false);
    handle = (mp_table_handle){held.id, held.gen};
    rows = spec_shared(sizeof *rows * LIVES);
}

SPEC_WITHIN(60, "table: loses and doubles nothing when anyone is killed") {
    uint64_t used = mp_heap_used(), lives = 0, dead = CREW;
    mp_proc crew[CREW];
    unsigned seed = (unsigned)getpid();
    open_all();
    double end = spec_now() + 2;
    for (int i = 0; i < CREW; i++) crew[i] = start(lives++, i % 2);
    while (spec_now() < end && lives < LIVES) {
        int i = rand_r(&seed) % CREW;
        double wait = spec_now() + rand_r(&seed) % 1000 / 1e6;
        while (spec_now() < wait) {
        }
        finish(&crew[i]);
        dead += (uint64_t)(i % 2);
        crew[i] = start(lives++, i % 2);
    }
    for (int i = 0; i < CREW; i++) finish(&crew[i]);
    CHECK_CLEAN();
    check_keys();
    while (take_one(-1)) {
    }
    check_rows(lives, dead);
    close_table(&list);
    close_table(&dict);
    CHECK_EQ(mp_object_refs(held.id), 1);
    close_table(&held);
    CHECK_EQ(mp_object_count(), 0);
    CHECK_EQ(mp_heap_used(), used);
}

/* ---- destruction ------------------------------------------------------ */

/* Told by `list`, whose first entry comes. */
static void drop_when_told(const table *f) {
    while (mp_table_length(list.t) == 0) spec_pause();
    close_table(f); /* the last holder: destroys */
    for (;;) spec_pause();
}

static void fill(const table *f, uint64_t n) {
    unsigned char at[100];
    for (uint64_t i = 0; i < n; i++) {
        mp_table_value k = i % 2 ? value_of(i, at) : word(i);
        mp_table_value v = value_of(i, at);
        CHECK_OK(mp_table_set(f->t, &k, &v, MP_TABLE_ANY));
    }
}

SPEC_WITHIN(60, "table: a destruction that is killed is finished by others") {
    open_all();
    uint64_t used = mp_heap_used();
    unsigned seed = (unsigned)getpid();
    for (int round = 0; round < 60; round++) {
        table f;
        mp_proc proc;
        open_table(&f, true);
        fill(&f, 2000);
        int r = mp_proc_fork(&proc, 0);
        CHECK_OK(r);
        if (r == 1) drop_when_told(&f);
        close_table(&f);
        push(list.t, 1);
        double wait = spec_now() + rand_r(&seed) % 1500 / 1e6;
        while (spec_now() < wait) {
        }
        finish(&proc);
        CHECK_EQ(mp_object_refs(held.id), 1);
        CHECK_OK(mp_table_clear(list.t));
        CHECK(mp_heap_used() <= used + MP_UNIT);
    }
    CHECK_EQ(mp_object_count(), 3);
    close_table(&list);
    close_table(&dict);
    close_table(&held);
}
