/* Child processes as the kernel knows them: fork, pidfd, end.

   Invariant: nothing here waits for a child that it was not told about, and
   no signal handler is installed or changed.
   Functions named *_in_child are for the child, right after the fork, and
   call only what is safe there (malloc included: libc sees to it).
   Safe: the process that forked; one thread at a time for one child.
   Returns: 0 or -errno.
   Source: pidfd_open(2), waitid(2), PR_SET_PDEATHSIG(2const), on_exit(3). */
#ifndef MP_OS_CHILD_H
#define MP_OS_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/deadline.h"

/* Exit status of a child that somebody else waited for. */
#define MP_CHILD_UNKNOWN 0x7fffffff

/* Flushes stdio and forks: 1 in the child, 0 in the parent, -errno. */
int mp_child_fork(pid_t *pid);

/* A descriptor that is readable when the child has ended (not one of the
   three standard ones), or -errno: -ENOSYS, -EPERM, -EMFILE, ... */
int mp_child_pidfd(pid_t pid);

/* Takes its exit status (minus the signal that ended it) if it has ended. 0;
   -EAGAIN it runs; when it is gone already, 0 and MP_CHILD_UNKNOWN. */
int mp_child_poll(pid_t pid, int pidfd, int *exitcode);

/* Sleeps until it ends. 0: look again; -ETIMEDOUT; -EINTR: a signal. */
int mp_child_sleep(int pidfd, mp_deadline deadline);

/* Is there no process of this number, or only a zombie? */
bool mp_child_gone(pid_t pid);

/* Sends a signal; 0 also when it has ended. */
int mp_child_signal(pid_t pid, int pidfd, int signal);

/* The kernel sends this process SIGKILL when the thread that forked it ends.
   A parent that has ended before this call goes unnoticed: look after it. */
void mp_child_die_with_parent_in_child(void);

/* No more. */
void mp_child_outlive_parent_in_child(void);

/* stdin becomes /dev/null, and what the parent had read ahead is dropped.
   Without a /dev/null stdin is closed. */
void mp_child_no_stdin_in_child(int null);

/* A descriptor of /dev/null for it, opened ahead since a child that opens it
   pays for the path's lookup; -errno. Owns: the caller. */
int mp_child_open_null(void);

/* exit() in this process calls `end(status)` before any handler that the
   parent had registered, and after those of the child; `end` must not
   return. Where libc cannot tell the status (not glibc), nothing is done. */
void mp_child_end_by_in_child(void (*end)(int status));

#endif
