/* The arena: the one region of memory that a family of processes shares,
   and the calling thread's place in it.

   Invariant: a place is an offset (mp_ref), never a pointer; each process
   maps the region somewhere and adds its own base. An mp_ref made by
   mp_alloc carries the block's generation in its upper 16 bits, so a stale
   one is recognised.

   A process has one arena; each of its threads that uses it is a participant
   of its own. `mp_me` is the calling thread's, NULL until mp_open, after
   mp_close, and in a child that was forked behind our back. Everything in mem,
   sync, data and work needs it.
   Safe: each thread that called mp_open; child after fork only by way of
   mp_start_fork (proc/start.h). */
#ifndef MP_MEM_ARENA_H
#define MP_MEM_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/poison.h"
#include "os/robust.h"

typedef uint64_t mp_ref; /* gen << 48 | offset; 0 = none */

#define MP_REF_OFFSET(ref) ((ref) & 0xffffffffffffU)
#define MP_REF_GEN(ref) ((uint32_t)((ref) >> 48))

enum {
    MP_SLOTS = 4096,      /* participants at one time; slot 0 is nobody */
    MP_UNIT_SHIFT = 16,   /* the heap hands out runs of 64 KiB units */
    MP_TXN_WORDS = 14,
    MP_HANDS = 6,
    MP_COMPLAINT = 200,   /* bytes of it */
    MP_LEDGER_PAGES = 32, /* x 32,768 objects */
    MP_SEGMENTS = 1024    /* x 1,024 entries of the object table */
};
enum { MP_BELL_WANTED = 1, MP_BELL_USED = 2 };
#define MP_UNIT ((size_t)1 << MP_UNIT_SHIFT)
#define MP_ARENA_MAGIC 0x31414c504d50ULL /* "PMPLA1" */
#define MP_SUPER_SIZE 65536UL            /* of its place; slots follow */

/* An internal lock (mem/mutex.h): 0 free, else the owner's tag, bit 31 when
   somebody sleeps on it. */
typedef struct mp_mutex_shm {
    _Atomic uint32_t word;
} mp_mutex_shm;

/* What several stores must do as one (mem/txn.h).
   n      words recorded; > 0: committed, being applied. Owner; reaper.
   w      where (offset, bit 0: 32 bits wide) and the absolute value. */
typedef struct mp_txn_shm {
    _Atomic uint32_t n;
    mp_mutex_shm guard; /* who replays for a dead owner */
    struct {
        uint64_t at, value;
    } w[MP_TXN_WORDS];
} mp_txn_shm;

/* A block between two owners (mem/slot.h).
   block  the block's ref, 0 = empty. Owner; reaper.
   at     offset of the 64-bit word whose growth commits the hand-over; 0:
          the block is simply mine, to be freed when I die.
   value  committed iff (int64_t)(*at - value) >= 0 */
typedef struct mp_hand_shm {
    _Atomic uint64_t block;
    uint64_t at, value;
} mp_hand_shm;

enum { MP_SLOT_FREE, MP_SLOT_FORKING, MP_SLOT_LIVE, MP_SLOT_CLAIMING };

/* A participant: a process, or a thread with its own Lua state. Written by
   its owner unless said otherwise; repaired by mp_reap (mem/reap.h).
   life    the kernel's mark (os/robust.h)
   state   kind | parent's tag << 2 | claiming child's pid << 32.
           FREE -> FORKING (by the parent) ->
           CLAIMING -> LIVE (by the child) -> FREE (by the reaper, with
           gen + 1). The parent is in the same word so that no slot is
           reserved for nobody
   gen     counts the slot's owners; changes only when one is fully reaped
   reaper  held by who repairs it
   asked   the signal by which this participant, a thread, was asked to end
           (mp_slot_ask), else 0; a futex word. Others, under `reaper`
   ledger  bitmaps of the objects it holds, by id; blocks of 4 KiB
   dying   head of the list of objects it must destroy */
typedef struct mp_slot_shm {
    mp_robust_shm life;
    _Atomic uint64_t state;
    _Atomic uint32_t gen;
    _Atomic uint32_t pid;
    mp_mutex_shm reaper;
    _Atomic uint32_t asked;
    _Atomic uint64_t dying;
    mp_hand_shm hands[MP_HANDS];
    mp_txn_shm txn;
    _Atomic uint64_t ledger[MP_LEDGER_PAGES];
    uint64_t padding[37];
} mp_slot_shm;

/* The head of the arena. Under `heap` unless said otherwise.
   reserved, life_at  fixed when the arena is made
   size       bytes of the file; grows only
   units      high-water mark of the unit table
   low        no free unit stands below this one (a hint)
   spare      units that are free and backed (a hint)
   slots      high-water mark of slots; grows only, by CAS
   lives      spans and runs made so far; grows only, by addition
   registry   {id, generation << 32} of the object that has the names of this
              family's segments (data/segment.h), not counted: it may be gone.
              By CAS
   free_entry, entries   object table: free list, high water. Under `table`
   shelf      guards the entries of the shelf (os/shelf.h)
   untidy     1 while entries move, and after a death in it: one may stand
              there twice, or belong to nobody. Under `shelf`
   bell       MP_BELL_*: who waits at the bell adds WANTED (sync/bell.h),
              who rings takes it off. USED stays
   shelf_files  numbers of the shelf's two files; 0: there is none. Fixed
   complaint  why a new program cannot take part, as text that ends in a zero:
              a program that is no participant writes here, where nothing
              else can ever stand (proc/start_spawn.c). Guarded by nothing, and
              believed by nobody: two at a time make nonsense of it */
typedef struct mp_super_shm {
    uint64_t magic;
    uint64_t reserved;
    uint8_t family[16];
    uint32_t life_at;
    _Atomic uint32_t slots;
    mp_mutex_shm heap;
    mp_mutex_shm table;
    _Atomic uint64_t size;
    _Atomic uint64_t units;
    _Atomic uint64_t low;
    _Atomic uint64_t spare;
    _Atomic uint64_t first_unit;
    _Atomic uint64_t free_entry;
    _Atomic uint64_t entries;
    _Atomic uint64_t lives;
    _Atomic uint64_t registry;
    mp_mutex_shm shelf;
    _Atomic uint32_t untidy;
    _Atomic uint32_t bell;
    uint32_t padding;
    uint64_t shelf_files[2];
    _Atomic uint64_t abandoned[64];
    _Atomic uint64_t segments[MP_SEGMENTS];
    _Atomic uint64_t complaint[MP_COMPLAINT / 8];
} mp_super_shm;

enum { MP_HEAP_CLASSES = 32 };

/* This thread's private knowledge of its spans of one size class. */
typedef struct mp_spans {
    uint32_t *unit; /* units of my spans; malloc'ed */
    uint32_t n, cap;
    uint32_t current; /* index into `unit` */
    uint32_t cursor;  /* next block to look at in it */
} mp_spans;

/* The calling thread as a participant; private to it. */
typedef struct mp_self {
    unsigned char *base;
    size_t mapped; /* bytes there */
    mp_super_shm *super;
    mp_slot_shm *slot;
    _Atomic uint64_t *unit; /* the unit table */
    uint32_t index;         /* of the slot */
    uint32_t tag;           /* gen << 12 | index */
    int fd;
    int null;               /* /dev/null, for the stdin of children */
    int shelf[2];           /* its ends (os/shelf.h); -1: there is none */
    mp_spans spans[MP_HEAP_CLASSES];
    uint32_t slice_ns;       /* of the sleep to come (sync/wait), 0 = first */
    uint32_t first_slice_ns; /* of a wait; 0 = MP_SLICE_FIRST_NS */
    uint32_t slept_value;    /* what the last sleep slept on */
    const void *slept_on;
    _Atomic uint32_t *notified; /* who sleeps there is to be woken with the
                                   next release of an RLock (sync/lock.h) */
    uint32_t empty_spans; /* seen since the last tidying up */
    uint32_t *held; /* local counts by object id; malloc'ed */
    uint32_t held_cap;
    bool destroying; /* a destruction is under way in this thread */
} mp_self;

extern _Thread_local mp_self *mp_me
    __attribute__((tls_model("initial-exec")));

/* Makes this thread a participant, if it is none yet; opens the process's
   arena at first use. It is one until mp_close, or until the thread ends.
   0; -ENOMEM, -EFBIG, -EMFILE, ...; -EAGAIN no free slot; -EOWNERDEAD in a
   child that was forked behind our back. */
int mp_open(void);

/* Did this process make the arena? The others of the family, which it started,
   end when it does. */
bool mp_is_founder(void);

/* The same for a thread for which participant `parent` has reserved slot
   `index` (mem/slot.h). 0; -ENOMEM; -EOWNERDEAD the slot was given back. */
int mp_open_reserved(uint32_t index, uint32_t parent);

/* The same in a forked child; `self` is the copy of its parent's, who has
   reserved the slot. -EOWNERDEAD. */
int mp_open_copied(mp_self *self, uint32_t index);

/* The end of this thread's participant: from here on it is dead to all, and
   whoever looks reaps it (mem/reap.h). No-op where there is none. */
void mp_close(void);

/* `f` is called first thing in mp_close and at a participating thread's end;
   every call names the same one. */
void mp_open_before_close(void (*f)(void));

/* The same for a new program that was given the arena behind `fd`: maps it,
   asks `whose` which slot is this thread's (its number, or -errno; it may
   look around in the arena already, and sets self->tag to the tag of who
   reserved the slot), and claims that.
   0; -EBUSY this process has an arena; -EBADF, -EPROTO as mp_arena_map;
   -EOWNERDEAD the slot was given back; what `whose` returned. */
int mp_open_given(int fd, int (*whose)(mp_self *self, void *ctx), void *ctx);

/* Creates the arena and this process's first self (used by mp_open). */
int mp_arena_create(mp_self *self);

/* Maps the arena behind a descriptor of unknown origin: nothing of it is
   believed. The descriptor is this process's from now on; so are the next
   two numbers, if those are the ends of the arena's shelf.
   0; -EBADF no descriptor, or none of an arena; -EPROTO one made by a
   program that cannot share it with this one (another libc); -ENOMEM. */
int mp_arena_map(mp_self *self, int fd);

/* Takes back either of the two. */
void mp_arena_unmap(mp_self *self);

/* Bytes of an arena's tables, which stand before its units. */
uint64_t mp_arena_head(uint64_t reserved);

/* Makes the file at least `end` bytes; caller holds super->heap. */
int mp_arena_grow(uint64_t end);

/* Where a place is; that of a block only as long as the block is there. */
static inline void *mp_at(mp_ref ref) {
    mp_poison_look(ref);
    return mp_me->base + MP_REF_OFFSET(ref);
}

static inline uint64_t mp_offset(const volatile void *p) {
    return (uint64_t)((const volatile unsigned char *)p - mp_me->base);
}

static inline mp_slot_shm *mp_slot_at(uint32_t index) {
    return (mp_slot_shm *)(void *)(mp_me->base + MP_SUPER_SIZE) +
           index;
}

#endif
