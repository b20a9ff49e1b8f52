/* What a terminal is like. Safe: threads. Blocks: never. */
#ifndef MP_OS_TERMINAL_H
#define MP_OS_TERMINAL_H

/* Columns of the terminal behind a descriptor, 80 where it does not say;
   -ENOTTY: it is none; -EBADF. */
int mp_terminal_width(int fd);

#endif
