#include "os/random.h"

#include <errno.h>
#include <sys/random.h>

int mp_random_bytes(void *bytes, size_t size) {
    while (getrandom(bytes, size, 0) != (ssize_t)size)
        if (errno != EINTR) return -errno;
    return 0;
}
