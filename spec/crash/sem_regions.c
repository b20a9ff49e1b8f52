/* Semaphores. A permit has no owner: who dies with one has lost it for all,
   so the killer, who knows where the victim died, gives another in its stead;
   then there are exactly as many as there should be. */
#include "sync/sem.h"

#include "crash.h"
#include "mem/object.h"
#include "region_tools.h"

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_sem_open();
    CHECK_OK(mp_sem_create(0, 1, &id, &gen));
    mp_object_detach(id);
}

static uint32_t id, gen;
static mp_sem_shm *sem;

static void set_up(void) {
    CHECK_OK(mp_sem_create(0, 2, &id, &gen));
    sem = mp_object_block(id);
}

static void tear_down(void) { mp_object_detach(id); }

/* STAGE     what the victim has done: below
   PERMITS   there when it died, not counting those that peers took to keep
   TAKEN     kept by peers
   DONE      peers that came to their end
   DEADLINE  of the victim's acquire, ns */
enum { STAGE, PERMITS, TAKEN, DONE, DEADLINE };

enum { ACQUIRING, ACQUIRED, RELEASING, RELEASED };

static void acquire(void) {
    int r;
    while ((r = mp_sem_acquire(sem, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_EQ(r, 0);
}

static void release(void) { CHECK_EQ(mp_sem_release(sem, 1), 0); }

static void acquire_and_release(void) {
    acquire();
    crash_note(STAGE, ACQUIRED);
    crash_note(STAGE, RELEASING);
    release();
    crash_note(STAGE, RELEASED);
}

static void peer(int which) {
    (void)which;
    acquire();
    release();
    crash_count(DONE);
}

/* Peers at rest have none, or keep it. */
static void count_permits(void) {
    crash_await_rest();
    crash_note(PERMITS, mp_sem_value(sem) + crash_noted(TAKEN));
}

/* There is one permit: on its way it may be with the victim or not, at its
   stations it is where it must be. */
static void check_one_permit(void) {
    uint64_t stage = crash_noted(STAGE), n = crash_noted(PERMITS);
    CHECK(n <= 1);
    if (stage == ACQUIRED) CHECK_EQ(n, 0);
    if (stage == RELEASED) CHECK_EQ(n, 1);
}

/* The lost one is replaced: also if the killer had it, see `ready`. */
static void replace_lost(void) {
    if (crash_left()) count_permits();
    check_one_permit();
    if (crash_noted(PERMITS) == 0) release();
}

static void check(void) {
    CHECK_EQ(mp_sem_value(sem), 1);
    CHECK_EQ(crash_noted(DONE), 2);
}

static void put_one(void) {
    atomic_store(&sem->word, 1);
    sem->bound = 1;
}

static void too_many(void) {
    acquire_and_release();
    CHECK_EQ(mp_sem_release(sem, 1), -EOVERFLOW);
}

static const crash_region sem_free = {
    .name = "sem: acquire, release, release too much",
    .set_up = set_up,
    .ready = put_one,
    .run = too_many,
    .dying = count_permits,
    .after = replace_lost,
    .peers = 2,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(sem_free)

/* ---- with others ------------------------------------------------------ */

static void take_one(void) {
    atomic_store(&sem->word, 0);
    sem->bound = 1;
}

static void let_it_have(int n) {
    (void)n;
    release();
}

static const crash_region sem_waits = {.name = "sem: wait, have, release",
                                       .set_up = set_up,
                                       .ready = take_one,
                                       .run = acquire_and_release,
                                       .wake = let_it_have,
                                       .dying = count_permits,
                                       .after = replace_lost,
                                       .peers = 2,
                                       .peer = peer,
                                       .check = check,
                                       .tear_down = tear_down};
CRASH_REGION(sem_waits)

static void let_it_be_first(int n) {
    (void)n;
    crash_begin_peers();
    release();
}

static const crash_region sem_woken = {
    .name = "sem: woken before others, have, release",
    .set_up = set_up,
    .ready = take_one,
    .run = acquire_and_release,
    .wake = let_it_be_first,
    .dying = count_permits,
    .after = replace_lost,
    .peers = 2,
    .peer = peer,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(sem_woken)

/* ---- two for two ------------------------------------------------------ */

static void take_both(void) {
    atomic_store(&sem->word, 0);
    sem->bound = 2;
}

static void release_both(void) {
    crash_note(STAGE, RELEASING);
    CHECK_EQ(mp_sem_release(sem, 2), 0);
    crash_note(STAGE, RELEASED);
}

static void keep_one(int which) {
    (void)which;
    acquire();
    crash_count(TAKEN);
}

/* Both or none. */
static void replace_both(void) {
    if (crash_left()) count_permits();
    uint64_t n = crash_noted(PERMITS);
    CHECK(n == 2 || n == 0);
    if (crash_noted(STAGE) == RELEASED) CHECK_EQ(n, 2);
    if (crash_noted(STAGE) < RELEASING) CHECK_EQ(n, 0);
    if (n == 0) CHECK_EQ(mp_sem_release(sem, 2), 0);
}

static void check_taken(void) {
    CHECK_EQ(mp_sem_value(sem), 0);
    CHECK_EQ(crash_noted(TAKEN), 2);
}

static const crash_region sem_release = {
    .name = "sem: release two while two sleep",
    .set_up = set_up,
    .ready = take_both,
    .poised = crash_begin_peers,
    .run = release_both,
    .dying = count_permits,
    .after = replace_both,
    .peers = 2,
    .peer = keep_one,
    .check = check_taken,
    .tear_down = tear_down};
CRASH_REGION(sem_release)

/* ---- time is up ------------------------------------------------------- */

static mp_deadline deadline;

static void choose_deadline(void) { deadline = short_deadline(DEADLINE); }

static void give_up(void) {
    int r;
    while ((r = mp_sem_acquire(sem, deadline)) == -EINTR) {
    }
    CHECK_EQ(r, -ETIMEDOUT);
}

static void let_time_pass(int n) {
    (void)n;
    await_deadline(DEADLINE);
}

/* The killer has the permit all the while. */
static void give_back(void) {
    CHECK_EQ(mp_sem_value(sem), 0);
    release();
}

static const crash_region sem_timeout = {.name = "sem: wait until time is up",
                                         .set_up = set_up,
                                         .ready = take_one,
                                         .begin = choose_deadline,
                                         .poised = crash_begin_peers,
                                         .run = give_up,
                                         .wake = let_time_pass,
                                         .after = give_back,
                                         .peers = 2,
                                         .peer = peer,
                                         .check = check,
                                         .tear_down = tear_down};
CRASH_REGION(sem_timeout)
