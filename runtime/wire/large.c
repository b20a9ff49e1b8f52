#include "wire/large.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "os/fd.h"
#include "os/memfd.h"
#include "os/pages.h"

/* The file: this head, and the payload behind it.
   state   FREE -> POSTED by a sender (one wins, by compare and exchange);
           POSTED -> FREE by who has received it, or by the sender that has
           not sent it. It is nobody's after a death: the file is left. */
typedef struct large_shm {
    _Atomic uint32_t state;
    uint32_t unused[15];
} large_shm;
_Static_assert(sizeof(large_shm) == 64, "the payload begins on a line");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "between processes");

enum { FREE, POSTED };
enum { ROUND = 1 << 16 };

static large_shm *head_of(const mp_large *l) { return (void *)l->map; }

void mp_large_drop(mp_large *l) {
    if (!l->map) return;
    mp_pages_unmap(l->map, l->mapped);
    mp_fd_close(l->fd);
    *l = (mp_large){.fd = -1};
}

void mp_large_trim(mp_large *l) {
    if (l->mapped > MP_LARGE_KEPT) mp_large_drop(l);
}

/* ---- sending -------------------------------------------------------- */

static int make(mp_large *l, size_t need) {
    size_t size = (need + ROUND - 1) & ~(size_t)(ROUND - 1), reserved;
    mp_large fresh = {.fd = -1};
    if (size < need) return -ENOMEM;
    int r = mp_memfd_create(size, size, &fresh.fd, &fresh.map, &reserved);
    if (r < 0) return r;
    fresh.mapped = size;
    r = mp_memfd_grow(fresh.fd, size);
    if (r == 0) r = mp_memfd_back(fresh.fd, 0, size);
    if (r < 0)
        mp_large_drop(&fresh);
    else
        *l = fresh;
    return r;
}

/* Takes the file for this process, if it is large enough and nobody's. */
static int claim(mp_large *l, size_t need) {
    uint32_t state = FREE;
    /* acquire pairs with the release of mp_large_taken: what it read has
       been read. */
    return l->map && l->mapped >= need &&
           atomic_compare_exchange_strong_explicit(
               &head_of(l)->state, &state, POSTED, memory_order_acquire,
               memory_order_relaxed);
}

int mp_large_post(mp_large *l, const mp_large_part *parts, int n) {
    size_t need = sizeof(large_shm);
    for (int i = 0; i < n; i++) {
        if (parts[i].size > SIZE_MAX / 2 - need) return -ENOMEM;
        need += parts[i].size;
    }
    if (!claim(l, need)) {
        mp_large_drop(l);
        int r = make(l, need);
        if (r < 0) return r;
        atomic_store_explicit(&head_of(l)->state, POSTED,
                              memory_order_relaxed);
    }
    unsigned char *to = l->map + sizeof(large_shm);
    for (int i = 0; i < n; i++) {
        if (parts[i].size > 0) memcpy(to, parts[i].data, parts[i].size);
        to += parts[i].size;
    }
    return 0;
}

void mp_large_recall(mp_large *l) {
    if (l->map)
        atomic_store_explicit(&head_of(l)->state, FREE,
                              memory_order_release);
}

/* ---- receiving ------------------------------------------------------ */

/* Maps the file unless it is the one that is mapped already. */
static int map_file(mp_large *l, int fd, const mp_memfd_about *about) {
    if (l->map && memcmp(l->id, about->id, sizeof l->id) == 0 &&
        l->mapped == about->size)
        return 0;
    mp_large_drop(l);
    if (!about->fixed) return -EBADMSG;
    int r = mp_memfd_map(fd, about->size, &l->map);
    if (r < 0) {
        l->map = NULL;
        return r == -ENOMEM ? r : -EBADMSG;
    }
    l->mapped = about->size;
    memcpy(l->id, about->id, sizeof l->id);
    return 0;
}

int mp_large_open(mp_large *l, int fd, uint64_t size,
                  const unsigned char **data) {
    mp_memfd_about about;
    int r = mp_memfd_ask(fd, &about);
    /* One that is larger than its memory would take ours as we read. */
    if (r < 0 || about.size < sizeof(large_shm) ||
        about.backed < about.size ||
        size > about.size - sizeof(large_shm))
        r = -EBADMSG;
    if (r == 0) r = map_file(l, fd, &about);
    mp_fd_close(fd);
    if (r == 0) *data = l->map + sizeof(large_shm);
    return r;
}

void mp_large_taken(mp_large *l) {
    /* release pairs with claim. */
    if (l->map)
        atomic_store_explicit(&head_of(l)->state, FREE,
                              memory_order_release);
    mp_large_trim(l);
}
