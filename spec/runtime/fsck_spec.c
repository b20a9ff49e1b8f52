/* mp_fsck on arenas that are in order, in use, or nothing but noise. What it
   finds is in fsck_damage_spec.c and fsck_noun_spec.c. */
#include "fsck_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

SPEC_PREPARE { prepare_world(); }

static uint64_t state = 88172645463325252U;

static uint64_t random64(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* ---- in order ------------------------------------------------------- */

SPEC("fsck: an arena with something of everything is clean") {
    world w;
    CHECK_CLEAN();
    open_world(&w);
    CHECK_CLEAN();
    CHECK_CLEAN_LIVE();
    close_world(&w);
    CHECK_CLEAN();
}

SPEC("fsck: takes less than a millisecond") {
    enum { TIMES = 200 };
    world w;
    open_world(&w);
    double start = spec_now();
    for (int i = 0; i < TIMES; i++) CHECK_CLEAN();
    double each = (spec_now() - start) / TIMES;
    CHECK(each < (spec_sanitized() ? 0.1 : 0.001));
    close_world(&w);
}

SPEC("fsck: reads another family's arena, and says what it has seen") {
    world w;
    open_world(&w);
    mp_memfd_view arena = {.fd = mp_me->fd, .mapped = mp_me->super->size};
    void *base = mmap(NULL, arena.mapped, PROT_READ, MAP_SHARED, arena.fd, 0);
    CHECK(base != MAP_FAILED);
    arena.base = base;
    mp_fsck_seen seen_there;
    CHECK_EQ(mp_fsck_other(&arena, MP_FSCK_LIVE, NULL, NULL, &seen_there), 0);
    CHECK_EQ(seen_there.participants, 1);
    CHECK_EQ(seen_there.objects, mp_object_count());
    CHECK_EQ(seen_there.bytes, mp_heap_used());
    munmap(base, arena.mapped);
    close_world(&w);
}

SPEC("fsck: says that something is no arena") {
    static unsigned char noise[sizeof(mp_super_shm)];
    mp_memfd_view arena = {.base = noise, .mapped = sizeof noise,
                           .fd = mp_me->fd};
    CHECK_EQ(mp_fsck_other(&arena, MP_FSCK_QUIET, NULL, NULL, NULL),
             -EBADMSG);
}

/* ---- in use --------------------------------------------------------- */

static world used;
static _Atomic uint64_t *rounds; /* of those who use it */

static void notify(void) {
    mp_barrier_shm *barrier = used.barrier.shm;
    mp_deadline soon = mp_deadline_in(0.01);
    mp_cond_wait wait;
    mp_ref node;
    if (mp_cond_acquire(used.cond.shm, soon) >= 0) {
        mp_cond_notify(used.cond.shm, 1);
        if (mp_cond_wait_begin(used.cond.shm, &wait) == 0) {
            while (mp_cond_wait_sleep(&wait, mp_deadline_in(1e-4)) == -EINTR) {
            }
            while (mp_cond_wait_relock(used.cond.shm, &wait) == -EINTR) {
            }
            mp_cond_wait_end(used.cond.shm, &wait, false);
        }
        mp_cond_release(used.cond.shm);
    }
    int r = mp_barrier_arrive(barrier, &node);
    if (r == 1) mp_barrier_trip(barrier, node);
    if (r == 0) mp_barrier_fail(barrier, node);
    if (r >= 0) mp_barrier_leave(barrier, node);
    if (mp_barrier_broken(barrier)) mp_barrier_reset(barrier);
}

static void exchange(unsigned i) {
    static unsigned char buffer[MP_QUEUE_INLINE];
    static uint32_t patience;
    mp_queue_item item = {.kind = MP_QUEUE_BYTES, .data = buffer,
                          .length = i % MP_QUEUE_INLINE};
    if (i % 3 == 0)
        item = (mp_queue_item){.kind = MP_QUEUE_BLOCK,
                               .value = new_message_with(&used.sem)};
    if (mp_queue_put(used.queue.shm, &item, 1, &patience,
                     mp_deadline_in(0.01)) != 1 &&
        item.kind == MP_QUEUE_BLOCK)
        mp_free(item.value);
    if (mp_queue_get(used.queue.shm, &item, 1, buffer, sizeof buffer,
                     &patience, MP_AT_ONCE) == 1 &&
        item.kind == MP_QUEUE_BLOCK) {
        mp_free(item.value);
        mp_hand_drop(item.hand);
    }
}

/* Uses everything for ever, in no order. */
static void use(void) {
    for (unsigned i = 0;; i++) {
        object o;
        exchange(i);
        notify();
        if (mp_lock_acquire(used.lock.shm, mp_deadline_in(0.01)) >= 0)
            mp_lock_release(used.lock.shm);
        if (mp_lock_create(&o.id, &o.gen) == 0) mp_object_detach(o.id);
        mp_free(mp_alloc(100 + i % 5 * 40000));
        atomic_fetch_add(rounds, 1);
    }
}

static mp_proc start_user(void) {
    mp_proc proc;
    int r = mp_proc_fork(&proc, 0);
    CHECK_OK(r);
    if (r == 1) use();
    return proc;
}

static void kill_user(mp_proc *proc) {
    int r;
    mp_proc_signal(proc, SIGKILL);
    while ((r = mp_proc_wait(proc, mp_deadline_in(10))) == -EINTR) {
    }
    CHECK_OK(r);
    mp_proc_close(proc);
}

/* Waiters that are the spec's own would stay for ever. */
static void open_used(void) {
    rounds = spec_shared(sizeof *rounds);
    open_world(&used);
    for (int i = 0; i < 2; i++)
        mp_cond_wait_end(used.cond.shm, &used.waits[i], false);
    mp_barrier_reset(used.barrier.shm);
    mp_barrier_leave(used.barrier.shm, used.node);
}

static void close_used(void) {
    for (int i = 0; i < 2; i++) {
        CHECK_OK(mp_cond_acquire(used.cond.shm, mp_deadline_in(5)));
        CHECK_OK(mp_cond_wait_begin(used.cond.shm, &used.waits[i]));
    }
    mp_barrier_reset(used.barrier.shm);
    CHECK_EQ(mp_barrier_arrive(used.barrier.shm, &used.node), 0);
    close_world(&used);
}

SPEC_WITHIN(40, "fsck: an arena in use is clean, whatever goes on") {
    enum { USERS = 3, ROUNDS = 3000 };
    mp_proc users[USERS];
    double end = spec_now() + 30;
    open_used();
    for (int i = 0; i < USERS; i++) users[i] = start_user();
    while (atomic_load(rounds) < ROUNDS && spec_now() < end)
        CHECK_CLEAN_LIVE();
    CHECK(atomic_load(rounds) >= ROUNDS);
    for (int i = 0; i < USERS; i++) kill_user(&users[i]);
    CHECK_CLEAN();
    close_used();
}

SPEC_WITHIN(40, "fsck: who is stopped, anywhere, is no finding") {
    enum { TIMES = 500 };
    open_used();
    mp_proc user = start_user();
    for (int i = 0; i < TIMES; i++) {
        for (uint64_t n = atomic_load(rounds), k = random64() % 3;
             atomic_load(rounds) < n + k;) {
        }
        mp_proc_signal(&user, SIGSTOP);
        CHECK_CLEAN_LIVE();
        mp_proc_signal(&user, SIGCONT);
    }
    CHECK(atomic_load(rounds) >= TIMES / 2);
    kill_user(&user);
    CHECK_CLEAN();
    close_used();
}

SPEC_WITHIN(40, "fsck: who died, anywhere, is no finding once it is reaped") {
    enum { TIMES = 300 };
    open_used();
    for (int i = 0; i < TIMES; i++) {
        mp_proc user = start_user();
        for (int k = 0; k < i % 7; k++) spec_pause();
        kill_user(&user);
        CHECK_CLEAN();
    }
    close_used();
}

/* ---- noise ---------------------------------------------------------- */

/* Values that lead somewhere are worse than those that do not. */
static uint64_t bad_value(uint64_t old, uint64_t size) {
    switch (random64() % 6) {
    case 0: return random64();
    case 1: return random64() % size;
    case 2: return old + 1 - random64() % 3;
    case 3: return old ^ (uint64_t)1 << random64() % 64;
    case 4: return 0;
    default: return UINT64_MAX;
    }
}

/* Words where something stands: the super block, slots, unit table, units. */
static void damage(unsigned char *base, uint64_t size, int n) {
    const mp_super_shm *super = mp_me->super;
    uint64_t first = super->first_unit << MP_UNIT_SHIFT;
    const uint64_t place[][2] = {
        {0, sizeof *super - sizeof super->segments + 64},
        {MP_SUPER_SIZE + 1024, 3 * 1024},
        {MP_SUPER_SIZE + MP_SLOTS * 1024 + super->first_unit * 8, 1024},
        {first, size - first}};
    uint64_t used_bytes = (super->units - super->first_unit) << MP_UNIT_SHIFT;
    for (int i = 0; i < n; i++) {
        const uint64_t *at = place[random64() % 4];
        uint64_t room = at[1] > used_bytes ? used_bytes : at[1];
        uint64_t offset = (at[0] + random64() % room) & ~(uint64_t)7;
        uint64_t *word = (void *)(base + offset);
        *word = bad_value(*word, size);
    }
    ((mp_super_shm *)(void *)base)->magic = MP_ARENA_MAGIC;
}

SPEC_WITHIN(60, "fsck: survives noise in place of an arena") {
    enum { TIMES = 3000 };
    world w;
    int found = 0;
    open_world(&w);
    mp_memfd_view arena = {.fd = mp_me->fd, .mapped = mp_me->super->size};
    state += (uint64_t)getpid();
    for (int i = 0; i < TIMES; i++) {
        unsigned char *base = mmap(NULL, arena.mapped, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE, arena.fd, 0);
        CHECK(base != MAP_FAILED);
        damage(base, arena.mapped, 1 << i % 8);
        arena.base = base;
        int n = mp_fsck_other(&arena, i % 100 ? MP_FSCK_QUIET : MP_FSCK_LIVE,
                              NULL, NULL, NULL);
        CHECK(n >= 0);
        found += n > 0;
        munmap(base, arena.mapped);
    }
    CHECK(found > TIMES / 3);
    close_world(&w);
}
