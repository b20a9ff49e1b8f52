/* The crew: a small process between the caller and the workers. It forks
   them, so each starts from the state that the caller had when it made the
   pool; it waits for their end, repairs, and forks again, while the caller
   computes. It has one thread, runs no Lua and holds no lock while it
   sleeps.

   Its events: a worker's end (pidfd), SIGTERM (the pool changed:
   mp_pool_stir), the bell (a worker wants to be replaced, or has cancelled
   something), the time at which an item has run for too long, a slice's end
   (where a pidfd is missing). The kernel kills it
   when the caller ends, and the workers when it ends.

   A worker that wants to be replaced has an heir: it starts while the other
   still works, runs its initializer, and gets the place when that is free. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "os/signal.h"
#include "proc/family.h"
#include "work/pool_shm.h"

enum {
    POLL_MS = 1000,
    NO_PIDFD_POLL_MS = 5,
    EARLY_AT_ONCE = 3,       /* so many are replaced without a pause */
    PAUSE_NS = 10000000,     /* the first; each is twice as long ... */
    PAUSE_DOUBLINGS = 3,     /* ... so often */
    HOPELESS_NS = 1000000000 /* at least, before the pool is given up */
};

/* FDS_SIGNAL, FDS_BELL, then the workers, then their heirs. */
enum { FDS_SIGNAL, FDS_BELL, FDS_WORKERS };

typedef struct crew {
    mp_pool_shm *pool;
    mp_worker_main run;
    void *ctx;
    mp_proc *proc, *heir; /* per place; pid 0 = none */
    struct pollfd *fds;
    uint32_t alive; /* without heirs */
    /* Deaths before ready, in a row: how many, since when, and until when no
       other worker begins (ns) */
    uint32_t early;
    uint64_t early_since, pause_until;
} crew;

static void in_worker(crew *c, uint32_t index, bool heir) {
    mp_proc *own = heir ? &c->heir[index] : &c->proc[index];
    for (uint32_t i = 0; i < 2 * c->pool->places; i++)
        if (c->proc[i].pid && &c->proc[i] != own) mp_proc_close(&c->proc[i]);
    close(c->fds[FDS_SIGNAL].fd);
    mp_signal_default(SIGTERM);
    mp_worker_shm *w = &c->pool->worker[index];
    if (!heir) {
        atomic_store(&w->tag, mp_me->tag);
        atomic_store(&w->pid, (uint32_t)getpid());
    }
    c->run(c->pool, index, c->ctx);
    mp_proc_exit(0);
}

/* The place is this process's. */
static void settle_in(crew *c, uint32_t index) {
    mp_worker_shm *w = &c->pool->worker[index];
    atomic_store(&w->tag, c->proc[index].tag);
    atomic_store(&w->pid, (uint32_t)c->proc[index].pid);
    c->alive++;
}

static void clear_place(mp_worker_shm *w) {
    atomic_store(&w->ready, 0);
    atomic_store(&w->doomed, 0);
    atomic_store(&w->wish, 0);
    atomic_store(&w->heir, 0);
    w->items = 0;
}

static int start_worker(crew *c, uint32_t index) {
    clear_place(&c->pool->worker[index]);
    int r = mp_proc_fork(&c->proc[index], 0);
    if (r == 1) in_worker(c, index, false);
    if (r < 0) {
        c->proc[index].pid = 0;
        return r;
    }
    settle_in(c, index);
    return 0;
}

/* Without one, the place is filled when it is free. */
static void start_heir(crew *c, uint32_t index) {
    int r = mp_proc_fork(&c->heir[index], 0);
    if (r == 1) in_worker(c, index, true);
    if (r < 0) c->heir[index].pid = 0;
}

/* The heir comes into its place. Whether it is ready, it says itself: where
   it was so before, there. */
static void promote(crew *c, uint32_t index) {
    mp_worker_shm *w = &c->pool->worker[index];
    bool ready = atomic_load(&w->heir) == c->heir[index].tag;
    clear_place(w);
    c->proc[index] = c->heir[index];
    c->heir[index].pid = 0;
    settle_in(c, index);
    atomic_store(&w->ready, ready);
    mp_wait_notify(&c->pool->turn, INT_MAX);
}

static void end_one(mp_proc *p) {
    while (mp_proc_wait(p, MP_FOREVER) == -EINTR) {
    }
    mp_proc_close(p);
    p->pid = 0;
}

/* What the workers ran is not lost but stopped: the pool's state says so. */
static void end_all(crew *c) {
    for (uint32_t i = 0; i < 2 * c->pool->places; i++)
        if (c->proc[i].pid) mp_proc_signal(&c->proc[i], SIGKILL);
    for (uint32_t i = 0; i < 2 * c->pool->places; i++)
        if (c->proc[i].pid) end_one(&c->proc[i]);
    mp_proc_exit(0);
}

static void give_up(crew *c) {
    mp_pool_break(c->pool);
    end_all(c);
}

static bool is_wanted(const crew *c, uint32_t index) {
    return index < mp_pool_workers(c->pool) && mp_worker_wanted(c->pool);
}

/* A worker is gone, `early`: before it was ready. Where that goes on, the next
   ones begin later and later: whatever ends them may pass. */
static void note_end(crew *c, bool early) {
    uint64_t now = (uint64_t)mp_now_ns();
    if (!early) {
        c->early = 0;
        return;
    }
    if (c->early == 0) c->early_since = now;
    c->early++;
    if (c->early <= EARLY_AT_ONCE) return;
    uint32_t more = c->early - EARLY_AT_ONCE - 1;
    if (more > PAUSE_DOUBLINGS) more = PAUSE_DOUBLINGS;
    c->pause_until = now + ((uint64_t)PAUSE_NS << more);
}

static bool any_ready(const crew *c) {
    for (uint32_t i = 0; i < c->pool->places; i++)
        if (c->proc[i].pid && atomic_load(&c->pool->worker[i].ready))
            return true;
    return false;
}

/* Has no worker become ready for long, though many were started? */
static bool is_hopeless(const crew *c, uint64_t now) {
    return mp_worker_hopeless(c->early, mp_pool_workers(c->pool)) &&
           now - c->early_since >= HOPELESS_NS && !any_ready(c);
}

static void fill(crew *c, uint32_t index) {
    uint64_t now = (uint64_t)mp_now_ns();
    if (is_hopeless(c, now))
        give_up(c);
    else if (c->pause_until <= now && start_worker(c, index) < 0)
        give_up(c);
}

static void end_heir(crew *c, uint32_t index) {
    if (!c->heir[index].pid) return;
    mp_proc_signal(&c->heir[index], SIGKILL);
    end_one(&c->heir[index]);
}

/* A worker ended: the item it ran is lost, its place is filled. */
static void bury(crew *c, uint32_t index) {
    mp_proc *p = &c->proc[index];
    bool early = !atomic_load(&c->pool->worker[index].ready);
    mp_crew_bury(c->pool, index, p->exitcode);
    mp_proc_close(p);
    p->pid = 0;
    c->alive--;
    note_end(c, early);
    if (!is_wanted(c, index))
        end_heir(c, index);
    else if (c->heir[index].pid)
        promote(c, index);
    else
        fill(c, index);
}

/* It goes as its predecessor still works; who wishes again gets another. */
static void bury_heir(crew *c, uint32_t index) {
    mp_worker_shm *w = &c->pool->worker[index];
    bool early = atomic_load(&w->heir) != c->heir[index].tag;
    note_end(c, early);
    end_one(&c->heir[index]);
    atomic_store(&w->heir, 0);
    atomic_store(&w->wish, 0);
}

/* ---- the loop -------------------------------------------------------- */

/* The worker in that place, which may be a guest's; NULL: nobody. */
static mp_proc *whose(crew *c, uint32_t place) {
    const mp_worker_shm *w = &c->pool->worker[place];
    if (!mp_get(&w->claim.job)) return NULL;
    if (place < c->pool->places)
        return c->proc[place].pid ? &c->proc[place] : NULL;
    for (uint32_t i = 0; i < c->pool->places; i++)
        if (c->proc[i].pid && c->proc[i].tag == atomic_load(&w->tag))
            return &c->proc[i];
    return NULL;
}

/* Does what the time wants; when to look again (ns). Either we see that there
   is a job with a timeout, or its caller sees when we look next, and rings
   (mp_job_is_urgent). */
static uint64_t look_at_time(crew *c) {
    uint64_t now = (uint64_t)mp_now_ns();
    uint64_t next = now + UINT64_C(1000000) * POLL_MS;
    atomic_store(&c->pool->looks, next);
    uint64_t quickest = mp_get(&c->pool->quickest);
    if (atomic_load(&c->pool->timed) && now + quickest < next)
        next = now + quickest;
    for (uint32_t i = 0; i < mp_pool_all_places(c->pool); i++) {
        mp_proc *p = whose(c, i);
        int what = p ? mp_crew_look(c->pool, i, now, &next) : MP_CREW_LEAVE;
        if (what == MP_CREW_KILL) mp_proc_signal(p, SIGKILL);
        if (what == MP_CREW_ASK) mp_proc_signal(p, SIGURG);
    }
    atomic_store(&c->pool->looks, next);
    return next;
}

static void watch(crew *c, uint32_t i, int *ms) {
    struct pollfd *fd = &c->fds[FDS_WORKERS + i];
    fd->fd = c->proc[i].pid ? c->proc[i].pidfd : -1;
    fd->events = POLLIN;
    if (c->proc[i].pid && fd->fd < 0 && *ms > NO_PIDFD_POLL_MS)
        *ms = NO_PIDFD_POLL_MS;
}

/* Fills the poll set; the time to sleep in ms. */
static int prepare(crew *c) {
    uint64_t next = look_at_time(c), now = (uint64_t)mp_now_ns();
    if (c->pause_until > now && c->pause_until < next) next = c->pause_until;
    int ms = next <= now ? 0 : (int)((next - now + 999999) / 1000000);
    for (uint32_t i = 0; i < 2 * c->pool->places; i++) watch(c, i, &ms);
    return ms;
}

static void hear(crew *c) {
    uint64_t rings;
    mp_signal_drain(c->fds[FDS_SIGNAL].fd);
    if (!(c->fds[FDS_BELL].revents & POLLIN)) return;
    if (read(c->fds[FDS_BELL].fd, &rings, sizeof rings) < 0) return;
    for (uint32_t i = 0; i < mp_pool_workers(c->pool); i++)
        if (atomic_load(&c->pool->worker[i].wish) && c->proc[i].pid &&
            !c->heir[i].pid)
            start_heir(c, i);
}

static void look_after(crew *c) {
    int ms = prepare(c);
    uint32_t places = c->pool->places;
    poll(c->fds, FDS_WORKERS + 2 * (nfds_t)places, ms);
    hear(c);
    if (mp_pool_state(c->pool) >= MP_POOL_TERMINATE) end_all(c);
    for (uint32_t i = 0; i < places; i++)
        if (c->heir[i].pid && mp_proc_wait(&c->heir[i], MP_AT_ONCE) == 0)
            bury_heir(c, i);
    for (uint32_t i = 0; i < places; i++)
        if (c->proc[i].pid && mp_proc_wait(&c->proc[i], MP_AT_ONCE) == 0)
            bury(c, i);
    for (uint32_t i = 0; i < mp_pool_workers(c->pool); i++)
        if (!c->proc[i].pid && is_wanted(c, i)) fill(c, i);
}

static int start(crew *c) {
    uint32_t places = c->pool->places;
    c->proc = calloc(2 * (size_t)places, sizeof *c->proc);
    c->fds = calloc(FDS_WORKERS + 2 * (size_t)places, sizeof *c->fds);
    if (!c->proc || !c->fds) return -ENOMEM;
    c->heir = c->proc + places;
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell < 0) return -errno;
    atomic_store(&c->pool->bell, bell);
    c->fds[FDS_BELL] = (struct pollfd){.fd = bell, .events = POLLIN};
    int fd = mp_signal_fd(SIGTERM);
    if (fd < 0) return fd;
    c->fds[FDS_SIGNAL] = (struct pollfd){.fd = fd, .events = POLLIN};
    for (uint32_t i = 0; i < mp_pool_workers(c->pool); i++) {
        int r = start_worker(c, i);
        if (r < 0) return r;
    }
    return 0;
}

_Noreturn void mp_crew_run(mp_pool_shm *pool, mp_worker_main run,
                           void *ctx) {
    crew c = {.pool = pool, .run = run, .ctx = ctx};
    mp_family_begin_in_child();
    atomic_store(&pool->crew, mp_me->tag);
    /* Ctrl-C is the caller's to handle; it ends the pool. Programs that a
       worker runs are ended by it. */
    mp_signal_swallow(SIGINT);
    /* A host that ignores it would have the workers' ends go unseen. */
    mp_signal_default(SIGCHLD);
    int r = start(&c);
    mp_crew_report(pool, r);
    if (r < 0 && c.proc && c.fds) end_all(&c);
    while (r == 0 && (c.alive > 0 || mp_worker_wanted(c.pool))) look_after(&c);
    for (uint32_t i = 0; r == 0 && i < pool->places; i++) end_heir(&c, i);
    mp_proc_exit(r < 0 ? 1 : 0);
}
