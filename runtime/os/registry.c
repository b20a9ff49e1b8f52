/* Making one: the directory, its descriptor, the lock. A sweep may come in
   between, see it without a lock, and take it away: so the lock counts only
   if the directory is still there when it is held. */
#include "os/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/fd.h"

#define HEAD ".mplua-"
enum { PATH = 128, TEXT = MP_SHM_NAME + 32 };

static void path_of(const char *id, char path[PATH]) {
    snprintf(path, PATH, "%s/%s%s", MP_SHM_DIRECTORY, HEAD, id);
}

static void link_path(const char *id, uint64_t ino, char path[PATH]) {
    snprintf(path, PATH, "%s/%s%s/%" PRIx64, MP_SHM_DIRECTORY, HEAD, id,
             ino);
}

/* ---- making --------------------------------------------------------- */

/* Is the directory that is open as `fd` still there? */
static bool still_there(int fd, const char *path) {
    struct stat opened, named;
    return fstat(fd, &opened) == 0 && lstat(path, &named) == 0 &&
           opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

int mp_registry_make(const char *id, int *fd) {
    char path[PATH];
    path_of(id, path);
    if (mkdir(path, 0700) < 0) return -errno;
    /* The mode whatever the umask is; should a sweep come first, it is one
       that nobody has. */
    chmod(path, 0700);
    int f = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    f = mp_fd_above_standard(f < 0 ? -errno : f);
    if (f == -ENOENT) return -EEXIST;
    int r = f;
    if (f >= 0 && (flock(f, LOCK_SH | LOCK_NB) < 0 || !still_there(f, path)))
        r = -EEXIST;
    if (r >= 0) {
        *fd = f;
        return 0;
    }
    rmdir(path);
    if (f >= 0) close(f);
    return r;
}

int mp_registry_remove(const char *id) {
    char path[PATH];
    path_of(id, path);
    return rmdir(path) < 0 ? -errno : 0;
}

/* ---- links ---------------------------------------------------------- */

int mp_registry_enter(const char *id, uint64_t ino,
                      const mp_registry_entry *entry) {
    char path[PATH], text[TEXT];
    link_path(id, ino, path);
    snprintf(text, TEXT, "%" PRIx32 ".%" PRIx32 "/%s", entry->id, entry->gen,
             entry->name);
    return symlink(text, path) < 0 ? -errno : 0;
}

/* Reads a link's text; -EBADMSG: it is not one of ours. */
static int parse(const char *text, mp_registry_entry *entry) {
    int at = 0;
    if (sscanf(text, "%8" SCNx32 ".%8" SCNx32 "%n", &entry->id, &entry->gen,
               &at) < 2 || text[at] != '/')
        return -EBADMSG;
    const char *name = text + at + 1;
    return mp_shm_name(name, strlen(name), entry->name) < 0 || *name == '/'
               ? -EBADMSG
               : 0;
}

static int look_at(int directory, const char *path,
                   mp_registry_entry *entry) {
    char text[TEXT];
    ssize_t n = readlinkat(directory, path, text, TEXT);
    if (n < 0) return -errno;
    if (n == TEXT) return -EBADMSG;
    text[n] = 0;
    return parse(text, entry);
}

int mp_registry_look(const char *id, uint64_t ino, mp_registry_entry *entry) {
    char path[PATH];
    link_path(id, ino, path);
    return look_at(AT_FDCWD, path, entry);
}

int mp_registry_strike(const char *id, uint64_t ino) {
    char path[PATH];
    link_path(id, ino, path);
    return unlink(path) < 0 ? -errno : 0;
}

/* ---- sweeping ------------------------------------------------------- */

/* Is it a directory that only we have made? */
static bool is_ours(int fd, uint64_t *dev) {
    struct stat about;
    if (fstat(fd, &about) < 0) return false;
    *dev = (uint64_t)about.st_dev;
    return S_ISDIR(about.st_mode) && about.st_uid == geteuid() &&
           (about.st_mode & 077) == 0;
}

/* The number that a link's name is; false: it is none. */
static bool number_of(const char *name, uint64_t *ino) {
    char *end;
    errno = 0;
    *ino = strtoull(name, &end, 16);
    return errno == 0 && end != name && *end == 0;
}

static void sweep_link(int directory, const char *name, uint64_t dev) {
    mp_registry_entry entry;
    uint64_t ino;
    if (!number_of(name, &ino) || look_at(directory, name, &entry) < 0)
        return;
    int r = mp_shm_unlink(entry.name, dev, ino);
    if (r == 0 || r == -ENOENT) unlinkat(directory, name, 0);
}

/* All links of an open registry, and it; the descriptor is closed. */
static void sweep_links(int shm, const char *name, int fd, uint64_t dev) {
    DIR *links = fdopendir(fd);
    if (!links) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(links));)
        if (e->d_name[0] != '.') sweep_link(fd, e->d_name, dev);
    /* While the lock is held: who makes one sees that it is gone. */
    unlinkat(shm, name, AT_REMOVEDIR);
    closedir(links);
}

static void sweep_registry(int shm, const char *name, bool held) {
    uint64_t dev;
    int fd = openat(shm, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW |
                                   O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return;
    if (is_ours(fd, &dev) && (held || flock(fd, LOCK_EX | LOCK_NB) == 0))
        sweep_links(shm, name, fd, dev);
    else
        close(fd);
}

void mp_registry_sweep(const char *prefix) {
    size_t head = sizeof HEAD - 1;
    DIR *shm = opendir(MP_SHM_DIRECTORY);
    if (!shm) return;
    for (struct dirent *e; (e = readdir(shm));)
        if (strncmp(e->d_name, HEAD, head) == 0 &&
            (!prefix ||
             strncmp(e->d_name + head, prefix, strlen(prefix)) == 0))
            sweep_registry(dirfd(shm), e->d_name, prefix != NULL);
    closedir(shm);
}
