#include "os/program.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

extern char **environ;

#ifdef __GLIBC__
#define HAS_CLOSEFROM __GLIBC_PREREQ(2, 34)
#else
#define HAS_CLOSEFROM 0
#endif

#if HAS_CLOSEFROM
static int close_others(posix_spawn_file_actions_t *actions, int from) {
    return posix_spawn_file_actions_addclosefrom_np(actions, from);
}
#else
/* Those that exec would leave open, one by one. */
static int close_others(posix_spawn_file_actions_t *actions, int from) {
    DIR *dir = opendir("/proc/self/fd");
    int r = 0;
    if (!dir) return 0;
    for (struct dirent *e; r == 0 && (e = readdir(dir));) {
        int fd = atoi(e->d_name);
        int flags = fd >= from && fd != dirfd(dir) ? fcntl(fd, F_GETFD) : -1;
        if (flags >= 0 && !(flags & FD_CLOEXEC))
            r = posix_spawn_file_actions_addclose(actions, fd);
    }
    closedir(dir);
    return r;
}
#endif

/* dup2 onto itself makes posix_spawn leave it open. */
static int add_descriptors(posix_spawn_file_actions_t *actions,
                           const mp_program *program, const int *fd) {
    int r = 0;
    if (program->stdin_fd < 0)
        r = posix_spawn_file_actions_addclose(actions, STDIN_FILENO);
    else if (program->stdin_fd != STDIN_FILENO)
        r = posix_spawn_file_actions_adddup2(actions, program->stdin_fd,
                                             STDIN_FILENO);
    for (int i = 0; r == 0 && i < program->n; i++)
        r = posix_spawn_file_actions_adddup2(actions, fd[i],
                                             MP_PROGRAM_FIRST_FD + i);
    return r ? r : close_others(actions, MP_PROGRAM_FIRST_FD + program->n);
}

static int set_signals(posix_spawnattr_t *attributes) {
    static const int kept[] = {SIGHUP, SIGINT, SIGQUIT};
    sigset_t none, most;
    sigemptyset(&none);
    sigfillset(&most);
    for (int i = 0; i < 3; i++) sigdelset(&most, kept[i]);
    posix_spawnattr_setsigmask(attributes, &none);
    posix_spawnattr_setsigdefault(attributes, &most);
    return posix_spawnattr_setflags(
        attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
}

static int start(const mp_program *program, const int *fd, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int r = posix_spawn_file_actions_init(&actions);
    if (r) return -r;
    r = posix_spawnattr_init(&attributes);
    if (r == 0) {
        r = set_signals(&attributes);
        if (r == 0) r = add_descriptors(&actions, program, fd);
        if (r == 0)
            r = posix_spawnp(pid, program->argv[0], &actions, &attributes,
                             (char *const *)(uintptr_t)program->argv,
                             environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return -r;
}

int mp_program_start(const mp_program *program, pid_t *pid) {
    int fd[MP_PROGRAM_MOST_FDS], lifted[MP_PROGRAM_MOST_FDS], r = 0, n = 0;
    int end = MP_PROGRAM_FIRST_FD + program->n;
    for (int i = 0; r == 0 && i < program->n; i++) {
        fd[i] = program->fd[i];
        /* One that stands where another will be is taken out of its way. */
        if (fd[i] >= end || fd[i] == MP_PROGRAM_FIRST_FD + i) continue;
        fd[i] = fcntl(fd[i], F_DUPFD_CLOEXEC, end);
        if (fd[i] < 0) r = -errno;
        else lifted[n++] = fd[i];
    }
    if (r == 0) r = start(program, fd, pid);
    while (n > 0) close(lifted[--n]);
    return r;
}
