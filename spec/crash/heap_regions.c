/* The heap. Blocks are stamped, so that one that two have shows; and the
   driver counts the bytes that are left. */
#include "mem/heap.h"

#include <stdlib.h>
#include <string.h>

#include "crash.h"
#include "mem/heap_shm.h"
#include "mem/mutex.h"
#include "mem/slot.h"
#include "mem/txn.h"
#include "region_tools.h"

SPEC_PREPARE { CHECK_OK(mp_open()); }

/* Sizes whose spans have many blocks, 8 of them, and none (whole runs). */
enum { SMALL = 100, MIDDLE = 8064, RUN = 40000 };
enum { PER_SPAN = 8, PEERS = 2 };

/* ---- stamps ----------------------------------------------------------- */

/* The first and the last line of a block say whose it is. */
static void stamp(mp_ref block, uint64_t word) {
    uint64_t *p = mp_at(block), *last;
    last = p + mp_block_size(block) / sizeof *p - 8;
    for (int i = 0; i < 8; i++) p[i] = last[i] = word;
}

static void check_stamp(mp_ref block, uint64_t word) {
    uint64_t *p = mp_at(block), *last;
    CHECK(mp_block_size(block) > 0);
    last = p + mp_block_size(block) / sizeof *p - 8;
    for (int i = 0; i < 8; i++) CHECK(p[i] == word && last[i] == word);
}

static mp_ref new_block(size_t size, uint64_t word) {
    mp_ref block = mp_alloc(size);
    CHECK(block != 0);
    stamp(block, word);
    return block;
}

static void free_block(mp_ref block, uint64_t word) {
    check_stamp(block, word);
    CHECK(mp_free(block));
    CHECK(!mp_free(block));
}

/* ---- what peers and killer do ----------------------------------------- */

/* Blocks of each kind at once. */
static void use_heap(uint64_t word) {
    static const size_t size[] = {SMALL, RUN, MIDDLE, 12000, SMALL, 150000};
    enum { N = sizeof size / sizeof *size };
    mp_ref block[N];
    for (unsigned i = 0; i < N; i++) block[i] = new_block(size[i], word + i);
    for (unsigned i = 0; i < N; i++) free_block(block[i], word + i);
}

static void peer(int which) {
    for (int i = 0; i < 3; i++) use_heap(1000 * (uint64_t)(which + 1));
}

/* Blocks that the killer has meanwhile, and nobody else may touch. */
enum { KEPT = 9 };
static mp_ref kept[KEPT];

static void keep_some(void) {
    for (int i = 0; i < KEPT; i++)
        kept[i] = new_block(i % 3 ? SMALL : i % 2 ? MIDDLE : RUN, 7);
}

static void check_kept(void) {
    for (int i = 0; i < KEPT; i++) free_block(kept[i], 7);
}

/* ---- small blocks ----------------------------------------------------- */

static void warm_spans(void) { CHECK(mp_free(new_block(SMALL, 1))); }

static void alloc_and_free(void) { CHECK(mp_free(mp_alloc(SMALL))); }

static const crash_region heap_small = {
    .name = "heap: block of a span of mine, free",
    .ready = keep_some,
    .begin = warm_spans,
    .run = alloc_and_free,
    .peers = PEERS,
    .peer = peer,
    .check = check_kept};
CRASH_REGION(heap_small)

static void new_span_of_one(void) { CHECK(mp_alloc(MIDDLE) != 0); }

static const crash_region heap_new_span = {
    .name = "heap: block of a new span",
    .ready = keep_some,
    .run = new_span_of_one,
    .peers = PEERS,
    .peer = peer,
    .check = check_kept};
CRASH_REGION(heap_new_span)

static void new_span_of_four(void) { CHECK(mp_alloc(12000) != 0); }

static const crash_region heap_wide_span = {
    .name = "heap: block of a new span of four units",
    .ready = keep_some,
    .run = new_span_of_four,
    .peers = PEERS,
    .peer = peer,
    .check = check_kept};
CRASH_REGION(heap_wide_span)

/* ---- many spans ------------------------------------------------------- */

/* The victim's own. */
enum { MANY = 32 * PER_SPAN };
static mp_ref mine[MANY];

static void fill_spans(int n) {
    for (int i = 0; i < n; i++) CHECK((mine[i] = mp_alloc(MIDDLE)) != 0);
}

static void free_mine(int first, int n) {
    for (int i = first; i < first + n; i++) CHECK(mp_free(mine[i]));
}

static void alloc_middle(void) { CHECK(mp_alloc(MIDDLE) != 0); }

/* The current one is full, and another is not. */
static void fill_current(void) {
    fill_spans(3 * PER_SPAN);
    free_mine(PER_SPAN, 2);
}

static const crash_region heap_switch = {
    .name = "heap: block of another span of mine",
    .ready = keep_some,
    .begin = fill_current,
    .run = alloc_middle,
    .peers = PEERS,
    .peer = peer,
    .check = check_kept};
CRASH_REGION(heap_switch)

/* So many spans are full that all are looked at for free ones; some are. */
static void fill_many(void) {
    fill_spans(MANY);
    free_mine(20 * PER_SPAN, 3 * PER_SPAN);
}

static const crash_region heap_trim_full = {
    .name = "heap: block when many spans are full: trim",
    .ready = keep_some,
    .begin = fill_many,
    .run = alloc_middle,
    .peers = PEERS,
    .peer = peer,
    .check = check_kept};
CRASH_REGION(heap_trim_full)

/* A span became empty fifteen times; the next time they are given back. */
static void become_empty_often(void) {
    fill_spans(3 * PER_SPAN);
    free_mine(0, 3 * PER_SPAN);
    while (mp_me->empty_spans < 15) CHECK(mp_free(mp_alloc(MIDDLE)));
}

static void free_the_last(void) { CHECK(mp_free(mp_alloc(MIDDLE))); }

static const crash_region heap_trim_empty = {
    .name = "heap: free that gives spans back",
    .ready = keep_some,
    .begin = become_empty_often,
    .run = free_the_last,
    .peers = PEERS,
    .peer = peer,
    .check = check_kept};
CRASH_REGION(heap_trim_empty)

/* ---- from hand to hand ------------------------------------------------ */

/* Where blocks are handed over: `at` is 0 or the ref of a PUBLISHED block.
   The killer's, in the arena. */
enum { PLACES = 8 };
typedef struct table {
    mp_mutex_shm lock;
    uint32_t pad;
    _Atomic uint64_t at[PLACES];
} table;

static mp_ref table_block;
static table *t;

static void make_table(void) {
    table_block = mp_alloc(sizeof *t);
    t = mp_at(table_block);
    memset(t, 0, sizeof *t);
}

static void drop_table(void) { CHECK(mp_free(table_block)); }

/* A block of mine is published at `place`. */
static void lay_down(int place, mp_ref block) {
    int hand = mp_hand_take(block, NULL, 0);
    CHECK(hand >= 0);
    mp_publish(block);
    mp_mutex_lock(&t->lock);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &t->at[place], block);
    mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, 0);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&t->lock);
}

/* What lies at `place` is freed by me; 0: nothing did. */
static mp_ref take_up(int place) {
    int hand = mp_hand_free();
    CHECK(hand >= 0);
    mp_mutex_lock(&t->lock);
    mp_ref block = atomic_load(&t->at[place]);
    mp_me->slot->hands[hand].at = 0;
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &mp_me->slot->hands[hand].block, block);
    mp_txn_set64(&txn, &t->at[place], 0);
    mp_txn_commit(&txn);
    mp_mutex_unlock(&t->lock);
    if (block) CHECK(mp_free(block));
    mp_hand_drop(hand);
    return block;
}

/* Peers have places of their own. */
static void peer_with_table(int which) {
    peer(which);
    for (int place = 4 + 2 * which; place < 6 + 2 * which; place++) {
        CHECK(take_up(place) != 0);
        lay_down(place, new_block(SMALL, (uint64_t)place));
    }
}

static void lay_all(void) {
    keep_some();
    for (int i = 0; i < PLACES; i++)
        lay_down(i, new_block(i % 2 ? SMALL : RUN, (uint64_t)i));
}

/* What lies there is whole; peers have laid down theirs. */
static void check_table(void) {
    for (int i = 0; i < PLACES; i++) {
        mp_ref block = atomic_load(&t->at[i]);
        CHECK(block || i < 4);
        if (block) check_stamp(block, (uint64_t)i);
        if (block) CHECK(take_up(i) == block);
    }
    check_kept();
}

static void publish_two(void) {
    lay_down(0, new_block(SMALL, 0));
    lay_down(1, new_block(RUN, 1));
}

static void lay_for_peers(void) {
    keep_some();
    for (int i = 4; i < PLACES; i++)
        lay_down(i, new_block(SMALL, (uint64_t)i));
}

static const crash_region heap_publish = {
    .name = "heap: publish a block and a run",
    .set_up = make_table,
    .ready = lay_for_peers,
    .begin = warm_spans,
    .run = publish_two,
    .peers = PEERS,
    .peer = peer_with_table,
    .check = check_table,
    .tear_down = drop_table};
CRASH_REGION(heap_publish)

static void free_remote(void) {
    for (int i = 0; i < 3; i++) CHECK(take_up(i) != 0);
}

static const crash_region heap_remote = {
    .name = "heap: free another's blocks and runs",
    .set_up = make_table,
    .ready = lay_all,
    .run = free_remote,
    .peers = PEERS,
    .peer = peer_with_table,
    .check = check_table,
    .tear_down = drop_table};
CRASH_REGION(heap_remote)

/* ---- abandoned spans -------------------------------------------------- */

/* One who ends, and leaves blocks of a size that only the victim uses. */
enum { LEFT = 6000, LEFT_CLASS = 20 };

static void leave_blocks(void) {
    for (int i = 0; i < PLACES; i++)
        lay_down(i, new_block(i < 4 ? LEFT : SMALL, (uint64_t)i));
}

static void abandon(void) {
    keep_some();
    mp_proc dead = leave_dead(leave_blocks);
    bury_dead(&dead);
    CHECK(atomic_load(&mp_me->super->abandoned[LEFT_CLASS]) > 0);
}

static void adopt(void) {
    CHECK(mp_block_size(atomic_load(&t->at[0])) == class_size[LEFT_CLASS]);
    CHECK(mp_alloc(LEFT) != 0);
    CHECK(take_up(0) != 0);
}

static const crash_region heap_adopt = {
    .name = "heap: adopt an abandoned span, free in it",
    .set_up = make_table,
    .ready = abandon,
    .run = adopt,
    .peers = PEERS,
    .peer = peer_with_table,
    .check = check_table,
    .tear_down = drop_table};
CRASH_REGION(heap_adopt)

/* ---- stale refs ------------------------------------------------------- */

/* A ref whose block is now another's. */
static mp_ref stale[2], fresh[2];

static void reuse(int i, size_t size) {
    stale[i] = mp_alloc(size);
    CHECK(mp_free(stale[i]));
    for (;;) {
        fresh[i] = new_block(size, 5);
        if (MP_REF_OFFSET(fresh[i]) == MP_REF_OFFSET(stale[i])) return;
        CHECK(mp_free(fresh[i]));
    }
}

static void make_stale(void) {
    reuse(0, MIDDLE);
    reuse(1, RUN);
    CHECK(fresh[0] != stale[0] && fresh[1] != stale[1]);
}

static void free_stale(void) {
    for (int i = 0; i < 2; i++) CHECK(!mp_free(stale[i]));
}

static void check_fresh(void) {
    for (int i = 0; i < 2; i++) free_block(fresh[i], 5);
}

static const crash_region heap_stale = {
    .name = "heap: free what is another's now",
    .ready = make_stale,
    .run = free_stale,
    .peers = PEERS,
    .peer = peer,
    .check = check_fresh};
CRASH_REGION(heap_stale)

/* ---- runs ------------------------------------------------------------- */

/* Free runs of one unit in a row, at the beginning. */
static void break_up(void) {
    mp_ref run[6];
    keep_some();
    for (int i = 0; i < 6; i++) run[i] = mp_alloc(RUN);
    for (int i = 0; i < 6; i++) CHECK(mp_free(run[i]));
}

static void join_and_split(void) {
    mp_ref two = mp_alloc(2 * MP_UNIT), one = mp_alloc(MP_UNIT);
    CHECK(mp_free(two) && mp_free(one));
}

static const crash_region heap_run = {
    .name = "heap: runs: join, split, free",
    .ready = break_up,
    .run = join_and_split,
    .peers = PEERS,
    .peer = peer,
    .check = check_kept};
CRASH_REGION(heap_run)

/* ---- more memory ------------------------------------------------------ */

/* The killer puts the arena's end back to `base`, where all behind it is
   free; so that it grows in each life anew. Nobody else runs. */
static mp_ref bar; /* the last run before it */
static uint64_t base;

static void note_base(void) {
    for (;;) {
        bar = mp_alloc(RUN);
        base = atomic_load(&mp_me->super->units);
        if (MP_REF_OFFSET(bar) >> MP_UNIT_SHIFT == base - 1) return;
    }
}

static void shrink(void) {
    mp_super_shm *super = mp_me->super;
    uint64_t units = atomic_load(&super->units), n;
    for (uint64_t u = base; u < units; u += n) {
        uint64_t e = atomic_exchange(&mp_me->unit[u], 0);
        n = E_N(e);
        CHECK(E_KIND(e) == K_FREE && n > 0);
        if (e & E_BACKED) atomic_fetch_sub(&super->spare, n);
    }
    atomic_store(&super->units, base);
    atomic_store(&super->size, base << MP_UNIT_SHIFT);
    if (atomic_load(&super->low) > base) atomic_store(&super->low, base);
    keep_some();
}

/* Once more: what the killer keeps lies below the base. */
static void shrink_behind_kept(void) {
    static bool known;
    if (!known) {
        keep_some();
        check_kept();
        note_base();
    }
    known = true;
    shrink();
}

static void alloc_three(void) {
    mp_ref block = mp_alloc(3 * MP_UNIT);
    CHECK(block != 0 && mp_free(block));
}

static void peer_with_runs(int which) {
    for (size_t i = 1; i < 4; i++) {
        mp_ref block = new_block(i * MP_UNIT, (uint64_t)which);
        free_block(block, (uint64_t)which);
    }
}

static const crash_region heap_grow = {
    .name = "heap: run from beyond the arena's end",
    .ready = shrink_behind_kept,
    .run = alloc_three,
    .peers = PEERS,
    .peer = peer_with_runs,
    .check = check_kept};
CRASH_REGION(heap_grow)

/* ---- pages given back ------------------------------------------------- */

/* Nearly as many free units as are kept have pages: when the victim frees
   some more, those lose theirs. */
enum { PIECE = 16, PIECES = 2048 / PIECE };

static void fill_spare(void) {
    static mp_ref piece[PIECES];
    for (int i = 0; i < PIECES; i++)
        CHECK((piece[i] = mp_alloc(PIECE * MP_UNIT)) != 0);
    lay_down(0, new_block(PIECE * MP_UNIT, 0));
    for (int i = 0; i < PIECES; i++) CHECK(mp_free(piece[i]));
    CHECK(atomic_load(&mp_me->super->spare) > 2048 - PIECE);
}

static void lay_beyond(void) {
    lay_for_peers();
    fill_spare();
}

static void free_beyond(void) { CHECK(take_up(0) != 0); }

static const crash_region heap_punch = {
    .name = "heap: free that gives pages back",
    .set_up = make_table,
    .ready = lay_beyond,
    .run = free_beyond,
    .peers = PEERS,
    .peer = peer_with_table,
    .check = check_table,
    .tear_down = drop_table};
CRASH_REGION(heap_punch)
