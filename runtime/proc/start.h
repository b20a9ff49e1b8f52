/* How a child process can begin: one function per start method, all with the
   contract of mp_proc_fork (proc/proc.h), which is the one for "fork".

   A new method is a file start_<name>.c and a row of the table in proc.c.
   Safe: threads, processes. Blocks: never. */
#ifndef MP_PROC_START_H
#define MP_PROC_START_H

#include "proc/proc.h"

typedef struct mp_start_method {
    const char *name;
    int (*start)(mp_proc *proc, int flags);
} mp_start_method;

/* The methods of this build, the default first; ended by a NULL name. */
extern const mp_start_method mp_start_methods[];

/* The child begins as a copy of the parent: 1 in it, 0 in the parent, or
   -errno. Only the calling thread exists in the child. */
int mp_start_fork(mp_proc *proc, int flags);

#endif
