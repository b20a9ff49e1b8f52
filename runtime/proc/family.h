/* The children that this thread looks after until its own end, or that of the
   process: those whose start a user asked for (a pool's worker processes are
   its crew's, not family).

   Invariant: the family is the list of the children that this thread started
   by mp_family_start and has not yet seen ended. It is the thread's global
   state, because a process also ends by exit(), where no caller is left to
   hold it; a forked child begins with an empty one. A thread that takes part
   no more (mem/arena.h: mp_close) ends its family first.
   Owns: a relative belongs to the caller, who drops it; one that still runs
   then stays in the list, and is freed at its end.
   Safe: the thread that started it (other processes: -ECHILD). */
#ifndef MP_PROC_FAMILY_H
#define MP_PROC_FAMILY_H

#include <stdbool.h>

#include "proc/start.h"

typedef struct mp_relative {
    mp_proc proc;
    bool daemon;  /* ended, not awaited, at the end of this process */
    bool dropped; /* nobody but the list knows it */
    bool listed;
    const void *owner;
    struct mp_relative *next;
} mp_relative;

/* Starts (see mp_proc_start) a relative, malloc'ed; first it takes note of
   those that have ended. `owner` tells whose it is: an address.
   1 in a forked child, 0 in the parent, -errno. */
int mp_family_start(mp_relative **relative, const void *owner, bool daemon,
                    const mp_start *start);

/* mp_proc_wait; one that ended leaves the list. */
int mp_family_wait(mp_relative *relative, mp_deadline deadline);

/* The caller needs it no more; its pidfd is closed. */
void mp_family_drop(mp_relative *relative);

/* The end of `owner` (NULL: of this thread): its daemons get SIGTERM, and
   SIGKILL if they have not ended a second later (a thread, which cannot be
   killed, is abandoned then); the others are awaited. Blocks until all
   ended. */
void mp_family_end(const void *owner);

/* Ends a forked child: its own children are ended or awaited, stdio is
   flushed, _exit. */
_Noreturn void mp_family_exit(int code);

/* A new child: the parent's children are not its own; and should somebody
   call exit(), it ends by mp_family_exit, after the exit handlers that it
   registered itself and before those of its parent. */
void mp_family_begin_in_child(void);

#endif
