/* The server's side of the method "forkserver" (the owner's: start_server.c).

   Its events: a request (socket), the owner's end (pidfd, or the socket's
   end), a child's end (pidfd), a slice's end (where a pidfd is missing). It
   has one thread, runs no Lua and holds no lock while it sleeps. Its children
   are forked as by "fork": they have what it holds, and a place of their own
   in the arena which it reserves; what becomes of each is written to the
   boot block, which it holds only while it does so. */
#include "proc/server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/heap.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "os/child.h"
#include "os/environment.h"
#include "os/signal.h"
#include "os/socket.h"
#include "proc/server_wire.h"
#include "proc/spawn.h"

enum {
    POLL_MS = 1000,
    NO_PIDFD_POLL_MS = 5,
    MOST_FDS = 4 /* of a request */
};

typedef struct served {
    mp_proc proc;
    uint64_t ref; /* its boot block, */
    uint32_t id, gen; /* and that as an object */
} served;

/* owner, owner_fd  its pid, and pidfd or -1
   fds   [0] the socket, [1] the owner, then the children; room for one more
         child than there are */
typedef struct state {
    int socket;
    pid_t owner;
    int owner_fd;
    served *child;
    struct pollfd *fds;
    uint32_t n, cap;
    struct sigaction interrupt; /* what Ctrl-C did before */
    sigset_t mask;              /* as it was before a fork */
} state;

/* What has come with a request. */
typedef struct order {
    mp_server_request what;
    mp_boot_shm *boot;
    int fds[MOST_FDS];
    int n;
} order;

static void close_all(order *o) {
    while (o->n > 0) close(o->fds[--o->n]);
}

/* ---- in the child ---------------------------------------------------- */

/* The working directory, and the standard descriptors. */
static int take_over_in_child(const order *o) {
    int next = 1;
    if (fchdir(o->fds[0]) < 0) return -errno;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (o->what.standard & 1U << fd) {
            if (dup2(o->fds[next++], fd) < 0) return -errno;
        } else if (fd != STDIN_FILENO) {
            close(fd);
        }
    }
    return 0;
}

/* From the server's copy to what was asked for. The socket is closed when
   the place in the arena is taken (see start_server.c). */
static int become_in_child(state *s, order *o) {
    mp_boot_shm *boot = o->boot;
    boot->index = mp_me->index;
    boot->tag = mp_me->tag;
    atomic_store(&boot->pid, (int32_t)getpid());
    mp_boot_tell(boot, MP_BOOT_CLAIMED);
    close(s->socket);
    if (s->owner_fd >= 0) close(s->owner_fd);
    for (uint32_t i = 0; i < s->n; i++) mp_proc_close(&s->child[i].proc);
    free(s->child);
    free(s->fds);
    mp_signal_restore(SIGINT, &s->interrupt);
    mp_signal_release(&s->mask);
    int r = take_over_in_child(o);
    close_all(o);
    if (r == 0 && boot->environment)
        r = mp_environment_set((const char *)(boot + 1), boot->environment);
    return r;
}

/* ---- a request ------------------------------------------------------- */

static bool make_room(state *s) {
    if (s->n + 1 < s->cap) return true;
    uint32_t cap = s->cap ? s->cap * 2 : 16;
    served *child = realloc(s->child, cap * sizeof *child);
    if (child) s->child = child;
    struct pollfd *fds = realloc(s->fds, (cap + 2) * sizeof *fds);
    if (fds) s->fds = fds;
    if (!child || !fds) return false;
    s->cap = cap;
    return true;
}

/* Is the block still there? It is held then. */
static int take_boot(order *o) {
    int r = mp_object_attach(o->what.id, o->what.gen);
    if (r < 0) return -EOWNERDEAD;
    o->boot = mp_object_block(o->what.id);
    if (mp_object_type(o->what.id) == MP_TYPE_BOOT &&
        mp_offset(o->boot) == o->what.ref)
        return 0;
    mp_object_detach(o->what.id);
    return -EINVAL;
}

static int count_bits(uint32_t bits) { return __builtin_popcount(bits); }

static void reply(state *s, const mp_server_reply *r, int pidfd) {
    /* An owner that is gone hears nothing; the loop sees that it is. */
    mp_socket_send(s->socket, r, sizeof *r, &pidfd, pidfd >= 0);
}

static void refuse(state *s, order *o, int result) {
    const mp_server_reply r = {.result = result};
    close_all(o);
    reply(s, &r, -1);
}

/* 1 in the child, as mp_proc_fork. */
static int serve(state *s, order *o) {
    if (o->n != 1 + count_bits(o->what.standard))
        return refuse(s, o, -EMFILE), 0;
    int r = make_room(s) ? take_boot(o) : -ENOMEM;
    if (r < 0) return refuse(s, o, r), 0;
    served *c = &s->child[s->n];
    mp_signal_hold(SIGINT, &s->mask); /* what comes to the child is its own */
    r = mp_proc_fork(&c->proc, (int)o->boot->flags);
    if (r == 1) return r;
    mp_signal_release(&s->mask);
    mp_object_detach(o->what.id);
    if (r < 0) return refuse(s, o, r), 0;
    c->id = o->what.id;
    c->gen = o->what.gen;
    s->n++;
    const mp_server_reply answer = {.pid = c->proc.pid, .tag = c->proc.tag};
    close_all(o);
    reply(s, &answer, c->proc.pidfd);
    return 0;
}

/* ---- the end of a child ----------------------------------------------- */

static void tell_end(const served *c) {
    if (mp_object_attach(c->id, c->gen) < 0) return; /* nobody asks */
    mp_boot_shm *boot = mp_object_block(c->id);
    atomic_store(&boot->exitcode, c->proc.exitcode);
    mp_boot_tell(boot, MP_BOOT_ENDED);
    mp_object_detach(c->id);
}

static void look_after(state *s) {
    for (uint32_t i = s->n; i-- > 0;) {
        served *c = &s->child[i];
        bool quiet = c->proc.pidfd >= 0 && !s->fds[2 + i].revents;
        if (quiet || mp_proc_wait(&c->proc, MP_AT_ONCE) != 0) continue;
        tell_end(c);
        mp_proc_close(&c->proc);
        *c = s->child[--s->n];
    }
}

/* ---- the loop -------------------------------------------------------- */

/* Fills the poll set; the time to sleep in ms. */
static int prepare(state *s) {
    int ms = s->owner_fd < 0 ? NO_PIDFD_POLL_MS * 20 : POLL_MS;
    s->fds[0] = (struct pollfd){.fd = s->socket, .events = POLLIN};
    s->fds[1] = (struct pollfd){.fd = s->owner_fd, .events = POLLIN};
    for (uint32_t i = 0; i < s->n; i++) {
        int fd = s->child[i].proc.pidfd;
        s->fds[2 + i] = (struct pollfd){.fd = fd, .events = POLLIN};
        if (fd < 0) ms = NO_PIDFD_POLL_MS;
    }
    return ms;
}

/* The end of the owner, and of the children by the kernel. */
static void end_with(state *s) {
    if (s->fds[1].revents || getppid() != s->owner) mp_proc_exit(0);
}

/* Takes what stands in the socket. 1 in a child. */
static int take_order(state *s, order *o) {
    o->n = MOST_FDS;
    int r = mp_socket_receive(s->socket, &o->what, sizeof o->what, o->fds,
                              &o->n, MP_AT_ONCE);
    if (r == -ETIMEDOUT || r == -EINTR) return 0;
    if (r < 0) mp_proc_exit(0); /* nobody will ask again */
    return serve(s, o);
}

static int run(state *s, order *o) {
    for (;;) {
        int ms = prepare(s);
        if (poll(s->fds, (nfds_t)s->n + 2, ms) < 0) continue;
        end_with(s);
        look_after(s);
        if (s->fds[0].revents && take_order(s, o) == 1) return 1;
    }
}

/* Nothing of the owner's is kept from others. */
static void let_go(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO && mp_me->null >= 0; fd++)
        dup2(mp_me->null, fd);
    if (chdir("/") < 0) return; /* stays where it is */
}

int mp_server_run(mp_boot_shm *boot, mp_boot_shm **child) {
    state s = {.socket = MP_SPAWN_SOCKET};
    order o;
    s.owner = getppid();
    s.owner_fd = mp_child_pidfd(s.owner);
    /* It was not the next best that adopts orphans. */
    if (!mp_tag_alive(boot->parent) || !make_room(&s)) mp_proc_exit(1);
    mp_signal_ignore_meanwhile(SIGINT, &s.interrupt);
    mp_signal_default(SIGCHLD);
    /* The thread that started it may end, and other threads ask. */
    mp_child_outlive_parent_in_child();
    mp_boot_tell(boot, MP_BOOT_READY);
    mp_boot_unhold(boot);
    let_go();
    run(&s, &o);
    *child = o.boot;
    return become_in_child(&s, &o);
}
