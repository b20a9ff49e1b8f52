#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "work/pool_shm.h"

enum {
    FUNCTIONS_KEPT = 32 /* unused ones, for the next job */
};

/* ---- lifetime ------------------------------------------------------- */

static void free_function(mp_pool_shm *pool, mp_function_shm *f,
                          mp_function_shm *before);

/* What was freed before a death in the middle is stale, and nothing happens
   to it again. */
static void free_left(mp_pool_shm *pool, mp_ref ref) {
    const mp_left_shm *left = mp_at(ref);
    mp_ref link = left->link;
    mp_free(left->message);
    int hand = mp_hand_take(1, NULL, 0);
    if (hand < 0) return;
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, ref);
    mp_txn_set64(&txn, &pool->left, link);
    mp_txn_commit(&txn);
    mp_free(ref);
    mp_hand_drop(hand);
}

/* Whoever dropped the last use: nobody works here any more. Each step
   leaves the lists in order, so it can be done again. */
static void destroy(void *object) {
    mp_pool_shm *pool = object;
    mp_ref job, function, left;
    while ((job = mp_get(&pool->all))) mp_job_free(pool, mp_job_at(job));
    while ((function = mp_get(&pool->functions)))
        free_function(pool, mp_at(function), NULL);
    while ((left = mp_get(&pool->left))) free_left(pool, left);
    mp_free(mp_get(&pool->reason));
    mp_free(mp_get(&pool->setup));
}

static void on_death(void *object, uint32_t tag) {
    mp_pool_shm *pool = object;
    (void)tag;
    mp_wait_notify_late(&pool->done);
    mp_wait_notify_late(&pool->work);
}

void mp_pool_open(void) {
    static const mp_object_ops ops = {
        .name = "Pool",
        .destroy = destroy,
        .on_death = on_death,
        .check = mp_pool_check};
    mp_object_declare(MP_TYPE_POOL, &ops);
}

int mp_pool_make(const mp_pool_spec *spec, uint32_t *id, uint32_t *gen) {
    size_t size =
        sizeof(mp_pool_shm) + 2 * spec->places * sizeof(mp_worker_shm);
    mp_ref block = mp_alloc(size);
    if (!block) return -ENOMEM;
    mp_pool_shm *pool = mp_at(block);
    memset(pool, 0, size);
    pool->places = spec->places;
    pool->workers = spec->workers;
    pool->most = spec->most;
    pool->most_bytes = spec->most_bytes;
    pool->bell = -1;
    pool->caller = mp_me->tag;
    int r = mp_object_create(MP_TYPE_POOL, block, id, gen);
    if (r < 0) mp_free(block);
    if (r < 0) return r;
    pool->id = *id;
    pool->gen = *gen;
    return 0;
}

void mp_pool_name(const mp_pool_shm *pool, uint32_t *id, uint32_t *gen) {
    *id = pool->id;
    *gen = pool->gen;
}

/* ---- functions ------------------------------------------------------ */

static const unsigned char *payload(mp_ref message) {
    return (const unsigned char *)mp_at(message) + sizeof(mp_message_shm);
}

static mp_function_shm *find_function(mp_pool_shm *pool, mp_ref message,
                                      uint64_t hash, uint64_t length) {
    for (mp_ref ref = mp_get(&pool->functions); ref;) {
        mp_function_shm *f = mp_at(ref);
        /* Equal bytes name the same objects: the message that we have holds
           them, so none of their handles can have become another's. */
        if (f->hash == hash && f->length == length &&
            memcmp(payload(f->message), payload(message), length) == 0)
            return f;
        ref = mp_get(&f->link);
    }
    return NULL;
}

static void free_function(mp_pool_shm *pool, mp_function_shm *f,
                          mp_function_shm *before) {
    int a = mp_hand_take(1, NULL, 0), b = mp_hand_take(1, NULL, 0);
    mp_hand_shm *hands = mp_me->slot->hands;
    if (a < 0 || b < 0) return;
    mp_ref self = before ? mp_get(&before->link) : mp_get(&pool->functions);
    mp_mutex_lock(&pool->lock);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, before ? &before->link : &pool->functions,
                 mp_get(&f->link));
    mp_txn_set64(&txn, &hands[a].block, f->message);
    mp_txn_set64(&txn, &hands[b].block, self);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&pool->lock);
    mp_free(f->message);
    mp_free(self);
    mp_hand_drop(a);
    mp_hand_drop(b);
}

void mp_pool_trim(mp_pool_shm *pool) {
    unsigned unused = 0;
    mp_function_shm *before = NULL;
    for (mp_ref ref = mp_get(&pool->functions); ref;) {
        mp_function_shm *f = mp_at(ref);
        ref = mp_get(&f->link);
        if (f->uses == 0 && (f->parcels || ++unused > FUNCTIONS_KEPT))
            free_function(pool, f, before);
        else
            before = f;
    }
}

static int link_function(mp_pool_shm *pool, mp_ref message, mp_ref *self) {
    mp_ref node = mp_alloc(sizeof(mp_function_shm));
    if (!node) return -ENOMEM;
    int a = mp_hand_take(message, NULL, 0), b = mp_hand_take(node, NULL, 0);
    if (a < 0 || b < 0) {
        if (a >= 0) mp_hand_drop(a);
        mp_free(node);
        return -EMFILE;
    }
    mp_function_shm *f = mp_at(node);
    memset(f, 0, sizeof *f);
    f->message = message;
    f->length = ((mp_message_shm *)mp_at(message))->length;
    f->hash = mp_hash(payload(message), f->length);
    f->parcels = mp_message_holds(message, MP_TYPE_PARCEL);
    mp_publish(message);
    mp_publish(node);
    mp_mutex_lock(&pool->lock);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &f->link, mp_get(&pool->functions));
    mp_txn_set64(&txn, &pool->functions, node);
    mp_txn_set64(&txn, &mp_me->slot->hands[a].block, 0);
    mp_txn_set64(&txn, &mp_me->slot->hands[b].block, 0);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&pool->lock);
    *self = node;
    return 0;
}

/* It stays OWNED, both blocks of it, until the job is linked. */
int mp_pool_own_function(mp_ref message, mp_ref *function) {
    mp_ref node = mp_alloc(sizeof(mp_function_shm));
    if (!node) {
        mp_free(message);
        return -ENOMEM;
    }
    mp_function_shm *f = mp_at(node);
    memset(f, 0, sizeof *f);
    f->message = message;
    f->length = ((mp_message_shm *)mp_at(message))->length;
    *function = node;
    return 0;
}

int mp_pool_function(mp_pool_shm *pool, mp_ref message, mp_ref *function) {
    uint64_t length = ((mp_message_shm *)mp_at(message))->length;
    uint64_t hash = mp_hash(payload(message), length);
    mp_function_shm *known = find_function(pool, message, hash, length);
    if (known) {
        mp_free(message);
        *function = mp_offset(known);
        return 0;
    }
    mp_pool_trim(pool);
    int r = link_function(pool, message, function);
    if (r < 0) mp_free(message);
    return r;
}

mp_ref mp_function_message(const mp_job_shm *job) {
    return ((const mp_function_shm *)mp_at(job->function))->message;
}

/* ---- state ---------------------------------------------------------- */

uint32_t mp_pool_state(const mp_pool_shm *pool) {
    return atomic_load_explicit(&pool->state, memory_order_acquire);
}

int mp_pool_tell(mp_pool_shm *pool, mp_ref setup) {
    int hand = mp_hand_take(setup, NULL, 0);
    if (hand < 0) return hand;
    mp_publish(setup);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &pool->setup, setup);
    mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, 0);
    mp_txn_commit(&txn);
    return 0;
}

mp_ref mp_pool_told(const mp_pool_shm *pool) {
    return atomic_load_explicit(&pool->setup, memory_order_acquire);
}

uint32_t mp_pool_workers(const mp_pool_shm *pool) {
    return atomic_load_explicit(&pool->workers, memory_order_relaxed);
}

uint32_t mp_pool_places(const mp_pool_shm *pool) { return pool->places; }

uint64_t mp_pool_most_bytes(const mp_pool_shm *pool) {
    return pool->most_bytes;
}

mp_worker_shm *mp_pool_worker(mp_pool_shm *pool, uint32_t index) {
    return &pool->worker[index];
}

mp_ref mp_pool_reason(const mp_pool_shm *pool) {
    return atomic_load_explicit(&pool->reason, memory_order_acquire);
}

static bool change_state(mp_pool_shm *pool, uint32_t from, uint32_t to) {
    return atomic_compare_exchange_strong(&pool->state, &from, to);
}

static void wake_all(mp_pool_shm *pool) {
    atomic_fetch_add(&pool->posted, 1);
    mp_wait_notify(&pool->work, INT_MAX);
    mp_wait_notify(&pool->done, INT_MAX);
}

void mp_pool_close(mp_pool_shm *pool) {
    change_state(pool, MP_POOL_RUN, MP_POOL_CLOSING);
    wake_all(pool);
}

void mp_pool_terminate(mp_pool_shm *pool, mp_proc *crew) {
    if (!change_state(pool, MP_POOL_RUN, MP_POOL_TERMINATE))
        change_state(pool, MP_POOL_CLOSING, MP_POOL_TERMINATE);
    mp_proc_signal(crew, SIGTERM);
    wake_all(pool);
}

void mp_pool_resize(mp_pool_shm *pool, uint32_t workers) {
    atomic_store(&pool->workers, workers);
    wake_all(pool);
}

void mp_pool_stir(mp_proc *crew) { mp_proc_signal(crew, SIGTERM); }

void mp_worker_left(mp_pool_shm *pool, uint32_t index, mp_ref message) {
    mp_ref node = mp_alloc(sizeof(mp_left_shm));
    int a = node ? mp_hand_take(message, NULL, 0) : -ENOMEM;
    int b = a >= 0 ? mp_hand_take(node, NULL, 0) : a;
    if (b < 0) {
        if (a >= 0) mp_hand_drop(a);
        mp_free(node);
        mp_free(message);
        return;
    }
    mp_left_shm *left = mp_at(node);
    *left = (mp_left_shm){0, message, index};
    mp_publish(message);
    mp_publish(node);
    mp_mutex_lock(&pool->lock);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &left->link, mp_get(&pool->left));
    mp_txn_set64(&txn, &pool->left, node);
    mp_txn_set64(&txn, &mp_me->slot->hands[a].block, 0);
    mp_txn_set64(&txn, &mp_me->slot->hands[b].block, 0);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&pool->lock);
}

/* Nodes are only added, in front: what is found stays. */
mp_ref mp_pool_left(const mp_pool_shm *pool, uint64_t n, uint32_t *index) {
    mp_ref ref = atomic_load_explicit(&pool->left, memory_order_acquire);
    for (; ref && n > 0; n--) ref = ((mp_left_shm *)mp_at(ref))->link;
    if (!ref) return 0;
    const mp_left_shm *left = mp_at(ref);
    *index = (uint32_t)left->index;
    return left->message;
}

void mp_worker_broke(mp_pool_shm *pool, mp_ref reason) {
    int hand = mp_hand_take(reason, NULL, 0);
    if (hand >= 0) {
        mp_publish(reason);
        mp_mutex_lock(&pool->lock);
        if (mp_get(&pool->reason) == 0) {
            mp_txn txn = mp_txn_begin();
            mp_txn_set64(&txn, &pool->reason, reason);
            mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, 0);
            mp_txn_commit(&txn);
        }
        mp_mutex_unlock(&pool->lock);
        /* Another was first: ours goes with us. */
    }
    mp_pool_break(pool);
}

void mp_pool_break(mp_pool_shm *pool) {
    if (!change_state(pool, MP_POOL_RUN, MP_POOL_BROKEN))
        change_state(pool, MP_POOL_CLOSING, MP_POOL_BROKEN);
    wake_all(pool);
}

void mp_worker_ready(mp_pool_shm *pool, uint32_t index) {
    mp_worker_shm *w = &pool->worker[index];
    if (atomic_load(&w->tag) == mp_me->tag)
        atomic_store(&w->ready, 1);
    else
        atomic_store(&w->heir, mp_me->tag);
}

/* The crew makes the place an heir's as soon as its predecessor is gone; it
   ends heirs that have nothing to wait for. */
int mp_worker_await(mp_pool_shm *pool, uint32_t index) {
    const mp_worker_shm *w = &pool->worker[index];
    while (atomic_load(&w->tag) != mp_me->tag) {
        uint32_t seen = mp_wait_announce(&pool->turn);
        if (atomic_load(&w->tag) == mp_me->tag) break;
        if (mp_pool_state(pool) >= MP_POOL_TERMINATE) return -EPIPE;
        mp_wait_sleep(&pool->turn, seen, MP_FOREVER);
    }
    return 0;
}

bool mp_pool_ring(mp_pool_shm *pool) {
    uint64_t one = 1;
    int bell = atomic_load(&pool->bell);
    /* An eventfd of ours cannot be full. */
    return bell >= 0 && write(bell, &one, sizeof one) == sizeof one;
}

bool mp_pool_has_bell(const mp_pool_shm *pool) {
    return atomic_load(&pool->bell) >= 0;
}

/* A thread has no crew to ring at: its place is filled when it is free. */
void mp_worker_wish(mp_pool_shm *pool, uint32_t index) {
    _Atomic uint32_t *wish = &pool->worker[index].wish;
    if (atomic_load(&pool->bell) < 0 || atomic_exchange(wish, 1)) return;
    if (!mp_pool_ring(pool)) atomic_store(wish, 0);
}

int mp_worker_join(mp_pool_shm *pool) {
    for (uint32_t i = 0; i < mp_pool_workers(pool); i++) {
        uint32_t nobody = 0;
        if (!atomic_compare_exchange_strong(&pool->worker[i].tag, &nobody,
                                            mp_me->tag))
            continue;
        atomic_store(&pool->worker[i].pid, (uint32_t)getpid());
        return (int)i;
    }
    return -EAGAIN;
}

bool mp_worker_wanted(mp_pool_shm *pool) {
    switch (mp_pool_state(pool)) {
    case MP_POOL_RUN: return true;
    case MP_POOL_CLOSING: return mp_pool_has_work(pool);
    default: return false;
    }
}

void mp_crew_report(mp_pool_shm *pool, int error) {
    atomic_store(&pool->started, error < 0 ? error : 1);
    mp_wait_notify(&pool->done, INT_MAX);
}

/* The workers' start takes a millisecond; signals wait for it. The crew's
   life word says nothing before the crew has claimed its slot, so its end is
   asked of the kernel. */
static int wait_started(mp_pool_shm *pool, mp_proc *crew) {
    for (;;) {
        uint32_t seen = mp_wait_announce(&pool->done);
        int started = atomic_load(&pool->started);
        if (started) return started < 0 ? started : 0;
        if (mp_proc_wait(crew, MP_AT_ONCE) == 0) return -EOWNERDEAD;
        mp_wait_sleep(&pool->done, seen, mp_deadline_in(0.05));
    }
}

static int await_start(mp_pool_shm *pool, mp_proc *crew) {
    int r = wait_started(pool, crew);
    if (r < 0 && !crew->ended)
        while (mp_proc_wait(crew, MP_FOREVER) == -EINTR) {
        }
    return r;
}

int mp_pool_start_as(mp_pool_shm *pool, mp_proc *crew,
                     const struct mp_start *start) {
    int r = mp_proc_start(crew, start);
    return r < 0 ? r : await_start(pool, crew);
}

int mp_pool_start(mp_pool_shm *pool, mp_proc *crew, mp_worker_main run,
                  void *ctx) {
    int r = mp_proc_fork(crew, 0);
    if (r < 0) return r;
    if (r == 1) mp_crew_run(pool, run, ctx);
    return await_start(pool, crew);
}

/* The kernel kills the workers when their parent is gone; each is awaited by
   its life word. */
void mp_pool_bury(mp_pool_shm *pool) {
    for (uint32_t i = 0; i < pool->places; i++) {
        mp_worker_shm *w = &pool->worker[i];
        uint32_t tag = atomic_load(&w->tag);
        atomic_store(&w->wish, 0);
        atomic_store(&w->heir, 0);
        if (!tag) continue;
        while (mp_proc_wait_peer(tag, MP_FOREVER) == -EINTR) {
        }
        mp_reap(tag);
        mp_crew_bury(pool, i, -SIGKILL);
        atomic_store(&w->tag, 0);
    }
}

void mp_pool_clear(mp_pool_shm *pool, mp_proc *crew) {
    while (!crew->ended && mp_proc_wait(crew, MP_FOREVER) == -EINTR) {
    }
    mp_proc_close(crew);
    mp_pool_bury(pool);
    atomic_store(&pool->started, 0);
}

int mp_pool_restart(mp_pool_shm *pool, mp_proc *crew, mp_worker_main run,
                    void *ctx) {
    int r = -EOWNERDEAD;
    /* The new one may be killed as it starts, too; but not for ever. */
    for (int i = 0; r == -EOWNERDEAD && i < MP_POOL_RESTARTS; i++) {
        mp_pool_clear(pool, crew);
        r = mp_pool_start(pool, crew, run, ctx);
    }
    if (r < 0) mp_pool_break(pool);
    return r;
}

bool mp_pool_has_crew(const mp_pool_shm *pool) {
    return mp_tag_alive(atomic_load(&pool->crew));
}
