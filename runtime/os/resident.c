#include "os/resident.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* size resident shared ..., in pages. */
uint64_t mp_resident_bytes(void) {
    char text[200], *at = text;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = '\0';
    strtoull(at, &at, 10);
    uint64_t resident = strtoull(at, &at, 10);
    uint64_t shared = strtoull(at, &at, 10);
    return resident > shared
               ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE)
               : 0;
}
