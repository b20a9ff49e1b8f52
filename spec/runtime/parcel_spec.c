/* Parcels, and the shelf on which their descriptors lie. */
#include "data/parcel.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "mem/fsck.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "os/shelf.h"
#include "proc/proc.h"
#include "threads.h"

SPEC_PREPARE {
    uint32_t id, gen;
    int pair[2];
    CHECK_OK(mp_open());
    mp_parcel_open();
    /* The first object brings the object table with it. */
    CHECK_OK(pipe(pair));
    CHECK_OK(mp_parcel_create(pair[0], &id, &gen));
    mp_object_detach(id);
    close(pair[0]);
    close(pair[1]);
}

typedef struct parcel {
    uint32_t id, gen;
} parcel;

/* A parcel of one end of a new pair; the other one is returned. */
static int send_off(parcel *p) {
    int pair[2];
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    CHECK_OK(mp_parcel_create(pair[0], &p->id, &p->gen));
    close(pair[0]);
    return pair[1];
}

static bool is_closed(int fd) {
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

/* The two ends talk. */
static void check_connected(int a, int b) {
    char byte = 0;
    CHECK_EQ(send(a, "x", 1, MSG_NOSIGNAL), 1);
    CHECK_EQ(recv(b, &byte, 1, 0), 1);
    CHECK_EQ(byte, 'x');
}

static void unpack_and_check(const parcel *p, int other) {
    int fd = mp_parcel_unpack(p->id);
    CHECK_OK(fd);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    check_connected(fd, other);
    check_connected(other, fd);
    close(fd);
}

SPEC("parcel: is unpacked any number of times, and closed with its object") {
    parcel p;
    int other = send_off(&p);
    CHECK_EQ(mp_parcel_entries(), 1);
    unpack_and_check(&p, other);
    unpack_and_check(&p, other);
    CHECK(!is_closed(other));
    mp_object_detach(p.id);
    CHECK(is_closed(other));
    CHECK_EQ(mp_parcel_entries(), 0);
    close(other);
}

SPEC("parcel: others keep their place when one in the middle goes") {
    enum { N = 7 };
    parcel p[N];
    int other[N];
    static const int order[N] = {3, 0, 6, 5, 1, 4, 2};
    for (int i = 0; i < N; i++) other[i] = send_off(&p[i]);
    for (int k = 0; k < N; k++) {
        mp_object_detach(p[order[k]].id);
        CHECK(is_closed(other[order[k]]));
        close(other[order[k]]);
        CHECK_EQ(mp_parcel_entries(), N - 1 - k);
        for (int i = k + 1; i < N; i++)
            unpack_and_check(&p[order[i]], other[order[i]]);
    }
}

SPEC("parcel: a message that is freed unread takes its parcel with it") {
    parcel p;
    int other = send_off(&p);
    mp_ref block = mp_alloc(64);
    mp_message_shm *m = mp_at(block);
    *m = (mp_message_shm){.handles_at = sizeof *m};
    mp_mark_handles(block);
    CHECK_OK(mp_message_hold(block, p.id, p.gen));
    mp_object_detach(p.id);
    unpack_and_check(&p, other);
    mp_free(block);
    CHECK(is_closed(other));
    close(other);
}

static void unpack_in_child(void *argument) {
    const int *from = argument;
    char byte = 0;
    mp_proc child;
    int r = mp_proc_fork(&child, 0);
    CHECK_OK(r);
    if (r == 0) {
        CHECK_EQ(mp_proc_wait(&child, MP_FOREVER), 0);
        CHECK_EQ(child.exitcode, 0);
        mp_proc_close(&child);
        return;
    }
    int fd = mp_parcel_unpack((uint32_t)from[0]);
    CHECK_OK(fd);
    CHECK_EQ(recv(fd, &byte, 1, 0), 1);
    CHECK_EQ(byte, '?');
    CHECK_EQ(send(fd, "!", 1, 0), 1);
    _exit(0);
}

SPEC("parcel: a child of the family unpacks what its parent has put") {
    parcel p;
    char byte = 0;
    int other = send_off(&p), about[] = {(int)p.id};
    CHECK_EQ(send(other, "?", 1, 0), 1);
    unpack_in_child(about);
    CHECK_EQ(recv(other, &byte, 1, 0), 1);
    CHECK_EQ(byte, '!');
    mp_object_detach(p.id);
    CHECK(is_closed(other));
    close(other);
}

SPEC("parcel: what a killed process held goes when it is reaped") {
    int pair[2];
    mp_proc child;
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    int r = mp_proc_fork(&child, 0);
    CHECK_OK(r);
    if (r == 1) {
        uint32_t id, gen;
        CHECK_OK(mp_parcel_create(pair[0], &id, &gen));
        raise(SIGKILL);
    }
    close(pair[0]);
    while (mp_proc_wait(&child, MP_FOREVER) == -EINTR) {
    }
    CHECK_EQ(child.exitcode, -SIGKILL);
    mp_proc_close(&child);
    CHECK(is_closed(pair[1]));
    CHECK_EQ(mp_parcel_entries(), 0);
    close(pair[1]);
}

SPEC("parcel: any file can be in it, and none is refused") {
    parcel p;
    struct stat in, out;
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK_OK(mp_parcel_create(file, &p.id, &p.gen));
    CHECK_OK(fstat(file, &in));
    close(file);
    int fd = mp_parcel_unpack(p.id);
    CHECK_OK(fd);
    CHECK_OK(fstat(fd, &out));
    CHECK(in.st_ino == out.st_ino && in.st_dev == out.st_dev);
    close(fd);
    mp_object_detach(p.id);
    CHECK_EQ(mp_parcel_create(-1, &p.id, &p.gen), -EBADF);
    CHECK_EQ(mp_parcel_create(1000000, &p.id, &p.gen), -EBADF);
    CHECK_EQ(mp_parcel_entries(), 0);
}

SPEC("parcel: a full shelf says so, and empties again") {
    enum { MOST = 4096 };
    static parcel p[MOST];
    int n = 0, r = 0, file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    while (n < MOST &&
           (r = mp_parcel_create(file, &p[n].id, &p[n].gen)) == 0)
        n++;
    CHECK(r == -ENOSPC || r == -ETOOMANYREFS);
    CHECK(n >= 200);
    CHECK_EQ(mp_parcel_entries(), n);
    /* The last ones first: all others are moved each time. */
    for (int i = 0; i < 3; i++) mp_object_detach(p[--n].id);
    CHECK_EQ(mp_parcel_entries(), n);
    CHECK_EQ(mp_me->super->untidy, 0);
    for (int i = 0; i < n; i++) mp_object_detach(p[i].id);
    CHECK_EQ(mp_parcel_entries(), 0);
    CHECK_EQ(mp_me->super->untidy, 0);
    CHECK_OK(mp_parcel_create(file, &p[0].id, &p[0].gen));
    mp_object_detach(p[0].id);
    close(file);
}

/* Lets this process have so many descriptors more. */
static struct rlimit leave_numbers(rlim_t n) {
    struct rlimit before, now;
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &before));
    int lowest = fcntl(0, F_DUPFD, 0);
    close(lowest);
    now = before;
    now.rlim_cur = (rlim_t)lowest + n;
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &now));
    return before;
}

SPEC("parcel: who has no number free says so, and cleans up later") {
    parcel p[3];
    int other[3];
    if (spec_valgrind()) return; /* a message's descriptors have no limit */
    for (int i = 0; i < 3; i++) other[i] = send_off(&p[i]);
    struct rlimit before = leave_numbers(0);
    CHECK_EQ(mp_parcel_unpack(p[0].id), -EMFILE);
    /* Those before it cannot be moved; its entry stays for now. */
    mp_object_detach(p[2].id);
    CHECK_EQ(mp_parcel_entries(), 3);
    CHECK_EQ(mp_me->super->untidy, 1);
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &before));
    CHECK(!is_closed(other[2]));
    mp_object_detach(p[1].id);
    CHECK(is_closed(other[1]));
    CHECK(is_closed(other[2]));
    CHECK_EQ(mp_parcel_entries(), 1);
    CHECK_EQ(mp_me->super->untidy, 0);
    unpack_and_check(&p[0], other[0]);
    mp_object_detach(p[0].id);
    for (int i = 0; i < 3; i++) close(other[i]);
}

SPEC("parcel: what stands there twice is found and dropped") {
    parcel p[2];
    int other[2];
    for (int i = 0; i < 2; i++) other[i] = send_off(&p[i]);
    int fd = mp_parcel_unpack(p[0].id);
    uint64_t key = (uint64_t)p[0].gen << 32 | p[0].id;
    CHECK_OK(mp_shelf_put(mp_me->shelf, key, fd));
    close(fd);
    atomic_store(&mp_me->super->untidy, 1);
    CHECK_EQ(mp_parcel_entries(), 3);
    mp_object_detach(p[1].id);
    CHECK_EQ(mp_parcel_entries(), 1);
    CHECK_EQ(mp_me->super->untidy, 0);
    unpack_and_check(&p[0], other[0]);
    mp_object_detach(p[0].id);
    CHECK(is_closed(other[0]));
    for (int i = 0; i < 2; i++) close(other[i]);
}

SPEC("parcel: without a shelf it is refused") {
    parcel p;
    int before[2];
    memcpy(before, mp_me->shelf, sizeof before);
    mp_me->shelf[0] = mp_me->shelf[1] = -1;
    CHECK_EQ(mp_parcel_create(0, &p.id, &p.gen), -EOPNOTSUPP);
    CHECK_EQ(mp_parcel_entries(), -EOPNOTSUPP);
    memcpy(mp_me->shelf, before, sizeof before);
}

/* ---- forks meanwhile ---------------------------------------------------- */

static int ends[2];
static atomic_bool over;

static bool keep_all(uint64_t key) { return key != 0; }

/* Each entry is a descriptor of this process for a moment, again and again. */
static void *move_on(void *argument) {
    while (!over) CHECK_OK(mp_shelf_tidy(ends, keep_all));
    return argument;
}

static int count_descriptors(void) {
    int n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

SPEC("parcel: a child has no copy of what another thread moves") {
    pthread_t thread;
    CHECK_OK(mp_shelf_open(ends));
    for (uint64_t key = 1; key <= 5; key++)
        CHECK_OK(mp_shelf_put(ends, key, STDERR_FILENO));
    int before = count_descriptors();
    CHECK_EQ(pthread_create(&thread, NULL, move_on, NULL), 0);
    for (int i = 0; i < 100; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(count_descriptors() - before);
        CHECK_EQ(spec_wait(pid), 0);
    }
    over = true;
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(mp_shelf_count(ends), 5);
    close(ends[0]);
    close(ends[1]);
}

/* ---- the invariants --------------------------------------------------- */

static void look_for(void *wanted, const char *finding) {
    const char **words = wanted;
    if (*words && strstr(finding, *words)) *words = NULL;
}

static void check_found(const char *words) {
    CHECK(mp_fsck(MP_FSCK_QUIET, look_for, &words) > 0);
    if (words) spec_fail(__FILE__, __LINE__, "not found: %s", words);
}

SPEC("fsck: finds parcels and a shelf that cannot be") {
    parcel p;
    mp_super_shm *super = mp_me->super;
    int other = send_off(&p);
    mp_parcel_shm *shm = mp_object_block(p.id);
    uint64_t key = shm->key;
    CHECK_EQ(mp_fsck(MP_FSCK_QUIET, NULL, NULL), 0);
    shm->key = key + 1;
    check_found("(Parcel): its key names object");
    shm->key = key;
    super->untidy = 2;
    check_found("super block: untidy is 2 and bell 0, expected 0 or 1, and");
    super->untidy = 0;
    super->bell = 7;
    check_found("super block: untidy is 0 and bell 7, expected 0 or 1, and");
    super->bell = 0;
    super->shelf.word = 0x5001;
    check_found("super block: its mutex shelf is 0x5001, expected 0 or");
    super->shelf.word = 0;
    CHECK_EQ(mp_fsck(MP_FSCK_QUIET, NULL, NULL), 0);
    mp_object_detach(p.id);
    close(other);
}

/* ---- many at once ---------------------------------------------------- */

enum { WORKERS = 4, ROUNDS = 150 };

static void churn(int number) {
    for (int i = 0; i < ROUNDS; i++) {
        parcel p[3];
        int other[3], n = 1 + (i + number) % 3;
        for (int k = 0; k < n; k++) other[k] = send_off(&p[k]);
        for (int k = 0; k < n; k++) unpack_and_check(&p[k], other[k]);
        for (int k = n - 1; k >= 0; k--) {
            mp_object_detach(p[k].id);
            CHECK(is_closed(other[k]));
            close(other[k]);
        }
    }
}

static void churn_in_thread(void *context, int number) {
    (void)context;
    churn(number);
}

SPEC("parcel: threads that put, unpack and drop do not meet") {
    spec_threads(WORKERS, churn_in_thread, NULL);
    CHECK_EQ(mp_parcel_entries(), 0);
    CHECK_EQ(mp_me->super->untidy, 0);
}

SPEC("parcel: processes that put, unpack and drop do not meet") {
    mp_proc child[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        int r = mp_proc_fork(&child[i], 0);
        CHECK_OK(r);
        if (r == 1) {
            churn(i);
            _exit(0);
        }
    }
    for (int i = 0; i < WORKERS; i++) {
        while (mp_proc_wait(&child[i], MP_FOREVER) == -EINTR) {
        }
        CHECK_EQ(child[i].exitcode, 0);
        mp_proc_close(&child[i]);
    }
    CHECK_EQ(mp_parcel_entries(), 0);
    CHECK_EQ(mp_me->super->untidy, 0);
}
