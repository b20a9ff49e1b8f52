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

#include <signal.h>

#include "proc/proc.h"

struct mp_boot_shm;

/* What a child is to do. Pointers live for the call only. */
typedef struct mp_start {
    const struct mp_start_method *method; /* NULL: fork */
    int flags;             /* MP_PROC_* */
    uint32_t kind;         /* the upper floor's: what `message` is; but for
                              MP_START_SERVER */
    mp_ref message;        /* OWNED by me, 0 = none; the child frees it, and
                              mp_proc_start when it fails */
    uint32_t id, gen;      /* an object for the child to attach; 0 = none */
    const char *const *argv; /* "spawn" and "forkserver": the program and its
                              arguments, ended by NULL; the words BOOT_FD,
                              BOOT_REF and BOOT_TEXT (where in the file it may
                              write why it cannot take part) are filled in */
    mp_ref preload;        /* "forkserver": message of what a new server is to
                              do before it waits; 0 = nothing. OWNED by me;
                              mp_proc_start frees it */
    char *problem;         /* -EPROTO, -EOWNERDEAD: why it fails, in words;
                              else what the -errno is about, or empty.
                              MP_BOOT_PROBLEM bytes, empty before; NULL:
                              nobody wants to know */
} mp_start;

/* The kind of a server (proc/server.h): its message is what was `preload` of
   the start that needed it. */
#define MP_START_SERVER 0xffffffffU

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

/* Those of a child that a server has forked. */
int mp_start_look_served(mp_proc *proc);
int mp_start_sleep_served(const mp_proc *proc, mp_deadline slice);
int mp_start_signal_served(mp_proc *proc, int signal);

/* The signal mask that children of the calling thread begin with: a thread
   that was started here blocks all signals, the process did not. NULL: its
   own. */
const sigset_t *mp_start_mask(void);
void mp_start_unmask_in_child(void);

/* Joins threads that were waited for: they are gone then. Blocks: for the
   moment that the system takes over it. Safe: in any thread. */
void mp_start_join(void);

/* In a thread that was started here: its participant ends, as by a death, and
   a new one begins: nothing stays of what it held but the boot block. 0;
   -errno: it is to end then. */
int mp_start_anew(void);

/* What a thread does (set by the floor that knows): its exit code; and what
   (or NULL) once it has ended for those who wait for it, taking part no more:
   not in one that is abandoned or left by pthread_exit. */
typedef int (*mp_start_work)(struct mp_boot_shm *boot);
typedef void (*mp_start_after)(void);
void mp_start_thread_does(mp_start_work work, mp_start_after after);

/* Descriptor that is readable when a thread has ended: made now, the
   mp_proc's then. -errno. */
int mp_start_sentinel_thread(mp_proc *proc);
void mp_start_close_thread(mp_proc *proc);

/* It is joined by nobody, and frees what it was started with. False: it has
   ended. */
bool mp_start_abandon_thread(mp_proc *proc);

/* The actions of a thread. */
int mp_start_look_thread(mp_proc *proc);
int mp_start_sleep_thread(const mp_proc *proc, mp_deadline slice);
int mp_start_signal_thread(mp_proc *proc, int signal);

int mp_start_thread(mp_proc *proc, const mp_start *start);

/* Each with the contract of mp_proc_start, but that what `start` names is
   freed by that.
   mp_start_spawn   -ENOENT, -EACCES, -ENOEXEC, ...: there is no such program;
                    -EPROTO: it was the first start of this program, which
                    ran and does not fit (see problem); -EOWNERDEAD with a
                    problem: and was killed.
   mp_start_server  the same of the server's program; -EPROTO also when its
                    preload failed; -EOWNERDEAD also when one server after the
                    other was killed before it answered. */
int mp_start_fork(mp_proc *proc, const mp_start *start);
int mp_start_spawn(mp_proc *proc, const mp_start *start);
int mp_start_server(mp_proc *proc, const mp_start *start);

#endif
