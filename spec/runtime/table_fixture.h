/* What the specs of the table share: tables, keys and values. */
#ifndef MP_SPEC_TABLE_FIXTURE_H
#define MP_SPEC_TABLE_FIXTURE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/table.h"
#include "harness.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "proc/proc.h"

enum { TAG = 7, BYTES_TAG = 9 };

typedef struct table {
    uint32_t id, gen;
    mp_table_shm *t;
} table;

static inline mp_table_shm *open_table(table *f, bool indexed) {
    CHECK_OK(mp_table_create(3, indexed, &f->id, &f->gen));
    f->t = mp_object_block(f->id);
    return f->t;
}

static inline void close_table(const table *f) { mp_object_detach(f->id); }

/* For SPEC_PREPARE: the first object brings the object table with it. */
static inline void prepare_tables(void) {
    table f;
    CHECK_OK(mp_open());
    mp_table_declare();
    open_table(&f, true);
    close_table(&f);
}

static inline mp_table_value word(uint64_t w) {
    return (mp_table_value){.tag = TAG, .word = w};
}

static inline mp_table_value bytes(const void *data, size_t length) {
    return (mp_table_value){.tag = BYTES_TAG, .data = data, .length = length};
}

static inline mp_table_value text(const char *s) {
    return bytes(s, strlen(s));
}

/* "x" that names an object. */
static inline mp_table_value naming(const mp_table_handle *h) {
    mp_table_value v = bytes(h, sizeof *h);
    v.handles = h;
    v.n_handles = 1;
    return v;
}

/* ---- with words ------------------------------------------------------ */

static inline int set_word(mp_table_shm *t, uint64_t key, uint64_t value) {
    mp_table_value k = word(key), v = word(value);
    return mp_table_set(t, &k, &v, MP_TABLE_ANY);
}

/* UINT64_MAX: it is not there. */
static inline uint64_t get_word(mp_table_shm *t, uint64_t key) {
    mp_table_value k = word(key), v;
    int r = mp_table_get(t, &k, NULL, &v, NULL);
    if (r == -ENOENT) return UINT64_MAX;
    CHECK_OK(r);
    CHECK_EQ(v.tag, TAG);
    return v.word;
}

static inline uint64_t word_at(mp_table_shm *t, int64_t position) {
    mp_table_value v;
    int r = mp_table_get_at(t, position, NULL, &v, NULL);
    if (r == -ERANGE) return UINT64_MAX;
    CHECK_OK(r);
    CHECK_EQ(v.tag, TAG);
    return v.word;
}

static inline void push(mp_table_shm *t, uint64_t value) {
    mp_table_value v = word(value);
    CHECK_OK(mp_table_insert(t, INT64_MAX, &v));
}

static inline void push_to(mp_table_shm *t, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) push(t, i);
}

static inline int delete_word(mp_table_shm *t, uint64_t key) {
    mp_table_value k = word(key);
    return mp_table_delete(t, &k, MP_TABLE_ANY, NULL);
}

/* ---- all of it ------------------------------------------------------- */

enum { SNAPSHOT = 1 << 20 };

/* A snapshot that is valid until the next one. */
static inline mp_table_copy snapshot(mp_table_shm *t) {
    static _Alignas(8) unsigned char buffer[SNAPSHOT];
    mp_table_room room = {.at = buffer, .size = sizeof buffer,
                          .keeper = mp_table_keeper(100)};
    mp_table_copy copy;
    CHECK_OK(mp_table_copy_all(t, &room, &copy));
    mp_free(room.keeper);
    CHECK_EQ(copy.entries, mp_table_length(t));
    return copy;
}

/* The words of its values: "1 2 3". */
static inline const char *words_of(mp_table_shm *t) {
    static char line[4000];
    mp_table_copy copy = snapshot(t);
    mp_table_value key, v;
    size_t at = 0, used = 0;
    line[0] = 0;
    while (mp_table_next(&copy, &at, &key, &v, NULL))
        used += (size_t)snprintf(line + used, sizeof line - used, "%s%s%ju",
                                 used ? " " : "", v.data ? "b" : "",
                                 (uintmax_t)(v.data ? v.length : v.word));
    return line;
}

#endif
