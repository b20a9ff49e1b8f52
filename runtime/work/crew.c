/* The crew: a small process between the caller and the workers. It forks
   them, so each starts from the state that the caller had when it made the
   pool; it waits for their end, repairs, and forks again, while the caller
   computes. It has one thread, runs no Lua and holds no lock while it
   sleeps.

   Its events: a worker's end (pidfd), SIGTERM (the pool's state changed), a
   slice's end (where a pidfd is missing). The kernel kills it when the caller
   ends, and the workers when it ends. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "os/signal.h"
#include "proc/family.h"
#include "work/pool_shm.h"

enum {
    POLL_MS = 1000,
    NO_PIDFD_POLL_MS = 5
};

typedef struct crew {
    mp_pool_shm *pool;
    mp_worker_main run;
    void *ctx;
    mp_proc *proc;      /* per worker; pid 0 = none */
    struct pollfd *fds; /* [0] the signal, then the workers */
    uint32_t alive;
    uint32_t early; /* deaths before ready, in a row */
} crew;

static void in_worker(crew *c, uint32_t index) {
    for (uint32_t i = 0; i < c->pool->workers; i++)
        if (c->proc[i].pid && i != index) mp_proc_close(&c->proc[i]);
    close(c->fds[0].fd);
    mp_signal_default(SIGTERM);
    mp_worker_shm *w = &c->pool->worker[index];
    atomic_store(&w->tag, mp_me->tag);
    atomic_store(&w->pid, (uint32_t)getpid());
    c->run(c->pool, index, c->ctx);
    mp_proc_exit(0);
}

static int start_worker(crew *c, uint32_t index) {
    mp_worker_shm *w = &c->pool->worker[index];
    atomic_store(&w->ready, 0);
    w->items = 0;
    int r = mp_proc_fork(&c->proc[index], 0);
    if (r == 1) in_worker(c, index);
    if (r < 0) {
        c->proc[index].pid = 0;
        return r;
    }
    atomic_store(&w->tag, c->proc[index].tag);
    atomic_store(&w->pid, (uint32_t)c->proc[index].pid);
    c->alive++;
    return 0;
}

/* What the workers ran is not lost but stopped: the pool's state says so. */
static void end_all(crew *c) {
    for (uint32_t i = 0; i < c->pool->workers; i++)
        if (c->proc[i].pid) mp_proc_signal(&c->proc[i], SIGKILL);
    for (uint32_t i = 0; i < c->pool->workers; i++) {
        mp_proc *p = &c->proc[i];
        if (!p->pid) continue;
        while (mp_proc_wait(p, MP_FOREVER) == -EINTR) {
        }
        mp_proc_close(p);
    }
    mp_proc_exit(0);
}

static void give_up(crew *c) {
    mp_pool_break(c->pool);
    end_all(c);
}

/* A worker ended: the item it ran is lost, its place is filled. */
static void bury(crew *c, uint32_t index) {
    mp_proc *p = &c->proc[index];
    bool early = !atomic_load(&c->pool->worker[index].ready);
    mp_crew_bury(c->pool, index, p->exitcode);
    mp_proc_close(p);
    p->pid = 0;
    c->alive--;
    c->early = early ? c->early + 1 : 0;
    if (!mp_worker_wanted(c->pool)) return;
    if (mp_worker_hopeless(c->early, c->pool->workers) || start_worker(c, index) < 0) give_up(c);
}

/* Fills the poll set; the time to sleep in ms. */
static int prepare(crew *c) {
    int ms = POLL_MS;
    for (uint32_t i = 0; i < c->pool->workers; i++) {
        c->fds[i + 1].fd = c->proc[i].pid ? c->proc[i].pidfd : -1;
        c->fds[i + 1].events = POLLIN;
        if (c->proc[i].pid && c->proc[i].pidfd < 0) ms = NO_PIDFD_POLL_MS;
    }
    return ms;
}

static void look_after(crew *c) {
    int ms = prepare(c);
    poll(c->fds, (nfds_t)c->pool->workers + 1, ms);
    mp_signal_drain(c->fds[0].fd);
    if (mp_pool_state(c->pool) >= MP_POOL_TERMINATE) end_all(c);
    for (uint32_t i = 0; i < c->pool->workers; i++)
        if (c->proc[i].pid && mp_proc_wait(&c->proc[i], MP_AT_ONCE) == 0)
            bury(c, i);
}

static int start(crew *c) {
    uint32_t n = c->pool->workers;
    c->proc = calloc(n, sizeof *c->proc);
    c->fds = calloc(n + 1, sizeof *c->fds);
    if (!c->proc || !c->fds) return -ENOMEM;
    c->fds[0].events = POLLIN;
    c->fds[0].fd = mp_signal_fd(SIGTERM);
    if (c->fds[0].fd < 0) return c->fds[0].fd;
    for (uint32_t i = 0; i < n; i++) {
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
    /* Ctrl-C is the caller's to handle; it ends the pool. */
    mp_signal_ignore(SIGINT);
    /* A host that ignores it would have the workers' ends go unseen. */
    mp_signal_default(SIGCHLD);
    int r = start(&c);
    mp_crew_report(pool, r);
    if (r < 0 && c.proc && c.fds) end_all(&c);
    while (r == 0 && (c.alive > 0 || mp_worker_wanted(c.pool))) look_after(&c);
    mp_proc_exit(r < 0 ? 1 : 0);
}
