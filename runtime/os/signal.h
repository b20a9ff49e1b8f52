/* Signals as data, for processes that are ours alone (the crew, workers).
   The main process's dispositions are never touched.
   Safe: child after fork. Blocks: never. */
#ifndef MP_OS_SIGNAL_H
#define MP_OS_SIGNAL_H

/* Blocks `signal` and returns a descriptor that is readable when it came;
   -errno. */
int mp_signal_fd(int signal);

/* Back to the default action, unblocked. */
void mp_signal_default(int signal);

/* Ignored from now on. */
void mp_signal_ignore(int signal);

/* Reads away what came. */
void mp_signal_drain(int fd);

#endif
