/* Tables under threads: what was written is what is read, whole. */
#include "fsck_tools.h"
#include "table_fixture.h"
#include "threads.h"

static const double LASTS = 0.3; /* seconds */
enum { LEAST = 10 };             /* rounds of each, however long */

SPEC_PREPARE { prepare_tables(); }

enum { KEYS = 40, LONGEST = 300, SUM = 1000 };

/* A list and a dict, what entries hold, and increments of the dict's sum. */
typedef struct traffic {
    table list, dict, held;
    double end;
    _Atomic uint64_t sum;
} traffic;

/* Bytes that all are what the first one is. */
static mp_table_value bytes_of(const traffic *t, unsigned char *at,
                               unsigned n, mp_table_handle *h) {
    memset(at, (int)(n & 0xff), LONGEST);
    mp_table_value v = bytes(at, 10 + n % (LONGEST - 10));
    *h = (mp_table_handle){t->held.id, t->held.gen};
    v.handles = h;
    v.n_handles = n % 3 == 0;
    return v;
}

static void check_bytes(const mp_table_value *v) {
    const unsigned char *at = v->data;
    for (size_t i = 1; at && i < v->length; i++) CHECK_EQ(at[i], at[0]);
}

static void read_all(mp_table_shm *t) {
    _Alignas(8) unsigned char buffer[64 * 1024];
    mp_table_room room = {.at = buffer, .size = sizeof buffer,
                          .keeper = mp_table_keeper(200)};
    mp_table_copy copy;
    mp_table_value v;
    if (mp_table_copy_all(t, &room, &copy) == 0)
        for (size_t at = 0; mp_table_next(&copy, &at, NULL, &v, NULL);)
            check_bytes(&v);
    mp_free(room.keeper);
}

static void add_one(traffic *t) {
    mp_table_value k = word(SUM), v;
    uint64_t version;
    int r;
    do {
        version = MP_TABLE_ABSENT;
        r = mp_table_get(t->dict.t, &k, NULL, &v, &version);
        v = word(r == 0 ? v.word + 1 : 1);
        r = mp_table_set(t->dict.t, &k, &v, version);
    } while (r == -EAGAIN);
    CHECK_OK(r);
    atomic_fetch_add(&t->sum, 1);
}

static void change_dict(traffic *t, unsigned dice) {
    unsigned char at[LONGEST];
    mp_table_handle h;
    mp_table_value k = word(dice % KEYS), v = bytes_of(t, at, dice, &h);
    mp_table_taken taken;
    if (dice % 3) {
        CHECK_OK(mp_table_set(t->dict.t, &k, &v, MP_TABLE_ANY));
    } else if (mp_table_delete(t->dict.t, &k, MP_TABLE_ANY, &taken) == 0) {
        check_bytes(&taken.value);
        mp_table_release(&taken);
    }
}

static void change_list(traffic *t, unsigned dice) {
    unsigned char at[LONGEST];
    mp_table_handle h;
    mp_table_value v = bytes_of(t, at, dice, &h);
    mp_table_taken taken;
    if (mp_table_length(t->list.t) < dice % 100)
        CHECK_OK(mp_table_insert(t->list.t, dice % 50, &v));
    else if (mp_table_delete_at(t->list.t, dice % 60, MP_TABLE_ANY,
                                &taken) == 0) {
        check_bytes(&taken.value);
        mp_table_release(&taken);
    }
}

static void move_some(traffic *t, unsigned dice) {
    table from;
    open_table(&from, true);
    for (uint64_t i = 0; i < 5; i++)
        CHECK_OK(set_word(from.t, (dice + i) % KEYS, i));
    CHECK_OK(mp_table_move(t->dict.t, from.id));
    close_table(&from);
}

static void use(void *context, int number) {
    traffic *t = context;
    unsigned seed = (unsigned)number + 1;
    CHECK_OK(mp_object_attach(t->list.id, t->list.gen));
    for (int n = 0; n < LEAST || spec_now() < t->end; n++) {
        unsigned dice = (unsigned)rand_r(&seed);
        switch (dice / 64 % 8) {
        case 0: add_one(t); break;
        case 1: move_some(t, dice); break;
        case 2: read_all(t->dict.t); break;
        case 3: read_all(t->list.t); break;
        case 4:
            if (dice % 7 == 0) mp_table_clear(t->list.t);
            mp_table_permute(t->list.t, MP_TABLE_ANY, NULL, 0);
            break;
        case 5: change_list(t, dice); break;
        default: change_dict(t, dice); break;
        }
    }
    mp_object_detach(t->list.id);
}

SPEC("table: threads read whole what threads write") {
    traffic t = {.end = spec_now() + LASTS};
    open_table(&t.list, false);
    open_table(&t.dict, true);
    open_table(&t.held, false);
    spec_threads(4, use, &t);
    CHECK_CLEAN();
    CHECK_EQ(get_word(t.dict.t, SUM), t.sum);
    CHECK(t.sum > 0);
    close_table(&t.list);
    close_table(&t.dict);
    CHECK_EQ(mp_object_refs(t.held.id), 1);
    close_table(&t.held);
}

/* ---- snapshots ---------------------------------------------------------- */

/* More than are copied without a pause. One thread sets all keys in turn to 1,
   then to 2 and so on; so at any moment those in front are one ahead. */
enum { FRONT = 15000, LOOKS = 12 };

typedef struct front {
    table dict;
    _Atomic bool end;
} front;

static void advance(front *f) {
    for (uint64_t value = 1; !f->end; value++)
        for (uint64_t k = 0; k < FRONT && !f->end; k++)
            CHECK_OK(set_word(f->dict.t, k, value));
}

static void look_at_front(front *f) {
    mp_table_copy copy = snapshot(f->dict.t);
    mp_table_value v;
    uint64_t last = UINT64_MAX, steps = 0;
    for (size_t at = 0; mp_table_next(&copy, &at, NULL, &v, NULL);) {
        CHECK(v.word <= last && (last == UINT64_MAX || last - v.word <= 1));
        steps += last != UINT64_MAX && v.word < last;
        last = v.word;
    }
    CHECK(steps <= 1);
}

static void use_front(void *context, int number) {
    front *f = context;
    if (number == 0) {
        advance(f);
        return;
    }
    while (mp_table_length(f->dict.t) < FRONT) spec_pause();
    for (int i = 0; i < LOOKS; i++) look_at_front(f);
    f->end = true;
}

SPEC("table: a snapshot is of one moment, whoever changes it meanwhile") {
    front f = {.end = false};
    open_table(&f.dict, true);
    spec_threads(2, use_front, &f);
    close_table(&f.dict);
}
