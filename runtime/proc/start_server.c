/* The owner's side of the method "forkserver" (the server's: server.c).

   A request names the boot block; with it go the working directory and the
   standard descriptors. The reply says who was born, and brings a pidfd. The
   end of a child is told by the boot block, ENDED, or, when the server is
   killed first, by the end of both.

   Each child keeps the server's end of the socket until it is a participant.
   So who sees the socket's end knows: there is no server, and nobody who may
   still be born; what is NEW then has not begun, and is asked for again. The
   end does not show where a process that was forked meanwhile, by another
   thread or a host, has a copy: so the server's life is looked at as well. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "os/child.h"
#include "os/environment.h"
#include "os/futex.h"
#include "os/socket.h"
#include "os/threads.h"
#include "proc/server.h"
#include "proc/server_wire.h"
#include "proc/spawn.h"

enum { TRIES = 3 }; /* servers that die before they answer, or are ready */
static const double GRACE = 1; /* seconds for a server to end */
static const double LATE = 0.1; /* ... for children that it leaves behind */

/* This process's server.
   mutex    of all that follows, and for each exchange with the server
   pid      whose it is; 0: there is none
   socket   our end
   environment  as it was when the server began
   live     children that have not been seen to end
   user, shared  the only owner (mp_family_start) that uses it; several do */
static struct {
    pthread_mutex_t mutex;
    pid_t pid;
    int socket;
    mp_proc proc;
    uint64_t environment;
    _Atomic uint32_t live;
    const void *user;
    bool shared;
} server = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- the server ------------------------------------------------------ */

/* Closes our end, which ends it, and waits. */
static void end_server(void) {
    mp_socket_end(server.socket);
    mp_deadline grace = mp_deadline_in(GRACE);
    int r;
    while ((r = mp_proc_wait(&server.proc, grace)) < 0) {
        if (r == -ETIMEDOUT) {
            mp_proc_signal(&server.proc, SIGKILL);
            grace = MP_FOREVER;
        } else if (r != -EINTR) {
            break;
        }
    }
    mp_proc_close(&server.proc);
    server.pid = 0;
    server.user = NULL;
    server.shared = false;
}

/* Its program, with a boot block that tells of the preload; until it is
   ready. */
static int spawn_server(const mp_start *start, int socket) {
    const mp_start own = {.method = mp_start_method_named("spawn"),
                          .kind = MP_START_SERVER,
                          .message = start->preload,
                          .argv = start->argv,
                          .problem = start->problem};
    mp_ref boot;
    int r = mp_boot_make(&own, &boot);
    if (r < 0) return r;
    r = mp_spawn(&server.proc, &own, boot, socket);
    if (r < 0) {
        mp_boot_free(boot);
        return r;
    }
    r = mp_spawn_await(&server.proc, &own, MP_BOOT_READY);
    /* The thread that started it may end before it. */
    if (r == 0) mp_boot_free(boot);
    server.proc.boot = 0;
    return r;
}

static int start_server(const mp_start *start) {
    int pair[2];
    if (!start->argv || !start->argv[0]) return -EINVAL;
    int r = mp_socket_pair(pair);
    if (r < 0) return r;
    server.environment = mp_environment_hash();
    r = spawn_server(start, pair[1]);
    close(pair[1]);
    if (r < 0) {
        close(pair[0]);
        return r;
    }
    server.socket = pair[0];
    server.pid = getpid();
    atomic_store(&server.live, 0);
    return 0;
}

/* A server that lives, as far as one can know. */
static int have_server(const mp_start *start) {
    int r = -EOWNERDEAD;
    if (server.pid && mp_tag_alive(server.proc.tag)) return 0;
    if (server.pid) end_server();
    for (int i = 0; r == -EOWNERDEAD && i < TRIES; i++)
        r = start_server(start);
    return r;
}

/* ---- a request ------------------------------------------------------- */

/* Descriptors for the child, in the order of the bits. */
static int gather(const mp_start *start, mp_server_request *request,
                  int *fds) {
    int n = 0;
    fds[n] = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fds[n] < 0) return -errno;
    n++;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fd == STDIN_FILENO && !(start->flags & MP_PROC_KEEP_STDIN))
            continue;
        if (fcntl(fd, F_GETFD) < 0) continue; /* closed: the child's, too */
        request->standard |= 1U << fd;
        fds[n++] = fd;
    }
    return n;
}

/* Receives the answer; -EPIPE: nobody will answer, nor be born. */
static int await_reply(mp_server_reply *reply, int *pidfd) {
    for (;;) {
        /* Before the look: what it has said, it said before its end. */
        bool alive = mp_tag_alive(server.proc.tag);
        mp_deadline slice = mp_deadline_slice(MP_FOREVER, MP_SLICE_NS);
        int n = 1;
        int r = mp_socket_receive(server.socket, reply, sizeof *reply, pidfd,
                                  &n, alive ? slice : MP_AT_ONCE);
        if (r == 0 && n == 0) *pidfd = -1;
        if (r == -EINTR || (r == -ETIMEDOUT && alive)) continue;
        /* The kernel kills those that it has forked. */
        if (r < 0) mp_socket_gone(server.socket, mp_deadline_in(LATE));
        return r == 0 ? 0 : -EPIPE;
    }
}

/* 0: *reply is there; -EPIPE: there is no server any more; -errno: it was
   not asked. */
static int exchange(const mp_start *start, const mp_boot_shm *boot,
                    mp_server_reply *reply, int *pidfd) {
    mp_server_request request = {.ref = mp_offset(boot),
                                 .id = boot->self_id,
                                 .gen = boot->self_gen};
    int fds[1 + 3];
    int n = gather(start, &request, fds);
    if (n < 0) return n;
    int r = mp_socket_send(server.socket, &request, sizeof request, fds, n);
    close(fds[0]);
    if (r < 0) return r;
    return await_reply(reply, pidfd);
}

/* Asks until one answers. 0: a child was born, and *reply says who. */
static int ask(const mp_start *start, mp_boot_shm *boot,
               mp_server_reply *reply, int *pidfd) {
    for (int i = 0; i < TRIES; i++) {
        int r = have_server(start);
        if (r < 0) return r;
        boot->server = server.proc.tag;
        r = exchange(start, boot, reply, pidfd);
        if (r == 0) return reply->result;
        if (r != -EPIPE) return r;
        end_server();
        if (atomic_load(&boot->state) == MP_BOOT_NEW) continue;
        /* It was born, and dies with the server that could not say so. */
        *reply = (mp_server_reply){.pid = atomic_load(&boot->pid),
                                   .tag = boot->tag};
        *pidfd = -1;
        return 0;
    }
    mp_spawn_problem(start, "the fork server is killed again and again");
    return -EOWNERDEAD;
}

/* The boot block; with the environment if the server has another one. */
static int make_boot(const mp_start *start, mp_ref *boot) {
    if (mp_environment_hash() == server.environment)
        return mp_boot_make_served(start, NULL, 0, boot);
    size_t size = mp_environment_size();
    char *packed = malloc(size + 1);
    if (!packed) return -ENOMEM;
    size = mp_environment_pack(packed, size);
    int r = mp_boot_make_served(start, packed, size, boot);
    free(packed);
    return r;
}

static int start_child(mp_proc *proc, const mp_start *start) {
    mp_server_reply reply;
    mp_ref boot;
    int pidfd = -1, r = have_server(start);
    if (r == 0) r = make_boot(start, &boot);
    if (r < 0) return r;
    r = ask(start, mp_boot_at(boot), &reply, &pidfd);
    if (r < 0) {
        mp_boot_free(boot);
        return r;
    }
    *proc = (mp_proc){.pid = reply.pid,
                      .parent = getpid(),
                      .pidfd = pidfd,
                      .tag = reply.tag,
                      .boot = boot};
    atomic_fetch_add(&server.live, 1);
    return 0;
}

int mp_start_server(mp_proc *proc, const mp_start *start) {
    if (!mp_me) return -EOWNERDEAD;
    /* What we said before comes out before what the child says. */
    fflush(stdout);
    fflush(stderr);
    pthread_mutex_lock(&server.mutex);
    int r = start_child(proc, start);
    pthread_mutex_unlock(&server.mutex);
    return r;
}

/* ---- a child --------------------------------------------------------- */

static bool was_told(mp_proc *proc) {
    mp_boot_shm *boot = mp_boot_at(proc->boot);
    if (atomic_load(&boot->state) != MP_BOOT_ENDED) return false;
    proc->exitcode = atomic_load(&boot->exitcode);
    return true;
}

static bool is_gone(const mp_proc *proc) {
    if (proc->pidfd >= 0)
        return mp_child_sleep(proc->pidfd, MP_AT_ONCE) == 0;
    return !mp_tag_alive(proc->tag) && mp_child_gone(proc->pid);
}

int mp_start_look_served(mp_proc *proc) {
    if (!was_told(proc)) {
        if (mp_tag_alive(mp_boot_at(proc->boot)->server)) return -EAGAIN;
        if (!is_gone(proc)) return -EAGAIN;
        /* It may have been told as the last thing the server did. */
        if (!was_told(proc)) proc->exitcode = -SIGKILL;
    }
    atomic_fetch_sub(&server.live, 1);
    return 0;
}

/* On the state and the server's life; then on the child's. */
int mp_start_sleep_served(const mp_proc *proc, mp_deadline slice) {
    mp_boot_shm *boot = mp_boot_at(proc->boot);
    uint32_t state = atomic_load(&boot->state);
    mp_owner owner;
    if (state == MP_BOOT_ENDED) return 0;
    if (!mp_owner_look(boot->server, &owner))
        return mp_start_sleep_child(proc, slice);
    int r = mp_futex_wait2(&boot->state, state, owner.life, owner.life_word,
                           slice);
    /* The kernel wakes one of those who sleep on a life. */
    if (!mp_tag_alive(boot->server)) mp_futex_wake(owner.life, INT_MAX);
    return r == -EAGAIN ? 0 : r;
}

int mp_start_signal_served(mp_proc *proc, int signal) {
    /* Its number may be another's by now. */
    if (atomic_load(&mp_boot_at(proc->boot)->state) == MP_BOOT_ENDED)
        return 0;
    return mp_child_signal(proc->pid, proc->pidfd, signal);
}

/* ---- the end --------------------------------------------------------- */

void mp_server_used_by(const void *owner) {
    pthread_mutex_lock(&server.mutex);
    if (server.pid && server.user && server.user != owner)
        server.shared = true;
    server.user = owner;
    pthread_mutex_unlock(&server.mutex);
}

/* Does nobody need it any more, once `owner` does not? */
static bool is_last(const void *owner) {
    if (!owner) return mp_threads_is_main();
    return !server.shared && atomic_load(&server.live) == 0 &&
           (!server.user || server.user == owner);
}

void mp_server_end(const void *owner) {
    pthread_mutex_lock(&server.mutex);
    if (server.pid && server.pid == getpid() && mp_me && is_last(owner))
        end_server();
    pthread_mutex_unlock(&server.mutex);
}

void mp_server_forget_in_child(void) {
    /* Another thread may have held it at the fork. */
    pthread_mutex_init(&server.mutex, NULL);
    if (server.pid) {
        close(server.socket);
        mp_proc_close(&server.proc);
    }
    server.pid = 0;
    server.user = NULL;
    server.shared = false;
    atomic_store(&server.live, 0);
}
