/* What a child that is no copy of its parent is told: the boot block.

   The parent makes it; the child, a new program that was given the arena's
   descriptor and the block's ref, or a new thread, reads it, claims the slot
   that was reserved for it, and tells by it what became of it. A served child
   (start_server.c) has its slot from the server that forks it.

   Invariant: the block is a shared object (mem/object.h), and who writes to
   it, holds it: the parent, the child, the server while it does so. So a
   parent that is killed leaves no child that writes to what is another's by
   now. The message is the block's: it goes with it, if the child has not
   freed it.
   Safe: the parent's thread that made it; the child. Blocks: never. */
#ifndef MP_PROC_BOOT_H
#define MP_PROC_BOOT_H

#include <stdatomic.h>

#include "proc/start.h"

enum {
    MP_BOOT_NEW,
    MP_BOOT_CLAIMED,
    MP_BOOT_REFUSED,
    MP_BOOT_ENDED,
    MP_BOOT_READY
};

enum { MP_BOOT_PROBLEM = 200 };

/* Fixed by the parent, before the child is started, unless said otherwise. The
   first four stand where they stand in every build: one of another build can
   say that it is.
   magic, layout  of a program that knows the same structures (MP_LAYOUT)
   state     MP_BOOT_*, a futex word. The child: NEW -> CLAIMED or REFUSED; a
             server: CLAIMED -> READY; ENDED by the server, which saw the end
             of its child, after exitcode. Killed before a store: the life
             word, or the kernel, tells the parent. A thread says nothing
             here: it shares more with who started it (start_thread.c)
   problem   valid when REFUSED: why, as text. The child
   message, kind, id, gen, flags  as in mp_start; of a server, the message is
             lent: its owner's, and there until READY
   self_id, self_gen  the block itself, as an object
   index, tag     the slot reserved for the child; of a served child: 0 until
                  its server writes them
   parent    who made the block
   server    the server's tag, of a served child
   pid       of the child process; the child, before CLAIMED
   exitcode  valid when ENDED
   environment  bytes behind this struct (os/environment.h); 0: as it is */
typedef struct mp_boot_shm {
    uint64_t magic;
    uint32_t layout;
    _Atomic uint32_t state;
    char problem[MP_BOOT_PROBLEM];
    mp_ref message;
    uint32_t kind, id, gen, flags;
    uint32_t self_id, self_gen;
    uint32_t index, tag, parent, server;
    _Atomic int32_t pid;
    _Atomic int32_t exitcode;
    uint64_t environment;
} mp_boot_shm;

/* Makes the type known; called before anything else, by each process that
   may meet one: a reaper, too. */
void mp_boot_open(void);

/* Reserves a slot and makes the block. 0, -EAGAIN, -ENOMEM. The message is
   the block's then. */
int mp_boot_make(const mp_start *start, mp_ref *boot);

/* The same for a child that `server` will fork, with an environment of its
   own or (NULL) the server's. */
int mp_boot_make_served(const mp_start *start, const char *environment,
                        size_t size, mp_ref *boot);

/* There is no child any more, or none came to be: gives back the slot, if it
   was not born, the block and what is left of the message. Called by
   mp_proc_wait, when the child has ended, and by who could not start one. */
void mp_boot_free(mp_ref boot);

static inline mp_boot_shm *mp_boot_at(mp_ref boot) { return mp_at(boot); }

/* In a new program: maps the arena behind `fd`, becomes the participant that
   the block at `boot` names, and dies with its parent from now on. Whatever
   the two numbers may be, they do no harm.
   0, and *out is valid as long as this process lives; -EPROTO the arena is
   of another build, or for another libc; -EBADF no arena's descriptor;
   -EINVAL no boot block, or one that was used; -EBUSY this process takes
   part already; -EOWNERDEAD the parent is gone (end, and say nothing);
   -errno. What failed is said in the block as well, where that can be
   done. */
int mp_boot_attach(int fd, mp_ref boot, mp_boot_shm **out);

/* In a child that has a slot, but is no new program: a thread, one that a
   server forked. It holds the block from now on. 0; -EOWNERDEAD the parent is
   gone. */
int mp_boot_hold(mp_boot_shm *boot);
void mp_boot_unhold(mp_boot_shm *boot);

/* Sets the state and tells those who wait for it. The caller holds it. */
void mp_boot_tell(mp_boot_shm *boot, uint32_t state);

/* Tells the parent why this child cannot do its work; it ends then. */
void mp_boot_refuse(mp_boot_shm *boot, const char *problem);

#endif
