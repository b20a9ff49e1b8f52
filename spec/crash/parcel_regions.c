/* Parcels: each descriptor that lies on the shelf belongs to somebody, and
   each that somebody has is there, wherever one who moves them is killed. */
#include "data/parcel.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "crash.h"
#include "mem/object.h"
#include "os/shelf.h"
#include "region_tools.h"

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_parcel_open();
    CHECK_OK(mp_parcel_create(0, &id, &gen));
    mp_object_detach(id);
}

/* Parcels of the killer, with the other ends of what is in them. */
enum { OTHERS = 3 };
static uint32_t id[OTHERS], gen[OTHERS];
static int other[OTHERS];

/* What the victim puts, and the other end of that. */
static int mine, far;

/* PEERS_DONE  peers that have put, unpacked and dropped one of their own
   STAGE       what the victim has done */
enum { PEERS_DONE, STAGE };
enum { NOTHING, HAS, DROPPED };
enum { PEERS = 2 };

static int pair_of(int *end) {
    int pair[2];
    CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    *end = pair[0];
    return pair[1];
}

static bool is_closed(int fd) {
    char byte;
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void talk(int a, int b) {
    char byte = 0;
    CHECK_EQ(send(a, "x", 1, MSG_NOSIGNAL), 1);
    CHECK_EQ(recv(b, &byte, 1, MSG_DONTWAIT), 1);
    CHECK_EQ(byte, 'x');
}

static void put_others(void) {
    for (int i = 0; i < OTHERS; i++) {
        int end;
        other[i] = pair_of(&end);
        CHECK_OK(mp_parcel_create(end, &id[i], &gen[i]));
        close(end);
    }
}

static void make_pair(void) { far = pair_of(&mine); }

static void drop_others(void) {
    for (int i = 0; i < OTHERS; i++) {
        if (id[i]) mp_object_detach(id[i]);
        CHECK(is_closed(other[i]));
        close(other[i]);
    }
}

static void peer(int which) {
    uint32_t one, g;
    int end, there = pair_of(&end);
    (void)which;
    CHECK_OK(mp_parcel_create(end, &one, &g));
    close(end);
    int fd = mp_parcel_unpack(one);
    CHECK_OK(fd);
    talk(fd, there);
    close(fd);
    mp_object_detach(one);
    CHECK(is_closed(there));
    close(there);
    crash_count(PEERS_DONE);
}

/* Those of the killer are there, once; of the victim's nothing is. (A peer
   that came after the death has tidied up.) */
static void check(void) {
    CHECK_EQ(crash_noted(PEERS_DONE), PEERS);
    for (int i = 0; i < OTHERS; i++) {
        int fd = mp_parcel_unpack(id[i]);
        CHECK_OK(fd);
        talk(fd, other[i]);
        close(fd);
    }
    close(mine);
    CHECK(is_closed(far));
    close(far);
    CHECK_EQ(mp_parcel_entries(), OTHERS);
    CHECK_EQ(mp_me->super->untidy, 0);
}

#define REGION(region, what, prepares, runs, times)                      \
    static const crash_region region = {                                 \
        .name = what, .set_up = put_others, .ready = prepares,           \
        .run = runs, .most = times, .peers = PEERS, .peer = peer,        \
        .check = check, .tear_down = drop_others};                       \
    CRASH_REGION(region)

/* ---- put and drop ----------------------------------------------------- */

static void put_and_drop(void) {
    uint32_t one, g;
    CHECK_OK(mp_parcel_create(mine, &one, &g));
    crash_note(STAGE, HAS);
    mp_object_detach(one); /* behind the others, who all move */
    crash_note(STAGE, DROPPED);
}

REGION(parcel_drop, "parcel: put, dropped last", make_pair, put_and_drop, 400)

/* ---- unpack ------------------------------------------------------------ */

static void unpack(void) {
    int fd = mp_parcel_unpack(id[OTHERS - 1]);
    CHECK_OK(fd);
    close(fd);
}

REGION(parcel_unpack, "parcel: unpacked", make_pair, unpack, 150)

/* ---- a dead one's, tidied up ------------------------------------------ */

/* As if somebody had been killed while the first one moved. */
static void make_untidy(void) {
    make_pair();
    int fd = mp_parcel_unpack(id[0]);
    CHECK_OK(fd);
    uint64_t key = (uint64_t)gen[0] << 32 | id[0];
    CHECK_OK(mp_shelf_put(mp_me->shelf, key, fd));
    close(fd);
    atomic_store(&mp_me->super->untidy, 1);
}

REGION(parcel_tidy, "parcel: tidied up", make_untidy, put_and_drop, 400)
