/* Programs: a child process that is no copy of this one.

   It begins as shells begin one: signals at their default (but for those that
   nohup and background shells ignore: these stay ignored), none blocked,
   environment and working directory as they are here. Of our descriptors it
   has stdout, stderr, stdin if so told, and those passed; the others are
   closed.
   Safe: threads. Blocks: until the kernel has loaded the program.
   Source: posix_spawn(3), close_range(2). */
#ifndef MP_OS_PROGRAM_H
#define MP_OS_PROGRAM_H

#include <sys/types.h>

enum {
    MP_PROGRAM_FIRST_FD = 3, /* number of the first descriptor passed */
    MP_PROGRAM_MOST_FDS = 4
};

/* argv      the program (looked up in PATH when there is no slash in it) and
             its arguments, ended by NULL
   stdin_fd  becomes its stdin: STDIN_FILENO is ours; -1: it has none
   fd, n     what is passed, under the numbers from MP_PROGRAM_FIRST_FD on;
             at most MP_PROGRAM_MOST_FDS */
typedef struct mp_program {
    const char *const *argv;
    int stdin_fd;
    const int *fd;
    int n;
} mp_program;

/* 0, and *pid; -ENOENT, -EACCES, -ENOEXEC: it is no program; -EAGAIN,
   -ENOMEM, -EMFILE, ... */
int mp_program_start(const mp_program *program, pid_t *pid);

#endif
