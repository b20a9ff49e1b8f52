/* Events. Each set is counted in the word: so it is known of each life how
   often the event was set, and if the victim has not, the killer does. */
#include "sync/event.h"

#include <errno.h>

#include "crash.h"
#include "mem/object.h"
#include "region_tools.h"

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_event_open();
    CHECK_OK(mp_event_create(&id, &gen));
    mp_object_detach(id);
}

static uint32_t id, gen;
static mp_event_shm *event;

static void set_up(void) {
    CHECK_OK(mp_event_create(&id, &gen));
    event = mp_object_block(id);
}

static void tear_down(void) { mp_object_detach(id); }

/* BEFORE    sets before this life
   STAGE     what the victim has done: below
   WOKEN     peers that saw the event set
   DEADLINE  of the victim's wait, ns */
enum { BEFORE, STAGE, WOKEN, DEADLINE };

enum { NOTHING, SET, CLEARED };
enum { PEERS = 3 };

static void unset(void) {
    mp_event_clear(event);
    crash_note(BEFORE, mp_event_sets(event));
}

static uint32_t sets(void) {
    return mp_event_sets(event) - (uint32_t)crash_noted(BEFORE);
}

static void await_set(void) {
    uint32_t seen = mp_event_sets(event);
    mp_deadline deadline = mp_deadline_in(10);
    int r;
    while ((r = mp_event_wait(event, seen, deadline)) == -EINTR) {
    }
    CHECK_EQ(r, 0);
}

static void peer(int which) {
    (void)which;
    await_set();
    crash_count(WOKEN);
}

/* It was set once, by whomever. */
static void check(void) {
    CHECK_EQ(sets(), 1);
    CHECK_EQ(crash_noted(WOKEN), PEERS);
}

/* ---- setting ---------------------------------------------------------- */

static void set(void) {
    mp_event_set(event);
    crash_note(STAGE, SET);
}

static void set_instead(void) {
    if (crash_noted(STAGE) == SET) CHECK(mp_event_is_set(event));
    if (sets() == 0) mp_event_set(event);
}

static void check_set(void) {
    check();
    CHECK(mp_event_is_set(event));
}

static const crash_region event_set = {.name = "event: set while others sleep",
                                       .set_up = set_up,
                                       .ready = unset,
                                       .poised = crash_begin_peers,
                                       .run = set,
                                       .after = set_instead,
                                       .peers = PEERS,
                                       .peer = peer,
                                       .check = check_set,
                                       .tear_down = tear_down};
CRASH_REGION(event_set)

static void set_and_clear(void) {
    set();
    mp_event_clear(event);
    crash_note(STAGE, CLEARED);
}

static void set_and_clear_instead(void) {
    if (crash_noted(STAGE) >= SET) CHECK_EQ(sets(), 1);
    if (crash_noted(STAGE) == CLEARED) CHECK(!mp_event_is_set(event));
    if (sets() > 0) return;
    mp_event_set(event);
    mp_event_clear(event);
}

/* Who waited sees the set, though it is cleared at once. */
static const crash_region event_set_clear = {
    .name = "event: set, clear while others sleep",
    .set_up = set_up,
    .ready = unset,
    .poised = crash_begin_peers,
    .run = set_and_clear,
    .after = set_and_clear_instead,
    .peers = PEERS,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(event_set_clear)

/* ---- waiting ---------------------------------------------------------- */

static void let_all_go(int n) {
    (void)n;
    crash_begin_peers();
    mp_event_set(event);
}

static void set_if_not(void) {
    if (sets() == 0) mp_event_set(event);
}

static const crash_region event_wait = {.name = "event: wait, woken first",
                                        .set_up = set_up,
                                        .ready = unset,
                                        .run = await_set,
                                        .wake = let_all_go,
                                        .after = set_if_not,
                                        .peers = PEERS,
                                        .peer = peer,
                                        .check = check_set,
                                        .tear_down = tear_down};
CRASH_REGION(event_wait)

static mp_deadline deadline;

static void choose_deadline(void) { deadline = short_deadline(DEADLINE); }

static void give_up(void) {
    uint32_t seen = mp_event_sets(event);
    int r;
    while ((r = mp_event_wait(event, seen, deadline)) == -EINTR) {
    }
    CHECK_EQ(r, -ETIMEDOUT);
}

static void let_time_pass(int n) {
    (void)n;
    await_deadline(DEADLINE);
}

static const crash_region event_timeout = {
    .name = "event: wait until time is up",
    .set_up = set_up,
    .ready = unset,
    .begin = choose_deadline,
    .poised = crash_begin_peers,
    .run = give_up,
    .wake = let_time_pass,
    .after = set_if_not,
    .peers = PEERS,
    .peer = peer,
    .check = check_set,
    .tear_down = tear_down};
CRASH_REGION(event_timeout)
