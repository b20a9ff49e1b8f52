/* glibc and musl lay out a robust mutex so that the list node {prev, next}
   stands a fixed distance behind the lock word, and the list's entries point
   at `next`. The head's futex_offset tells the distance (glibc on 64 bit:
   -32, musl: -28). We place word and node at that distance, so the kernel
   finds our word just as it finds theirs, and libc, which writes to the
   neighbours' `prev` when it links its own mutexes, finds one in our node. */
#include "os/robust.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/futex.h"

_Static_assert(sizeof(mp_robust_shm) == 64, "a line");

enum { NODE_AT = 48, PREV_AT = 40 }; /* bytes into mp_robust_shm */

static struct robust_list_head *head_of_thread(void) {
    struct robust_list_head *head = NULL;
    size_t size = 0;
    if (syscall(SYS_get_robust_list, 0, &head, &size) != 0) return NULL;
    return head;
}

/* musl registers its list at a thread's first robust lock. */
static struct robust_list_head *head_after_nudge(void) {
    struct robust_list_head *head = head_of_thread();
    if (head) return head;
    pthread_mutexattr_t attr;
    pthread_mutex_t mutex;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&mutex, &attr);
    pthread_mutex_lock(&mutex);
    pthread_mutex_unlock(&mutex);
    pthread_mutex_destroy(&mutex);
    pthread_mutexattr_destroy(&attr);
    return head_of_thread();
}

int mp_robust_offset(void) {
    struct robust_list_head *head = head_after_nudge();
    if (!head) return -ENOTSUP;
    long at = NODE_AT + head->futex_offset;
    if (at < 0 || at > PREV_AT - 4 || at % 4 != 0) return -ENOTSUP;
    return (int)at;
}

static _Atomic uint32_t *word_of(mp_robust_shm *shm, int offset) {
    return (_Atomic uint32_t *)(void *)(shm->bytes + offset);
}

/* Bit 0 of a link says that libc's mutex behind it inherits priority. */
static struct robust_list *untagged(struct robust_list *link) {
    return (void *)((uintptr_t)link & ~(uintptr_t)1);
}

static void set_prev(struct robust_list *node, void *prev) {
    memcpy((unsigned char *)node - sizeof prev, &prev, sizeof prev);
}

int mp_robust_register(mp_robust_shm *shm, int offset) {
    struct robust_list_head *head = head_after_nudge();
    if (!head) return -ENOTSUP;
    struct robust_list *node = (void *)(shm->bytes + NODE_AT);
    struct robust_list *first = head->list.next;
    uint32_t tid = (uint32_t)syscall(SYS_gettid);

    /* The kernel wakes a sleeper only if the word says that there is one;
       it always says so, which costs one wake per death. */
    atomic_store(word_of(shm, offset), tid | FUTEX_WAITERS);
    /* The order of the stores is the protocol: the walk must find either
       the old list or the new one. */
    void *prev = &head->list;
    set_prev(node, prev);
    node->next = first;
    atomic_signal_fence(memory_order_seq_cst);
    *(struct robust_list *volatile *)&head->list.next = node;
    atomic_signal_fence(memory_order_seq_cst);
    if (first != &head->list) set_prev(untagged(first), node);
    return 0;
}

/* While list_op_pending names the node, the kernel looks at it whether it is
   in the list or not: libc takes its mutexes out in the same way. */
void mp_robust_end(mp_robust_shm *shm, int offset) {
    struct robust_list_head *head = head_of_thread();
    struct robust_list *node = (void *)(shm->bytes + NODE_AT);
    _Atomic uint32_t *word = word_of(shm, offset);
    struct robust_list *prev;
    memcpy(&prev, shm->bytes + PREV_AT, sizeof prev);

    *(struct robust_list *volatile *)&head->list_op_pending = node;
    atomic_signal_fence(memory_order_seq_cst);
    if (untagged(node->next) != &head->list)
        set_prev(untagged(node->next), prev);
    *(struct robust_list *volatile *)&untagged(prev)->next = node->next;
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store(word, MP_ROBUST_DEAD);
    *(struct robust_list *volatile *)&head->list_op_pending = NULL;
    mp_futex_wake(word, INT_MAX);
}
