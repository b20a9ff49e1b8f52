/* Queues, where nobody waits: each kind of item, and the segments. */
#include "queue_tools.h"

SPEC_PREPARE { prepare_queues(); }

/* ---- items ------------------------------------------------------------ */

static void put_made(void) {
    for (int i = 0; i < ITEMS; i++) put_items(VICTIM, &made[i], 1);
}

static const crash_region queue_put = {
    .name = "queue: put word, bytes, run, message",
    .set_up = set_up,
    .ready = lose_nothing,
    .begin = make_items,
    .run = put_made,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_put)

static void put_made_at_once(void) { put_items(VICTIM, made, ITEMS); }

static const crash_region queue_put_batch = {
    .name = "queue: put a batch",
    .set_up = set_up,
    .ready = lose_nothing,
    .begin = make_items,
    .run = put_made_at_once,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_put_batch)

static void put_for_victim(void) {
    begin_life(1);
    put_some(KILLER, ITEMS + 1);
}

static void get_some(void) {
    for (int i = 0; i < ITEMS; i++) get(VICTIM);
}

static const crash_region queue_get = {
    .name = "queue: get word, bytes, run, message",
    .set_up = set_up,
    .ready = put_for_victim,
    .run = get_some,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_get)

/* Number 1 has bytes, 2 is a run. */
static void put_batch_for_victim(void) {
    put_for_victim();
    batch = 2;
}

static void get_batch(void) {
    CHECK_EQ(get_within(VICTIM, ITEMS, mp_deadline_in(10)), 2);
}

static const crash_region queue_get_batch = {
    .name = "queue: get a batch",
    .set_up = set_up,
    .ready = put_batch_for_victim,
    .run = get_batch,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_get_batch)

/* ---- from segment to segment ------------------------------------------ */

/* Both ends stand `words` before the end of a segment. */
static void go_before_end(uint64_t words) {
    mp_queue_item items[MOST] = {{.kind = 0}};
    unsigned char buffer[MP_QUEUE_INLINE];
    uint32_t patience = 0;
    for (int i = 0; i < MOST; i++) items[i].kind = MP_QUEUE_WORD;
    for (;;) {
        uint64_t offset = q->put[VALID(atomic_load(&q->puts))].offset;
        uint64_t left = ((uint64_t)SEGMENT - offset) / STEP;
        if (left == words) return;
        left += left < words ? MOST : -words;
        size_t n = left < MOST ? (size_t)left : MOST;
        CHECK_EQ(mp_queue_put(q, items, n, &patience, MP_AT_ONCE), n);
        for (ssize_t got = 0; got < (ssize_t)n;) {
            ssize_t r = mp_queue_get(q, items, n, buffer, sizeof buffer,
                                     &patience, MP_AT_ONCE);
            CHECK(r > 0);
            got += r;
        }
    }
}

static void stand_before_end(void) {
    begin_life(0);
    go_before_end(2);
}

/* Words, and in the new segment a run, too. */
static void make_words(void) {
    for (uint64_t i = 0; i < ITEMS; i++)
        made[i] = (mp_queue_item){.kind = MP_QUEUE_WORD,
                                  .value = VICTIM << 8 | (i + 1)};
    made[ITEMS - 1] = make_item(VICTIM, KINDS + A_RUN);
    ((mp_message_shm *)mp_at(made[ITEMS - 1].value))->length =
        VICTIM << 8 | ITEMS;
}

static const crash_region queue_put_segment = {
    .name = "queue: put into a new segment",
    .set_up = set_up,
    .ready = stand_before_end,
    .begin = make_words,
    .run = put_made,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_put_segment)

/* A run is the first in it. */
static void make_run(void) {
    make_words();
    made[2] = made[ITEMS - 1];
    ((mp_message_shm *)mp_at(made[2].value))->length = VICTIM << 8 | 3;
}

static void put_three(void) { put_items(VICTIM, made, 3); }

static const crash_region queue_put_segment_run = {
    .name = "queue: put a run into a new segment",
    .set_up = set_up,
    .ready = stand_before_end,
    .begin = make_run,
    .run = put_three,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_put_segment_run)

static void put_over_end(void) {
    stand_before_end();
    batch = 1;
    put_some(KILLER, ITEMS + 1);
}

static void get_two(void) {
    for (int i = 0; i < 2; i++) get(VICTIM);
}

static const crash_region queue_get_segment = {
    .name = "queue: get from a new segment",
    .set_up = set_up,
    .ready = put_over_end,
    .run = get_two,
    .peers = PEERS,
    .peer = put_and_get,
    .check = check,
    .tear_down = tear_down};
CRASH_REGION(queue_get_segment)
