/* A queue of items between processes: any number of producers and consumers,
   no helper thread, bounded in items or not at all.

   Items lie in a chain of segments: a word, bytes, or the ref of a heap
   block. Two locks, one per end; an item is there when a put's one store (or
   record) of `puts` is done, and gone when that of `gets` is.

   Invariant: `puts` and `gets` are the truth about the number of items, and
   each says which of its end's two places is valid; so count and place
   change by one store. Whoever dies before it has put or taken nothing, and
   after it everything. What a dead consumer had taken is lost with it.
   Blocks pass from the producer's hand (mem/slot.h) into the queue and from
   there into the consumer's hand in the record that commits.

   Safe: threads, processes; child after mp_proc_fork. Blocks: as said.
   Source: two locks as in Michael & Scott 1996; the rest is ours. */
#ifndef MP_DATA_QUEUE_H
#define MP_DATA_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/deadline.h"
#include "mem/arena.h"
#include "sync/wait.h"

/* Bytes beyond this go as a block. */
enum { MP_QUEUE_INLINE = 2048 };

/* Where an end stands: segment 0 = before the first one. */
typedef struct mp_queue_place_shm {
    uint64_t segment;
    uint64_t offset;
} mp_queue_place_shm;

/* Each group is written by one side and stands on lines of its own. A count
   word is items << 1 | index of the valid place; it only grows.
   maxsize     0 = unbounded. Fixed at creation
   put_lock    guards its group and the writing of `puts`
   seen_gets   lower bound of items taken, to look less often
   put         where the next item goes; only the valid one counts, the
               other is being prepared
   first       the first segment
   puts        items put. Single store or record under put_lock
   not_empty   consumers wait here
   get_lock, seen_puts, get, gets, not_full   likewise for consumers
   dones       task_done() calls, at most `puts`. CAS
   all_done    who joins waits here
   A dead holder of a lock needs no repair: see mem/mutex.h. */
typedef struct mp_queue_shm {
    uint64_t maxsize;
    uint64_t padding0[15];

    mp_mutex_shm put_lock;
    uint32_t padding1;
    uint64_t seen_gets;
    mp_queue_place_shm put[2];
    uint64_t first;
    uint64_t padding2[9];

    _Atomic uint64_t puts;
    mp_wait_shm not_empty;
    uint32_t padding3[29];

    mp_mutex_shm get_lock;
    uint32_t padding4;
    uint64_t seen_puts;
    mp_queue_place_shm get[2];
    uint64_t padding5[10];

    _Atomic uint64_t gets;
    mp_wait_shm not_full;
    uint32_t padding6[29];

    _Atomic uint64_t dones;
    mp_wait_shm all_done;
    uint32_t padding7[29];
} mp_queue_shm;

enum {
    MP_QUEUE_WORD = 1, /* `value` is all there is */
    MP_QUEUE_BYTES,    /* `length` bytes at `data`, at most MP_QUEUE_INLINE */
    MP_QUEUE_BLOCK     /* `value` is the ref of a heap block */
};

/* An item on its way in or out.
   tag     the caller's
   last    a batch taken out ends behind it
   hand    get, of a block: the hand that holds it */
typedef struct mp_queue_item {
    uint8_t kind, tag;
    bool last;
    int hand;
    uint32_t length;
    const void *data;
    uint64_t value;
} mp_queue_item;

/* Declares the type; any number of times. */
void mp_queue_declare(void);

/* A new queue, held by the caller. 0 or -ENOMEM. */
int mp_queue_create(uint64_t maxsize, uint32_t *id, uint32_t *gen);

/* Puts up to n items, in order; waits while there is room for none. Returns
   how many; their blocks (OWNED by the caller before) are the queue's then.
   -ETIMEDOUT no room; -EINTR (sync/wait.h); -ENOMEM; -EMFILE too many hands
   in use. On an error nothing was put.
   patience  private to the caller, 0 at first: how long spinning pays. */
ssize_t mp_queue_put(mp_queue_shm *q, const mp_queue_item *items, size_t n,
                     uint32_t *patience, mp_deadline deadline);

/* Takes 1 to n items, those that are there; waits while there is none. Bytes
   are copied to `buffer` (of `size` >= MP_QUEUE_INLINE), where `data` points
   then. A block ends a batch; the caller frees it and drops its hand.
   -ETIMEDOUT empty; -EINTR; -EMFILE; -EBADMSG the segment is damaged. */
ssize_t mp_queue_get(mp_queue_shm *q, mp_queue_item *items, size_t n,
                     void *buffer, size_t size, uint32_t *patience,
                     mp_deadline deadline);

/* Items in the queue at one moment of the call. Never blocks. */
uint64_t mp_queue_size(const mp_queue_shm *q);

/* Is there an item? And: the next put rings the bell (sync/bell.h). */
bool mp_queue_has_item(const mp_queue_shm *q);
void mp_queue_announce(mp_queue_shm *q);

/* One item is worked off. 0; -EINVAL when all were before. */
int mp_queue_done(mp_queue_shm *q);

/* Waits until each item put was said to be done. 0; -ETIMEDOUT; -EINTR. */
int mp_queue_join(mp_queue_shm *q, mp_deadline deadline);

#endif
