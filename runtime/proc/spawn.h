/* New programs as children: what "spawn" and "forkserver" have in common.
   Safe: threads. */
#ifndef MP_PROC_SPAWN_H
#define MP_PROC_SPAWN_H

#include "proc/start.h"

/* Starts the program of start->argv, with the boot block `boot` (proc/boot.h)
   and, under the number MP_SPAWN_SOCKET, with the descriptor `socket` if that
   is not -1. *proc is filled and has the block. 0 or -errno. Blocks: until
   the kernel has loaded the program. */
int mp_spawn(mp_proc *proc, const mp_start *start, mp_ref boot, int socket);

/* Waits until a new program has got so far: MP_BOOT_CLAIMED, or _READY. 0, or
   -EPROTO: it has refused, ended, or not come so far in time; -EOWNERDEAD: it
   was killed (words in start->problem); then it has ended, and all of it is
   gone. */
int mp_spawn_await(mp_proc *proc, const mp_start *start, uint32_t state);

/* Says why a start fails, where somebody wants to know. */
void mp_spawn_problem(const mp_start *start, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* The shelf's ends (os/shelf.h) stand behind the arena. */
enum { MP_SPAWN_ARENA = 3, MP_SPAWN_SHELF, MP_SPAWN_SOCKET = 6 };

#endif
