#include "proc/boot.h"

#include <errno.h>
#include <string.h>

#include "mem/heap.h"
#include "mem/reap.h"
#include "mem/slot.h"

#define BOOT_MAGIC 0x544f4f42504d50ULL /* "PMPBOOT" */

_Static_assert(sizeof(mp_boot_shm) == 256, "no padding by chance");

/* Grows with each change of a structure in shared memory. */
enum { MP_LAYOUT = 4 };

int mp_boot_make(const mp_start *start, mp_ref *out) {
    uint32_t index;
    int r = mp_slot_reserve(&index);
    if (r < 0) return r;
    mp_ref ref = mp_alloc(sizeof(mp_boot_shm));
    if (!ref) {
        mp_slot_release(index);
        return -ENOMEM;
    }
    mp_boot_shm *boot = mp_at(ref);
    memset(boot, 0, sizeof *boot);
    boot->magic = BOOT_MAGIC;
    boot->layout = MP_LAYOUT;
    boot->flags = (uint32_t)start->flags;
    boot->message = start->message;
    boot->kind = start->kind;
    boot->id = start->id;
    boot->gen = start->gen;
    boot->index = index;
    boot->tag = mp_tag_of(index, atomic_load(&mp_slot_at(index)->gen));
    boot->parent = mp_me->tag;
    *out = ref;
    return 0;
}

void mp_boot_free(mp_ref ref) {
    mp_boot_shm *boot = mp_boot_at(ref);
    /* Does nothing for a slot that was claimed: it is reaped by its tag. */
    mp_reap_reserved(boot->tag, true);
    mp_free(boot->message);
    mp_free(ref);
}
