#include "data/parcel.h"

#include <errno.h>

#include "mem/check.h"
#include "mem/heap.h"
#include "mem/mutex.h"
#include "mem/object.h"
#include "os/shelf.h"

enum { NEAR = 8 }; /* entries that are moved for one that is dropped */

static uint64_t key_of(uint32_t id, uint32_t gen) {
    return (uint64_t)gen << 32 | id;
}

/* ---- the shelf, under its lock --------------------------------------- */

/* What is being destroyed is not. */
static bool is_wanted(uint64_t key) {
    return mp_object_is_alive((uint32_t)key, (uint32_t)(key >> 32));
}

/* Takes off what a death, or want of numbers, has left. */
static void tidy(void) {
    mp_super_shm *super = mp_me->super;
    if (!atomic_load_explicit(&super->untidy, memory_order_relaxed)) return;
    if (mp_shelf_tidy(mp_me->shelf, is_wanted) == 0)
        atomic_store_explicit(&super->untidy, 0, memory_order_relaxed);
}

static int lock_shelf(void) {
    if (mp_me->shelf[0] < 0) return -EOPNOTSUPP;
    mp_mutex_lock(&mp_me->super->shelf);
    return 0;
}

static void unlock_shelf(void) { mp_mutex_unlock(&mp_me->super->shelf); }

static int put(uint64_t key, int fd) {
    int r = lock_shelf();
    if (r < 0) return r;
    tidy();
    r = mp_shelf_put(mp_me->shelf, key, fd);
    unlock_shelf();
    return r;
}

/* The entry may not be there, or, until somebody tidies up, there twice. */
static void drop(uint64_t key) {
    mp_super_shm *super = mp_me->super;
    if (lock_shelf() < 0) return;
    tidy();
    uint32_t before =
        atomic_exchange_explicit(&super->untidy, 1, memory_order_relaxed);
    /* A death from here on leaves `untidy` behind, and so does a failure. */
    atomic_signal_fence(memory_order_seq_cst);
    int r = mp_shelf_drop(mp_me->shelf, key, NEAR);
    /* Many die at once, the last one first: one walk takes all of them. */
    if (r == -EAGAIN) r = mp_shelf_tidy(mp_me->shelf, is_wanted);
    atomic_signal_fence(memory_order_seq_cst);
    if (!before && (r == 0 || r == -ENOENT))
        atomic_store_explicit(&super->untidy, 0, memory_order_relaxed);
    unlock_shelf();
}

/* ---- parcels --------------------------------------------------------- */

int mp_parcel_create(int fd, uint32_t *id, uint32_t *gen) {
    if (mp_me->shelf[0] < 0) return -EOPNOTSUPP;
    mp_ref block = mp_alloc(sizeof(mp_parcel_shm));
    if (!block) return -ENOMEM;
    mp_parcel_shm *parcel = mp_at(block);
    atomic_store_explicit(&parcel->key, 0, memory_order_relaxed);
    int r = mp_object_create(MP_TYPE_PARCEL, block, id, gen);
    if (r < 0) {
        mp_free(block);
        return r;
    }
    atomic_store_explicit(&parcel->key, key_of(*id, *gen),
                          memory_order_release);
    r = put(key_of(*id, *gen), fd);
    if (r < 0) mp_object_detach(*id);
    return r;
}

int mp_parcel_unpack(uint32_t id) {
    if (mp_object_type(id) != MP_TYPE_PARCEL) return -ENOENT;
    const mp_parcel_shm *parcel = mp_object_block(id);
    uint64_t key = atomic_load_explicit(&parcel->key, memory_order_acquire);
    int r = lock_shelf();
    if (r < 0) return r;
    r = mp_shelf_take(mp_me->shelf, key);
    unlock_shelf();
    return r;
}

int mp_parcel_entries(void) {
    int r = lock_shelf();
    if (r < 0) return r;
    r = mp_shelf_count(mp_me->shelf);
    unlock_shelf();
    return r;
}

/* ---- the type -------------------------------------------------------- */

/* Who was killed before the key stood there had put nothing. */
static void destroy(void *object) {
    mp_parcel_shm *parcel = object;
    uint64_t key = atomic_load_explicit(&parcel->key, memory_order_acquire);
    if (key) drop(key);
}

static void check(mp_check *c, const void *object) {
    const mp_parcel_shm *parcel = object;
    if (!mp_check_size(c, sizeof *parcel)) return;
    uint64_t key = mp_check_u64(c, &parcel->key);
    if (key && (uint32_t)key != mp_check_id(c))
        mp_check_report(c, "its key names object %u, expected %u",
                        (unsigned)(uint32_t)key, (unsigned)mp_check_id(c));
}

void mp_parcel_open(void) {
    static const mp_object_ops ops = {
        .name = "Parcel", .destroy = destroy, .check = check};
    mp_object_declare(MP_TYPE_PARCEL, &ops);
}
