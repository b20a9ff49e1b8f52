/* What a child that is no copy of its parent is told: the boot block.

   The parent makes it, with a slot reserved for the child; the child, a new
   program that was given the arena's descriptor and the block's ref, or a new
   thread, reads it, claims the slot, and tells by it what became of it. It is
   the parent's block (OWNED) until the end of the child: who dies, the parent
   or the child, takes nothing of it along but what is freed with the parent.

   Safe: the parent; the child. Blocks: never. */
#ifndef MP_PROC_BOOT_H
#define MP_PROC_BOOT_H

#include <stdatomic.h>

#include "proc/start.h"

enum { MP_BOOT_NEW, MP_BOOT_CLAIMED, MP_BOOT_REFUSED, MP_BOOT_ENDED };

/* Fixed by the parent but for the last three.
   magic, layout  of a program that knows the same structures (MP_LAYOUT)
   message, kind, id, gen, flags  as in mp_start
   index, tag     the slot reserved for the child; parent: who reserved it
   state     MP_BOOT_*, a futex word. The child: NEW -> CLAIMED or REFUSED;
             ENDED by who saw its end (the child itself, a thread; the server)
             after exitcode. Killed before a store: the life word, or the
             kernel, tells the parent
   exitcode  valid when ENDED
   problem   valid when REFUSED: why, as text */
typedef struct mp_boot_shm {
    uint64_t magic;
    uint32_t layout, flags;
    mp_ref message;
    uint32_t kind, id, gen;
    uint32_t index, tag, parent;
    _Atomic uint32_t state;
    _Atomic int32_t exitcode;
    char problem[200];
} mp_boot_shm;

/* Reserves a slot and makes the block. 0, -EAGAIN, -ENOMEM. */
int mp_boot_make(const mp_start *start, mp_ref *boot);

/* Gives back the slot, if the child was never born, the block and what is
   left of the message. */
void mp_boot_free(mp_ref boot);

static inline mp_boot_shm *mp_boot_at(mp_ref boot) { return mp_at(boot); }

/* In a new program: maps the arena behind `fd`, becomes the participant that
   the block at `boot` names, and dies with its parent from now on.
   0, and *out is valid as long as this process lives; -EPROTO the arena is
   of another build; -EOWNERDEAD the parent is gone; -errno. What failed is
   said in the block as well, where that can be done. */
int mp_boot_attach(int fd, mp_ref boot, mp_boot_shm **out);

/* Tells the parent why this child cannot do its work; it ends then. */
void mp_boot_refuse(mp_boot_shm *boot, const char *problem);

#endif
