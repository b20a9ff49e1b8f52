/* Named segments: whoever dies, in the end no name is left, and no registry.
   Whose end is the family's is seen by a sweep in its own region. */
#include "data/segment.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crash.h"
#include "data/parcel.h"
#include "mem/heap.h"
#include "region_tools.h"
#include "sync/event.h"

enum { SIZE = 100, MOST = 250 };

static char name[40], second[40], peers_name[40], dead[40];

SPEC_PREPARE {
    mp_segment s;
    CHECK_OK(mp_open());
    mp_segment_open();
    mp_event_open();
    snprintf(name, sizeof name, "mplua_crash_%d", (int)getpid());
    snprintf(second, sizeof second, "mplua_crash_second_%d", (int)getpid());
    snprintf(peers_name, sizeof peers_name, "mplua_crash_peer_%d",
             (int)getpid());
    snprintf(dead, sizeof dead, "crash-%d", (int)getpid());
    CHECK_OK(mp_segment_create(name, SIZE, &s));
    close(s.fd);
    mp_object_detach(s.id);
}

static bool exists(const char *file) {
    char path[512];
    struct stat about;
    snprintf(path, sizeof path, "/dev/shm/%s", file);
    return lstat(path, &about) == 0;
}

/* Registries that begin so. */
static int registries(const char *prefix) {
    int n = 0;
    DIR *shm = opendir(MP_SHM_DIRECTORY);
    CHECK(shm != NULL);
    for (struct dirent *e; (e = readdir(shm));)
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    closedir(shm);
    return n;
}

static int registries_of_family(void) {
    char prefix[64] = ".mplua-";
    for (int i = 0; i < 16; i++)
        snprintf(prefix + strlen(prefix), 3, "%02x",
                 mp_me->super->family[i]);
    return registries(prefix);
}

static void check_none(void) {
    CHECK(!exists(name) && !exists(second) && !exists(peers_name));
    CHECK_EQ(mp_parcel_entries(), 0);
    CHECK_EQ(registries_of_family(), 0);
}

/* What a survivor wants of it: a segment of its own. */
static void use_one(int which) {
    mp_segment s;
    (void)which;
    CHECK_OK(mp_segment_create(peers_name, SIZE, &s));
    CHECK_OK(mp_segment_unlink(s.id));
    close(s.fd);
    mp_object_detach(s.id);
}

/* ---- create --------------------------------------------------------- */

static mp_segment mine;

static void create(void) { CHECK_OK(mp_segment_create(name, SIZE, &mine)); }

static const crash_region segment_create = {
    .name = "segment: create, and a registry for it",
    .run = create,
    .most = MOST,
    .peers = 1,
    .peer = use_one,
    .check = check_none};
CRASH_REGION(segment_create)

/* ---- what the killer made ------------------------------------------- */

/* So the peers have a page of their ledger, whether they attach or not. */
static uint32_t kept;

static void set_up(void) {
    uint32_t gen;
    CHECK_OK(mp_event_create(&kept, &gen));
}

static void tear_down(void) { mp_object_detach(kept); }

static mp_segment made;

static void make(void) {
    CHECK_OK(mp_segment_create(name, SIZE, &made));
    close(made.fd);
}

static void create_second(void) {
    CHECK_OK(mp_segment_create(second, SIZE, &mine));
}

static void drop_made(void) {
    CHECK(exists(name));
    mp_object_detach(made.id);
    check_none();
}

static const crash_region segment_create_second = {
    .name = "segment: create where there is a registry",
    .set_up = set_up,
    .ready = make,
    .run = create_second,
    .most = MOST,
    .peers = 1,
    .peer = use_one,
    .check = drop_made,
    .tear_down = tear_down};
CRASH_REGION(segment_create_second)

static void attach(void) {
    CHECK_OK(mp_segment_attach(name, &mine));
    CHECK_EQ(mine.id, made.id);
    close(mine.fd);
    mp_object_detach(mine.id);
}

static const crash_region segment_attach = {
    .name = "segment: attach by name, and detach",
    .set_up = set_up,
    .ready = make,
    .run = attach,
    .most = MOST,
    .peers = 1,
    .peer = use_one,
    .check = drop_made,
    .tear_down = tear_down};
CRASH_REGION(segment_attach)

static void unlink_it(void) {
    int r = mp_segment_unlink(made.id);
    CHECK(r == 0 || r == -ENOENT);
}

static void unlink_too(int which) {
    mp_segment s;
    (void)which;
    int r = mp_segment_attach(name, &s);
    if (r == -ENOENT) return;
    CHECK_OK(r);
    if (s.id) {
        r = mp_segment_unlink(s.id);
        mp_object_detach(s.id);
    }
    CHECK(r == 0 || r == -ENOENT);
    close(s.fd);
}

static void check_unlinked(void) {
    CHECK(!exists(name));
    mp_object_detach(made.id);
    check_none();
}

static const crash_region segment_unlink = {.name = "segment: unlink",
                                            .set_up = set_up,
                                            .ready = make,
                                            .run = unlink_it,
                                            .most = MOST,
                                            .peers = 2,
                                            .peer = unlink_too,
                                            .check = check_unlinked,
                                            .tear_down = tear_down};
CRASH_REGION(segment_unlink)

/* ---- destroy -------------------------------------------------------- */

static void drop(void) { mp_object_detach(mine.id); }

static const crash_region segment_destroy = {
    .name = "segment: destroyed by its last holder",
    .begin = create,
    .run = drop,
    .most = MOST,
    .peers = 1,
    .peer = use_one,
    .check = check_none};
CRASH_REGION(segment_destroy)

/* ---- sweep ---------------------------------------------------------- */

/* What a family has left that was killed. */
static void leave_registry(void) {
    mp_registry_entry entry = {.id = 1};
    mp_shm_file file;
    int lock, fd;
    CHECK_OK(mp_registry_make(dead, &lock));
    CHECK_OK(mp_shm_make(SIZE, &fd, &file));
    strcpy(entry.name, name);
    CHECK_OK(mp_registry_enter(dead, file.ino, &entry));
    CHECK_OK(mp_registry_enter(dead, file.ino + 1, &entry));
    CHECK_OK(mp_shm_link(fd, name));
    close(fd);
    close(lock);
}

static void sweep(void) { mp_segment_sweep(); }

static void sweep_too(int which) {
    (void)which;
    mp_segment_sweep();
}

static void check_swept(void) {
    char prefix[64];
    snprintf(prefix, sizeof prefix, ".mplua-%s", dead);
    mp_segment_sweep();
    check_none();
    CHECK_EQ(registries(prefix), 0);
}

static const crash_region segment_sweep = {.name = "segment: sweep",
                                           .ready = leave_registry,
                                           .run = sweep,
                                           .most = MOST,
                                           .peers = 2,
                                           .peer = sweep_too,
                                           .check = check_swept};
CRASH_REGION(segment_sweep)
