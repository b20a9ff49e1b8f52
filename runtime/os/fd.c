#include "os/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int mp_fd_above_standard(int fd) {
    if (fd < 0 || fd > STDERR_FILENO) return fd;
    int other = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int error = errno;
    close(fd);
    return other < 0 ? -error : other;
}
