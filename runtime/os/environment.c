#include "os/environment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

/* FNV-1a over the packed form. */
uint64_t mp_environment_hash(void) {
    uint64_t h = 0xcbf29ce484222325U;
    for (char **e = environ; e && *e; e++) {
        const char *at = *e;
        do h = (h ^ (unsigned char)*at) * 0x100000001b3U;
        while (*at++);
    }
    return h;
}

size_t mp_environment_size(void) {
    size_t n = 0;
    for (char **e = environ; e && *e; e++) n += strlen(*e) + 1;
    return n;
}

size_t mp_environment_pack(char *out, size_t room) {
    size_t n = 0;
    for (char **e = environ; e && *e; e++) {
        size_t length = strlen(*e) + 1;
        if (length > room - n) break;
        memcpy(out + n, *e, length);
        n += length;
    }
    return n;
}

int mp_environment_set(const char *packed, size_t size) {
    /* environ will point into it, for as long as the process lives. */
    char *copy = malloc(size + 1);
    if (!copy) return -ENOMEM;
    memcpy(copy, packed, size);
    copy[size] = '\0';
    clearenv();
    for (size_t i = 0; i < size; i += strlen(copy + i) + 1)
        if (i + strlen(copy + i) < size && putenv(copy + i) != 0)
            return -ENOMEM;
    return 0;
}
