#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fsck_tools.h"
#include "queue_fixture.h"

SPEC_PREPARE { prepare_queues(); }

/* Producers and consumers are killed at random. A producer's life has a row
   of its own: how far it meant to put, how far it knows it did, and how often
   each of its items came out. An item is `row << 32 | number`; its number
   decides its kind. */
enum { LIVES = 4000, ROW = 3000, MANY = 16, CREW = 6 };

typedef struct row {
    _Atomic uint32_t meant, known;
    _Atomic unsigned char came[ROW];
} row;

static row *rows;
static fixture held; /* what messages with handles hold */

static uint32_t size_of(uint64_t item) {
    return 8 + (uint32_t)item % 1500;
}

static void paint(void *at, uint64_t item) {
    memcpy(at, &item, 8);
    memset((char *)at + 8, (int)(item & 0x7f), size_of(item) - 8);
}

static void check_paint(const void *at, uint64_t item) {
    const unsigned char *p = at;
    for (uint32_t i = 8; i < size_of(item); i++)
        CHECK_EQ(p[i], item & 0x7f);
}

static mp_queue_item item_of(uint64_t item, char *bytes) {
    if (item % 7 == 0) {
        mp_ref block = new_message(size_of(item), item % 2 ? &held : NULL);
        paint((char *)mp_at(block) + HEAD, item);
        return (mp_queue_item){.kind = MP_QUEUE_BLOCK, .value = block};
    }
    if (item % 3) return word(item);
    paint(bytes, item);
    return (mp_queue_item){.kind = MP_QUEUE_BYTES, .data = bytes,
                           .length = size_of(item)};
}

static void produce_for_ever(fixture *f, uint64_t number) {
    static char bytes[MANY][2048];
    mp_queue_item items[MANY];
    row *r = &rows[number];
    uint32_t i = 0;
    while (i + MANY < ROW) {
        size_t n = i % 5 ? 1 : MANY;
        for (size_t k = 0; k < n; k++)
            items[k] = item_of(number << 32 | (i + k), bytes[k]);
        r->meant = i + (uint32_t)n;
        for (size_t done = 0; done < n;) {
            ssize_t put = put_in(f, items + done, n - done, 10);
            CHECK(put > 0);
            done += (size_t)put;
        }
        i += (uint32_t)n;
        r->known = i;
    }
    for (;;) spec_pause();
}

static uint64_t identify(const mp_queue_item *item) {
    uint64_t id;
    if (item->kind == MP_QUEUE_WORD) return item->value;
    const char *at = item->kind == MP_QUEUE_BLOCK
                         ? (const char *)mp_at(item->value) + HEAD
                         : item->data;
    memcpy(&id, at, 8);
    check_paint(at, id);
    return id;
}

/* Takes a batch and enters it; returns its size or -ETIMEDOUT. */
static ssize_t consume_some(fixture *f, size_t most, double seconds) {
    mp_queue_item items[MANY];
    ssize_t n = get_in(f, items, most, seconds);
    for (ssize_t i = 0; i < n; i++) {
        uint64_t id = identify(&items[i]);
        CHECK(id >> 32 < LIVES && (uint32_t)id < ROW);
        CHECK_EQ(rows[id >> 32].came[(uint32_t)id]++, 0);
        if (items[i].kind == MP_QUEUE_BLOCK) drop_block(&items[i]);
    }
    return n;
}

static void consume_for_ever(fixture *f, uint64_t number) {
    for (uint64_t i = number;; i++) {
        ssize_t n = consume_some(f, i % 3 ? 1 : MANY, 1);
        CHECK(n > 0 || n == -ETIMEDOUT);
    }
}

/* Every item that its producer knows to have put came out, but for those in
   the hands of dead consumers; and of the rest none but those it meant. */
static void check_rows(uint64_t lives, uint64_t dead_consumers) {
    uint64_t lost = 0, came = 0;
    for (uint64_t i = 0; i < lives; i++)
        for (uint32_t k = 0; k < ROW; k++) {
            if (k < rows[i].known) lost += rows[i].came[k] == 0;
            if (k >= rows[i].meant) CHECK_EQ(rows[i].came[k], 0);
            came += rows[i].came[k];
        }
    CHECK(lost <= dead_consumers * MANY);
    CHECK(came > 0);
}

static mp_proc start_member(fixture *f, int i, uint64_t *lives) {
    if (i % 2) return start(consume_for_ever, f, (uint64_t)i);
    return start(produce_for_ever, f, (*lives)++);
}

static void kill_member(mp_proc *proc) {
    CHECK_OK(mp_proc_signal(proc, SIGKILL));
    CHECK_EQ(finish(proc), -SIGKILL);
}

static void kill_loop(uint64_t maxsize, double seconds) {
    fixture f;
    uint64_t used = mp_heap_used(), lives = 0, dead = CREW;
    open_queue(&held, 0);
    open_queue(&f, maxsize);
    rows = spec_shared(sizeof *rows * LIVES);
    mp_proc crew[CREW];
    double end = spec_now() + seconds;
    unsigned seed = (unsigned)getpid();
    for (int i = 0; i < CREW; i++) crew[i] = start_member(&f, i, &lives);
    while (spec_now() < end && lives < LIVES) {
        int i = rand_r(&seed) % CREW;
        double wait = spec_now() + rand_r(&seed) % 1000 / 1e6;
        while (spec_now() < wait) {
        }
        kill_member(&crew[i]);
        dead += (uint64_t)(i % 2);
        crew[i] = start_member(&f, i, &lives);
    }
    for (int i = 0; i < CREW; i++) kill_member(&crew[i]);
    CHECK_CLEAN();
    while (consume_some(&f, MANY, 0) > 0) {
    }
    CHECK_EQ(mp_queue_size(f.q), 0);
    check_rows(lives, dead);
    close_queue(&f);
    close_queue(&held);
    CHECK_EQ(mp_object_count(), 0);
    CHECK_EQ(mp_heap_used(), used);
}

SPEC_WITHIN(60, "queue: loses and doubles nothing when anyone is killed") {
    kill_loop(0, 3);
}

SPEC_WITHIN(60, "queue: and so it does when it is bounded and full") {
    kill_loop(10, 3);
}

static void drop_when_told(fixture *f, uint64_t number) {
    (void)number;
    get_word(&held);
    close_queue(f); /* the last holder: destroys */
    for (;;) spec_pause();
}

SPEC_WITHIN(60, "queue: a destruction that is killed is finished by others") {
    open_queue(&held, 0);
    uint64_t used = mp_heap_used();
    unsigned seed = (unsigned)getpid();
    for (int round = 0; round < 100; round++) {
        fixture f;
        static char bytes[2048];
        open_queue(&f, 0);
        for (uint64_t i = 0; i < 3000; i++) {
            mp_queue_item item = item_of(i, bytes);
            CHECK_EQ(put_in(&f, &item, 1, 0), 1);
        }
        mp_proc proc = start(drop_when_told, &f, 0);
        close_queue(&f);
        put_word(&held, 1);
        double wait = spec_now() + rand_r(&seed) % 500 / 1e6;
        while (mp_queue_size(held.q) > 0 || spec_now() < wait) {
        }
        kill_member(&proc);
        CHECK(mp_heap_used() <= used + MP_UNIT);
    }
    CHECK_EQ(mp_object_count(), 1);
    close_queue(&held);
}
