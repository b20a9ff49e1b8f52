/* A lock that is only entered is acquired by its word alone: an RLock's
   count is for who holds it as a user, and is set anew by the next such.
   So Lock and RLock are the same here.

   A death while entered leaves the cells as whole as any other time. Its
   mark (MP_LOCK_LEFT) stays until somebody acquires the lock as a user; to
   enter meanwhile costs one more look. */
#include "data/array.h"

#include "mem/check.h"
#include "mem/heap.h"
#include "os/cpu.h"
#include "os/futex.h"

/* Looks at a taken lock before sleeping is thought of: its holder has just
   entered, as a rule. The pauses between them are as long as some entries,
   since each look costs the holder the line. */
enum { LOOKS = 64, PAUSES = 8 };

static uint32_t load(const mp_lock_shm *lock) {
    return atomic_load_explicit(&lock->word, memory_order_relaxed);
}

static bool spin(mp_lock_shm *lock) {
    for (int i = 0; i < LOOKS; i++) {
        for (int j = 0; j < PAUSES; j++) mp_cpu_relax();
        if (load(lock) == 0 && mp_lock_try(lock)) return true;
    }
    return false;
}

int mp_array_enter_slow(mp_array_hold *hold) {
    if (mp_lock_mine(hold->lock)) {
        hold->lock = NULL;
        return 0;
    }
    int r = -ETIMEDOUT;
    if (load(hold->lock) & MP_LOCK_LEFT)
        r = mp_lock_acquire_slow(hold->lock, MP_AT_ONCE);
    else if (mp_cpu_several() && spin(hold->lock))
        r = 0;
    if (r == -ETIMEDOUT) r = mp_lock_acquire(hold->lock, MP_FOREVER);
    if (r == MP_LOCK_ABANDONED) hold->found = MP_LOCK_LEFT;
    return r < 0 ? r : 0;
}

/* ---- cells in bulk -------------------------------------------------- */

/* From one place to another, each cell by one load and one store. */
#define COPY(bits, to, from, n)                                              \
    for (uint64_t i = 0; i < (n); i++)                                       \
    MP_CELL_WRITE(bits, to, i, MP_CELL_READ(bits, from, i))

static void copy(size_t size, void *to, void *from, uint64_t n) {
    switch (size) {
    case 1: COPY(8, to, from, n); break;
    case 2: COPY(16, to, from, n); break;
    case 4: COPY(32, to, from, n); break;
    default: COPY(64, to, from, n);
    }
}

void mp_array_read(mp_array_shm *array, uint64_t first, uint64_t n,
                   void *buffer) {
    size_t size = mp_cell_types[array->type].size;
    copy(size, buffer, array->cells + first * size, n);
}

void mp_array_write(mp_array_shm *array, uint64_t first, uint64_t n,
                    const void *buffer) {
    size_t size = mp_cell_types[array->type].size;
    copy(size, array->cells + first * size, (void *)(uintptr_t)buffer, n);
}

void mp_array_fill(mp_array_shm *array, uint64_t first, uint64_t n,
                   uint64_t word) {
    for (uint64_t i = first; i < first + n; i++)
        mp_cell_store(array->type, array->cells, i, word);
}

/* ---- objects -------------------------------------------------------- */

static void destroy(void *object) {
    mp_array_shm *array = object;
    mp_object_unhold(&array->lock_id);
}

static void on_death(void *object, uint32_t dead_tag) {
    mp_array_shm *array = object;
    if (array->guard == MP_GUARD_OWN)
        mp_lock_bury(&array->own.lock, dead_tag);
}

/* ---- checking ------------------------------------------------------- */

static void check_guard(mp_check *c, const mp_array_shm *array) {
    uint32_t id = mp_check_u32(c, &array->lock_id);
    uint64_t at, size;
    if (array->guard == MP_GUARD_OWN) mp_rlock_check(c, &array->own);
    if (array->guard > MP_GUARD_RLOCK)
        mp_check_report(c, "its guard is %d, expected at most %d",
                        array->guard, MP_GUARD_RLOCK);
    else if ((array->guard >= MP_GUARD_LOCK) != (id != 0))
        mp_check_report(c, "its lock is object %u, expected %s", id,
                        id ? "none" : "one");
    if (id && mp_check_hold(c, id, "lock", &at, &size) &&
        (array->lock_aux % 4 != 0 ||
         (uint64_t)array->lock_aux + sizeof(mp_lock_shm) > size))
        mp_check_report(c, "its lock is at %u, expected within the %ju bytes "
                           "of object %u", array->lock_aux, (uintmax_t)size,
                        id);
}

static bool check_cells(mp_check *c, const mp_array_shm *array) {
    if (!mp_check_size(c, sizeof *array)) return false;
    uint8_t type = *(const volatile uint8_t *)&array->type;
    if (type == 0 || type >= MP_CELL_TYPES) {
        mp_check_report(c, "its cells are of type %d, expected 1 to %d", type,
                        MP_CELL_TYPES - 1);
        return false;
    }
    size_t size = mp_cell_types[type].size;
    uint64_t length = mp_check_u64(c, &array->length);
    if (length <= (UINT64_MAX - sizeof *array) / size)
        return mp_check_size(c, sizeof *array + length * size);
    mp_check_report(c, "its length is %ju", (uintmax_t)length);
    return false;
}

static void check_array(mp_check *c, const void *object) {
    if (check_cells(c, object)) check_guard(c, object);
}

static void check_value(mp_check *c, const void *object) {
    const mp_array_shm *array = object;
    check_array(c, object);
    if (array->length != 1)
        mp_check_report(c, "its length is %ju, expected 1",
                        (uintmax_t)array->length);
}

/* ---- the types ------------------------------------------------------ */

static const mp_object_ops value_ops = {.name = "Value",
                                        .destroy = destroy,
                                        .on_death = on_death,
                                        .check = check_value};
static const mp_object_ops array_ops = {.name = "Array",
                                        .destroy = destroy,
                                        .on_death = on_death,
                                        .check = check_array};

void mp_array_open(void) {
    mp_object_declare(MP_TYPE_VALUE, &value_ops);
    mp_object_declare(MP_TYPE_ARRAY, &array_ops);
}

mp_guard mp_array_guard(const mp_array_shm *array) {
    mp_guard guard = {.kind = array->guard, .aux = array->lock_aux};
    guard.id = atomic_load_explicit(&array->lock_id, memory_order_relaxed);
    if (guard.id) guard.gen = mp_object_gen(guard.id);
    return guard;
}

int mp_array_create(int object_type, int cell_type, uint64_t length,
                    const mp_guard *guard, uint32_t *id, uint32_t *gen) {
    size_t size = mp_cell_types[cell_type].size;
    if (length > mp_me->super->reserved / size) return -ENOMEM;
    mp_ref block = mp_alloc(sizeof(mp_array_shm) + length * size);
    if (!block) return -ENOMEM;
    mp_array_shm *array = mp_at(block);
    memset(array, 0, sizeof *array + length * size);
    array->type = (uint8_t)cell_type;
    array->guard = (uint8_t)guard->kind;
    array->lock_aux = guard->aux;
    array->length = length;
    int r = mp_object_create(object_type, block, id, gen);
    if (r < 0) {
        mp_free(block);
        return r;
    }
    if (guard->id)
        r = mp_object_hold(guard->id, guard->gen, &array->lock_id);
    if (r < 0) mp_object_detach(*id);
    return r;
}
