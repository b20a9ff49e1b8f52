/* Typed cells, and the arrays of them that values are, too. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>

#include "data/array.h"
#include "mem/heap.h"
#include "sync_tools.h"

SPEC_PREPARE {
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_array_open();
}

/* An object and where its block is. */
typedef struct made {
    uint32_t id, gen;
    mp_array_shm *array;
} made;

static made make(int type, uint64_t length, mp_guard guard) {
    made m;
    CHECK_OK(mp_array_create(MP_TYPE_ARRAY, type, length, &guard, &m.id,
                             &m.gen));
    m.array = mp_object_block(m.id);
    return m;
}

static const mp_guard own = {.kind = MP_GUARD_OWN};
static const mp_guard none = {.kind = MP_GUARD_NONE};

static void enter(mp_array_shm *array, mp_array_hold *hold) {
    int r;
    do r = mp_array_enter(array, hold);
    while (r == -EINTR);
    CHECK_EQ(r, 0);
}

/* ---- cells -------------------------------------------------------------- */

SPEC("cell: every type keeps the ends of its range beside its neighbours") {
    for (int type = 1; type < MP_CELL_TYPES; type++) {
        const mp_cell_type *t = &mp_cell_types[type];
        uint64_t cells[3] = {0};
        if (t->kind == MP_CELL_FLOAT) continue;
        CHECK_EQ(mp_cell_find(t->code), type);
        mp_cell_store(type, cells, 0, (uint64_t)t->min);
        mp_cell_store(type, cells, 2, (uint64_t)t->min);
        mp_cell_store(type, cells, 1, (uint64_t)t->max);
        CHECK_EQ(mp_cell_load(type, cells, 0), t->min);
        CHECK_EQ(mp_cell_load(type, cells, 1), t->max);
        CHECK_EQ(mp_cell_load(type, cells, 2), t->min);
    }
    CHECK_EQ(mp_cell_find('x'), 0);
}

SPEC("cell: an integer's sum beyond its range is refused and not stored") {
    for (int type = 1; type < MP_CELL_TYPES; type++) {
        const mp_cell_type *t = &mp_cell_types[type];
        uint64_t cell = 0, sum;
        if (t->kind != MP_CELL_INTEGER) continue;
        mp_cell_store(type, &cell, 0, (uint64_t)t->max - 1);
        CHECK_EQ(mp_cell_add(type, &cell, 0, 1, &sum), 0);
        CHECK_EQ(mp_cell_add(type, &cell, 0, 1, &sum), -ERANGE);
        CHECK_EQ(mp_cell_load(type, &cell, 0), t->max);
        mp_cell_store(type, &cell, 0, (uint64_t)t->min);
        CHECK_EQ(mp_cell_add(type, &cell, 0, (uint64_t)-1, &sum), -ERANGE);
        CHECK_EQ(mp_cell_load(type, &cell, 0), t->min);
    }
}

SPEC("cell: a float of 4 bytes rounds, and refuses what becomes infinite") {
    uint64_t cell = 0, tenth = mp_cell_of_double(0.1);
    mp_cell_store(MP_CELL_f, &cell, 0, tenth);
    CHECK(mp_cell_double(mp_cell_load(MP_CELL_f, &cell, 0)) == (double)0.1f);
    CHECK(mp_cell_equal(MP_CELL_f, tenth,
                        mp_cell_load(MP_CELL_f, &cell, 0)));
    CHECK(!mp_cell_fits(MP_CELL_f, mp_cell_of_double(1e39)));
    CHECK(mp_cell_fits(MP_CELL_f, mp_cell_of_double(INFINITY)));
    CHECK(mp_cell_fits(MP_CELL_f, mp_cell_of_double(NAN)));
}

SPEC("cell: add to a signalling NaN ends, though its bits do not last") {
    uint32_t cell[2] = {0x7fa00000, 0};
    uint64_t sum;
    CHECK_EQ(mp_cell_add(MP_CELL_f, cell, 0, mp_cell_of_double(1), &sum), 0);
    CHECK(isnan(mp_cell_double(sum)));
}

SPEC("cell: exchange needs the old content, as numbers are equal") {
    uint64_t cell = mp_cell_of_double(0.0);
    uint64_t minus = mp_cell_of_double(-0.0), one = mp_cell_of_double(1.0);
    CHECK(!mp_cell_exchange(MP_CELL_d, &cell, 0, one, minus));
    CHECK(mp_cell_exchange(MP_CELL_d, &cell, 0, minus, one));
    CHECK(mp_cell_double(cell) == 1.0);
}

/* ---- arrays ------------------------------------------------------------- */

SPEC("array: memory that was used before is zero in a new one") {
    for (int round = 0; round < 3; round++) {
        made m = make(MP_CELL_q, 1000, none);
        for (uint64_t i = 0; i < 1000; i++)
            CHECK_EQ(mp_cell_load(MP_CELL_q, m.array->cells, i), 0);
        mp_array_fill(m.array, 0, 1000, UINT64_MAX);
        mp_object_detach(m.id);
    }
}

SPEC("array: a part is read and written, and nothing beside it") {
    made m = make(MP_CELL_h, 10, none);
    int16_t in[3] = {1, -2, 3}, out[5];
    mp_array_write(m.array, 4, 3, in);
    mp_array_read(m.array, 3, 5, out);
    CHECK_EQ(out[0], 0);
    CHECK_EQ(out[1], 1);
    CHECK_EQ(out[2], -2);
    CHECK_EQ(out[3], 3);
    CHECK_EQ(out[4], 0);
    mp_object_detach(m.id);
}

SPEC("array: more than there can be memory for is refused") {
    uint32_t id, gen;
    for (int shift = 40; shift < 64; shift++)
        CHECK_EQ(mp_array_create(MP_TYPE_ARRAY, MP_CELL_d,
                                 (uint64_t)1 << shift, &own, &id, &gen),
                 -ENOMEM);
}

SPEC("array: the lock it was given lives as long as it does") {
    uint32_t id, gen, before = mp_object_count();
    CHECK_OK(mp_rlock_create(&id, &gen));
    made m = make(MP_CELL_i, 1, (mp_guard){MP_GUARD_RLOCK, id, gen, 0});
    mp_object_detach(id);
    mp_array_hold hold;
    enter(m.array, &hold);
    CHECK(hold.lock == mp_object_block(id));
    mp_array_leave(&hold);
    mp_object_detach(m.id);
    CHECK_EQ(mp_object_count(), before);
}

SPEC("array: who holds the lock enters freely, and still holds it after") {
    made m = make(MP_CELL_i, 1, own);
    CHECK_EQ(mp_rlock_acquire(&m.array->own, MP_AT_ONCE), 0);
    mp_array_hold hold;
    enter(m.array, &hold);
    mp_array_leave(&hold);
    CHECK(mp_lock_mine(&m.array->own.lock));
    CHECK_EQ(mp_rlock_release(&m.array->own), 0);
    CHECK_EQ(mp_rlock_release(&m.array->own), -EPERM);
    mp_object_detach(m.id);
}

/* ---- processes ---------------------------------------------------------- */

enum { ADDS = 50000 };

static void add_entered(void *of) {
    made *m = of;
    mp_array_hold hold;
    for (int i = 0; i < ADDS; i++) {
        enter(m->array, &hold);
        uint64_t n = mp_cell_load(MP_CELL_q, m->array->cells, 0);
        mp_cell_store(MP_CELL_q, m->array->cells, 0, n + 1);
        mp_array_leave(&hold);
    }
}

static void add_held(void *of) {
    made *m = of;
    for (int i = 0; i < ADDS; i++) {
        int r;
        do r = mp_rlock_acquire(&m->array->own, MP_FOREVER);
        while (r == -EINTR);
        CHECK_EQ(r, 0);
        uint64_t n = mp_cell_load(MP_CELL_q, m->array->cells, 0);
        mp_cell_store(MP_CELL_q, m->array->cells, 0, n + 1);
        CHECK_EQ(mp_rlock_release(&m->array->own), 0);
    }
}

static void add_atomically(void *of) {
    made *m = of;
    uint64_t sum;
    for (int i = 0; i < ADDS; i++)
        CHECK_OK(mp_cell_add(MP_CELL_q, m->array->cells, 0, 1, &sum));
}

SPEC("array: no sum is lost between entering and holding the lock") {
    made m = make(MP_CELL_q, 1, own);
    mp_proc children[] = {start(add_entered, &m), start(add_held, &m),
                          start(add_entered, &m)};
    finish_all(children, 3);
    CHECK_EQ(mp_cell_load(MP_CELL_q, m.array->cells, 0), 3 * ADDS);
    mp_object_detach(m.id);
}

SPEC("array: no atomic sum is lost without a lock") {
    made m = make(MP_CELL_q, 1, none);
    mp_proc children[2];
    start_all(children, 2, add_atomically, &m);
    finish_all(children, 2);
    CHECK_EQ(mp_cell_load(MP_CELL_q, m.array->cells, 0), 2 * ADDS);
    mp_object_detach(m.id);
}

static void hold_and_die(void *of) {
    made *m = of;
    CHECK_EQ(mp_rlock_acquire(&m->array->own, MP_FOREVER), 0);
    raise(SIGKILL);
}

SPEC("array: entering goes on after a holder's death, acquiring is told it") {
    made m = make(MP_CELL_q, 1, own);
    mp_proc child = start(hold_and_die, &m);
    mp_array_hold hold;
    CHECK_EQ(finish(&child), -SIGKILL);
    for (int i = 0; i < 2; i++) {
        enter(m.array, &hold);
        mp_array_leave(&hold);
    }
    CHECK_EQ(mp_rlock_acquire(&m.array->own, MP_FOREVER),
             MP_LOCK_ABANDONED);
    CHECK_EQ(mp_rlock_release(&m.array->own), 0);
    CHECK_EQ(mp_rlock_acquire(&m.array->own, MP_FOREVER), 0);
    CHECK_EQ(mp_rlock_release(&m.array->own), 0);
    mp_object_detach(m.id);
}

static void add_for_ever(void *of) {
    for (;;) add_entered(of);
}

SPEC("array: processes killed while they add leave a number, and the lock") {
    made m = make(MP_CELL_q, 1, own);
    srandom(1);
    for (int round = 0; round < 30; round++) {
        mp_proc child = start(add_for_ever, &m);
        uint64_t from = mp_cell_load(MP_CELL_q, m.array->cells, 0);
        CHECK_SOON(mp_cell_load(MP_CELL_q, m.array->cells, 0) != from);
        for (volatile long i = random() % 5000; i > 0; i--) continue;
        kill_now(&child);
        add_atomically(&m);
        mp_array_hold hold;
        enter(m.array, &hold);
        mp_array_leave(&hold);
    }
    mp_object_detach(m.id);
}
