#include "os/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "os/fd.h"

enum { PATH = sizeof MP_SHM_DIRECTORY + MP_SHM_NAME };

static void path_of(const char *name, char path[PATH]) {
    snprintf(path, PATH, "%s/%s", MP_SHM_DIRECTORY, name);
}

int mp_shm_name(const char *given, size_t length, char name[MP_SHM_NAME]) {
    while (length > 0 && *given == '/') given++, length--;
    if (length == 0 || memchr(given, 0, length) || memchr(given, '/', length))
        return -EINVAL;
    if (length >= MP_SHM_NAME) return -ENAMETOOLONG;
    memcpy(name, given, length);
    name[length] = 0;
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ? -EINVAL : 0;
}

/* ---- limits --------------------------------------------------------- */

/* Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ, which kills. */
static bool over_limit(uint64_t size) {
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
           limit.rlim_cur != RLIM_INFINITY && size > limit.rlim_cur;
}

/* Memory comes when it is written to; but what can never come is refused. */
static int check_size(uint64_t size) {
    struct statvfs fs;
    if (over_limit(size)) return -EFBIG;
    if (size > INT64_MAX) return -ENOSPC;
    if (statvfs(MP_SHM_DIRECTORY, &fs) < 0) return -errno;
    uint64_t blocks = (uint64_t)fs.f_blocks, each = (uint64_t)fs.f_frsize;
    /* A file system without a bound says 0. */
    return blocks > 0 && size / each >= blocks + 1 ? -ENOSPC : 0;
}

/* ---- files ---------------------------------------------------------- */

static int look(int fd, mp_shm_file *file) {
    struct stat about;
    if (fstat(fd, &about) < 0) return -errno;
    if (!S_ISREG(about.st_mode)) return -EINVAL;
    *file = (mp_shm_file){(uint64_t)about.st_dev, (uint64_t)about.st_ino,
                          (uint64_t)about.st_size};
    return over_limit(file->size) ? -EFBIG : 0;
}

int mp_shm_make(uint64_t size, int *fd, mp_shm_file *file) {
    int r = check_size(size);
    if (r < 0) return r;
    int f = open(MP_SHM_DIRECTORY, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    f = mp_fd_above_standard(f < 0 ? -errno : f);
    if (f < 0) return f;
    /* The mode whatever the umask is. */
    if (fchmod(f, 0600) < 0 || ftruncate(f, (off_t)size) < 0) r = -errno;
    if (r == 0) r = look(f, file);
    if (r < 0) {
        close(f);
        return r;
    }
    *fd = f;
    return 0;
}

int mp_shm_link(int fd, const char *name) {
    char path[PATH], from[32];
    path_of(name, path);
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, from, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0
               ? -errno
               : 0;
}

int mp_shm_open(const char *name, int *fd, mp_shm_file *file) {
    char path[PATH];
    path_of(name, path);
    /* Without O_NONBLOCK a hostile pipe of that name would stop us. */
    int f = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int error = errno;
    if (f < 0 && (error == ELOOP || error == EISDIR || error == ENXIO))
        return -EINVAL;
    f = mp_fd_above_standard(f < 0 ? -error : f);
    if (f < 0) return f;
    int r = look(f, file);
    if (r < 0) {
        close(f);
        return r;
    }
    *fd = f;
    return 0;
}

int mp_shm_unlink(const char *name, uint64_t dev, uint64_t ino) {
    char path[PATH];
    struct stat about;
    path_of(name, path);
    if (lstat(path, &about) < 0) return -errno;
    if ((uint64_t)about.st_dev != dev || (uint64_t)about.st_ino != ino)
        return -ENOENT;
    return unlink(path) < 0 ? -errno : 0;
}

/* ---- bytes ---------------------------------------------------------- */

ssize_t mp_shm_read(int fd, uint64_t offset, void *bytes, size_t n) {
    size_t done = 0;
    while (done < n) {
        ssize_t r = pread(fd, (char *)bytes + done, n - done,
                          (off_t)(offset + done));
        if (r < 0 && errno != EINTR) return -errno;
        if (r == 0) break;
        if (r > 0) done += (size_t)r;
    }
    return (ssize_t)done;
}

/* A write behind the end would make the file grow; one that a stranger cuts
   short just now does. */
ssize_t mp_shm_write(int fd, uint64_t offset, const void *bytes, size_t n) {
    struct stat about;
    size_t done = 0;
    if (fstat(fd, &about) < 0) return -errno;
    uint64_t end = (uint64_t)about.st_size;
    if (offset + n > end) n = offset < end ? (size_t)(end - offset) : 0;
    while (done < n) {
        ssize_t r = pwrite(fd, (const char *)bytes + done, n - done,
                           (off_t)(offset + done));
        if (r < 0 && errno != EINTR) return -errno;
        if (r > 0) done += (size_t)r;
    }
    return (ssize_t)done;
}

int mp_shm_map(int fd, uint64_t size, void **base) {
    while (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size) < 0)
        if (errno != EINTR) return -errno;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return -errno;
    *base = p;
    return 0;
}

void mp_shm_unmap(void *base, uint64_t size) { munmap(base, size); }
