#include "fsck_tools.h"
#include "table_fixture.h"

SPEC_PREPARE { prepare_tables(); }

static int hands_used(void) {
    int n = 0;
    for (int i = 0; i < MP_HANDS; i++)
        n += atomic_load(&mp_me->slot->hands[i].block) != 0;
    return n;
}

/* ---- keys ------------------------------------------------------------- */

SPEC("table: keeps what was set, in the order in which keys first came") {
    table f;
    mp_table_shm *t = open_table(&f, true);
    CHECK_EQ(get_word(t, 1), UINT64_MAX);
    CHECK_OK(set_word(t, 5, 50));
    CHECK_OK(set_word(t, 1, 10));
    CHECK_OK(set_word(t, 3, 30));
    CHECK_OK(set_word(t, 5, 51));
    CHECK_STR(words_of(t), "51 10 30");
    CHECK_EQ(get_word(t, 1), 10);
    CHECK_OK(delete_word(t, 1));
    CHECK_EQ(delete_word(t, 1), -ENOENT);
    CHECK_OK(set_word(t, 1, 11));
    CHECK_STR(words_of(t), "51 30 11");
    CHECK_EQ(mp_table_length(t), 3);
    CHECK_CLEAN();
    close_table(&f);
}

SPEC("table: tells keys apart by tag and bytes") {
    table f;
    mp_table_shm *t = open_table(&f, true);
    char large[3000];
    memset(large, 'k', sizeof large);
    mp_table_value keys[] = {
        word(1), {.tag = TAG + 1, .word = 1}, text(""), text("a"),
        text("12345678"), text("12345679"), text("123456789"),
        {.tag = TAG, .data = "a", .length = 1},
        bytes(large, sizeof large), bytes(large, sizeof large - 1),
        bytes("\0", 1), bytes("\0\0", 2)};
    enum { N = sizeof keys / sizeof keys[0] };
    for (uint64_t i = 0; i < N; i++) {
        mp_table_value v = word(i);
        CHECK_OK(mp_table_set(t, &keys[i], &v, MP_TABLE_ABSENT));
    }
    for (uint64_t i = 0; i < N; i++) {
        mp_table_value v;
        CHECK_OK(mp_table_get(t, &keys[i], NULL, &v, NULL));
        CHECK_EQ(v.word, i);
    }
    CHECK_CLEAN();
    for (uint64_t i = 0; i < N; i++)
        CHECK_OK(mp_table_delete(t, &keys[i], MP_TABLE_ANY, NULL));
    CHECK_EQ(mp_table_length(t), 0);
    CHECK_EQ(hands_used(), 0);
    close_table(&f);
}

SPEC("table: copies bytes out when there is room, and else says how much") {
    table f;
    mp_table_shm *t = open_table(&f, true);
    mp_table_value k = text("a longer key"), v = text("some longer value");
    char buffer[17];
    mp_table_room room = {.at = buffer, .size = 16};
    CHECK_OK(mp_table_set(t, &k, &v, MP_TABLE_ANY));
    CHECK_EQ(mp_table_get(t, &k, &room, &v, NULL), -ENOBUFS);
    CHECK_EQ(room.need, 17);
    CHECK_EQ(room.need_keeper, 0);
    room.size = room.need;
    CHECK_OK(mp_table_get(t, &k, &room, &v, NULL));
    CHECK(v.length == 17 && v.tag == BYTES_TAG);
    CHECK(v.data == buffer && memcmp(buffer, "some longer value", 17) == 0);
    CHECK_OK(mp_table_get(t, &k, NULL, &v, NULL));
    CHECK(v.data == NULL && v.length == 17);
    close_table(&f);
}

SPEC("table: changes an entry only if it is what was read") {
    table f;
    mp_table_shm *t = open_table(&f, true);
    mp_table_value k = word(1), v = word(10);
    uint64_t first, second;
    CHECK_OK(mp_table_set(t, &k, &v, MP_TABLE_ABSENT));
    CHECK_EQ(mp_table_set(t, &k, &v, MP_TABLE_ABSENT), -EAGAIN);
    CHECK_OK(mp_table_get(t, &k, NULL, &v, &first));
    CHECK_OK(mp_table_set(t, &k, &v, first));
    CHECK_EQ(mp_table_set(t, &k, &v, first), -EAGAIN);
    CHECK_EQ(mp_table_delete(t, &k, first, NULL), -EAGAIN);
    CHECK_OK(mp_table_get(t, &k, NULL, &v, &second));
    CHECK(second != first && first != 0);
    CHECK_OK(mp_table_delete(t, &k, second, NULL));
    CHECK_EQ(mp_table_set(t, &k, &v, second), -EAGAIN);
    CHECK_EQ(mp_table_delete(t, &k, second, NULL), -EAGAIN);
    CHECK_EQ(mp_table_delete(t, &k, MP_TABLE_ANY, NULL), -ENOENT);
    CHECK_EQ(mp_table_delete(t, &k, MP_TABLE_ABSENT, NULL), -ENOENT);
    CHECK_EQ(mp_table_length(t), 0);
    close_table(&f);
}

SPEC("table: gives out what it deletes, from both ends of its keys") {
    table f;
    mp_table_shm *t = open_table(&f, true);
    mp_table_taken taken;
    for (uint64_t i = 0; i < 10; i++) CHECK_OK(set_word(t, i, i * 10));
    mp_table_value k = text("the last key"), v = text("the last value");
    CHECK_OK(mp_table_set(t, &k, &v, MP_TABLE_ANY));
    CHECK_OK(mp_table_delete_at(t, -1, MP_TABLE_ANY, &taken));
    CHECK(taken.key.length == 12 &&
          memcmp(taken.key.data, "the last key", 12) == 0);
    CHECK(taken.value.length == 14 &&
          memcmp(taken.value.data, "the last value", 14) == 0);
    CHECK_EQ(hands_used(), 2);
    mp_table_release(&taken);
    CHECK_OK(mp_table_delete_at(t, 0, MP_TABLE_ANY, &taken));
    CHECK(taken.key.word == 0 && taken.value.word == 0);
    CHECK_OK(delete_word(t, 1));
    CHECK_OK(delete_word(t, 8));
    CHECK_OK(mp_table_delete_at(t, 0, MP_TABLE_ANY, &taken));
    CHECK(taken.key.word == 2 && taken.value.word == 20);
    CHECK_OK(mp_table_delete_at(t, -1, MP_TABLE_ANY, &taken));
    CHECK(taken.key.word == 9 && taken.value.word == 90);
    CHECK_EQ(mp_table_delete_at(t, 1, MP_TABLE_ANY, NULL), -ERANGE);
    CHECK_STR(words_of(t), "30 40 50 60 70");
    CHECK_CLEAN();
    while (mp_table_delete_at(t, -1, MP_TABLE_ANY, NULL) == 0) {
    }
    CHECK_EQ(mp_table_delete_at(t, -1, MP_TABLE_ANY, NULL), -ERANGE);
    CHECK_EQ(mp_table_delete_at(t, 0, MP_TABLE_ANY, NULL), -ERANGE);
    CHECK_EQ(hands_used(), 0);
    close_table(&f);
}

SPEC("table: does not grow when keys come and go") {
    table f;
    mp_table_shm *t = open_table(&f, true);
    uint64_t used = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        CHECK_OK(set_word(t, i, i));
        if (i >= 10) CHECK_OK(delete_word(t, i - 10));
        if (i == 1000) used = mp_heap_used();
    }
    CHECK_EQ(mp_heap_used(), used);
    for (uint64_t i = 0; i < 20000; i++) {
        CHECK_OK(set_word(t, i | 1U << 20, i));
        CHECK_OK(mp_table_delete_at(t, -1, MP_TABLE_ANY, NULL));
    }
    CHECK_EQ(mp_heap_used(), used);
    CHECK_CLEAN();
    close_table(&f);
}

/* As many as are never met: with a known hash these would all be in one
   cell, with one that is weak in few. */
SPEC("table: the seed of the hash is each table's own") {
    table f[2];
    for (int i = 0; i < 2; i++) {
        mp_table_shm *t = open_table(&f[i], true);
        for (uint64_t k = 0; k < 64; k++) CHECK_OK(set_word(t, k << 32, k));
        CHECK_EQ(mp_table_length(t), 64);
    }
    CHECK(memcmp(mp_at(f[0].t->store), mp_at(f[1].t->store), 16) != 0);
    close_table(&f[0]);
    close_table(&f[1]);
}

/* ---- positions -------------------------------------------------------- */

SPEC("table: a list is set, inserted into and deleted from by position") {
    table f;
    mp_table_shm *t = open_table(&f, false);
    mp_table_value v = word(9);
    push_to(t, 0, 5);
    CHECK_OK(mp_table_set_at(t, -1, &v, MP_TABLE_ANY));
    CHECK_OK(mp_table_set_at(t, 0, &v, MP_TABLE_ANY));
    CHECK_EQ(mp_table_set_at(t, 5, &v, MP_TABLE_ANY), -ERANGE);
    CHECK_EQ(mp_table_set_at(t, -6, &v, MP_TABLE_ANY), -ERANGE);
    CHECK_STR(words_of(t), "9 1 2 3 9");
    v = word(7);
    CHECK_OK(mp_table_insert(t, 2, &v));
    CHECK_OK(mp_table_insert(t, -1, &v));
    CHECK_OK(mp_table_insert(t, -100, &v));
    CHECK_OK(mp_table_insert(t, 100, &v));
    CHECK_STR(words_of(t), "7 9 1 7 2 3 7 9 7");
    CHECK_OK(mp_table_delete_at(t, 3, MP_TABLE_ANY, NULL));
    CHECK_OK(mp_table_delete_at(t, -3, MP_TABLE_ANY, NULL));
    CHECK_OK(mp_table_delete_at(t, 0, MP_TABLE_ANY, NULL));
    CHECK_OK(mp_table_delete_at(t, -1, MP_TABLE_ANY, NULL));
    CHECK_EQ(mp_table_delete_at(t, 5, MP_TABLE_ANY, NULL), -ERANGE);
    CHECK_STR(words_of(t), "9 1 2 3 9");
    CHECK_EQ(word_at(t, 1), 1);
    CHECK_EQ(word_at(t, -2), 3);
    CHECK_EQ(word_at(t, 5), UINT64_MAX);
    CHECK_EQ(word_at(t, INT64_MIN), UINT64_MAX);
    CHECK_CLEAN();
    close_table(&f);
}

SPEC("table: a list's entry is changed only if it is what was read") {
    table f;
    mp_table_shm *t = open_table(&f, false);
    mp_table_value v;
    mp_table_taken taken;
    uint64_t version;
    push_to(t, 0, 3);
    CHECK_OK(mp_table_get_at(t, 1, NULL, &v, &version));
    CHECK_EQ(mp_table_set_at(t, 0, &v, version), -EAGAIN);
    CHECK_OK(mp_table_delete_at(t, 0, MP_TABLE_ANY, NULL));
    CHECK_EQ(mp_table_set_at(t, 1, &v, version), -EAGAIN);
    CHECK_EQ(mp_table_delete_at(t, 1, version, &taken), -EAGAIN);
    CHECK_OK(mp_table_delete_at(t, 0, version, &taken));
    CHECK_EQ(taken.value.word, 1);
    mp_table_release(&taken);
    close_table(&f);
}

SPEC("table: finds and counts what is in a list") {
    table f;
    mp_table_shm *t = open_table(&f, false);
    const mp_table_value what[] = {word(2), text("a string")};
    uint64_t p, version;
    push_to(t, 0, 4);
    CHECK_OK(mp_table_insert(t, INT64_MAX, &what[1]));
    push_to(t, 0, 4);
    CHECK_OK(mp_table_find(t, what, 1, 0, INT64_MAX, &p, &version));
    CHECK_EQ(p, 2);
    CHECK_OK(mp_table_find(t, what, 2, 3, INT64_MAX, &p, &version));
    CHECK_EQ(p, 4);
    CHECK_OK(mp_table_find(t, what, 2, -3, INT64_MAX, &p, &version));
    CHECK_EQ(p, 7);
    CHECK_OK(mp_table_delete_at(t, 7, version, NULL));
    CHECK_EQ(mp_table_find(t, what, 2, -3, INT64_MAX, &p, NULL), -ENOENT);
    CHECK_EQ(mp_table_find(t, what, 2, -100, 2, &p, NULL), -ENOENT);
    CHECK_EQ(mp_table_find(t, what, 1, 0, -6, &p, NULL), -ENOENT);
    CHECK_OK(mp_table_find(t, what, 1, 0, -5, &p, NULL));
    CHECK_EQ(mp_table_count(t, what, 2), 2);
    CHECK_EQ(mp_table_count(t, what, 1), 1);
    close_table(&f);
}

SPEC("table: a list is a queue from either end, in the room it has") {
    table f;
    mp_table_shm *t = open_table(&f, false);
    mp_table_taken taken;
    push_to(t, 0, 10);
    uint64_t store = t->store;
    for (uint64_t i = 10; i < 1000; i++) {
        CHECK_OK(mp_table_delete_at(t, 0, MP_TABLE_ANY, &taken));
        CHECK_EQ(taken.value.word, i - 10);
        push(t, i);
    }
    for (uint64_t i = 0; i < 1000; i++) {
        mp_table_value v = word(i);
        CHECK_OK(mp_table_delete_at(t, -1, MP_TABLE_ANY, NULL));
        CHECK_OK(mp_table_insert(t, 0, &v));
    }
    CHECK_EQ(t->store, store);
    CHECK_STR(words_of(t), "999 998 997 996 995 994 993 992 991 990");
    close_table(&f);
}

/* ---- against a model --------------------------------------------------- */

enum { MODEL = 3000 };

static void insert_model(uint64_t *model, size_t *n, size_t p, uint64_t w) {
    memmove(model + p + 1, model + p, (*n - p) * sizeof *model);
    model[p] = w;
    ++*n;
}

static void delete_model(uint64_t *model, size_t *n, size_t p) {
    --*n;
    memmove(model + p, model + p + 1, (*n - p) * sizeof *model);
}

static void check_model(mp_table_shm *t, const uint64_t *model, size_t n) {
    mp_table_copy copy = snapshot(t);
    mp_table_value v;
    size_t at = 0;
    CHECK_EQ(copy.entries, n);
    for (size_t i = 0; i < n; i++) {
        CHECK(mp_table_next(&copy, &at, NULL, &v, NULL));
        CHECK_EQ(v.word, model[i]);
    }
    CHECK(!mp_table_next(&copy, &at, NULL, &v, NULL));
    CHECK_CLEAN();
}

/* Mostly grows, then mostly shrinks; places near the last one, the ends, and
   anywhere. */
static void change_list(mp_table_shm *t, unsigned seed) {
    static uint64_t model[MODEL];
    size_t n = 0, p = 0;
    for (uint64_t i = 0; i < 6000; i++) {
        unsigned dice = (unsigned)rand_r(&seed);
        bool grow = n == 0 || (n < MODEL && dice % 8 < (i < 3000 ? 6U : 3U));
        dice /= 8;
        p = dice % 4 == 0 ? 0 : dice % 4 == 1 ? n : dice % 4 == 2 ? p : dice;
        p %= n + 1;
        mp_table_value v = word(i);
        if (grow) {
            CHECK_OK(mp_table_insert(t, (int64_t)p, &v));
            insert_model(model, &n, p, i);
        } else {
            if (p == n) p--;
            CHECK_OK(mp_table_delete_at(t, (int64_t)(p - n), MP_TABLE_ANY,
                                        NULL));
            delete_model(model, &n, p);
        }
        CHECK_EQ(word_at(t, (int64_t)(n / 2)),
                 n ? model[n / 2] : UINT64_MAX);
        if (i % 500 == 0) check_model(t, model, n);
    }
    check_model(t, model, n);
}

SPEC_WITHIN(60, "table: a list is what a plain array would be") {
    for (unsigned seed = 1; seed <= 6; seed++) {
        table f;
        change_list(open_table(&f, false), seed * 7919);
        close_table(&f);
    }
}

/* Keys are words and strings; what is there, and since when, is in `model`
   (0: not there). */
static mp_table_value key_of(uint64_t k) {
    static char name[40];
    if (k % 2) return word(k);
    snprintf(name, sizeof name, "a key of number %ju", (uintmax_t)k);
    return text(name);
}

static void change_dict(mp_table_shm *t, unsigned seed) {
    enum { KEYS = 700 };
    static uint64_t model[KEYS], since[KEYS];
    uint64_t n = 0;
    memset(model, 0, sizeof model);
    for (uint64_t i = 1; i < 12000; i++) {
        unsigned dice = (unsigned)rand_r(&seed);
        uint64_t k = dice / 8 % KEYS;
        mp_table_value key = key_of(k), v = word(i);
        if (dice % 8 < (i / 3000 % 2 ? 3U : 5U)) {
            CHECK_OK(mp_table_set(t, &key, &v,
                                  model[k] ? MP_TABLE_ANY : 0));
            if (!model[k]) since[k] = i;
            n += !model[k];
            model[k] = i;
        } else {
            CHECK_EQ(mp_table_delete(t, &key, MP_TABLE_ANY, NULL),
                     model[k] ? 0 : -ENOENT);
            n -= model[k] != 0;
            model[k] = 0;
        }
        CHECK_EQ(mp_table_length(t), n);
        if (i % 1000) continue;
        CHECK_CLEAN();
        uint64_t last = 0;
        mp_table_copy copy = snapshot(t);
        for (size_t at = 0; mp_table_next(&copy, &at, &key, &v, NULL);) {
            for (k = 0; k < KEYS && model[k] != v.word; k++) {
            }
            CHECK(k < KEYS && since[k] > last);
            last = since[k];
        }
        for (k = 0; k < KEYS; k++) {
            key = key_of(k);
            int r = mp_table_get(t, &key, NULL, &v, NULL);
            CHECK_EQ(r, model[k] ? 0 : -ENOENT);
            if (r == 0) CHECK_EQ(v.word, model[k]);
        }
    }
}

SPEC_WITHIN(60, "table: a dict is what a plain one would be") {
    for (unsigned seed = 1; seed <= 4; seed++) {
        table f;
        change_dict(open_table(&f, true), seed * 7919);
        close_table(&f);
    }
}
