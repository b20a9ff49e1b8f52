/* The children of this process: how they start, end, and are told. A child is
   a process or a thread; proc/start.h has the methods.

   Invariant: a child is a participant of its own (mem/slot.h); nothing of it
   survives its end: who waits for it reaps its slot, whichever way it ended.
   A child never returns into the caller's frames: a forked one ends by
   mp_proc_exit, others by returning from their entry.
   A child process is killed by the kernel when its parent ends for any
   reason: to be exact, when the thread that started it ends. A host starts
   children from a thread that lives as long as they should.
   Safe: the process that forked it (others: -ECHILD); one thread at a time.
   No signal handler is installed, and no other child is waited for: a host
   that reaps ours leaves us with exit status unknown (MP_PROC_UNKNOWN). */
#ifndef MP_PROC_PROC_H
#define MP_PROC_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/deadline.h"
#include "mem/arena.h"

#define MP_PROC_UNKNOWN 0x7fffffff

struct mp_start;
struct mp_start_method;

/* Private to the parent. */
typedef struct mp_proc {
    const struct mp_start_method *method;
    pid_t pid;      /* a thread's: that of its process */
    pid_t parent;   /* who may wait for it */
    int pidfd;      /* readable when it ends; -1 where there is none */
    uint32_t tag;   /* its participant */
    mp_ref boot;    /* what it was told (proc/boot.h); a copy: 0 */
    void *thread;   /* a thread's handle; a process: NULL */
    bool ended;
    int exitcode;   /* once ended: exit status, or -signal */
} mp_proc;

enum {
    MP_PROC_KEEP_STDIN = 1 /* else the child's stdin is /dev/null */
};

/* Starts a child as `start` says (proc/start.h; NULL: by a plain fork): 0 in
   the parent, and *proc is filled, or -errno; by "fork", 1 in the child. */
int mp_proc_start(mp_proc *proc, const struct mp_start *start);

/* Forks: 1 in the child, 0 in the parent (and *proc is filled), or -errno.
   stdio is flushed before. In the child: a participant of its own, stdin as
   said, stdout and stderr as inherited, killed when the parent ends. */
int mp_proc_fork(mp_proc *proc, int flags);

/* Waits for its end, takes the exit status and reaps its slot. 0 ended;
   -ETIMEDOUT; -EINTR (as sync/wait.h has it); -ECHILD in another process. */
int mp_proc_wait(mp_proc *proc, mp_deadline deadline);

/* Waits for the end of any participant, by its life word: a parent, say.
   0 ended; -ETIMEDOUT; -EINTR. Safe: every process. */
int mp_proc_wait_peer(uint32_t tag, mp_deadline deadline);

/* Sends a signal; 0 also when it has ended. */
int mp_proc_signal(mp_proc *proc, int signal);

/* A descriptor, the mp_proc's, that is readable when the child has ended;
   -errno: -ESRCH it has, and there was none; -ECHILD in another process. */
int mp_proc_sentinel(mp_proc *proc);

/* Nobody will ever wait for it: a thread that does not heed that it is asked
   to end. It looks after itself from now on; *proc has ended, as far as this
   thread is concerned. False: it is no thread that runs. */
bool mp_proc_abandon(mp_proc *proc);

/* Gives back what the parent keeps of it; the child goes on if it still
   runs. */
void mp_proc_close(mp_proc *proc);

/* In a forked child, which holds what its parent held: lets go of what the
   parent has told one of its own children. */
void mp_proc_forget_in_child(mp_proc *proc);

/* Ends the calling process: flushes stdio, runs no exit handler. */
_Noreturn void mp_proc_exit(int code);

#endif
