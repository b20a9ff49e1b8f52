#include "os/memfd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "os/child.h"
#include "os/fd.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static int open_memfd(void) {
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = memfd_create("mplua", flags | MFD_NOEXEC_SEAL);
    /* Kernels before 6.3 do not know the flag. */
    if (fd < 0 && errno == EINVAL) fd = memfd_create("mplua", flags);
    return mp_fd_above_standard(fd < 0 ? -errno : fd);
}

static int reserve(int fd, size_t most, size_t least, unsigned char **base,
                   size_t *reserved) {
    for (size_t size = most; size >= least; size /= 4) {
        void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (p != MAP_FAILED) {
            *base = p;
            *reserved = size;
            return 0;
        }
        /* EINVAL is what emulators say of more than they have. */
        if (errno != ENOMEM && errno != EOVERFLOW && errno != EINVAL)
            return -errno;
    }
    return -ENOMEM;
}

int mp_memfd_create(size_t most, size_t least, int *fd, unsigned char **base,
                    size_t *reserved) {
    int f = open_memfd();
    if (f < 0) return f;
    int r = reserve(f, most, least, base, reserved);
    if (r < 0) {
        close(f);
        return r;
    }
    /* A reservation of terabytes must not appear in core files. */
    madvise(*base, *reserved, MADV_DONTDUMP);
    /* A stranger's ftruncate must not turn our reads into SIGBUS. */
    fcntl(f, F_ADD_SEALS, F_SEAL_SHRINK);
    *fd = f;
    return 0;
}

int mp_memfd_check(int fd, size_t least, size_t *size) {
    /* No other file has seals. */
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK)) return -EBADF;
    int r = mp_memfd_size(fd, size);
    if (r < 0) return r;
    return *size < least ? -EBADF : 0;
}

int mp_memfd_map(int fd, size_t size, unsigned char **base) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_NORESERVE, fd, 0);
    /* One that may only be read is not ours. */
    if (p == MAP_FAILED) return errno == EACCES ? -EBADF : -errno;
    madvise(p, size, MADV_DONTDUMP);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    *base = p;
    return 0;
}

/* Beyond RLIMIT_FSIZE the kernel sends SIGXFSZ, which kills. */
static int check_file_limit(size_t end) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY && end > limit.rlim_cur)
        return -EFBIG;
    return 0;
}

int mp_memfd_grow(int fd, size_t size) {
    int r = check_file_limit(size);
    if (r < 0) return r;
    while (ftruncate(fd, (off_t)size) < 0)
        if (errno != EINTR) return -errno;
    return 0;
}

int mp_memfd_size(int fd, size_t *size) {
    struct stat about;
    if (fstat(fd, &about) < 0) return -errno;
    *size = (size_t)about.st_size;
    return 0;
}

/* The number in a line of /proc/meminfo, in bytes; 0 when it is not there. */
static size_t meminfo(const char *text, const char *name) {
    const char *line = strstr(text, name);
    return line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

/* A file of pages is given more of them than there are, and then the kernel
   kills processes to find them. So what is asked for at once and is large is
   compared with what there is; where that cannot be read, it is not. */
static int check_memory(size_t size) {
    enum { LARGE = 64 << 20 };
    char text[4096];
    if (size < LARGE) return 0;
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    size_t available = meminfo(text, "MemAvailable:");
    return available && size > available + meminfo(text, "SwapFree:")
               ? -ENOMEM
               : 0;
}

int mp_memfd_back(int fd, size_t offset, size_t size) {
    int r = check_file_limit(offset + size);
    if (r == 0) r = check_memory(size);
    if (r < 0) return r;
    while (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) < 0)
        if (errno != EINTR) return errno == ENOSPC ? -ENOMEM : -errno;
    return 0;
}

int mp_memfd_punch(int fd, size_t offset, size_t size) {
    while (fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
                     (off_t)offset, (off_t)size) < 0)
        if (errno != EINTR) return -errno;
    return 0;
}

int mp_memfd_ask(int fd, mp_memfd_about *about) {
    struct stat file;
    struct statfs system;
    if (fstat(fd, &file) < 0 || fstatfs(fd, &system) < 0) return -errno;
    int seals = fcntl(fd, F_GET_SEALS);
    /* One of huge pages has seals, too, but its memory can be missing. */
    about->fixed = seals >= 0 && seals & F_SEAL_SHRINK &&
                   system.f_type == TMPFS_MAGIC;
    about->size = (size_t)file.st_size;
    about->backed = (size_t)file.st_blocks * 512;
    about->id[0] = (uint64_t)file.st_dev;
    about->id[1] = (uint64_t)file.st_ino;
    return 0;
}

/* ---- another process's region --------------------------------------- */

#define NAME "/memfd:mplua (deleted)" /* as the kernel tells it */

/* The file behind a descriptor if it is such a region; -ENOENT. */
static int open_region(const char *path, uint64_t magic) {
    char name[sizeof NAME];
    uint64_t begin = 0;
    ssize_t n = readlink(path, name, sizeof name);
    if (n != (ssize_t)sizeof NAME - 1 || memcmp(name, NAME, (size_t)n) != 0)
        return -ENOENT;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? -ENOENT : -errno;
    if (pread(fd, &begin, sizeof begin, 0) == sizeof begin && begin == magic)
        return fd;
    close(fd);
    return -ENOENT;
}

static int find_region(pid_t pid, uint64_t magic) {
    char path[300];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    if (!dir) return errno == ENOENT ? -ESRCH : -errno;
    int fd = -ENOENT;
    for (struct dirent *e; fd == -ENOENT && (e = readdir(dir));) {
        snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)pid, e->d_name);
        fd = open_region(path, magic);
    }
    closedir(dir);
    return fd == -ENOENT && mp_child_gone(pid) ? -ESRCH : fd;
}

int mp_memfd_look(pid_t pid, uint64_t magic, mp_memfd_view *view) {
    size_t size, mapped = (size_t)1 << 40;
    int fd = find_region(pid, magic);
    int r = fd < 0 ? fd : mp_memfd_size(fd, &size);
    if (fd < 0) return r;
    while (r == 0) {
        if (mapped < size) mapped = size;
        void *p = mmap(NULL, mapped, PROT_READ, MAP_SHARED | MAP_NORESERVE,
                       fd, 0);
        if (p != MAP_FAILED) {
            *view = (mp_memfd_view){fd, p, mapped};
            return 0;
        }
        if (mapped == size) r = -errno;
        mapped /= 4;
    }
    close(fd);
    return r;
}

void mp_memfd_look_away(mp_memfd_view *view) {
    munmap((void *)(uintptr_t)view->base, view->mapped);
    close(view->fd);
}
