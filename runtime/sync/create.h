/* How each type of this floor begins: as an object whose block is all zero,
   which for every one of them is a valid state.
   Safe: threads, processes. Blocks: never. */
#ifndef MP_SYNC_CREATE_H
#define MP_SYNC_CREATE_H

#include <errno.h>
#include <string.h>

#include "mem/heap.h"
#include "mem/object.h"

/* An object of `size` zeroed bytes that the caller holds. 0 or -ENOMEM. */
static inline int mp_sync_create(int type, size_t size, uint32_t *id,
                                 uint32_t *gen) {
    mp_ref block = mp_alloc(size);
    if (!block) return -ENOMEM;
    memset(mp_at(block), 0, size);
    int r = mp_object_create(type, block, id, gen);
    if (r < 0) mp_free(block);
    return r;
}

#endif
