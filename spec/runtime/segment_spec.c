/* Named segments, and the registries that outlive those who made them. */
#include "data/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/parcel.h"
#include "fsck_tools.h"
#include "mem/heap.h"
#include "sync_tools.h"

static char name[40], id[40];

SPEC_PREPARE {
    CHECK_OK(mp_open());
    mp_segment_open();
    snprintf(name, sizeof name, "mplua_spec_c_%d", (int)getpid());
    snprintf(id, sizeof id, "spec-%d", (int)getpid());
}

static bool exists(const char *file) {
    char path[512];
    struct stat about;
    snprintf(path, sizeof path, "/dev/shm/%s", file);
    return lstat(path, &about) == 0;
}

static bool registry_exists(void) {
    char path[128];
    snprintf(path, sizeof path, ".mplua-%s", id);
    return exists(path);
}

static mp_segment make(void) {
    mp_segment s;
    CHECK_OK(mp_segment_create(name, 100, &s));
    return s;
}

static void drop(mp_segment *s) {
    close(s->fd);
    mp_object_detach(s->id);
}

/* ---- os/shm --------------------------------------------------------- */

SPEC("shm: names are what they are without the leading slashes") {
    char out[MP_SHM_NAME];
    char longest[MP_SHM_NAME + 1];
    memset(longest, 'x', sizeof longest);
    CHECK_OK(mp_shm_name("//ab", 4, out));
    CHECK_STR(out, "ab");
    CHECK_OK(mp_shm_name(longest, MP_SHM_NAME - 1, out));
    CHECK_EQ(mp_shm_name(longest, MP_SHM_NAME, out), -ENAMETOOLONG);
    CHECK_EQ(mp_shm_name("/", 1, out), -EINVAL);
    CHECK_EQ(mp_shm_name("a/b", 3, out), -EINVAL);
    CHECK_EQ(mp_shm_name("a\0b", 3, out), -EINVAL);
    CHECK_EQ(mp_shm_name("..", 2, out), -EINVAL);
}

SPEC("shm: a file has no name until it is linked, and one then") {
    mp_shm_file file, other;
    int fd, again;
    CHECK_OK(mp_shm_make(5000, &fd, &file));
    CHECK_EQ(file.size, 5000);
    CHECK(!exists(name));
    CHECK_OK(mp_shm_link(fd, name));
    CHECK_OK(mp_shm_open(name, &again, &other));
    CHECK_EQ(other.ino, file.ino);
    CHECK_EQ(mp_shm_unlink(name, file.dev, file.ino + 1), -ENOENT);
    CHECK(exists(name));
    CHECK_OK(mp_shm_unlink(name, file.dev, file.ino));
    CHECK_EQ(mp_shm_unlink(name, file.dev, file.ino), -ENOENT);
    close(fd);
    close(again);
    CHECK_EQ(mp_shm_make(UINT64_MAX, &fd, &file), -ENOSPC);
}

SPEC("shm: what is cut short is told, and does not grow again") {
    mp_shm_file file;
    char bytes[10] = "abcdefghi";
    int fd;
    CHECK_OK(mp_shm_make(10, &fd, &file));
    CHECK_EQ(mp_shm_write(fd, 0, bytes, 10), 10);
    CHECK_OK(ftruncate(fd, 4));
    CHECK_EQ(mp_shm_read(fd, 0, bytes, 10), 4);
    CHECK_EQ(mp_shm_write(fd, 0, bytes, 10), 4);
    CHECK_EQ(mp_shm_write(fd, 8, bytes, 2), 0);
    CHECK_EQ(mp_shm_read(fd, 4, bytes, 10), 0);
    close(fd);
}

/* ---- os/registry ---------------------------------------------------- */

SPEC("registry: a sweep leaves it alone while its lock is held") {
    mp_registry_entry entry = {.id = 5, .gen = 6}, seen;
    mp_shm_file file;
    int lock, copy, fd;
    CHECK_OK(mp_registry_make(id, &lock));
    CHECK_EQ(mp_registry_make(id, &fd), -EEXIST);
    CHECK_OK(mp_shm_make(10, &fd, &file));
    strcpy(entry.name, name);
    CHECK_OK(mp_registry_enter(id, file.ino, &entry));
    CHECK_OK(mp_shm_link(fd, name));
    CHECK_OK(mp_registry_look(id, file.ino, &seen));
    CHECK_EQ(seen.id, 5);
    CHECK_EQ(seen.gen, 6);
    CHECK_STR(seen.name, name);
    CHECK_OK(copy = dup(lock));
    close(lock);
    mp_registry_sweep(NULL);
    CHECK(exists(name) && registry_exists());
    close(copy);
    mp_registry_sweep(NULL);
    CHECK(!exists(name) && !registry_exists());
    close(fd);
}

SPEC("registry: a sweep does not mistake another file for its own") {
    mp_registry_entry entry = {.id = 1};
    mp_shm_file file;
    int lock, fd;
    CHECK_OK(mp_registry_make(id, &lock));
    CHECK_OK(mp_shm_make(10, &fd, &file));
    CHECK_OK(mp_shm_link(fd, name));
    strcpy(entry.name, name);
    CHECK_OK(mp_registry_enter(id, file.ino + 1, &entry));
    close(lock);
    mp_registry_sweep(NULL);
    CHECK(exists(name) && !registry_exists());
    CHECK_OK(mp_shm_unlink(name, file.dev, file.ino));
    close(fd);
}

/* ---- segments ------------------------------------------------------- */

SPEC("segment: its name and its registry go with its last holder") {
    mp_segment s = make(), t;
    CHECK_OK(mp_segment_attach(name, &t));
    CHECK_EQ(t.id, s.id);
    close(t.fd);
    CHECK_EQ(mp_segment_create(name, 100, &t), -EEXIST);
    mp_object_detach(s.id);
    CHECK(exists(name));
    CHECK_CLEAN();
    drop(&s);
    CHECK(!exists(name));
    CHECK_EQ(mp_segment_attach(name, &t), -ENOENT);
    CHECK_EQ(mp_parcel_entries(), 0);
}

SPEC("segment: an unlinked one is not found, and gives the registry up") {
    mp_segment s = make(), t;
    CHECK(mp_segment_is_named(s.id));
    CHECK_OK(mp_segment_unlink(s.id));
    CHECK(!mp_segment_is_named(s.id));
    CHECK_EQ(mp_segment_unlink(s.id), -ENOENT);
    CHECK_EQ(mp_segment_again(s.id, &t), -ENOENT);
    CHECK_EQ(mp_parcel_entries(), 0);
    mp_segment other = make(); /* of the same name */
    CHECK_EQ(mp_segment_again(s.id, &t), -ENOENT);
    drop(&s);
    CHECK(exists(name));
    drop(&other);
    CHECK(!exists(name));
}

SPEC("segment: what a stranger unlinks and makes anew is not the family's") {
    mp_segment s = make(), t;
    mp_shm_file file;
    int fd;
    CHECK_OK(mp_shm_unlink(name, s.file.dev, s.file.ino));
    CHECK_OK(mp_shm_make(10, &fd, &file));
    CHECK_OK(mp_shm_link(fd, name));
    CHECK_OK(mp_segment_attach(name, &t));
    CHECK_EQ(t.id, 0);
    close(t.fd);
    drop(&s);
    CHECK(exists(name));
    CHECK_OK(mp_shm_unlink(name, file.dev, file.ino));
    close(fd);
}

/* ---- several -------------------------------------------------------- */

enum { RACERS = 4 };

static void race(void *won) {
    mp_segment s;
    for (int i = 0; i < 20; i++) {
        int r = mp_segment_create(name, 10, &s);
        CHECK(r == 0 || r == -EEXIST);
        if (r == 0) {
            CHECK_OK(mp_segment_unlink(s.id));
            drop(&s);
            atomic_fetch_add((_Atomic int *)won, 1);
        }
    }
}

SPEC("segment: several who make and unlink one name hinder nobody") {
    _Atomic int *won = spec_shared(sizeof *won);
    mp_proc racers[RACERS];
    start_all(racers, RACERS, race, won);
    finish_all(racers, RACERS);
    CHECK(atomic_load(won) > 0);
    CHECK(!exists(name));
    CHECK_EQ(mp_parcel_entries(), 0);
}

static void unlink_it(void *won) {
    mp_segment s;
    int r = mp_segment_attach(name, &s);
    if (r == -ENOENT) return;
    CHECK_OK(r);
    if (s.id && mp_segment_unlink(s.id) == 0)
        atomic_fetch_add((_Atomic int *)won, 1);
    close(s.fd);
    if (s.id) mp_object_detach(s.id);
}

SPEC("segment: of several who unlink it one does") {
    _Atomic int *won = spec_shared(sizeof *won);
    mp_proc racers[RACERS];
    mp_segment s = make();
    start_all(racers, RACERS, unlink_it, won);
    finish_all(racers, RACERS);
    CHECK_EQ(atomic_load(won), 1);
    drop(&s);
    CHECK_EQ(mp_parcel_entries(), 0);
}

static void make_and_die(void *unused) {
    (void)unused;
    make();
    raise(SIGKILL);
}

SPEC("segment: goes with a holder that is killed") {
    mp_proc child = start(make_and_die, NULL);
    CHECK_EQ(finish(&child), -SIGKILL);
    CHECK(!exists(name));
    CHECK_EQ(mp_parcel_entries(), 0);
}

/* ---- checking ------------------------------------------------------- */

static int findings;
static char first[200];

static void note(void *ctx, const char *finding) {
    (void)ctx;
    if (findings++ == 0) snprintf(first, sizeof first, "%s", finding);
}

static bool found(const char *text) {
    findings = 0;
    CHECK(mp_fsck(MP_FSCK_QUIET, note, NULL) > 0);
    return strstr(first, text) != NULL;
}

SPEC("segment: fsck finds a name, an id, a registry that cannot be") {
    mp_segment s = make();
    mp_segment_shm *shm = mp_object_block(s.id);
    mp_registry_shm *registry = mp_object_block(atomic_load(&shm->registry));
    char c = shm->name[0];
    shm->name[0] = 0;
    CHECK(found("(SharedMemory): its name is no text, expected one"));
    shm->name[0] = c;
    char was[MP_REGISTRY_ID];
    memcpy(was, registry->id, sizeof was);
    memset(registry->id, 'x', sizeof was);
    CHECK(found("(registry): its id is no text, expected one"));
    memcpy(registry->id, was, sizeof was);
    uint32_t held = atomic_exchange(&shm->registry, 0);
    CHECK(found("object"));
    atomic_store(&shm->registry, held);
    CHECK_CLEAN();
    drop(&s);
}
