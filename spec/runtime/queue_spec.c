#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "fsck_tools.h"
#include "queue_fixture.h"

static int hands_used(void) {
    int n = 0;
    for (int i = 0; i < MP_HANDS; i++)
        n += atomic_load(&mp_me->slot->hands[i].block) != 0;
    return n;
}

SPEC_PREPARE { prepare_queues(); }

/* ---- one process ------------------------------------------------------ */

SPEC("queue: hands out words, bytes and blocks in their order") {
    fixture f;
    open_queue(&f, 0);
    mp_ref block = mp_alloc(5000);
    memset(mp_at(block), 'b', 5000);
    const mp_queue_item in[] = {
        word(UINT64_MAX),
        {.kind = MP_QUEUE_BYTES, .tag = 1, .data = "abc", .length = 3},
        {.kind = MP_QUEUE_BYTES, .tag = 2, .data = "", .length = 0},
        {.kind = MP_QUEUE_BLOCK, .tag = 3, .value = block},
        word(5)};
    CHECK_EQ(put_in(&f, in, 5, 0), 5);
    CHECK_EQ(mp_queue_size(f.q), 5);
    CHECK_CLEAN();

    mp_queue_item out[5];
    CHECK_EQ(get_in(&f, out, 5, 0), 4); /* a block ends a batch */
    CHECK(out[0].value == UINT64_MAX && out[0].tag == 7);
    CHECK(out[1].length == 3 && memcmp(out[1].data, "abc", 3) == 0);
    CHECK(out[2].length == 0 && out[2].tag == 2);
    CHECK(out[3].value == block && out[3].tag == 3);
    CHECK(memcmp(mp_at(block), "bbbbb", 5) == 0);
    drop_block(&out[3]);
    CHECK_EQ(get_word(&f), 5);
    CHECK_EQ(get_in(&f, out, 1, 0), -ETIMEDOUT);
    CHECK_EQ(hands_used(), 0);
    close_queue(&f);
}

SPEC("queue: ends a batch behind an item that asks for it") {
    fixture f;
    open_queue(&f, 0);
    mp_queue_item items[4] = {word(1), word(2), word(3), word(4)};
    items[1].last = true;
    CHECK_EQ(put_in(&f, items, 4, 0), 4);
    CHECK_EQ(get_in(&f, items, 4, 0), 2);
    CHECK_EQ(get_in(&f, items, 4, 0), 2);
    close_queue(&f);
}

SPEC("queue: goes through many segments and gives them back") {
    fixture f;
    open_queue(&f, 0);
    static unsigned char bytes[MP_QUEUE_INLINE];
    uint64_t used = mp_heap_used();
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 3000; i++) {
            memset(bytes, (int)i, sizeof bytes);
            mp_queue_item item = {.kind = MP_QUEUE_BYTES, .data = bytes,
                                  .length = i % (MP_QUEUE_INLINE + 1)};
            CHECK_EQ(put_in(&f, &item, 1, 0), 1);
        }
        CHECK_CLEAN();
        for (uint32_t i = 0; i < 3000; i++) {
            mp_queue_item item;
            CHECK_EQ(get_in(&f, &item, 1, 0), 1);
            CHECK_EQ(item.length, i % (MP_QUEUE_INLINE + 1));
            for (uint32_t k = 0; k < item.length; k += 37)
                CHECK_EQ(f.buffer[k], i & 0xff);
        }
        CHECK(mp_heap_used() <= used + MP_UNIT);
    }
    CHECK_CLEAN();
    close_queue(&f);
}

SPEC("queue: puts and gets batches over the ends of segments") {
    fixture f;
    open_queue(&f, 0);
    enum { ITEMS = 50000, BATCH = 700 };
    static mp_queue_item items[BATCH];
    uint64_t put = 0, got = 0;
    while (got < ITEMS) {
        size_t n = 0;
        for (; n < BATCH && put + n < ITEMS; n++) items[n] = word(put + n);
        for (size_t i = 0; i < n;) {
            ssize_t r = put_in(&f, items + i, n - i, 0);
            CHECK(r > 0);
            i += (size_t)r;
        }
        put += n;
        ssize_t r = get_in(&f, items, BATCH, 0);
        CHECK(r > 0);
        for (ssize_t i = 0; i < r; i++) CHECK_EQ(items[i].value, got++);
    }
    CHECK_EQ(mp_queue_size(f.q), 0);
    close_queue(&f);
}

SPEC("queue: is full at maxsize, and a batch goes in as far as it fits") {
    fixture f;
    open_queue(&f, 3);
    mp_queue_item items[5] = {word(1), word(2), word(3), word(4), word(5)};
    CHECK_EQ(put_in(&f, items, 1, -1), 1);
    CHECK_EQ(put_in(&f, items + 1, 4, 0), 2);
    CHECK_EQ(put_in(&f, items, 1, 0), -ETIMEDOUT);
    double start = spec_now();
    CHECK_EQ(put_in(&f, items, 1, 0.05), -ETIMEDOUT);
    CHECK(spec_now() - start >= 0.05);
    CHECK_EQ(get_word(&f), 1);
    CHECK_EQ(put_in(&f, items + 3, 1, 0), 1);
    for (uint64_t i = 2; i <= 4; i++) CHECK_EQ(get_word(&f), i);
    close_queue(&f);
}

SPEC("queue: refuses, and loses nothing, when hands are short") {
    fixture f;
    open_queue(&f, 0);
    put_word(&f, 1);
    mp_queue_item in = {.kind = MP_QUEUE_BLOCK, .value = new_message(1, NULL)};
    CHECK_EQ(put_in(&f, &in, 1, 0), 1);
    in.value = new_message(1, NULL);
    for (int i = 0; i < 3; i++)
        atomic_store(&mp_me->slot->hands[i].block, 1);
    mp_queue_item out;
    CHECK_EQ(put_in(&f, &in, 1, 0), -EMFILE);
    CHECK_EQ(get_word(&f), 1);
    CHECK_EQ(get_in(&f, &out, 1, 0), -EMFILE);
    for (int i = 0; i < 3; i++) mp_hand_drop(i);
    CHECK_EQ(put_in(&f, &in, 1, 0), 1);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(get_in(&f, &out, 1, 0), 1);
        drop_block(&out);
    }
    close_queue(&f);
}

SPEC("queue: frees what was not read when it is destroyed") {
    fixture f, inner;
    uint64_t used = mp_heap_used();
    uint32_t objects = mp_object_count();
    open_queue(&inner, 0);
    open_queue(&f, 0);
    for (uint64_t i = 0; i < 10000; i++) {
        put_word(&f, i);
        if (i % 100) continue;
        mp_queue_item item = {.kind = MP_QUEUE_BLOCK,
                              .value = new_message(1000, &inner)};
        CHECK_EQ(put_in(&f, &item, 1, 0), 1);
    }
    close_queue(&inner);
    CHECK_EQ(mp_object_count(), objects + 2);
    close_queue(&f);
    CHECK_EQ(mp_object_count(), objects);
    CHECK_EQ(mp_heap_used(), used);
    CHECK_EQ(hands_used(), 0);
}

static int join_in(fixture *f, double seconds) {
    mp_deadline deadline = mp_deadline_in(seconds);
    int r;
    while ((r = mp_queue_join(f->q, deadline)) == -EINTR) {
    }
    return r;
}

SPEC("queue: knows when all tasks are done") {
    fixture f;
    open_queue(&f, 0);
    CHECK_EQ(mp_queue_join(f.q, MP_AT_ONCE), 0);
    CHECK_EQ(mp_queue_done(f.q), -EINVAL);
    put_word(&f, 1);
    put_word(&f, 2);
    get_word(&f);
    CHECK_EQ(mp_queue_done(f.q), 0);
    CHECK_EQ(join_in(&f, 0.01), -ETIMEDOUT);
    CHECK_EQ(mp_queue_done(f.q), 0);
    CHECK_EQ(mp_queue_join(f.q, MP_AT_ONCE), 0);
    CHECK_EQ(mp_queue_done(f.q), -EINVAL);
    close_queue(&f);
}

/* ---- several processes -------------------------------------------------- */

static void put_later(fixture *f, uint64_t number) {
    spec_pause();
    put_word(f, number);
}

SPEC("queue: wakes a sleeping consumer") {
    fixture f;
    open_queue(&f, 0);
    for (uint64_t i = 0; i < 20; i++) {
        mp_proc proc = start(put_later, &f, i);
        CHECK_EQ(get_word(&f), i);
        CHECK_EQ(finish(&proc), 0);
    }
    close_queue(&f);
}

static void get_later(fixture *f, uint64_t number) {
    spec_pause();
    CHECK_EQ(get_word(f), number);
}

SPEC("queue: wakes a sleeping producer when there is room") {
    fixture f;
    open_queue(&f, 1);
    put_word(&f, 0);
    for (uint64_t i = 0; i < 20; i++) {
        mp_proc proc = start(get_later, &f, i);
        put_word(&f, i + 1);
        CHECK_EQ(finish(&proc), 0);
    }
    close_queue(&f);
}

static void work_off(fixture *f, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        get_word(f);
        spec_pause();
        CHECK_EQ(mp_queue_done(f->q), 0);
    }
}

SPEC("queue: join returns when several workers have done all") {
    fixture f;
    open_queue(&f, 0);
    for (uint64_t i = 0; i < 30; i++) put_word(&f, i);
    mp_proc procs[3];
    for (int i = 0; i < 3; i++) procs[i] = start(work_off, &f, 10);
    int r;
    do
        r = mp_queue_join(f.q, mp_deadline_in(10));
    while (r == -EINTR);
    CHECK_EQ(r, 0);
    CHECK_EQ(mp_queue_size(f.q), 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(finish(&procs[i]), 0);
    close_queue(&f);
}

enum { PRODUCERS = 4, CONSUMERS = 3, EACH = 10000 };

static void produce(fixture *f, uint64_t number) {
    for (uint64_t i = 0; i < EACH; i++) put_word(f, number << 32 | i);
}

static _Atomic uint32_t (*seen)[EACH];

static void consume(fixture *f, uint64_t number) {
    int64_t last[PRODUCERS];
    memset(last, -1, sizeof last);
    (void)number;
    for (uint64_t w; (w = get_word(f)) != UINT64_MAX;) {
        int64_t i = (int64_t)(w & UINT32_MAX);
        CHECK(i > last[w >> 32]);
        last[w >> 32] = i;
        seen[w >> 32][i]++;
    }
}

static void check_many(uint64_t maxsize) {
    fixture f;
    open_queue(&f, maxsize);
    seen = spec_shared(sizeof *seen * PRODUCERS);
    mp_proc producers[PRODUCERS], consumers[CONSUMERS];
    for (uint64_t i = 0; i < CONSUMERS; i++)
        consumers[i] = start(consume, &f, i);
    for (uint64_t i = 0; i < PRODUCERS; i++)
        producers[i] = start(produce, &f, i);
    for (int i = 0; i < PRODUCERS; i++) CHECK_EQ(finish(&producers[i]), 0);
    for (int i = 0; i < CONSUMERS; i++) put_word(&f, UINT64_MAX);
    for (int i = 0; i < CONSUMERS; i++) CHECK_EQ(finish(&consumers[i]), 0);
    for (int p = 0; p < PRODUCERS; p++)
        for (int i = 0; i < EACH; i++) CHECK_EQ(seen[p][i], 1);
    CHECK_CLEAN();
    close_queue(&f);
}

SPEC_WITHIN(60, "queue: each item of many producers goes to one consumer, "
                "in its producer's order") {
    check_many(0);
}

SPEC_WITHIN(60, "queue: and so it does when it is bounded") {
    check_many(5);
}
