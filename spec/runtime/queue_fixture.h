/* What the specs of the queue share: a queue, and how to use it. */
#ifndef MP_SPEC_QUEUE_FIXTURE_H
#define MP_SPEC_QUEUE_FIXTURE_H

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "data/queue.h"
#include "harness.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "proc/proc.h"

/* A queue under test, and what a call needs besides. */
typedef struct fixture {
    uint32_t id, gen, patience;
    mp_queue_shm *q;
    unsigned char buffer[4 * MP_QUEUE_INLINE];
} fixture;

static inline mp_queue_shm *open_queue(fixture *f, uint64_t maxsize) {
    memset(f, 0, sizeof *f);
    CHECK_OK(mp_queue_create(maxsize, &f->id, &f->gen));
    f->q = mp_object_block(f->id);
    return f->q;
}

static inline void close_queue(fixture *f) { mp_object_detach(f->id); }

static inline ssize_t put_in(fixture *f, const mp_queue_item *items, size_t n,
                      double seconds) {
    ssize_t r;
    mp_deadline deadline = mp_deadline_in(seconds);
    do
        r = mp_queue_put(f->q, items, n, &f->patience, deadline);
    while (r == -EINTR);
    return r;
}

static inline ssize_t get_in(fixture *f, mp_queue_item *items, size_t n,
                      double seconds) {
    ssize_t r;
    mp_deadline deadline = mp_deadline_in(seconds);
    do
        r = mp_queue_get(f->q, items, n, f->buffer, sizeof f->buffer,
                         &f->patience, deadline);
    while (r == -EINTR);
    return r;
}

static inline mp_queue_item word(uint64_t value) {
    return (mp_queue_item){.kind = MP_QUEUE_WORD, .tag = 7, .value = value};
}

static inline void put_word(fixture *f, uint64_t value) {
    mp_queue_item item = word(value);
    CHECK_EQ(put_in(f, &item, 1, 10), 1);
}

static inline uint64_t get_word(fixture *f) {
    mp_queue_item item;
    CHECK_EQ(get_in(f, &item, 1, 10), 1);
    CHECK_EQ(item.kind, MP_QUEUE_WORD);
    return item.value;
}

static inline void drop_block(const mp_queue_item *item) {
    CHECK(mp_free(item->value));
    mp_hand_drop(item->hand);
}

/* For SPEC_PREPARE. */
static inline void prepare_queues(void) {
    CHECK_OK(mp_open());
    mp_queue_declare();
    /* The first object brings the object table with it. */
    fixture f;
    open_queue(&f, 0);
    close_queue(&f);
}

/* Room for a message's head and one handle. */
enum { HEAD = 32 };

static inline mp_ref new_message(size_t size, const fixture *holds) {
    mp_ref block = mp_alloc(HEAD + size);
    CHECK(block != 0);
    mp_message_shm *m = mp_at(block);
    m->handles_at = sizeof *m;
    atomic_store(&m->n_handles, 0);
    if (holds) {
        mp_mark_handles(block);
        CHECK_OK(mp_message_hold(block, holds->id, holds->gen));
    }
    return block;
}

static inline mp_proc start(void (*work)(fixture *, uint64_t), fixture *f,
                     uint64_t number) {
    mp_proc proc;
    int r = mp_proc_fork(&proc, 0);
    CHECK_OK(r);
    if (r == 1) {
        f->patience = 0;
        work(f, number);
        mp_proc_exit(0);
    }
    return proc;
}

static inline int finish(mp_proc *proc) {
    int r;
    do
        r = mp_proc_wait(proc, mp_deadline_in(15));
    while (r == -EINTR);
    CHECK_OK(r);
    mp_proc_close(proc);
    return proc->exitcode;
}

#endif
