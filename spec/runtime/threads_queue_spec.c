/* Queues under threads: what a producer wrote is what a consumer reads, once,
   and in its producer's order. */
#include "fsck_tools.h"
#include "queue_fixture.h"
#include "threads.h"

static const double LASTS = 0.3; /* seconds */
enum { LEAST = 10 };             /* rounds of each, however long */

SPEC_PREPARE { prepare_queues(); }

enum { PRODUCERS = 2, CONSUMERS = 2, BATCH = 5, LONGEST = 400 };

/* A queue and what goes through it.
   held      an object that each block carries a handle of
   left      producers that still produce
   put, got  items, and the sum of their numbers */
typedef struct traffic {
    fixture f, held;
    double end;
    bool blocks;
    _Atomic int left;
    _Atomic uint64_t put, put_sum, got, got_sum;
} traffic;

/* Who made it, its number, and where they stand as words. */
typedef struct label {
    uint64_t producer, number;
} label;

static uint64_t word_of(label l) { return l.producer << 32 | l.number; }

static label label_of(uint64_t w) {
    return (label){.producer = w >> 32, .number = w & 0xffffffffU};
}

/* ---- producing ---------------------------------------------------------- */

static mp_queue_item as_bytes(label l, unsigned char *bytes) {
    size_t length = sizeof l + l.number % LONGEST;
    memcpy(bytes, &l, sizeof l);
    memset(bytes + sizeof l, (int)(l.number & 0xff), length - sizeof l);
    return (mp_queue_item){.kind = MP_QUEUE_BYTES,
                           .length = (uint32_t)length,
                           .data = bytes};
}

static mp_queue_item as_block(label l, const traffic *t) {
    mp_ref block = new_message(sizeof l, &t->held);
    memcpy((unsigned char *)mp_at(block) + HEAD, &l, sizeof l);
    return (mp_queue_item){.kind = MP_QUEUE_BLOCK, .value = block};
}

static mp_queue_item new_item(const traffic *t, label l,
                              unsigned char *bytes) {
    if (t->blocks && l.number % 2) return as_block(l, t);
    return l.number % 3 ? as_bytes(l, bytes) : word(word_of(l));
}

static void put_all(fixture *mine, const mp_queue_item *items, size_t n) {
    for (size_t i = 0; i < n;) {
        ssize_t r = put_in(mine, items + i, n - i, 10);
        CHECK_OK(r);
        i += (size_t)r;
    }
}

static void produce(traffic *t, fixture *mine, uint64_t producer) {
    unsigned char bytes[BATCH][sizeof(label) + LONGEST];
    mp_queue_item items[BATCH];
    uint64_t n = 0, sum = 0;
    while (n < LEAST || spec_now() < t->end) {
        size_t batch = 1 + n % BATCH;
        for (size_t i = 0; i < batch; i++, sum += n++)
            items[i] = new_item(t, (label){producer, n}, bytes[i]);
        put_all(mine, items, batch);
    }
    atomic_fetch_add(&t->put, n);
    atomic_fetch_add(&t->put_sum, sum);
    atomic_fetch_sub(&t->left, 1);
}

/* ---- consuming ---------------------------------------------------------- */

static label read_bytes(const mp_queue_item *item) {
    label l;
    const unsigned char *bytes = item->data;
    memcpy(&l, bytes, sizeof l);
    CHECK_EQ(item->length, sizeof l + l.number % LONGEST);
    for (size_t i = sizeof l; i < item->length; i++)
        if (bytes[i] != (l.number & 0xff)) CHECK_EQ(bytes[i], l.number & 0xff);
    return l;
}

static label take_block(const mp_queue_item *item) {
    label l;
    memcpy(&l, (unsigned char *)mp_at(item->value) + HEAD, sizeof l);
    drop_block(item);
    return l;
}

static label take(const mp_queue_item *item) {
    switch (item->kind) {
    case MP_QUEUE_WORD: return label_of(item->value);
    case MP_QUEUE_BYTES: return read_bytes(item);
    default: return take_block(item);
    }
}

static void consume(traffic *t, fixture *mine) {
    uint64_t next[PRODUCERS] = {0}, n = 0, sum = 0;
    mp_queue_item items[BATCH];
    for (;;) {
        int left = atomic_load(&t->left);
        ssize_t r = get_in(mine, items, BATCH, 0.02);
        if (r == -ETIMEDOUT && !left) break;
        if (r == -ETIMEDOUT) continue;
        CHECK_OK(r);
        for (ssize_t i = 0; i < r; i++, n++) {
            label l = take(&items[i]);
            CHECK(l.producer < PRODUCERS && l.number >= next[l.producer]);
            next[l.producer] = l.number + 1;
            sum += l.number;
            CHECK_OK(mp_queue_done(mine->q));
        }
    }
    atomic_fetch_add(&t->got, n);
    atomic_fetch_add(&t->got_sum, sum);
}

static void take_part(void *context, int number) {
    traffic *t = context;
    fixture mine = {.q = t->f.q};
    if (number < PRODUCERS)
        produce(t, &mine, (uint64_t)number);
    else
        consume(t, &mine);
}

static void run_traffic(uint64_t maxsize, bool blocks) {
    traffic *t = spec_shared(sizeof *t);
    open_queue(&t->f, maxsize);
    open_queue(&t->held, 0);
    t->left = PRODUCERS;
    t->blocks = blocks;
    t->end = spec_now() + LASTS;
    spec_threads(PRODUCERS + CONSUMERS, take_part, t);
    CHECK(t->put > 0);
    CHECK_EQ(t->got, t->put);
    CHECK_EQ(t->got_sum, t->put_sum);
    CHECK_EQ(mp_queue_size(t->f.q), 0);
    CHECK_CLEAN();
    CHECK_EQ(mp_queue_join(t->f.q, MP_AT_ONCE), 0);
    CHECK_EQ(mp_object_refs(t->held.id), 1);
    close_queue(&t->f);
    close_queue(&t->held);
}

SPEC("threads: a queue passes words and bytes on") {
    run_traffic(0, false);
}

SPEC("threads: a queue passes blocks on, with handles in them") {
    run_traffic(0, true);
}

SPEC("threads: a bounded queue does, too, and holds who is too fast") {
    run_traffic(3, true);
}
