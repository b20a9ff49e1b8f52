/* Waiting for descriptors and for things in shared memory at once. */
#include "sync/bell.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "queue_fixture.h"
#include "sync/event.h"

SPEC_PREPARE {
    uint32_t id, gen;
    prepare_queues();
    mp_event_open();
    CHECK_OK(mp_event_create(&id, &gen));
    mp_object_detach(id);
}

/* ---- things ---------------------------------------------------------- */

static bool queue_ready(void *q) { return mp_queue_has_item(q); }
static void queue_announce(void *q) { mp_queue_announce(q); }
static bool event_ready(void *event) { return mp_event_is_set(event); }
static void event_announce(void *event) { mp_event_announce(event); }

static mp_bell_thing of_queue(fixture *f) {
    return (mp_bell_thing){queue_ready, queue_announce, f->q, false};
}

static mp_bell_thing of_event(mp_event_shm *event) {
    return (mp_bell_thing){event_ready, event_announce, event, false};
}

static int wait_in(struct pollfd *fds, size_t n, mp_bell_thing *things,
                   size_t m, double seconds) {
    mp_deadline deadline = mp_deadline_in(seconds);
    int r;
    while ((r = mp_bell_wait(fds, n, things, m, deadline)) == -EINTR) {
    }
    return r;
}

typedef struct event {
    uint32_t id, gen;
    mp_event_shm *shm;
} event;

static event new_event(void) {
    event e;
    CHECK_OK(mp_event_create(&e.id, &e.gen));
    e.shm = mp_object_block(e.id);
    return e;
}

static void in_child(mp_proc *child, void (*work)(void *), void *argument) {
    int r = mp_proc_fork(child, 0);
    CHECK_OK(r);
    if (r == 0) return;
    work(argument);
    _exit(0);
}

static void end(mp_proc *child, int exitcode) {
    while (mp_proc_wait(child, MP_FOREVER) == -EINTR) {
    }
    CHECK_EQ(child->exitcode, exitcode);
    mp_proc_close(child);
}

/* ---- one at a time --------------------------------------------------- */

SPEC("bell: what is ready already is told at once") {
    fixture f;
    open_queue(&f, 0);
    event e = new_event();
    int pipes[2];
    CHECK_OK(pipe(pipes));
    struct pollfd fds[2] = {{.fd = pipes[0], .events = POLLIN}};
    mp_bell_thing things[2] = {of_queue(&f), of_event(e.shm)};
    CHECK_EQ(wait_in(fds, 1, things, 2, 0), -ETIMEDOUT);
    put_word(&f, 1);
    CHECK_EQ(wait_in(fds, 1, things, 2, 0), 0);
    CHECK(things[0].is_ready && !things[1].is_ready && !fds[0].revents);
    mp_event_set(e.shm);
    CHECK_EQ(write(pipes[1], "x", 1), 1);
    CHECK_EQ(wait_in(fds, 1, things, 2, 0), 0);
    CHECK(things[0].is_ready && things[1].is_ready && fds[0].revents);
    CHECK_EQ(get_word(&f), 1);
    close_queue(&f);
    mp_object_detach(e.id);
    close(pipes[0]);
    close(pipes[1]);
}

SPEC("bell: the deadline is kept, to the millisecond") {
    fixture f;
    open_queue(&f, 0);
    struct pollfd fds[1];
    mp_bell_thing thing = of_queue(&f);
    double begin = spec_now();
    CHECK_EQ(wait_in(fds, 0, &thing, 1, 0.05), -ETIMEDOUT);
    double took = spec_now() - begin;
    CHECK(took >= 0.05);
    CHECK(took < 0.5);
    close_queue(&f);
}

/* Puts when the waiter has announced itself, so when it sleeps or is about
   to. */
static void put_when_announced(void *argument) {
    fixture *f = argument;
    CHECK_SOON(atomic_load(&f->q->not_empty.word) & 1);
    usleep(3000);
    put_word(f, 5);
}

static void set_when_announced(void *argument) {
    mp_event_shm *shm = argument;
    CHECK_SOON(atomic_load(&shm->word) & 2);
    usleep(3000);
    mp_event_set(shm);
}

SPEC("bell: a put wakes who waits for a queue and a descriptor") {
    fixture f;
    mp_proc child;
    int pipes[2];
    open_queue(&f, 0);
    CHECK_OK(pipe(pipes));
    struct pollfd fds[2] = {{.fd = pipes[0], .events = POLLIN}};
    mp_bell_thing thing = of_queue(&f);
    in_child(&child, put_when_announced, &f);
    CHECK_EQ(wait_in(fds, 1, &thing, 1, 10), 0);
    CHECK(thing.is_ready && !fds[0].revents);
    CHECK_EQ(get_word(&f), 5);
    end(&child, 0);
    close_queue(&f);
    close(pipes[0]);
    close(pipes[1]);
}

SPEC("bell: an event wakes who waits for it and others") {
    mp_proc child;
    event a = new_event(), b = new_event();
    mp_bell_thing things[2] = {of_event(a.shm), of_event(b.shm)};
    struct pollfd fds[1];
    in_child(&child, set_when_announced, b.shm);
    CHECK_EQ(wait_in(fds, 0, things, 2, 10), 0);
    CHECK(!things[0].is_ready && things[1].is_ready);
    end(&child, 0);
    mp_object_detach(a.id);
    mp_object_detach(b.id);
}

/* ---- the bell itself ------------------------------------------------- */

/* All slices but the bell's are as long as they get: only it can wake. */
static void only_the_bell(void) { mp_me->first_slice_ns = 4000000000; }

SPEC("bell: it wakes long before a slice ends, whoever waits besides") {
    enum { WAITERS = 3 };
    static fixture f;
    mp_proc waiter[WAITERS];
    open_queue(&f, 0);
    for (int i = 0; i < WAITERS; i++) {
        int r = mp_proc_fork(&waiter[i], 0);
        CHECK_OK(r);
        if (r == 0) continue;
        struct pollfd fds[1];
        mp_bell_thing thing = of_queue(&f);
        only_the_bell();
        CHECK_EQ(wait_in(fds, 0, &thing, 1, 10), 0);
        _exit(0);
    }
    double begin = spec_now();
    put_when_announced(&f);
    for (int i = 0; i < WAITERS; i++) end(&waiter[i], 0);
    CHECK(spec_now() - begin < 3.5);
    CHECK_EQ(get_word(&f), 5);
    close_queue(&f);
}

/* One waits for as long as it takes, with the bell; another puts an item and
   waits until it is gone: no put may go unheard. */
static void consume(void *argument) {
    fixture *f = argument;
    struct pollfd fds[1];
    mp_bell_thing thing = of_queue(f);
    only_the_bell();
    for (uint64_t i = 0; i < 300; i++) {
        CHECK_EQ(wait_in(fds, 0, &thing, 1, 10), 0);
        CHECK_EQ(get_word(f), i);
    }
}

SPEC("bell: of many puts, none goes unheard") {
    static fixture f;
    mp_proc child;
    open_queue(&f, 0);
    in_child(&child, consume, &f);
    double begin = spec_now();
    for (uint64_t i = 0; i < 300; i++) {
        put_word(&f, i);
        while (mp_queue_size(f.q) > 0)
            if (i % 3) sched_yield();
            else usleep(50);
    }
    end(&child, 0);
    CHECK(spec_now() - begin < 3.9);
    close_queue(&f);
}

SPEC("bell: one who waits and is killed harms nobody") {
    static fixture f;
    mp_proc child;
    open_queue(&f, 0);
    in_child(&child, consume, &f);
    CHECK_SOON(atomic_load(&f.q->not_empty.word) & 1);
    usleep(2000);
    kill(child.pid, SIGKILL);
    end(&child, -SIGKILL);
    put_word(&f, 1);
    put_word(&f, 2);
    CHECK_EQ(get_word(&f), 1);
    CHECK_EQ(get_word(&f), 2);
    close_queue(&f);
}

SPEC("bell: nobody pays for it who does not use it") {
    fixture f;
    struct pollfd none[1];
    mp_bell_thing thing;
    open_queue(&f, 0);
    thing = of_queue(&f);
    /* One is rung, as somebody has waited; then no more. */
    CHECK_EQ(wait_in(none, 0, &thing, 1, 0.1), -ETIMEDOUT);
    CHECK_EQ(mp_me->super->bell, MP_BELL_USED | MP_BELL_WANTED);
    put_word(&f, 1);
    CHECK_EQ(mp_me->super->bell, MP_BELL_USED);
    mp_wait_announce(&f.q->not_empty);
    put_word(&f, 2);
    CHECK_EQ(mp_me->super->bell, MP_BELL_USED);
    CHECK_EQ(get_word(&f) + get_word(&f), 3);
    close_queue(&f);
}

/* ---- without it ------------------------------------------------------ */

static void check_without_bell(fixture *f, bool refused) {
    struct rlimit limit, none;
    mp_proc child;
    struct pollfd fds[2];
    int pipes[2];
    mp_bell_thing thing = of_queue(f);
    CHECK_OK(pipe(pipes));
    fds[0] = (struct pollfd){.fd = pipes[0], .events = POLLIN};
    only_the_bell();
    in_child(&child, put_when_announced, f);
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
    none = limit;
    none.rlim_cur = 3; /* no more descriptors */
    if (refused) CHECK_OK(setrlimit(RLIMIT_NOFILE, &none));
    double begin = spec_now();
    CHECK_EQ(wait_in(fds, 1, &thing, 1, 10), 0);
    CHECK(spec_now() - begin < 3.5);
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
    CHECK_EQ(get_word(f), 5);
    end(&child, 0);
    close(pipes[0]);
    close(pipes[1]);
}

SPEC("bell: where it is refused, short slices do") {
    fixture f;
    open_queue(&f, 0);
    check_without_bell(&f, true);
    close_queue(&f);
}

SPEC("bell: where there is none, short slices do") {
    fixture f;
    int ends[2] = {mp_me->shelf[0], mp_me->shelf[1]};
    open_queue(&f, 0);
    mp_me->shelf[0] = mp_me->shelf[1] = -1;
    check_without_bell(&f, false);
    close_queue(&f);
    mp_me->shelf[0] = ends[0];
    mp_me->shelf[1] = ends[1];
}

SPEC("bell: more descriptors than there may be are refused") {
    enum { MANY = 300 };
    struct rlimit limit;
    struct pollfd fds[MANY + 1];
    if (spec_valgrind()) return; /* the limit is not poll's */
    for (int i = 0; i < MANY; i++)
        fds[i] = (struct pollfd){.fd = 0, .events = POLLIN};
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
    struct rlimit few = limit;
    few.rlim_cur = MANY - 1;
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &few));
    CHECK_EQ(wait_in(fds, MANY, NULL, 0, 0), -EINVAL);
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
}

SPEC("bell: a thousand queues and descriptors, the last of them") {
    enum { MANY = 1000 };
    static fixture f[MANY];
    static struct pollfd fds[MANY + 1];
    static mp_bell_thing things[MANY];
    struct rlimit limit;
    mp_proc child;
    CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
    int pipes[2];
    CHECK_OK(pipe(pipes));
    for (int i = 0; i < MANY; i++) {
        open_queue(&f[i], 0);
        things[i] = of_queue(&f[i]);
        fds[i] = (struct pollfd){.fd = dup(pipes[0]), .events = POLLIN};
        CHECK_OK(fds[i].fd);
    }
    in_child(&child, put_when_announced, &f[MANY - 1]);
    only_the_bell();
    double begin = spec_now();
    CHECK_EQ(wait_in(fds, MANY, things, MANY, 10), 0);
    CHECK(spec_now() - begin < 3.5);
    for (int i = 0; i < MANY; i++)
        CHECK(things[i].is_ready == (i == MANY - 1) && !fds[i].revents);
    end(&child, 0);
    CHECK_EQ(get_word(&f[MANY - 1]), 5);
    for (int i = 0; i < MANY; i++) {
        close_queue(&f[i]);
        close(fds[i].fd);
    }
    close(pipes[0]);
    close(pipes[1]);
}
