/* Conditions. Three peers wait, a fourth looks after them. Where the victim
   will be killed the killer works out what the death does to the waiters: how
   many must be notified in the end, by the victim, by its death while it held
   the lock (which counts as a notify), by a notify that it had not used. Just
   so many peers must come back by themselves; then the fourth notifies the
   rest, and finds that there is one. */
#include "sync/cond.h"

#include "crash.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "region_tools.h"

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_cond_open();
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_object_detach(id);
}

enum { WAITERS = 3, PEERS = WAITERS + 1 };

/* EXPECTED  how many peers are to be notified without help
   NOTIFIED  how many were
   MADE      notifies of the killer's
   FIRST     the victim's node
   STAGE     what the victim has done: below
   VICTIM    its tag
   DEADLINE  of the victim's wait, ns */
enum { EXPECTED, NOTIFIED, MADE, FIRST, STAGE, VICTIM, DEADLINE };

enum { BEGINNING, ENDING, ENDED };

static uint32_t id, gen, lock_id, lock_gen;
static mp_cond_shm *cond;

/* ---- three kinds ------------------------------------------------------ */

static void set_up_own(void) {
    lock_id = 0;
    CHECK_OK(mp_cond_create(0, NULL, false, &id, &gen));
    cond = mp_object_block(id);
}

static void make_foreign(void) {
    void *lock = mp_object_block(lock_id);
    CHECK_OK(mp_cond_create(lock_id, lock, false, &id, &gen));
    cond = mp_object_block(id);
}

/* The lock is told of a death before the condition is. */
static void set_up_foreign(void) {
    CHECK_OK(mp_lock_create(&lock_id, &lock_gen));
    make_foreign();
    CHECK(lock_id < id);
}

/* The condition is told first: it has the number that was free. */
static void set_up_foreign_behind(void) {
    uint32_t first, first_gen;
    CHECK_OK(mp_lock_create(&first, &first_gen));
    CHECK_OK(mp_lock_create(&lock_id, &lock_gen));
    mp_object_detach(first);
    make_foreign();
    CHECK(lock_id > id);
}

static void tear_down(void) {
    mp_object_detach(id);
    if (lock_id) mp_object_detach(lock_id);
}

/* ---- what everybody does ---------------------------------------------- */

static void acquire(void) {
    int r;
    while ((r = mp_cond_acquire(cond, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK(r == 0 || r == MP_LOCK_ABANDONED);
}

static void release(void) { CHECK_EQ(mp_cond_release(cond), 0); }

static int sleep_until(mp_cond_wait *w, mp_deadline deadline) {
    int r;
    while ((r = mp_cond_wait_sleep(w, deadline)) == -EINTR) {
    }
    return r;
}

static void relock(mp_cond_wait *w) {
    int r;
    while ((r = mp_cond_wait_relock(cond, w)) == -EINTR) {
    }
    CHECK(r == 0 || r == MP_LOCK_ABANDONED);
}

static void wait_for_notify(void) {
    mp_cond_wait w;
    acquire();
    CHECK_OK(mp_cond_wait_begin(cond, &w));
    CHECK_EQ(sleep_until(&w, mp_deadline_in(10)), 0);
    relock(&w);
    CHECK(mp_cond_wait_end(cond, &w, false));
    release();
    crash_count(NOTIFIED);
}

/* ---- the fourth ------------------------------------------------------- */

static void await_notified(void) {
    double end = spec_now() + 5;
    while (crash_noted(NOTIFIED) < crash_noted(EXPECTED)) {
        CHECK(spec_now() < end); /* a notify is lost */
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
}

/* After that the death has no more consequences. */
static void await_reaped(void) {
    uint32_t tag = (uint32_t)crash_noted(VICTIM);
    CHECK_SOON(!mp_tag_alive(tag));
    mp_reap(tag);
}

static void look_after_them(void) {
    pass_gate();
    /* Those who have waited for so long would look around late. */
    if (crash_noted(DEADLINE)) {
        acquire();
        release();
    }
    await_notified();
    await_reaped();
    acquire();
    CHECK_EQ(mp_cond_waiting(cond), WAITERS - crash_noted(EXPECTED));
    CHECK_OK(mp_cond_notify(cond, UINT32_MAX));
    release();
}

static void peer(int which) {
    if (which < WAITERS)
        wait_for_notify();
    else
        look_after_them();
}

/* ---- what is expected ------------------------------------------------- */

/* What a word will hold when the victim's record has been replayed. */
static uint64_t committed(const _Atomic uint64_t *word) {
    mp_txn_shm *txn = &mp_slot_at(crash_victim() % MP_SLOTS)->txn;
    uint64_t value = atomic_load(word);
    for (uint32_t i = 0; i < atomic_load(&txn->n); i++)
        if (txn->w[i].at == mp_offset(word)) value = txn->w[i].value;
    return value;
}

static uint32_t count_waiting(void) {
    uint32_t n = 0;
    mp_ref node = committed(&cond->waiters.waiting);
    for (; node; node = atomic_load(&mp_waiter_at(node)->next)) n++;
    return n;
}

static bool victim_holds_lock(void) {
    uint32_t word = atomic_load(&mp_cond_lock(cond)->word);
    return (word & MP_TAG_MASK) == crash_victim();
}

static void expect(uint64_t n) {
    crash_note(VICTIM, crash_victim());
    crash_note(EXPECTED, n < WAITERS ? n : WAITERS);
}

static void check(void) {
    CHECK_EQ(crash_noted(NOTIFIED), WAITERS);
    CHECK_EQ(atomic_load(&mp_cond_lock(cond)->word), 0);
    CHECK_EQ(atomic_load(&cond->waiters.head), 0);
    CHECK_EQ(atomic_load(&cond->waiters.tail), 0);
    CHECK_EQ(atomic_load(&cond->waiters.waiting), 0);
}

/* ---- notifying -------------------------------------------------------- */

static uint32_t notifies;

static void notify(void) {
    acquire();
    CHECK_OK(mp_cond_notify(cond, notifies));
    release();
}

static void one(void) { notifies = 1; }
static void all(void) { notifies = UINT32_MAX; }

/* Those that the victim has notified, and one for the lock. */
static void expect_notified(void) {
    crash_await_rest();
    expect(WAITERS - count_waiting() + victim_holds_lock());
}

static void after_notify(void) {
    if (crash_left()) {
        expect_notified();
        CHECK_EQ(crash_noted(EXPECTED), notifies == 1 ? 1 : WAITERS);
    }
    open_gate();
}

#define NOTIFY(region, words, make, many)                                \
    static const crash_region region = {.name = words,                   \
                                        .set_up = make,                  \
                                        .ready = many,                   \
                                        .poised = crash_begin_peers,     \
                                        .run = notify,                   \
                                        .dying = expect_notified,        \
                                        .after = after_notify,           \
                                        .peers = PEERS,                  \
                                        .peer = peer,                    \
                                        .check = check,                  \
                                        .tear_down = tear_down};         \
    CRASH_REGION(region)

NOTIFY(cond_notify, "cond: notify one of three", set_up_own, one)
NOTIFY(cond_notify_all, "cond: notify all", set_up_own, all)
NOTIFY(cond_notify_foreign, "cond: notify one, a lock of others",
       set_up_foreign, one)

/* ---- beginning to wait ------------------------------------------------ */

static void have_room(void) { warm_up(sizeof(mp_waiter_shm)); }

static void wait_alone(void) {
    mp_cond_wait w;
    acquire();
    CHECK_OK(mp_cond_wait_begin(cond, &w));
    sleep_until(&w, MP_FOREVER);
    CHECK(!"notified");
}

/* Behind the others: none of them is notified but for the lock. */
static void expect_for_lock(void) { expect(victim_holds_lock()); }

static const crash_region cond_begin = {.name = "cond: begin to wait",
                                        .set_up = set_up_own,
                                        .begin = have_room,
                                        .poised = crash_begin_peers,
                                        .run = wait_alone,
                                        .dying = expect_for_lock,
                                        .after = open_gate,
                                        .peers = PEERS,
                                        .peer = peer,
                                        .check = check,
                                        .tear_down = tear_down};
CRASH_REGION(cond_begin)

/* ---- being notified --------------------------------------------------- */

static mp_cond_wait mine;
static bool pass_on;
static mp_deadline deadline;

static void use_it(void) { pass_on = false; }
static void pass_it_on(void) { pass_on = true; }

static void begin_to_wait(void) {
    deadline = MP_FOREVER;
    acquire();
    CHECK_OK(mp_cond_wait_begin(cond, &mine));
    crash_note(FIRST, mine.node);
}

static void wait_on(void) {
    sleep_until(&mine, deadline);
    relock(&mine);
    crash_note(STAGE, ENDING);
    mp_cond_wait_end(cond, &mine, pass_on);
    crash_note(STAGE, ENDED);
    release();
}

/* The victim has waited longest. At first the killer keeps the lock, so that
   the victim sleeps again, notified. */
static void let_it_have(int n) {
    if (n == 0) {
        acquire();
        CHECK_OK(mp_cond_notify(cond, 1));
        crash_note(MADE, 1);
    } else if (mp_lock_mine(mp_cond_lock(cond))) {
        release();
    }
}

static void release_mine(void) {
    if (mp_lock_mine(mp_cond_lock(cond))) release();
}

/* Has it left the list, with its notify? */
static bool has_used_it(void) {
    if (pass_on || crash_noted(STAGE) == BEGINNING) return false;
    if (crash_noted(STAGE) == ENDED) return true;
    return committed(&cond->waiters.head) != crash_noted(FIRST);
}

static void expect_passed_on(void) {
    crash_await_rest();
    expect(crash_noted(MADE) - (crash_noted(MADE) && has_used_it()) +
           victim_holds_lock());
}

static void after_wait(void) {
    if (crash_left()) {
        expect_passed_on();
        CHECK_EQ(crash_noted(EXPECTED), pass_on && crash_noted(MADE));
    }
    release_mine();
    open_gate();
}

#define WAIT(region, words, make, use)                                   \
    static const crash_region region = {.name = words,                   \
                                        .set_up = make,                  \
                                        .ready = use,                    \
                                        .begin = begin_to_wait,          \
                                        .poised = crash_begin_peers,     \
                                        .run = wait_on,                  \
                                        .wake = let_it_have,             \
                                        .most = 600,                     \
                                        .dying = expect_passed_on,       \
                                        .after = after_wait,             \
                                        .peers = PEERS,                  \
                                        .peer = peer,                    \
                                        .check = check,                  \
                                        .tear_down = tear_down};         \
    CRASH_REGION(region)

WAIT(cond_wait, "cond: notified, have the lock again", set_up_own, use_it)
WAIT(cond_wait_foreign, "cond: notified, a lock of others", set_up_foreign,
     use_it)
WAIT(cond_wait_foreign_behind, "cond: notified, a lock told later",
     set_up_foreign_behind, use_it)
WAIT(cond_pass_on, "cond: notified, leave by an error", set_up_own,
     pass_it_on)

/* ---- time is up ------------------------------------------------------- */

static void begin_short_wait(void) {
    use_it();
    begin_to_wait();
    deadline = short_deadline(DEADLINE);
}

static void let_time_pass(int n) {
    (void)n;
    await_deadline(DEADLINE);
}

static const crash_region cond_timeout = {.name = "cond: time is up",
                                          .set_up = set_up_own,
                                          .begin = begin_short_wait,
                                          .poised = crash_begin_peers,
                                          .run = wait_on,
                                          .wake = let_time_pass,
                                          .dying = expect_passed_on,
                                          .after = after_wait,
                                          .peers = PEERS,
                                          .peer = peer,
                                          .check = check,
                                          .tear_down = tear_down};
CRASH_REGION(cond_timeout)
