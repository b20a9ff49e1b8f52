/* Tables: changes of many entries at once, snapshots, what entries hold, and
   what does not work. */
#include <sys/resource.h>

#include "fsck_tools.h"
#include "table_fixture.h"

SPEC_PREPARE { prepare_tables(); }

static mp_table_handle handle_of(const table *f) {
    return (mp_table_handle){f->id, f->gen};
}

/* ---- what entries hold ------------------------------------------------- */

SPEC("table: entries hold what they name, values as well as keys") {
    table f, inner;
    mp_table_shm *t = open_table(&f, true);
    open_table(&inner, false);
    mp_table_handle h = handle_of(&inner);
    mp_table_value k = word(1), v = naming(&h);
    CHECK_OK(mp_table_set(t, &k, &v, MP_TABLE_ANY));
    CHECK_OK(mp_table_set(t, &v, &v, MP_TABLE_ANY));
    CHECK_EQ(mp_object_refs(inner.id), 4);
    CHECK_CLEAN();
    CHECK_OK(set_word(t, 1, 2));
    CHECK_EQ(mp_object_refs(inner.id), 3);
    close_table(&inner);
    CHECK_EQ(mp_object_count(), 2);
    CHECK_OK(mp_table_delete(t, &v, MP_TABLE_ANY, NULL));
    CHECK_EQ(mp_object_count(), 1);
    k = word(2);
    CHECK_EQ(mp_table_set(t, &k, &v, MP_TABLE_ANY), -ESTALE);
    CHECK_EQ(mp_table_set(t, &v, &k, MP_TABLE_ANY), -ESTALE);
    CHECK_STR(words_of(t), "2");
    close_table(&f);
}

SPEC("table: what was read is kept until it is decoded") {
    table f, inner;
    mp_table_shm *t = open_table(&f, false);
    open_table(&inner, false);
    mp_table_handle h = handle_of(&inner);
    mp_table_value v = naming(&h);
    char buffer[8];
    mp_table_room room = {.at = buffer, .size = sizeof buffer};
    CHECK_OK(mp_table_insert(t, INT64_MAX, &v));
    CHECK_EQ(mp_table_get_at(t, 0, &room, &v, NULL), -ENOBUFS);
    CHECK_EQ(room.need, 8);
    CHECK_EQ(room.need_keeper, 1);
    room.keeper = mp_table_keeper(room.need_keeper);
    CHECK_OK(mp_table_get_at(t, 0, &room, &v, NULL));
    close_table(&inner);
    CHECK_OK(mp_table_delete_at(t, 0, MP_TABLE_ANY, NULL));
    CHECK_EQ(mp_object_count(), 2);
    CHECK_CLEAN();
    memcpy(&h, v.data, sizeof h);
    CHECK_OK(mp_object_attach(h.id, h.gen));
    mp_object_detach(h.id);
    mp_free(room.keeper);
    CHECK_EQ(mp_object_count(), 1);
    close_table(&f);
}

SPEC("table: what was taken out lives until it is released") {
    table f, inner;
    mp_table_shm *t = open_table(&f, true);
    open_table(&inner, false);
    mp_table_handle h = handle_of(&inner);
    mp_table_value v = naming(&h), k = word(1);
    mp_table_taken taken;
    CHECK_OK(mp_table_set(t, &k, &v, MP_TABLE_ANY));
    close_table(&inner);
    CHECK_OK(mp_table_delete(t, &k, MP_TABLE_ANY, &taken));
    CHECK_EQ(mp_object_count(), 2);
    CHECK_EQ(taken.value.length, sizeof h);
    mp_table_release(&taken);
    mp_table_release(&taken);
    CHECK_EQ(mp_object_count(), 1);
    close_table(&f);
}

/* ---- many at once ------------------------------------------------------ */

SPEC("table: moves words, bytes and what they hold behind a list") {
    table f, from, lock;
    mp_table_shm *t = open_table(&f, false);
    open_table(&from, false);
    open_table(&lock, false);
    mp_table_handle h = handle_of(&lock);
    mp_table_value v[] = {word(1), text("some bytes"), naming(&h), word(4)};
    CHECK_OK(mp_table_move(t, from.id));
    for (int i = 0; i < 4; i++)
        CHECK_OK(mp_table_insert(from.t, INT64_MAX, &v[i]));
    CHECK_OK(mp_table_move(t, from.id));
    push_to(from.t, 0, 4);
    CHECK_OK(mp_table_move(t, from.id));
    CHECK_STR(words_of(t), "1 b10 b8 4 0 1 2 3");
    CHECK_EQ(mp_object_count(), 3);
    CHECK_CLEAN();
    close_table(&from);
    close_table(&lock);
    CHECK_EQ(mp_object_refs(lock.id), 1);
    h.gen++;
    v[2] = naming(&h);
    CHECK_EQ(mp_table_insert(t, INT64_MAX, &v[2]), -ESTALE);
    CHECK_EQ(mp_table_length(t), 8);
    close_table(&f);
    CHECK_EQ(mp_object_count(), 0);
}

SPEC("table: moves a list behind another, however much it is") {
    table f, from;
    mp_table_shm *t = open_table(&f, false);
    open_table(&from, false);
    mp_table_value v = text("bytes of it");
    push_to(t, 0, 3);
    for (int i = 0; i < 1000; i++)
        CHECK_OK(mp_table_insert(from.t, INT64_MAX, &v));
    CHECK_OK(mp_table_move(t, from.id));
    CHECK_EQ(mp_table_length(from.t), 0);
    CHECK_EQ(mp_table_length(t), 1003);
    CHECK_CLEAN();
    push(from.t, 7);
    CHECK_OK(mp_table_move(t, from.id));
    CHECK_EQ(word_at(t, -1), 7);
    CHECK_OK(mp_table_move(t, from.id));
    CHECK_EQ(mp_table_length(t), 1004);
    close_table(&from);
    close_table(&f);
}

SPEC("table: each entry has a version of its own, wherever it comes from") {
    table f, from;
    mp_table_value v = word(5);
    mp_table_shm *t = open_table(&f, false);
    open_table(&from, false);
    push_to(t, 0, 3);
    push_to(from.t, 0, 20);
    CHECK_OK(mp_table_move(t, from.id));
    push_to(from.t, 0, 20);
    mp_table_copy copy = snapshot(t);
    CHECK_OK(mp_table_swap(t, copy.generation, from.id));
    CHECK_EQ(mp_table_swap(t, copy.generation, from.id), -EAGAIN);
    CHECK_OK(mp_table_move(t, from.id));
    CHECK_OK(mp_table_set_at(t, 9, &v, MP_TABLE_ANY));
    bool seen[200] = {false};
    uint64_t version;
    copy = snapshot(t);
    CHECK_EQ(copy.entries, 43);
    for (size_t at = 0; mp_table_next(&copy, &at, NULL, &v, &version);) {
        CHECK(version > 0 && version < 200 && !seen[version]);
        seen[version] = true;
    }
    close_table(&from);
    close_table(&f);
}

SPEC("table: what comes by a swap is not what was read before") {
    table f, with;
    mp_table_value v;
    uint64_t version, of_with;
    mp_table_shm *t = open_table(&f, false);
    open_table(&with, false);
    push_to(t, 0, 3);
    push_to(with.t, 0, 3);
    CHECK_OK(mp_table_get_at(t, 1, NULL, &v, &version));
    CHECK_OK(mp_table_get_at(with.t, 1, NULL, &v, &of_with));
    CHECK_EQ(version, of_with);
    CHECK_OK(mp_table_swap(t, MP_TABLE_ANY, with.id));
    for (int64_t i = 0; i < 3; i++)
        CHECK_EQ(mp_table_set_at(t, i, &v, version), -EAGAIN);
    CHECK_CLEAN();
    close_table(&with);
    close_table(&f);
}

SPEC("table: moves a dict into another as if each key was set") {
    table f, from, inner;
    mp_table_shm *t = open_table(&f, true);
    open_table(&from, true);
    open_table(&inner, true);
    mp_table_handle h = handle_of(&inner);
    mp_table_value v = naming(&h), k = text("a key of bytes");
    for (uint64_t i = 0; i < 5; i++) CHECK_OK(set_word(t, i, i));
    CHECK_OK(mp_table_set(t, &k, &v, MP_TABLE_ANY));
    for (uint64_t i = 3; i < 8; i++) CHECK_OK(set_word(from.t, i, i * 10));
    CHECK_OK(delete_word(from.t, 4));
    v = text("a value of bytes");
    CHECK_OK(mp_table_set(from.t, &k, &v, MP_TABLE_ANY));
    CHECK_EQ(mp_object_refs(inner.id), 2);
    CHECK_OK(mp_table_move(t, from.id));
    CHECK_STR(words_of(t), "0 1 2 30 4 b16 50 60 70");
    CHECK_EQ(mp_table_length(from.t), 0);
    CHECK_EQ(mp_object_refs(inner.id), 1);
    CHECK_EQ(mp_object_refs(from.id), 1);
    CHECK_CLEAN();
    CHECK_OK(set_word(from.t, 1, 11));
    CHECK_OK(mp_table_move(t, from.id));
    CHECK_STR(words_of(t), "0 11 2 30 4 b16 50 60 70");
    CHECK_EQ(mp_table_move(t, f.id), -EINVAL);
    close_table(&inner);
    close_table(&from);
    close_table(&f);
}

SPEC("table: moves only what is of its sort") {
    table list, dict;
    open_table(&list, false);
    open_table(&dict, true);
    CHECK_EQ(mp_table_move(list.t, dict.id), -EINVAL);
    CHECK_EQ(mp_table_swap(dict.t, MP_TABLE_ANY, list.id), -EINVAL);
    CHECK_EQ(mp_table_swap(dict.t, MP_TABLE_ANY, dict.id), -EINVAL);
    CHECK_EQ(mp_table_permute(dict.t, MP_TABLE_ANY, NULL, 0), -EINVAL);
    close_table(&list);
    close_table(&dict);
}

SPEC("table: is emptied, and filled again") {
    for (int indexed = 0; indexed < 2; indexed++) {
        table f;
        mp_table_shm *t = open_table(&f, indexed);
        uint64_t used = mp_heap_used();
        mp_table_value v = text("some more bytes"), k;
        CHECK_OK(mp_table_clear(t));
        for (uint64_t i = 0; i < 3000; i++) {
            k = word(i);
            CHECK_OK(indexed ? mp_table_set(t, &k, &v, MP_TABLE_ANY)
                             : mp_table_insert(t, INT64_MAX, &v));
        }
        CHECK_OK(mp_table_clear(t));
        CHECK_EQ(mp_table_length(t), 0);
        CHECK_EQ(mp_heap_used(), used);
        CHECK_EQ(mp_object_count(), 1);
        CHECK_OK(indexed ? set_word(t, 1, 1)
                         : mp_table_insert(t, INT64_MAX, &v));
        CHECK_EQ(mp_table_length(t), 1);
        CHECK_CLEAN();
        close_table(&f);
    }
}

SPEC("table: a list takes another order, unless it has changed") {
    table f;
    mp_table_shm *t = open_table(&f, false);
    const uint64_t order[] = {2, 0, 1, 3}, twice[] = {0, 1, 1, 3},
                   beyond[] = {0, 1, 2, 4};
    CHECK_OK(mp_table_permute(t, MP_TABLE_ANY, NULL, 0));
    push_to(t, 10, 14);
    CHECK_OK(mp_table_delete_at(t, 1, MP_TABLE_ANY, NULL));
    push(t, 14);
    uint64_t generation = snapshot(t).generation;
    CHECK_EQ(mp_table_permute(t, generation, twice, 4), -EINVAL);
    CHECK_EQ(mp_table_permute(t, generation, beyond, 4), -EINVAL);
    CHECK_EQ(mp_table_permute(t, generation, order, 3), -EINVAL);
    CHECK_EQ(mp_table_permute(t, MP_TABLE_ANY, NULL, 9), 0);
    CHECK_STR(words_of(t), "14 13 12 10");
    CHECK_EQ(mp_table_permute(t, generation, order, 4), -EAGAIN);
    generation = snapshot(t).generation;
    CHECK_OK(mp_table_permute(t, generation, order, 4));
    CHECK_STR(words_of(t), "12 14 13 10");
    push(t, 1);
    CHECK_EQ(mp_table_permute(t, MP_TABLE_ANY, order, 4), -EAGAIN);
    CHECK_CLEAN();
    close_table(&f);
}

/* ---- snapshots --------------------------------------------------------- */

/* As a caller does: makes larger what is too small. */
static mp_table_copy copy_all(mp_table_shm *t, mp_table_room *room,
                              int *tries) {
    mp_table_copy copy;
    *room = (mp_table_room){.size = 0};
    for (*tries = 1;; ++*tries) {
        int r = mp_table_copy_all(t, room, &copy);
        if (r == 0) return copy;
        CHECK_EQ(r, -ENOBUFS);
        CHECK(room->need > room->size);
        free(room->at);
        room->size = room->need;
        room->at = malloc(room->size);
        if (room->keeper) mp_message_drop(room->keeper);
        if (!room->need_keeper) continue;
        mp_free(room->keeper);
        room->keeper = mp_table_keeper(room->need_keeper);
    }
}

SPEC("table: a snapshot has all keys and values, and keeps what they name") {
    enum { N = 20000 };
    table f, inner;
    mp_table_shm *t = open_table(&f, true);
    open_table(&inner, false);
    mp_table_handle h = handle_of(&inner);
    for (uint64_t i = 0; i < N; i++) {
        char name[20], value[200];
        memset(value, (int)(i % 100), sizeof value);
        snprintf(name, sizeof name, "key %ju", (uintmax_t)i);
        mp_table_value k = i % 3 ? text(name) : word(i);
        mp_table_value v = i % 5 == 0 ? word(i)
                           : i % 5 == 1 ? naming(&h)
                                        : bytes(value, i % 200);
        CHECK_OK(mp_table_set(t, &k, &v, MP_TABLE_ANY));
    }
    mp_table_room room;
    int tries;
    mp_table_copy copy = copy_all(t, &room, &tries);
    CHECK(tries <= 8 + N / 1000);
    CHECK_EQ(mp_object_refs(inner.id), 1 + 2 * N / 5);
    close_table(&f);
    mp_table_value k, v;
    size_t at = 0;
    for (uint64_t i = 0; i < N; i++) {
        char name[20];
        snprintf(name, sizeof name, "key %ju", (uintmax_t)i);
        CHECK(mp_table_next(&copy, &at, &k, &v, NULL));
        if (i % 3)
            CHECK(k.length == strlen(name) &&
                  memcmp(k.data, name, k.length) == 0);
        else
            CHECK(k.data == NULL && k.word == i);
        if (i % 5 == 0)
            CHECK(v.data == NULL && v.word == i);
        else if (i % 5 == 1)
            CHECK(v.length == 8 && memcmp(v.data, &h, 8) == 0);
        else
            CHECK(v.length == i % 200);
    }
    CHECK(!mp_table_next(&copy, &at, &k, &v, NULL));
    CHECK_EQ(mp_object_refs(inner.id), 1 + N / 5);
    mp_free(room.keeper);
    free(room.at);
    CHECK_EQ(mp_object_refs(inner.id), 1);
    close_table(&inner);
}

/* ---- what does not work ------------------------------------------------ */

/* The arena cannot grow from here on. */
static void forbid_growth(bool forbid) {
    struct rlimit limit;
    CHECK_OK(getrlimit(RLIMIT_FSIZE, &limit));
    limit.rlim_cur = forbid ? mp_me->super->size : limit.rlim_max;
    CHECK_OK(setrlimit(RLIMIT_FSIZE, &limit));
}

SPEC("table: without memory it stays as it was") {
    static char large[100000];
    table f, list;
    mp_table_shm *t = open_table(&f, true);
    open_table(&list, false);
    uint64_t n = 0, m = 0;
    int r;
    forbid_growth(true);
    mp_table_value v = bytes(large, sizeof large), k = word(0);
    for (; (r = mp_table_set(t, &k, &v, MP_TABLE_ANY)) == 0; n++)
        k = word(n + 1);
    CHECK_EQ(r, -ENOMEM);
    CHECK_EQ(mp_table_set(t, &v, &k, MP_TABLE_ANY), -ENOMEM);
    v = word(1);
    while ((r = mp_table_insert(list.t, INT64_MAX, &v)) == 0) m++;
    CHECK_EQ(r, -ENOMEM);
    CHECK_EQ(mp_table_insert(list.t, (int64_t)m / 2, &v), -ENOMEM);
    CHECK_EQ(mp_table_reserve(list.t, m + 1000000), -ENOMEM);
    CHECK_EQ(mp_table_length(t), n);
    CHECK_EQ(mp_table_length(list.t), m);
    CHECK_CLEAN();
    forbid_growth(false);
    CHECK_OK(mp_table_insert(list.t, INT64_MAX, &v));
    CHECK_EQ(mp_table_reserve(t, UINT32_MAX), -ENOMEM);
    CHECK_EQ(mp_table_reserve(list.t, UINT64_MAX), -ENOMEM);
    close_table(&f);
    close_table(&list);
}

SPEC("table: with too few hands it stays as it was") {
    table f, list;
    mp_table_shm *t = open_table(&f, true);
    open_table(&list, false);
    mp_ref block[3];
    mp_table_value v = text("some more bytes"), k = word(1);
    CHECK_OK(mp_table_set(t, &k, &v, MP_TABLE_ANY));
    push(list.t, 1);
    for (int i = 0; i < 3; i++) {
        block[i] = mp_alloc(100);
        mp_hand_take(block[i], NULL, 0);
    }
    CHECK_EQ(mp_table_set(t, &k, &v, MP_TABLE_ANY), -EMFILE);
    CHECK_EQ(mp_table_delete(t, &k, MP_TABLE_ANY, NULL), -EMFILE);
    CHECK_EQ(mp_table_set_at(list.t, 0, &v, MP_TABLE_ANY), -EMFILE);
    CHECK_EQ(mp_table_insert(list.t, 0, &v), -EMFILE);
    CHECK_EQ(mp_table_insert(list.t, INT64_MAX, &v), -EMFILE);
    CHECK_EQ(mp_table_delete_at(list.t, 0, MP_TABLE_ANY, NULL), -EMFILE);
    CHECK_EQ(mp_table_clear(t), -EMFILE);
    CHECK_EQ(mp_table_reserve(t, 10), -EMFILE);
    CHECK_EQ(mp_table_permute(list.t, MP_TABLE_ANY, NULL, 0), -EMFILE);
    for (int i = 0; i < 3; i++) {
        mp_hand_drop(i);
        mp_free(block[i]);
    }
    CHECK_STR(words_of(t), "b15");
    CHECK_STR(words_of(list.t), "1");
    close_table(&f);
    close_table(&list);
}
