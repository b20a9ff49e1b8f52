/* The floor of memory under threads: slots, locks and records, the heap,
   objects. Each spec lasts a while under contention, and then counts what
   must not have changed. (Of processes the specs beside this one tell, and
   what a death does; here nobody dies but at his end.) */
#include "threads.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "fsck_tools.h"
#include "harness.h"
#include "mem/heap.h"
#include "mem/mutex.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "mem/txn.h"
#include "sync/lock.h"
#include "sync/wait.h"

static const double LASTS = 0.3; /* seconds */
enum { LEAST = 10 };             /* rounds of each, however long */

SPEC_PREPARE {
    uint32_t id, gen;
    CHECK_OK(mp_open());
    mp_lock_open();
    /* The first object brings the object table with it, which stays. */
    CHECK_OK(mp_lock_create(&id, &gen));
    mp_object_detach(id);
}

/* ---- participants ------------------------------------------------------- */

typedef struct meeting {
    uint32_t id, gen, tag[2];
    uint64_t refs;
} meeting;

static void note_tag(void *context, int number) {
    meeting *m = context;
    m->tag[number] = mp_me->tag;
    if (number == 0) m->refs = mp_object_refs(m->id);
    CHECK(mp_tag_alive(mp_me->tag));
    CHECK_EQ(mp_me->held[m->id], 1);
}

SPEC("threads: each is a participant, and is dead when it has ended") {
    meeting m;
    spec_thread t[2];
    CHECK_OK(mp_lock_create(&m.id, &m.gen));
    for (int i = 0; i < 2; i++) spec_thread_start(&t[i], note_tag, &m, i);
    for (int i = 0; i < 2; i++) spec_thread_finish(&t[i]);
    CHECK(m.tag[0] != m.tag[1]);
    CHECK(m.tag[0] != mp_me->tag && m.tag[1] != mp_me->tag);
    CHECK(m.refs >= 2);
    CHECK(!mp_tag_alive(m.tag[0]) && !mp_tag_alive(m.tag[1]));
    CHECK_EQ(mp_object_refs(m.id), 1);
    mp_object_detach(m.id);
}

static void nothing(void *context, int number) {
    (void)context;
    (void)number;
}

typedef struct births {
    double end;
    _Atomic unsigned born;
} births;

/* Reserves slots and gives them back, starts participants of its own, and
   looks for the dead meanwhile. */
static void give_birth(void *context, int number) {
    births *b = context;
    while (spec_now() < b->end || atomic_load(&b->born) < LEAST) {
        uint32_t index;
        spec_thread child;
        spec_thread_start(&child, nothing, NULL, 0);
        CHECK_OK(mp_slot_reserve(&index));
        if (number % 2) mp_reap_sweep();
        CHECK_EQ(atomic_load(&mp_slot_at(index)->state),
                 mp_me->tag << 2 | MP_SLOT_FORKING);
        mp_slot_release(index);
        spec_thread_finish(&child);
        atomic_fetch_add(&b->born, 1);
    }
}

SPEC("threads: slots are reserved, claimed and given back by many") {
    births b = {.end = spec_now() + LASTS};
    spec_threads(3, give_birth, &b);
    CHECK(b.born >= LEAST);
    for (uint32_t i = 1; i < atomic_load(&mp_me->super->slots); i++)
        if (i != mp_me->index)
            CHECK_EQ(atomic_load(&mp_slot_at(i)->state), MP_SLOT_FREE);
    CHECK_CLEAN();
}

/* ---- locks and records -------------------------------------------------- */

enum { ACCOUNTS = 8, START = 1000 };

/* `sum` is plain: only the lock keeps it whole. `moved` is counted by
   records, and by the movers themselves. */
typedef struct bank_shm {
    mp_mutex_shm lock;
    uint32_t pad;
    uint64_t sum;
    _Atomic uint64_t moved;
    _Atomic uint64_t account[ACCOUNTS];
} bank_shm;
_Static_assert(sizeof(bank_shm) == 24 + 8 * ACCOUNTS, "no padding");

typedef struct movers {
    bank_shm *bank;
    double end;
    _Atomic uint64_t moves;
} movers;

static uint64_t get(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void move_one(bank_shm *bank, unsigned from, unsigned to) {
    mp_mutex_lock(&bank->lock);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &bank->account[from], get(&bank->account[from]) - 1);
    mp_txn_set64(&txn, &bank->account[to], get(&bank->account[to]) + 1);
    mp_txn_set64(&txn, &bank->moved, get(&bank->moved) + 1);
    mp_txn_commit(&txn);
    bank->sum += to - from;
    mp_mutex_unlock(&bank->lock);
}

static void move(void *context, int number) {
    movers *m = context;
    unsigned seed = (unsigned)number;
    uint64_t moves = 0;
    for (; moves < LEAST || spec_now() < m->end; moves++) {
        unsigned from = (unsigned)rand_r(&seed) % ACCOUNTS;
        move_one(m->bank, from, (from + 1) % ACCOUNTS);
        if (rand_r(&seed) % 100 == 0) sched_yield();
    }
    atomic_fetch_add(&m->moves, moves);
}

SPEC("threads: what a mutex guards and a record changes stays whole") {
    mp_ref block = mp_alloc(sizeof(bank_shm));
    movers m = {.bank = mp_at(block), .end = spec_now() + LASTS};
    memset(m.bank, 0, sizeof *m.bank);
    for (int i = 0; i < ACCOUNTS; i++) m.bank->account[i] = START;
    spec_threads(4, move, &m);
    uint64_t sum = 0;
    for (int i = 0; i < ACCOUNTS; i++) sum += m.bank->account[i];
    CHECK_EQ(sum, ACCOUNTS * START);
    CHECK_EQ(m.bank->moved, m.moves);
    CHECK(m.moves > 0);
    CHECK_CLEAN();
    mp_free(block);
}

/* ---- the heap ----------------------------------------------------------- */

/* Blocks on their way between threads, and where many of them stand. */
enum { PLACES = 64 };

typedef struct market {
    _Atomic uint64_t place[PLACES];
    double end;
    _Atomic uint64_t passed;
} market;

/* Small ones mostly, of all classes, and now and then whole runs. */
static size_t some_size(unsigned *seed) {
    unsigned r = (unsigned)rand_r(seed);
    if (r % 64 == 0) return 40000 + r % 300000;
    return 16 + (size_t)(r >> 8) % (r % 8 ? 500 : 30000);
}

/* The whole of a block says how long it is. */
static mp_ref new_filled(unsigned *seed) {
    size_t size = some_size(seed);
    mp_ref block = mp_alloc(size);
    CHECK(block != 0);
    memset(mp_at(block), (int)(size & 0xff), size);
    memcpy(mp_at(block), &size, sizeof size);
    return block;
}

static void free_filled(mp_ref block) {
    size_t size;
    const unsigned char *bytes = mp_at(block);
    memcpy(&size, bytes, sizeof size);
    CHECK(size <= mp_block_size(block));
    for (size_t i = sizeof size; i < size; i++)
        if (bytes[i] != (size & 0xff)) CHECK_EQ(bytes[i], size & 0xff);
    CHECK(mp_free(block));
}

static void alloc_local(void *context, int number) {
    market *m = context;
    unsigned seed = (unsigned)number;
    mp_ref mine[PLACES] = {0};
    for (int n = 0; n < LEAST || spec_now() < m->end; n++) {
        unsigned i = (unsigned)rand_r(&seed) % PLACES;
        if (mine[i]) free_filled(mine[i]);
        mine[i] = new_filled(&seed);
    }
    for (int i = 0; i < PLACES; i++)
        if (mine[i]) free_filled(mine[i]);
}

SPEC("threads: blocks are allocated and freed side by side") {
    market m = {.end = spec_now() + LASTS};
    spec_threads(4, alloc_local, &m);
    CHECK_CLEAN();
}

/* Puts a block of its own into a place, and frees what stood there. */
static void trade(market *m, unsigned *seed) {
    unsigned i = (unsigned)rand_r(seed) % PLACES;
    mp_ref block = new_filled(seed);
    mp_publish(block);
    block = atomic_exchange_explicit(&m->place[i], block,
                                     memory_order_acq_rel);
    if (block) free_filled(block);
}

static void pass_on(void *context, int number) {
    market *m = context;
    unsigned seed = (unsigned)number;
    for (int n = 0; n < LEAST || spec_now() < m->end; n++) {
        trade(m, &seed);
        atomic_fetch_add(&m->passed, 1);
    }
}

static void clear_market(market *m) {
    for (int i = 0; i < PLACES; i++)
        if (m->place[i]) free_filled(m->place[i]);
}

SPEC("threads: blocks are freed by others than made them") {
    market m = {.end = spec_now() + LASTS};
    spec_threads(4, pass_on, &m);
    CHECK(m.passed > 0);
    clear_market(&m);
    CHECK_CLEAN();
}

static void pass_some(void *context, int number) {
    market *m = context;
    unsigned seed = (unsigned)number;
    for (int i = 0; i < 40; i++) trade(m, &seed);
}

/* Its threads live shortly and leave spans with blocks of others in them. */
static void start_traders(void *context, int number) {
    market *m = context;
    for (int i = 0; i < LEAST || spec_now() < m->end; i++) {
        spec_thread t;
        spec_thread_start(&t, pass_some, m, number + 7 * i);
        trade(m, &(unsigned){(unsigned)i});
        spec_thread_finish(&t);
    }
}

SPEC("threads: spans of those who ended go to others, with what is in them") {
    market m = {.end = spec_now() + LASTS};
    spec_threads(3, start_traders, &m);
    clear_market(&m);
    CHECK_CLEAN();
}

/* ---- objects ------------------------------------------------------------ */

enum { SHELVES = 8, CARRY = 64 };

/* Handles pass from one to another as plain numbers do, by stores that order
   nothing: whoever attaches must see the object whole all the same. Each
   shelf has an object that somebody holds as long as it stands there. */
typedef struct library {
    _Atomic uint64_t shelf[SHELVES]; /* gen << 32 | id */
    uint64_t made[SHELVES];
    double end;
    _Atomic uint64_t found, late;
} library;

static uint64_t handle_of(uint32_t id, uint32_t gen) {
    return (uint64_t)gen << 32 | id;
}

/* The objects here say by what stands in them which one they are. */
static void put_new(library *l, unsigned shelf, uint32_t *kept) {
    uint64_t mark = ++l->made[shelf] * SHELVES + shelf;
    uint32_t id, gen;
    mp_ref block = mp_alloc(2 * sizeof mark);
    memcpy(mp_at(block), (uint64_t[]){mark, ~mark}, 2 * sizeof mark);
    CHECK_OK(mp_object_create(MP_TYPE_LOCK, block, &id, &gen));
    atomic_store_explicit(&l->shelf[shelf], handle_of(id, gen),
                          memory_order_relaxed);
    if (*kept) mp_object_detach(*kept);
    *kept = id;
}

static void use(library *l, unsigned shelf) {
    uint64_t handle =
        atomic_load_explicit(&l->shelf[shelf], memory_order_relaxed);
    uint32_t id = (uint32_t)handle, gen = (uint32_t)(handle >> 32);
    uint64_t seen[2];
    if (!id) return;
    int r = mp_object_attach(id, gen);
    if (r == -ENOENT) {
        atomic_fetch_add(&l->late, 1);
        return;
    }
    CHECK_OK(r);
    memcpy(seen, mp_object_block(id), sizeof seen);
    CHECK_EQ(seen[0], ~seen[1]);
    CHECK_EQ(seen[0] % SHELVES, shelf);
    CHECK_EQ(mp_object_type(id), MP_TYPE_LOCK);
    CHECK_EQ(mp_object_gen(id), gen);
    atomic_fetch_add(&l->found, 1);
    mp_object_detach(id);
}

static void visit(void *context, int number) {
    library *l = context;
    unsigned seed = (unsigned)number;
    uint32_t kept[2] = {0};
    for (int n = 0; n < LEAST || spec_now() < l->end; n++) {
        unsigned mine = (unsigned)number * 2 + (unsigned)rand_r(&seed) % 2;
        put_new(l, mine, &kept[mine % 2]);
        for (int i = 0; i < 4; i++)
            use(l, (unsigned)rand_r(&seed) % SHELVES);
    }
    for (int i = 0; i < 2; i++)
        if (kept[i]) mp_object_detach(kept[i]);
}

SPEC("threads: objects are made, attached and dropped by many") {
    library l = {.end = spec_now() + LASTS};
    spec_threads(SHELVES / 2, visit, &l);
    CHECK(l.found > 0);
    CHECK_CLEAN();
    CHECK_EQ(mp_object_count(), 0);
}

/* A message that carries as many handles as it gets. */
static mp_ref new_message(void) {
    size_t head = sizeof(mp_message_shm);
    mp_ref block = mp_alloc(head + CARRY * sizeof(uint32_t));
    CHECK(block != 0);
    mp_message_shm *m = mp_at(block);
    m->length = 0;
    m->handles_at = (uint32_t)head;
    atomic_store_explicit(&m->n_handles, 0, memory_order_relaxed);
    mp_mark_handles(block);
    return block;
}

typedef struct post {
    market market; /* of messages */
    uint32_t id[SHELVES], gen[SHELVES];
    _Atomic uint32_t holds[4]; /* each thread's, of an object */
} post;

static void send(post *p, unsigned *seed) {
    mp_ref block = new_message();
    for (int n = rand_r(seed) % 4; n >= 0; n--) {
        int i = rand_r(seed) % SHELVES;
        CHECK_OK(mp_message_hold(block, p->id[i], p->gen[i]));
    }
    mp_publish(block);
    block = atomic_exchange_explicit(
        &p->market.place[(unsigned)rand_r(seed) % PLACES], block,
        memory_order_acq_rel);
    if (block) CHECK(mp_free(block));
}

static void send_all(void *context, int number) {
    post *p = context;
    unsigned seed = (unsigned)number;
    for (int n = 0; n < LEAST || spec_now() < p->market.end; n++) {
        int i = rand_r(&seed) % SHELVES;
        CHECK_OK(mp_object_hold(p->id[i], p->gen[i], &p->holds[number]));
        send(p, &seed);
        mp_object_unhold(&p->holds[number]);
    }
}

/* The words that mp_object_hold writes lie in the arena. */
SPEC("threads: messages and other objects hold what they name") {
    mp_ref block = mp_alloc(sizeof(post));
    post *p = mp_at(block);
    memset(p, 0, sizeof *p);
    for (int i = 0; i < SHELVES; i++)
        CHECK_OK(mp_lock_create(&p->id[i], &p->gen[i]));
    p->market.end = spec_now() + LASTS;
    spec_threads(4, send_all, p);
    for (int i = 0; i < PLACES; i++)
        if (p->market.place[i]) CHECK(mp_free(p->market.place[i]));
    CHECK_CLEAN();
    for (int i = 0; i < SHELVES; i++) {
        CHECK_EQ(mp_object_refs(p->id[i]), 1);
        mp_object_detach(p->id[i]);
    }
    CHECK_EQ(mp_object_count(), 0);
    mp_free(block);
}

/* ---- the eventcount ----------------------------------------------------- */

/* Tokens that are put down and picked up; whoever finds none sleeps. */
typedef struct table {
    mp_wait_shm *some;
    _Atomic int64_t tokens;
    _Atomic int end;
    _Atomic uint64_t put, taken;
    uint64_t note[2]; /* plain: put before a token, read after it */
} table;

static bool pick_up(table *t) {
    int64_t n = atomic_load_explicit(&t->tokens, memory_order_relaxed);
    while (n > 0)
        if (atomic_compare_exchange_weak_explicit(&t->tokens, &n, n - 1,
                                                  memory_order_acquire,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static bool settled(table *t) {
    return atomic_load(&t->tokens) > 0 || atomic_load(&t->end);
}

static void put_down(table *t, double seconds) {
    double end = spec_now() + seconds;
    for (t->note[0] = 1; t->put < LEAST || spec_now() < end;) {
        atomic_fetch_add_explicit(&t->tokens, 1, memory_order_release);
        mp_wait_notify(t->some, 1);
        atomic_fetch_add(&t->put, 1);
        if (atomic_load(&t->put) % 16 == 0) sched_yield();
    }
    atomic_store(&t->end, 1);
    mp_wait_notify(t->some, INT_MAX);
}

static void take_up(table *t) {
    for (;;) {
        if (pick_up(t)) {
            CHECK_EQ(t->note[0], 1);
            atomic_fetch_add(&t->taken, 1);
            continue;
        }
        if (atomic_load(&t->end)) return;
        uint32_t seen = mp_wait_announce(t->some);
        if (settled(t)) continue;
        mp_wait_sleep(t->some, seen, MP_FOREVER);
        mp_wait_chain(t->some);
    }
}

static void sit_down(void *context, int number) {
    if (number == 0)
        put_down(context, LASTS);
    else
        take_up(context);
}

SPEC("threads: an eventcount loses no wake") {
    mp_ref block = mp_alloc(sizeof(mp_wait_shm));
    table t = {.some = mp_at(block)};
    atomic_store(&t.some->word, 0);
    spec_threads(4, sit_down, &t);
    CHECK(t.put > 0);
    CHECK_EQ(t.taken, t.put);
    mp_free(block);
}
