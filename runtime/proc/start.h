/* The start methods: a table, name -> small actions.

   "fork"        the child is a copy of the caller, who returns twice.
   "spawn"       a new program, which finds the arena by its descriptor.
   "forkserver"  a copy of a spawned process that has one thread and waits for
                 orders; its children are its own, so it also tells their end.
   "thread"      a thread of this process.
   All but a copy are told by a boot block (proc/boot.h) what to do.

   A new method is a file start_<name>.c and a row of the table in proc.c.
   Safe: threads, processes. Blocks: never, but for the kernel's own work and
   the first start of a server or of a program (see start_spawn.c). */
#ifndef MP_PROC_START_H
#define MP_PROC_START_H

#include "proc/proc.h"

/* What a child is to do. Pointers live for the call only. */
typedef struct mp_start {
    const struct mp_start_method *method; /* NULL: fork */
    int flags;             /* MP_PROC_* */
    uint32_t kind;         /* the upper floor's: what `message` is */
    mp_ref message;        /* OWNED by me, 0 = none; the child frees it, and
                              mp_proc_start when it fails */
    uint32_t id, gen;      /* an object for the child to attach; 0 = none */
    const char *const *argv; /* "spawn" and "forkserver": the program and its
                              arguments, ended by NULL; the words BOOT_FD and
                              BOOT_REF in them are filled in */
    mp_ref preload;        /* "forkserver": message of what a new server is to
                              do before it waits; 0 = nothing */
} mp_start;

typedef struct mp_start_method {
    const char *name;
    int (*start)(mp_proc *proc, const mp_start *start);
    /* 0 it has ended, exitcode is set; -EAGAIN; -errno. */
    int (*look)(mp_proc *proc);
    /* Until it may have ended: 0, -ETIMEDOUT, -EINTR. */
    int (*sleep)(const mp_proc *proc, mp_deadline slice);
    int (*signal)(mp_proc *proc, int signal);
} mp_start_method;

/* The methods of this build, "fork" first; ended by a NULL name. */
extern const mp_start_method mp_start_methods[];

/* The method of this name, or NULL. */
const mp_start_method *mp_start_method_named(const char *name);

/* How many threads this process has; 1 is told without a system call where
   libc knows. */
unsigned mp_start_threads(void);

/* The actions of a child of the kernel's: "fork", "spawn". */
int mp_start_look_child(mp_proc *proc);
int mp_start_sleep_child(const mp_proc *proc, mp_deadline slice);
int mp_start_signal_child(mp_proc *proc, int signal);

/* Each with the contract of mp_proc_start. */
int mp_start_fork(mp_proc *proc, const mp_start *start);

#endif
