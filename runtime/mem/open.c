/* How a thread becomes a participant, and ends as one.

   A thread's own part, mp_self, is malloc'ed and goes with it: by mp_close, or
   by the key's destructor. The kernel, or mp_robust_end, marks its life. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/arena.h"
#include "mem/reap.h"
#include "mem/slot.h"

_Thread_local mp_self *mp_me;

/* What the participants of this process have in common: where the arena is
   (base NULL: nowhere yet). Written once, under `opening`. */
static mp_self home;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t key;
static bool prepared;
static pid_t founder; /* who made the arena; 0: it was given to us */

/* Set in the child of a fork: its parent's slot is not its own, so it must
   not take part before it has one. Fork generation, see architecture. */
static _Atomic bool orphaned_by_fork;

static void (*_Atomic before_close)(void);

void mp_open_before_close(void (*f)(void)) {
    atomic_store_explicit(&before_close, f, memory_order_relaxed);
}

/* Another thread may have been opening the arena when this one forked. */
static void on_fork_in_child(void) {
    opening = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    if (home.base) atomic_store(&orphaned_by_fork, true);
    mp_me = NULL;
}

static void free_self(mp_self *self) {
    for (int class = 0; class < MP_HEAP_CLASSES; class++)
        free(self->spans[class].unit);
    free(self->held);
    free(self);
}

void mp_close(void) {
    mp_self *self = mp_me;
    if (!self) return;
    void (*f)(void) =
        atomic_load_explicit(&before_close, memory_order_relaxed);
    if (f) f();
    pthread_setspecific(key, NULL);
    mp_me = NULL;
    mp_robust_end(&self->slot->life, (int)self->super->life_at);
    free_self(self);
}

/* A thread that took part ends as it should. */
static void on_thread_end(void *self) {
    if (mp_me != self) return; /* a forked child's, which has no slot */
    mp_slot_farewell();
    mp_close();
}

/* Once a process; caller holds `opening`. */
static int prepare(void) {
    if (prepared) return 0;
    int r = pthread_key_create(&key, on_thread_end);
    if (r == 0) r = pthread_atfork(NULL, NULL, on_fork_in_child);
    prepared = r == 0;
    return -r;
}

/* A new self that sees the process's arena, if there is one. */
static mp_self *new_self(void) {
    mp_self *self = calloc(1, sizeof *self);
    if (!self) return NULL;
    self->base = home.base;
    self->mapped = home.mapped;
    self->super = home.super;
    self->unit = home.unit;
    self->fd = home.fd;
    self->null = home.null;
    memcpy(self->shelf, home.shelf, sizeof self->shelf);
    return self;
}

/* The self that has a slot is this thread's until its end. */
static int keep(mp_self *self, int r) {
    bool alive = r == 0;
    if (alive) r = -pthread_setspecific(key, self);
    mp_me = r == 0 ? self : NULL;
    if (r == 0) return r;
    if (alive)
        mp_robust_end(&self->slot->life, (int)self->super->life_at);
    free_self(self);
    return r;
}

/* Makes the arena, with this thread as the first that takes part. */
static int open_first(mp_self *self) {
    int r = mp_arena_create(self);
    if (r < 0) return r;
    r = mp_slot_take(self);
    if (r < 0)
        mp_arena_unmap(self);
    else
        home = *self;
    founder = getpid();
    return r;
}

bool mp_is_founder(void) { return founder == getpid(); }

static int open_locked(mp_self **out) {
    int r = prepare();
    if (r < 0) return r;
    mp_self *self = *out = new_self();
    if (!self) return -ENOMEM;
    return self->base ? mp_slot_take(self) : open_first(self);
}

static bool is_orphan(void) {
    return atomic_load_explicit(&orphaned_by_fork, memory_order_relaxed);
}

int mp_open(void) {
    mp_self *self = NULL;
    if (mp_me) return 0;
    if (is_orphan()) return -EOWNERDEAD;
    pthread_mutex_lock(&opening);
    bool first = !home.base;
    int r = open_locked(&self);
    pthread_mutex_unlock(&opening);
    if (!self) return r;
    r = keep(self, r);
    /* Threads of a host come and go, and nobody awaits them. */
    if (r == 0 && !first) mp_reap_sweep();
    return r;
}

int mp_open_reserved(uint32_t index, uint32_t parent) {
    if (is_orphan()) return -EOWNERDEAD;
    mp_self *self = new_self();
    if (!self) return -ENOMEM;
    self->tag = parent;
    return keep(self, mp_slot_claim(self, index));
}

int mp_open_copied(mp_self *self, uint32_t index) {
    int r = mp_slot_claim(self, index);
    if (r < 0) return r;
    mp_me = self;
    atomic_store(&orphaned_by_fork, false);
    return 0;
}

/* Caller holds `opening`. */
static int open_given(mp_self *self, int fd,
                      int (*whose)(mp_self *self, void *ctx), void *ctx) {
    int r = mp_arena_map(self, fd);
    if (r < 0) return r;
    mp_me = self; /* what `whose` calls goes by it */
    int index = whose(self, ctx);
    r = index < 0 ? index : mp_slot_claim(self, (uint32_t)index);
    if (r < 0)
        mp_arena_unmap(self);
    else
        home = *self;
    return r;
}

int mp_open_given(int fd, int (*whose)(mp_self *self, void *ctx),
                  void *ctx) {
    if (mp_me) return -EBUSY;
    if (is_orphan()) return -EOWNERDEAD;
    pthread_mutex_lock(&opening);
    int r = home.base ? -EBUSY : prepare();
    mp_self *self = r == 0 ? new_self() : NULL;
    if (r == 0) r = self ? open_given(self, fd, whose, ctx) : -ENOMEM;
    pthread_mutex_unlock(&opening);
    return self ? keep(self, r) : r;
}
