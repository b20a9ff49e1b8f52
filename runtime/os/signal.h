/* Signals as data, for processes that are ours alone (the crew, workers).
   The main process's dispositions are never touched, but by mp_signal_take.
   Safe: child after fork. Blocks: never. */
#ifndef MP_OS_SIGNAL_H
#define MP_OS_SIGNAL_H

#include <signal.h>
#include <stdbool.h>

/* Blocks `signal` and returns a descriptor that is readable when it came;
   -errno. */
int mp_signal_fd(int signal);

/* Back to the default action, unblocked. */
void mp_signal_default(int signal);

/* Has no effect from now on, unlike an ignored one on programs that this
   process starts: they begin with the default action. */
void mp_signal_swallow(int signal);

/* Ignored for a while: *before gets what mp_signal_restore brings back. */
void mp_signal_ignore_meanwhile(int signal, struct sigaction *before);
void mp_signal_restore(int signal, const struct sigaction *before);

/* Lets `signal` wait until mp_signal_release with the same *before, even an
   ignored one: a child that is forked meanwhile takes those that come to it,
   once it has its own action for them. */
void mp_signal_hold(int signal, sigset_t *before);
void mp_signal_release(const sigset_t *before);

/* A handler for this process, which restarts system calls; the calling thread
   gets the signal. False: somebody else has one. */
bool mp_signal_take(int signal, void (*handler)(int));

/* Reads away what came. */
void mp_signal_drain(int fd);

#endif
