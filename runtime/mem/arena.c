/* Layout: [super block, 64 KiB][slots, 4096 x 1 KiB][unit table, 8 bytes per
   64 KiB of reservation][units ...]. All of it is sparse: only what is
   touched costs memory. */
#include "mem/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "os/child.h"
#include "os/memfd.h"
#include "os/random.h"
#include "os/shelf.h"

_Static_assert(sizeof(mp_slot_shm) == 1024, "a slot is 1 KiB");
_Static_assert(sizeof(mp_mutex_shm) == 4, "a lock is a word");
_Static_assert(sizeof(mp_txn_shm) == 8 + 16 * MP_TXN_WORDS, "no padding");
_Static_assert(sizeof(mp_hand_shm) == 24, "no padding");
_Static_assert(sizeof(mp_super_shm) <= MP_SUPER_SIZE, "it fits");
_Static_assert(offsetof(mp_slot_shm, state) == 64, "life has its own line");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2,
               "atomics must be lock-free to be shared");

#define SLOTS_SIZE (MP_SLOTS * sizeof(mp_slot_shm))
#define MOST ((size_t)1 << 40)
#define LEAST ((size_t)1 << 24)

/* The reservation is also the file's limit, so it fits RLIMIT_FSIZE. */
static size_t most_bytes(void) {
    struct rlimit limit;
    size_t most = MOST;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY)
        while (most > limit.rlim_cur && most > LEAST) most /= 4;
    return most;
}

uint64_t mp_arena_head(uint64_t reserved) {
    uint64_t table = (reserved >> MP_UNIT_SHIFT) * 8;
    table = (table + MP_UNIT - 1) & ~(uint64_t)(MP_UNIT - 1);
    return MP_SUPER_SIZE + SLOTS_SIZE + table;
}

static int fill(mp_self *self, size_t reserved) {
    size_t head = mp_arena_head(reserved);
    int r = mp_memfd_grow(self->fd, head);
    if (r == 0) r = mp_memfd_back(self->fd, 0, MP_SUPER_SIZE);
    if (r < 0) return r;
    mp_super_shm *super = self->super = (void *)self->base;
    self->unit = (void *)(self->base + MP_SUPER_SIZE + SLOTS_SIZE);
    super->magic = MP_ARENA_MAGIC;
    super->reserved = reserved;
    super->life_at = (uint32_t)mp_robust_offset();
    super->size = head;
    super->first_unit = super->units = super->low = head >> MP_UNIT_SHIFT;
    super->slots = 1;
    return mp_random_bytes(super->family, sizeof super->family);
}

/* Where sockets are refused, all but the passing of descriptors works. */
static void make_shelf(mp_self *self) {
    if (mp_shelf_open(self->shelf) < 0)
        self->shelf[0] = self->shelf[1] = -1;
}

/* Its ends stand behind the arena's descriptor, if this program was given
   them. */
static void find_shelf(mp_self *self, int fd) {
    const uint64_t *files = self->super->shelf_files;
    const int ends[2] = {fd + 1, fd + 2};
    bool given = files[0] && mp_shelf_is(ends, files);
    for (int i = 0; i < 2; i++) {
        self->shelf[i] = given ? ends[i] : -1;
        if (given) fcntl(ends[i], F_SETFD, FD_CLOEXEC);
    }
}

int mp_arena_create(mp_self *self) {
    size_t reserved;
    int r = mp_robust_offset();
    if (r < 0) return r;
    r = mp_memfd_create(most_bytes(), LEAST, &self->fd, &self->base,
                        &reserved);
    if (r < 0) return r;
    self->mapped = reserved;
    make_shelf(self); /* first: behind the arena, where children have it */
    self->null = mp_child_open_null(); /* without one, stdin is closed */
    r = fill(self, reserved);
    if (r == 0 && self->shelf[0] >= 0)
        r = mp_shelf_files(self->shelf, self->super->shelf_files);
    if (r < 0) mp_arena_unmap(self);
    return r;
}

/* Is this the head of an arena in a file of `size` bytes? */
static int check_head(const mp_super_shm *super, uint64_t size) {
    uint64_t reserved = super->reserved;
    if (super->magic != MP_ARENA_MAGIC) return -EBADF;
    if (reserved < LEAST || reserved > MOST ||
        (reserved & (reserved - 1)) != 0 ||
        mp_arena_head(reserved) > size || size > reserved)
        return -EPROTO;
    int life_at = mp_robust_offset();
    if (life_at < 0) return life_at;
    return super->life_at == (uint32_t)life_at ? 0 : -EPROTO;
}

int mp_arena_map(mp_self *self, int fd) {
    mp_super_shm *head = NULL;
    size_t size;
    int r = mp_memfd_check(fd, sizeof *head, &size);
    if (r == 0) r = mp_memfd_map(fd, sizeof *head, (void *)&head);
    if (r < 0) return r;
    r = check_head(head, size);
    size_t reserved = head->reserved;
    munmap(head, sizeof *head);
    if (r == 0) r = mp_memfd_map(fd, reserved, &self->base);
    if (r < 0) return r;
    self->fd = fd;
    self->mapped = reserved;
    self->super = (void *)self->base;
    self->unit = (void *)(self->base + MP_SUPER_SIZE + SLOTS_SIZE);
    self->null = mp_child_open_null();
    find_shelf(self, fd);
    return 0;
}

void mp_arena_unmap(mp_self *self) {
    if (self->null >= 0) close(self->null);
    for (int i = 0; i < 2; i++)
        if (self->shelf[i] >= 0) close(self->shelf[i]);
    munmap(self->base, self->mapped);
    close(self->fd);
    self->base = NULL;
}

int mp_arena_grow(uint64_t end) {
    mp_super_shm *super = mp_me->super;
    uint64_t size = atomic_load_explicit(&super->size, memory_order_relaxed);
    if (end <= size) return 0;
    if (end > super->reserved) return -ENOMEM;
    /* Doubling keeps the calls few; a hole costs nothing. */
    uint64_t want = size * 2 > end ? size * 2 : end;
    if (want > super->reserved) want = super->reserved;
    int r = mp_memfd_grow(mp_me->fd, want);
    if (r == -EFBIG) r = mp_memfd_grow(mp_me->fd, want = end);
    if (r == 0)
        atomic_store_explicit(&super->size, want, memory_order_release);
    return r;
}
