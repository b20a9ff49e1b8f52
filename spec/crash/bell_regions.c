/* Waiting at the bell for one of two events and a descriptor that never says
   anything: who sets the second one is killed, and who waits. Whether the bell
   was rung or not, the others come to see it. */
#include "sync/bell.h"

#include <errno.h>
#include <unistd.h>

#include "crash.h"
#include "mem/object.h"
#include "region_tools.h"
#include "sync/event.h"

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_event_open();
    CHECK_OK(mp_event_create(&id, &gen));
    mp_object_detach(id);
}

static uint32_t id[2], gen[2];
static mp_event_shm *event[2];
static int pipes[2];

/* WOKEN  peers that saw it set
   STAGE  1: the victim has done it */
enum { WOKEN, STAGE };
enum { PEERS = 3 };

static void set_up(void) {
    CHECK_OK(pipe(pipes));
    for (int i = 0; i < 2; i++) {
        CHECK_OK(mp_event_create(&id[i], &gen[i]));
        event[i] = mp_object_block(id[i]);
    }
}

static void tear_down(void) {
    for (int i = 0; i < 2; i++) {
        mp_object_detach(id[i]);
        close(pipes[i]);
    }
}

static void unset(void) { mp_event_clear(event[1]); }

static bool is_set(void *of) { return mp_event_is_set(of); }
static void announce(void *of) { mp_event_announce(of); }

static void await_set(void) {
    struct pollfd fds[2] = {{.fd = pipes[0], .events = POLLIN}};
    mp_bell_thing things[2] = {{is_set, announce, event[0], false},
                               {is_set, announce, event[1], false}};
    mp_deadline deadline = mp_deadline_in(10);
    int r;
    while ((r = mp_bell_wait(fds, 1, things, 2, deadline)) == -EINTR) {
    }
    CHECK_EQ(r, 0);
    CHECK(!things[0].is_ready && things[1].is_ready && !fds[0].revents);
}

static void peer(int which) {
    (void)which;
    await_set();
    crash_count(WOKEN);
}

static void check(void) {
    CHECK(mp_event_is_set(event[1]));
    CHECK_EQ(crash_noted(WOKEN), PEERS);
    CHECK(mp_me->super->bell & MP_BELL_USED);
}

static void set_if_not(void) {
    if (!mp_event_is_set(event[1])) mp_event_set(event[1]);
}

/* ---- ringing ----------------------------------------------------------- */

static void set(void) {
    mp_event_set(event[1]);
    crash_note(STAGE, 1);
}

static void begin_and_rest(void) {
    crash_begin_peers();
    crash_await_rest();
}

static const crash_region bell_ring = {.name = "bell: rung while others wait",
                                       .set_up = set_up,
                                       .ready = unset,
                                       .poised = begin_and_rest,
                                       .run = set,
                                       .after = set_if_not,
                                       .peers = PEERS,
                                       .peer = peer,
                                       .check = check,
                                       .tear_down = tear_down};
CRASH_REGION(bell_ring)

/* ---- waiting ----------------------------------------------------------- */

static void let_all_go(int n) {
    (void)n;
    crash_begin_peers();
    mp_event_set(event[1]);
}

static const crash_region bell_wait = {.name = "bell: wait, and be rung",
                                       .set_up = set_up,
                                       .ready = unset,
                                       .run = await_set,
                                       .wake = let_all_go,
                                       .after = set_if_not,
                                       .most = 200,
                                       .peers = PEERS,
                                       .peer = peer,
                                       .check = check,
                                       .tear_down = tear_down};
CRASH_REGION(bell_wait)
