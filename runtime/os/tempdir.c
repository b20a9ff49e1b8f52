#include "os/tempdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/random.h"

enum { TRIES = 16 };

typedef struct tempdir {
    pid_t maker;
    char path[PATH_MAX];
} tempdir;

static tempdir *_Atomic known; /* once there is one, for good */

/* Under a name that nobody has. */
static int draw(tempdir *d) {
    const char *where = getenv("TMPDIR");
    if (!where || !*where) where = "/tmp";
    d->maker = getpid();
    int r = -EEXIST;
    for (int i = 0; r == -EEXIST && i < TRIES; i++) {
        uint64_t number;
        r = mp_random_bytes(&number, sizeof number);
        if (r < 0) return r;
        int n = snprintf(d->path, sizeof d->path, "%s/mplua-%016" PRIx64,
                         where, number);
        if (n >= (int)sizeof d->path) return -ENAMETOOLONG;
        r = mkdir(d->path, 0700) == 0 ? 0 : -errno;
    }
    return r;
}

/* *made is NULL at first. Another thread may be faster: then it is its. */
static int make(tempdir **made) {
    tempdir *d = malloc(sizeof *d);
    if (!d) return -ENOMEM;
    int r = draw(d);
    if (r == 0 && atomic_compare_exchange_strong(&known, made, d)) {
        *made = d;
        return 0;
    }
    if (r == 0) rmdir(d->path);
    free(d);
    return r;
}

int mp_tempdir(const char **path) {
    tempdir *d = atomic_load(&known);
    int r = d ? 0 : make(&d);
    if (r == 0) *path = d->path;
    return r;
}

static void empty(int fd);

/* Removes what is called `name` in an open directory. */
static void remove_in(int fd, const char *name) {
    if (unlinkat(fd, name, 0) == 0 || (errno != EISDIR && errno != EPERM))
        return;
    int inner = openat(fd, name,
                       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (inner < 0) return;
    empty(inner);
    unlinkat(fd, name, AT_REMOVEDIR);
}

/* Removes what is in the directory; closes fd. */
static void empty(int fd) {
    DIR *d = fdopendir(fd);
    if (!d) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove_in(fd, e->d_name);
    closedir(d);
}

void mp_tempdir_remove(void) {
    tempdir *d = atomic_load(&known);
    if (d && d->maker == getpid()) remove_in(AT_FDCWD, d->path);
}
