/* What the regions of the queue share. Each item is `who << 8 | number`, and
   everybody logs what comes out to it; so at the end of a life it is known of
   each item that it came once, in its order, or was lost with a consumer. */
#ifndef MP_SPEC_QUEUE_TOOLS_H
#define MP_SPEC_QUEUE_TOOLS_H

#include <errno.h>
#include <string.h>

#include "crash.h"
#include "data/queue_shm.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "region_tools.h"
#include "sync/lock.h"

/* Who puts and gets: the peers, and others. REST gets what is left. */
enum { PEERS = 2, VICTIM = PEERS, KILLER, REST, EVERYBODY };

/* Kinds of items, by their number. */
enum { A_WORD, A_STRING, A_RUN, A_MESSAGE, KINDS };
enum { MOST = 64, LENGTH = 300 };

/* meant   items that it began to put (the victim: may have put)
   put     ... of which it knows that they are put
   got     items that came to it */
typedef struct item_log {
    _Atomic uint64_t meant, put, n;
    _Atomic uint64_t got[MOST];
} item_log;

typedef struct handle {
    uint32_t id, gen;
} handle;

static handle queue, kept;
static mp_queue_shm *q;
static item_log *logs;
static uint64_t refs;  /* of `kept`, when nothing is under way */
static uint64_t batch; /* items that the victim may lose */

/* For SPEC_PREPARE. */
static inline void prepare_queues(void) {
    handle h;
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_queue_declare();
    CHECK_OK(mp_lock_create(&h.id, &h.gen));
    mp_object_detach(h.id);
}

static inline void set_up_bounded(uint64_t maxsize) {
    CHECK_OK(mp_lock_create(&kept.id, &kept.gen));
    CHECK_OK(mp_queue_create(maxsize, &queue.id, &queue.gen));
    q = mp_object_block(queue.id);
    logs = spec_shared(EVERYBODY * sizeof *logs);
}

static inline void set_up(void) { set_up_bounded(0); }

static inline void tear_down(void) {
    mp_object_detach(queue.id);
    mp_object_detach(kept.id);
}

/* ---- putting ---------------------------------------------------------- */

/* An item of kind `number` % KINDS; the block is OWNED by the caller. */
static inline mp_queue_item make_item(uint64_t who, uint64_t number) {
    static unsigned char store[MOST][LENGTH];
    unsigned char *bytes = store[number];
    uint64_t word = who << 8 | number;
    mp_queue_item item = {.kind = MP_QUEUE_WORD, .value = word};
    if (number % KINDS == A_STRING) {
        memset(bytes, (int)number, LENGTH);
        memcpy(bytes, &word, sizeof word);
        item = (mp_queue_item){.kind = MP_QUEUE_BYTES, .data = bytes,
                               .length = LENGTH};
    } else if (number % KINDS >= A_RUN) {
        bool holds = number % KINDS == A_MESSAGE;
        mp_ref block = mp_alloc(holds ? 100 : 40000);
        CHECK(block != 0);
        mp_message_shm *m = mp_at(block);
        m->length = word;
        m->handles_at = sizeof *m;
        atomic_store(&m->n_handles, 0);
        if (holds) {
            mp_mark_handles(block);
            CHECK_OK(mp_message_hold(block, kept.id, kept.gen));
        }
        item = (mp_queue_item){.kind = MP_QUEUE_BLOCK, .value = block};
    }
    return item;
}

static inline void put_items(uint64_t who, const mp_queue_item *items,
                             size_t n) {
    mp_deadline deadline = mp_deadline_in(10);
    uint32_t patience = 0;
    atomic_fetch_add(&logs[who].meant, n);
    while (n > 0) {
        ssize_t r = mp_queue_put(q, items, n, &patience, deadline);
        if (r == -EINTR) continue;
        CHECK(r > 0);
        atomic_fetch_add(&logs[who].put, (uint64_t)r);
        items += r;
        n -= (size_t)r;
    }
}

static inline void put(uint64_t who) {
    mp_queue_item item =
        make_item(who, atomic_load(&logs[who].meant) + 1);
    put_items(who, &item, 1);
}

static inline void put_some(uint64_t who, int n) {
    for (int i = 0; i < n; i++) put(who);
}

/* ---- getting ---------------------------------------------------------- */

/* The victim looks at some bytes only: a loop would be stepped through. */
static inline uint64_t word_of(uint64_t who, const mp_queue_item *item) {
    uint64_t word = item->value;
    if (item->kind == MP_QUEUE_BLOCK)
        return ((mp_message_shm *)mp_at(item->value))->length;
    if (item->kind != MP_QUEUE_BYTES) return word;
    const unsigned char *bytes = item->data;
    CHECK_EQ(item->length, LENGTH);
    memcpy(&word, bytes, sizeof word);
    for (int i = LENGTH - 1; i >= (int)sizeof word;
         i -= who == VICTIM ? LENGTH / 2 : 1)
        CHECK(bytes[i] == (word & 0xff));
    return word;
}

/* Takes up to n items that are there or come within the deadline. */
static inline ssize_t get_within(uint64_t who, size_t n,
                                 mp_deadline deadline) {
    static unsigned char buffer[8 * MP_QUEUE_INLINE];
    mp_queue_item items[MOST];
    uint32_t patience = 0;
    ssize_t r;
    while ((r = mp_queue_get(q, items, n, buffer, sizeof buffer, &patience,
                             deadline)) == -EINTR) {
    }
    for (ssize_t i = 0; i < r; i++) {
        item_log *log = &logs[who];
        log->got[atomic_load(&log->n)] = word_of(who, &items[i]);
        atomic_fetch_add(&log->n, 1);
        if (items[i].kind == MP_QUEUE_BLOCK) {
            CHECK(mp_free(items[i].value));
            mp_hand_drop(items[i].hand);
        }
    }
    return r;
}

static inline void get(uint64_t who) {
    CHECK_EQ(get_within(who, 1, mp_deadline_in(10)), 1);
}

/* ---- before and after a life ------------------------------------------ */

/* The items that the victim may get and lose are the region's to say. */
static inline void begin_life(uint64_t may_lose) {
    memset(logs, 0, EVERYBODY * sizeof *logs);
    batch = may_lose;
    refs = mp_object_refs(kept.id);
}

/* Those of `from` that came to `who`: newer and newer, and newer than `last`.
   Returns the newest. */
static inline uint64_t follow(int who, uint64_t from, uint64_t last,
                              unsigned *came) {
    uint64_t n = atomic_load(&logs[who].n);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t word = logs[who].got[i];
        if (word >> 8 != from) continue;
        CHECK((word & 0xff) > last && (word & 0xff) < MOST);
        last = word & 0xff;
        came[last]++;
    }
    return last;
}

/* What `from` put came once, and in order; what it has only meant to put may
   be there, up to some item. Returns how many are missing. */
static inline uint64_t missing_from(uint64_t from) {
    unsigned came[MOST] = {0};
    uint64_t missing = 0, newest = 0, put = atomic_load(&logs[from].put);
    for (int who = 0; who < REST; who++) {
        uint64_t last = follow(who, from, 0, came);
        if (last > newest) newest = last;
    }
    newest = follow(REST, from, newest, came);
    CHECK(newest <= atomic_load(&logs[from].meant));
    for (uint64_t i = 1; i < MOST; i++) {
        CHECK(came[i] <= 1);
        missing += !came[i] && (i <= put || i < newest);
    }
    return missing;
}

static inline void check(void) {
    uint64_t missing = 0;
    crash_fsck();
    while (get_within(REST, 1, MP_AT_ONCE) == 1) {
    }
    CHECK_EQ(mp_queue_size(q), 0);
    for (uint64_t from = 0; from < EVERYBODY; from++)
        missing += missing_from(from);
    CHECK(missing <= (crash_left() ? 0 : batch));
    CHECK_EQ(mp_object_refs(kept.id), refs);
}

/* ---- what most of them do --------------------------------------------- */

enum { TIMES = 3 };

/* A peer. At any time peers have put at least as many as they have got. */
static inline void put_and_get(int which) {
    for (int i = 0; i < TIMES; i++) {
        put((uint64_t)which);
        get((uint64_t)which);
    }
}

static inline void lose_nothing(void) { begin_life(0); }

/* Two rounds of all kinds, made before. */
enum { ITEMS = 5 };
static mp_queue_item made[ITEMS];

static inline void make_items(void) {
    for (uint64_t i = 0; i < ITEMS; i++)
        made[i] = make_item(VICTIM, i + 1);
}

#endif
