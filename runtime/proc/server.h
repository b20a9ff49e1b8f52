/* The server of the method "forkserver": a process that has one thread, made
   by "spawn" when it is first needed, which forks when its owner asks. So the
   children begin with what it has loaded, and without a trace of the owner's
   other threads and their locks.

   Invariant: a server has one owner, the process that started it, which
   alone holds the other end of its socket; a forked child of the owner lets
   go of it. The server ends when its owner ends, whichever way, and the
   children that it has forked when it ends. It is process-local, global
   state of its owner, like the family; all threads share it.
   Of the owner's process a child has: the boot block, working directory,
   environment, stdout and stderr, as they are when it starts. All else
   (limits, umask, processors) is as it was when the server was started.

   Safe: threads. Blocks: while a server starts, and for the server's work; one
   that is stopped (SIGSTOP) is waited for. */
#ifndef MP_PROC_SERVER_H
#define MP_PROC_SERVER_H

#include "proc/boot.h"

/* The server's side, when it has done what `server`'s message says: tells the
   owner that it is ready, and forks what is asked for. Returns in each forked
   child, a participant of its own then: 0, and *child is what it is told; or
   -errno: it cannot do it (end, and say nothing). The server itself does not
   return: it ends, by _exit, with its owner. `server` is not to be used any
   more. */
int mp_server_run(mp_boot_shm *server, mp_boot_shm **child);

/* The owner's side. `owner` (of mp_family_start) ends: so does the server, if
   nobody else uses it, and is waited for. NULL: this thread ends, with all its
   owners; if it is the main one, the process does, and the server. */
void mp_server_end(const void *owner);

/* `owner` uses the server. */
void mp_server_used_by(const void *owner);

/* A forked child lets go of its parent's server. */
void mp_server_forget_in_child(void);

#endif
