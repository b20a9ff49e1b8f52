#include "os/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "os/fd.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

int mp_child_fork(pid_t *pid) {
    /* What stands in a buffer now would be written twice. */
    fflush(NULL);
    *pid = fork();
    if (*pid < 0) return -errno;
    return *pid == 0;
}

int mp_child_pidfd(pid_t pid) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    return mp_fd_above_standard(fd < 0 ? -errno : fd);
}

static int wait_at_once(pid_t pid, int pidfd, siginfo_t *info) {
    int r = -1;
    errno = EINVAL;
    if (pidfd >= 0)
        r = waitid((idtype_t)P_PIDFD, (id_t)pidfd, info, WEXITED | WNOHANG);
    if (r < 0 && errno == EINVAL) /* no pidfd, or a kernel before 5.4 */
        r = waitid(P_PID, (id_t)pid, info, WEXITED | WNOHANG);
    return r < 0 ? -errno : 0;
}

int mp_child_poll(pid_t pid, int pidfd, int *exitcode) {
    siginfo_t info = {0};
    int r = wait_at_once(pid, pidfd, &info);
    if (r == -ECHILD) {
        *exitcode = MP_CHILD_UNKNOWN;
        return 0;
    }
    if (r < 0) return r;
    if (info.si_pid == 0) return -EAGAIN;
    *exitcode =
        info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    return 0;
}

int mp_child_sleep(int pidfd, mp_deadline deadline) {
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int64_t left = mp_deadline_left_ns(deadline);
    struct timespec t = {.tv_sec = (time_t)(left / 1000000000),
                         .tv_nsec = (long)(left % 1000000000)};
    int n = ppoll(&p, 1, left == INT64_MAX ? NULL : &t, NULL);
    if (n < 0) return -errno;
    return n == 0 ? -ETIMEDOUT : 0;
}

bool mp_child_gone(pid_t pid) {
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f) return kill(pid, 0) < 0 && errno == ESRCH;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    /* «pid (name) state ...»; the name may hold anything. */
    const char *end = strrchr(text, ')');
    return end && end[1] == ' ' && (end[2] == 'Z' || end[2] == 'X');
}

int mp_child_signal(pid_t pid, int pidfd, int signal) {
    long r = -1;
    errno = ENOSYS;
    if (pidfd >= 0)
        r = syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
    if (r < 0 && (errno == ENOSYS || errno == EPERM)) r = kill(pid, signal);
    return r < 0 && errno != ESRCH ? -errno : 0;
}

void mp_child_die_with_parent_in_child(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
}

void mp_child_outlive_parent_in_child(void) {
    prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
}

/* May there be bytes or an end of file in stdin's buffer? */
static bool stdin_used(void) {
#ifdef __GLIBC__
    return stdin->_IO_buf_base != NULL;
#else
    return true;
#endif
}

int mp_child_open_null(void) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return mp_fd_above_standard(fd < 0 ? -errno : fd);
}

void mp_child_no_stdin_in_child(int null) {
    /* Most have nothing there: a look is cheaper than a page to write. */
    if (stdin_used()) {
        __fpurge(stdin);
        clearerr(stdin);
    }
    if (dup2(null, STDIN_FILENO) < 0) close(STDIN_FILENO);
}

#ifdef __GLIBC__
static void call_end(int status, void *end) {
    ((void (*)(int))(uintptr_t)end)(status);
}
#endif

void mp_child_end_by_in_child(void (*end)(int status)) {
#ifdef __GLIBC__
    on_exit(call_end, (void *)(uintptr_t)end);
#else
    (void)end;
#endif
}
