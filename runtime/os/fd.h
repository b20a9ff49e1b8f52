/* Descriptors. Safe: everywhere. Blocks: never. */
#ifndef MP_OS_FD_H
#define MP_OS_FD_H

/* The same open file under a number above the three standard ones, closed on
   exec; `fd` is closed if it was one of them (a process may be started
   without stdin, and this must not become it). `fd` < 0 is -errno already.
   Returns the number, or -errno. */
int mp_fd_above_standard(int fd);

#endif
