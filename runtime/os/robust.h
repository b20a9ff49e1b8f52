/* A word that the kernel marks when the thread that registered it ends, by
   whatever way: exit, SIGKILL, exec; or that the thread marks itself.

   The kernel's robust list is per thread and belongs to libc; we splice one
   node into it and leave the rest alone. The node lies in shared memory
   that is mapped for the thread's whole life.
   Safe: the calling thread only; a forked child starts with an empty list
   and registers again. Source: set_robust_list(2), kernel/futex. */
#ifndef MP_OS_ROBUST_H
#define MP_OS_ROBUST_H

#include <stdatomic.h>
#include <stdint.h>

/* What one registration needs in shared memory: 64 zeroed bytes, aligned
   to 64. The word's place in them depends on libc's list offset, which is
   the same in every process of a family. */
typedef struct mp_robust_shm {
    unsigned char bytes[64];
} mp_robust_shm;

/* Returns the offset of the life word in a mp_robust_shm, or -ENOTSUP when
   the libc's list has a form we do not know. */
int mp_robust_offset(void);

/* Registers (`offset`: what mp_robust_offset said): the word becomes this
   thread's mark, and the kernel replaces it (MP_ROBUST_DEAD set) and wakes
   one sleeper when the thread ends. */
int mp_robust_register(mp_robust_shm *shm, int offset);

/* What the kernel does at the thread's end, done by the thread that
   registered: the word is marked, its sleepers are woken, and the node is out
   of the list. Killed in the middle, the kernel does it. The memory may be
   another's from the mark on. */
void mp_robust_end(mp_robust_shm *shm, int offset);

#define MP_ROBUST_DEAD 0x40000000U /* FUTEX_OWNER_DIED */

#endif
