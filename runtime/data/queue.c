/* Commits. Bytes and words: one store of the count word. With blocks or
   segments: a record of the count word and of the hands they come from or go
   to. (A hand that watches the count word would not do: when its owner dies
   in the lock, the next producer moves that word before anyone reaps.) */
#include "data/queue.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "data/queue_shm.h"
#include "mem/heap.h"
#include "mem/mutex.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "mem/txn.h"
#include "os/cpu.h"
#include "os/futex.h"

enum {
    HANDS_FREE = 4,   /* that a call wants to see: 2 for itself, and ... */
    HANDS_DESTROY = 2 /* ... 2 for a destruction by what it frees */
};

static inline uint64_t acquire(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_acquire);
}

/* For words that only the holder of a lock writes, read by that holder. */
static inline uint64_t mine(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline record_shm *record_at(const mp_queue_place_shm *place) {
    return (record_shm *)(void *)((unsigned char *)mp_at(place->segment) +
                                  place->offset);
}

/* ---- hands ---------------------------------------------------------- */

static int hands_free(void) {
    int n = 0;
    for (int i = 0; i < MP_HANDS; i++)
        n += mine(&mp_me->slot->hands[i].block) == 0;
    return n;
}

/* A free hand from number `i` on that a record may fill; there is one. */
static int hand_from(int i) {
    while (mine(&mp_me->slot->hands[i].block)) i++;
    mp_me->slot->hands[i].at = 0;
    return i;
}

static inline _Atomic uint64_t *in_hand(int hand) {
    return &mp_me->slot->hands[hand].block;
}

/* Frees a block that is in a hand. */
static void free_from(int hand) {
    mp_free(mine(in_hand(hand)));
    mp_hand_drop(hand);
}

/* ---- the producers' end, under put_lock ----------------------------- */

/* What a put is about to commit: `n` items up to `place`.
   block, segment   hands they come from, -1 = none */
typedef struct put_work {
    mp_queue_shm *q;
    mp_queue_place_shm place;
    uint64_t n;
    int block, segment;
} put_work;

static void commit_put(put_work *w) {
    mp_queue_shm *q = w->q;
    if (w->n == 0) return;
    uint64_t word = NEXT(mine(&q->puts), w->n);
    q->put[VALID(word)] = w->place;
    /* Either way a release; pairs with take's acquire of `puts`. */
    if (w->block < 0 && w->segment < 0) {
        atomic_store_explicit(&q->puts, word, memory_order_release);
    } else {
        mp_txn txn = mp_txn_begin();
        mp_txn_set64(&txn, &q->puts, word);
        if (w->block >= 0) mp_txn_set64(&txn, in_hand(w->block), 0);
        if (w->segment >= 0) mp_txn_set64(&txn, in_hand(w->segment), 0);
        mp_txn_commit(&txn);
    }
    w->n = 0;
    w->block = w->segment = -1;
}

static bool fits(const mp_queue_place_shm *place, uint64_t size) {
    return place->segment && place->offset + size <= SEGMENT;
}

/* Goes on in `segment`, OWNED by the caller. */
static void link_segment(put_work *w, mp_ref segment) {
    commit_put(w);
    w->segment = mp_hand_take(segment, NULL, 0);
    mp_publish(segment);
    if (!w->place.segment) {
        w->q->first = segment;
    } else {
        if (w->place.offset < SEGMENT) record_at(&w->place)->kind = LINK;
        ((segment_shm *)mp_at(w->place.segment))->next = segment;
    }
    w->place = (mp_queue_place_shm){segment, START};
}

static void write_record(put_work *w, const mp_queue_item *item) {
    record_shm *r = record_at(&w->place);
    r->length = item->length;
    r->kind = item->kind;
    r->tag = item->tag;
    r->last = item->last;
    if (item->kind == MP_QUEUE_BYTES)
        memcpy(&r->value, item->data, item->length);
    else
        r->value = item->value;
    w->place.offset += record_size(item->kind, item->length);
    w->n++;
}

static void put_block(put_work *w, const mp_queue_item *item) {
    /* A hand holds one block, so what is pending goes first; but a new
       segment goes along with the item that begins it. */
    if (w->segment < 0) commit_put(w);
    w->block = mp_hand_take(item->value, NULL, 0);
    mp_publish(item->value);
    write_record(w, item);
    commit_put(w);
}

/* How many of n items there is room for. */
static size_t room_for(mp_queue_shm *q, size_t n) {
    if (!q->maxsize) return n;
    uint64_t puts = COUNT(mine(&q->puts));
    if (puts - q->seen_gets + n > q->maxsize)
        q->seen_gets = COUNT(acquire(&q->gets));
    uint64_t used = puts - q->seen_gets;
    if (used >= q->maxsize) return 0;
    return q->maxsize - used < n ? (size_t)(q->maxsize - used) : n;
}

/* Puts what there is room for. *spare is taken for a new segment. *stop says
   why not all: -EAGAIN full, -ENOMEM a segment is needed, -EMFILE hands. */
static size_t put_locked(mp_queue_shm *q, const mp_queue_item *items,
                         size_t n, mp_ref *spare, int *stop) {
    put_work w = {q, q->put[VALID(mine(&q->puts))], 0, -1, -1};
    size_t i = 0, room = room_for(q, n);
    *stop = -EAGAIN;
    for (; i < room; i++) {
        const mp_queue_item *item = &items[i];
        bool link = !fits(&w.place, record_size(item->kind, item->length));
        bool block = item->kind == MP_QUEUE_BLOCK;
        if (link && !*spare) {
            *stop = -ENOMEM;
            break;
        }
        if ((link || block) && hands_free() < HANDS_FREE) {
            *stop = -EMFILE;
            break;
        }
        if (link) link_segment(&w, *spare);
        if (link) *spare = 0;
        if (block)
            put_block(&w, item);
        else
            write_record(&w, item);
    }
    commit_put(&w);
    return i;
}

/* ---- the consumers' end, under get_lock ----------------------------- */

/* Items that are there; 0 = none. */
static uint64_t available(mp_queue_shm *q, uint64_t gets) {
    if (q->seen_puts == gets) q->seen_puts = COUNT(acquire(&q->puts));
    return q->seen_puts - gets;
}

static bool at_link(const mp_queue_place_shm *place) {
    return !place->segment || place->offset >= SEGMENT ||
           record_at(place)->kind == LINK;
}

static void follow_link(const mp_queue_shm *q, mp_queue_place_shm *place) {
    place->segment = place->segment
                         ? ((segment_shm *)mp_at(place->segment))->next
                         : q->first;
    place->offset = START;
}

/* Is there a record, and does it end within the segment? */
static bool is_sound(const mp_queue_place_shm *place) {
    if (!place->segment || place->offset + STEP > SEGMENT) return false;
    const record_shm *r = record_at(place);
    return r->kind >= MP_QUEUE_WORD && r->kind <= MP_QUEUE_BLOCK &&
           (r->kind != MP_QUEUE_BYTES || r->length <= MP_QUEUE_INLINE) &&
           place->offset + record_size(r->kind, r->length) <= SEGMENT;
}

/* Reads the record at `place` and steps behind it. `buffer` NULL: no bytes
   are wanted. */
static void read_record(mp_queue_place_shm *place, mp_queue_item *item,
                        void *buffer) {
    const record_shm *r = record_at(place);
    *item = (mp_queue_item){.kind = r->kind, .tag = r->tag,
                            .last = r->last != 0, .hand = -1,
                            .length = r->length, .data = buffer};
    if (r->kind != MP_QUEUE_BYTES)
        item->value = r->value;
    else if (buffer)
        memcpy(buffer, &r->value, r->length);
    place->offset += record_size(r->kind, r->length);
}

/* Commits n items up to `place`. A segment that was left and a block go into
   hands; *left says which. */
static void commit_get(mp_queue_shm *q, const mp_queue_place_shm *place,
                       uint64_t n, mp_ref segment, mp_queue_item *block,
                       int *left) {
    uint64_t old = mine(&q->gets), word = NEXT(old, n);
    q->get[VALID(word)] = *place;
    *left = -1;
    if (!segment && !block) {
        /* Release pairs with room_for's acquire. */
        atomic_store_explicit(&q->gets, word, memory_order_release);
        return;
    }
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, &q->gets, word);
    if (segment) {
        *left = hand_from(0);
        mp_txn_set64(&txn, in_hand(*left), segment);
    }
    if (block) {
        block->hand = hand_from(*left + 1);
        mp_txn_set64(&txn, in_hand(block->hand), block->value);
    }
    mp_txn_commit(&txn);
}

/* Takes what is there, up to n items or the end of a segment; 0 = none.
   `buffer` NULL: the queue is being destroyed. */
static ssize_t get_locked(mp_queue_shm *q, mp_queue_item *items, size_t n,
                          unsigned char *buffer, size_t size, int *left) {
    uint64_t word = mine(&q->gets), there = available(q, COUNT(word));
    mp_queue_place_shm place = q->get[VALID(word)];
    mp_ref segment = 0;
    size_t i = 0;
    *left = -1;
    if (there == 0) return 0;
    if (at_link(&place)) {
        segment = place.segment;
        follow_link(q, &place);
    }
    bool end = false;
    do {
        if (!is_sound(&place)) return -EBADMSG;
        read_record(&place, &items[i], buffer);
        if (buffer && items[i].kind == MP_QUEUE_BYTES) {
            buffer += items[i].length;
            size -= items[i].length;
        }
        end = items[i].last || items[i].kind == MP_QUEUE_BLOCK;
        i++;
    } while (!end && i < n && i < there && size >= MP_QUEUE_INLINE &&
             !at_link(&place));
    mp_queue_item *block = &items[i - 1];
    if (block->kind != MP_QUEUE_BLOCK) block = NULL;
    int hands = buffer ? HANDS_FREE : HANDS_DESTROY;
    if ((segment || block) && hands_free() < hands) return -EMFILE;
    commit_get(q, &place, i, segment, block, left);
    return (ssize_t)i;
}

/* ---- waiting -------------------------------------------------------- */

static bool has_item(const mp_queue_shm *q) {
    /* In this order, so that an item is never missed. */
    uint64_t gets = COUNT(acquire(&q->gets));
    return COUNT(acquire(&q->puts)) > gets;
}

static bool has_room(const mp_queue_shm *q) {
    /* In this order, so that room is never missed. */
    uint64_t puts = COUNT(acquire(&q->puts));
    return (int64_t)(puts - COUNT(acquire(&q->gets))) < (int64_t)q->maxsize;
}

static bool is_done(const mp_queue_shm *q) {
    /* dones <= puts at any time; so equal means that they were so when
       `dones` was read. */
    uint64_t dones = acquire(&q->dones);
    return COUNT(acquire(&q->puts)) == dones;
}

/* Nanoseconds of spinning: at first, at least, at most. A sleep and a wake
   cost about the most. */
enum { SPIN_FIRST = 20000, SPIN_LEAST = 1000, SPIN_MOST = 50000, LOOKS = 16 };

/* Looks again and again, at growing distances, so that the other side, whose
   line this reads, gets on with its work. */
static bool spin(const mp_queue_shm *q, bool (*ready)(const mp_queue_shm *),
                 int64_t until) {
    for (int pauses = 1;; pauses += pauses < 16) {
        for (int i = 0; i < LOOKS; i++) {
            for (int k = 0; k < pauses; k++) mp_cpu_relax();
            if (ready(q)) return true;
        }
        if (mp_now_ns() >= until) return false;
    }
}

/* Spinning pays where waits are short. */
static void learn(uint32_t *patience, int64_t waited) {
    if (waited < SPIN_MOST)
        *patience = SPIN_MOST;
    else if (*patience > SPIN_LEAST)
        *patience /= 2;
}

/* Waits until ready(q) may be true: 0; -ETIMEDOUT; -EINTR. `woken`: set when
   a notifier may have woken us instead of another. */
static int await(const mp_queue_shm *q, bool (*ready)(const mp_queue_shm *),
                 mp_wait_shm *wait, uint32_t *patience, bool *woken,
                 mp_deadline deadline) {
    int64_t start = mp_now_ns();
    if (deadline.ns <= start) return -ETIMEDOUT;
    if (*patience == 0) *patience = SPIN_FIRST;
    int64_t until = start + *patience;
    if (until > deadline.ns) until = deadline.ns;
    int r = 0;
    if (!mp_cpu_several() || !spin(q, ready, until)) {
        uint32_t seen = mp_wait_announce(wait);
        if (!ready(q)) {
            r = mp_wait_sleep(wait, seen, deadline);
            if (r == 0) {
                mp_wait_chain(wait);
                *woken = true;
            }
        }
    }
    learn(patience, mp_now_ns() - start);
    return r;
}

/* ---- putting and getting -------------------------------------------- */

ssize_t mp_queue_put(mp_queue_shm *q, const mp_queue_item *items, size_t n,
                     uint32_t *patience, mp_deadline deadline) {
    mp_ref spare = 0;
    bool woken = false;
    int stop;
    ssize_t r;
    for (;;) {
        mp_mutex_lock(&q->put_lock);
        r = (ssize_t)put_locked(q, items, n, &spare, &stop);
        mp_mutex_unlock(&q->put_lock);
        if (r > 0) break;
        if (stop == -EAGAIN)
            r = await(q, has_room, &q->not_full, patience, &woken, deadline);
        else if (stop == -EMFILE || !(spare = mp_alloc(SEGMENT)))
            r = stop;
        if (r < 0) break;
    }
    if (spare) mp_free(spare);
    if (r > 0) mp_wait_notify(&q->not_empty, r < INT_MAX ? (int)r : INT_MAX);
    /* Room for more: the next one who waits was not told. */
    if (woken && has_room(q)) mp_wait_notify(&q->not_full, 1);
    return r;
}

ssize_t mp_queue_get(mp_queue_shm *q, mp_queue_item *items, size_t n,
                     void *buffer, size_t size, uint32_t *patience,
                     mp_deadline deadline) {
    int left = -1;
    bool woken = false;
    ssize_t r;
    for (;;) {
        mp_mutex_lock(&q->get_lock);
        r = get_locked(q, items, n, buffer, size, &left);
        mp_mutex_unlock(&q->get_lock);
        if (r != 0) break;
        r = await(q, has_item, &q->not_empty, patience, &woken, deadline);
        if (r < 0) break;
    }
    if (left >= 0) free_from(left);
    if (r > 0 && q->maxsize)
        mp_wait_notify(&q->not_full, r < INT_MAX ? (int)r : INT_MAX);
    if (woken && has_item(q)) mp_wait_notify(&q->not_empty, 1);
    return r;
}

uint64_t mp_queue_size(const mp_queue_shm *q) {
    for (;;) {
        uint64_t gets = acquire(&q->gets), puts = acquire(&q->puts);
        if (acquire(&q->gets) == gets) return COUNT(puts) - COUNT(gets);
    }
}

bool mp_queue_has_item(const mp_queue_shm *q) { return has_item(q); }

void mp_queue_announce(mp_queue_shm *q) { mp_wait_announce(&q->not_empty); }

/* ---- tasks ---------------------------------------------------------- */

int mp_queue_done(mp_queue_shm *q) {
    uint64_t dones = acquire(&q->dones);
    do {
        if (dones >= COUNT(acquire(&q->puts))) return -EINVAL;
    } while (!atomic_compare_exchange_weak(&q->dones, &dones, dones + 1));
    if (is_done(q)) mp_wait_notify(&q->all_done, INT_MAX);
    return 0;
}

int mp_queue_join(mp_queue_shm *q, mp_deadline deadline) {
    while (!is_done(q)) {
        uint32_t seen = mp_wait_announce(&q->all_done);
        if (is_done(q)) break;
        int r = mp_wait_sleep(&q->all_done, seen, deadline);
        if (r == -ETIMEDOUT && is_done(q)) break;
        if (r < 0) return r;
    }
    return 0;
}

/* ---- life and death ------------------------------------------------- */

/* Only one runs at a time, and nobody else uses the queue; but it may die
   anywhere, and the next one goes on. So items leave as they always do. */
static void queue_destroy(void *object) {
    mp_queue_shm *q = object;
    mp_queue_item item;
    int left;
    while (get_locked(q, &item, 1, NULL, MP_QUEUE_INLINE, &left) > 0) {
        if (left >= 0) free_from(left);
        if (item.kind == MP_QUEUE_BLOCK) free_from(item.hand);
    }
    uint64_t *segment = &q->put[VALID(mine(&q->puts))].segment;
    if (!*segment) return;
    left = hand_from(0);
    mp_txn txn = mp_txn_begin();
    mp_txn_set64(&txn, in_hand(left), *segment);
    mp_txn_set64(&txn, segment, 0);
    mp_txn_commit(&txn);
    free_from(left);
}

/* It may have died between a commit and the wake that follows, or have been
   woken in the place of another; so all look, whoever announced. */
static void queue_on_death(void *object, uint32_t dead_tag) {
    mp_queue_shm *q = object;
    (void)dead_tag;
    mp_wait_notify_slow(&q->not_empty, INT_MAX);
    mp_wait_notify_slow(&q->not_full, INT_MAX);
    mp_wait_notify_slow(&q->all_done, INT_MAX);
}

void mp_queue_declare(void) {
    static const mp_object_ops ops = {
        .name = "Queue",
        .destroy = queue_destroy,
        .on_death = queue_on_death,
        .check = mp_queue_check};
    mp_object_declare(MP_TYPE_QUEUE, &ops);
}

int mp_queue_create(uint64_t maxsize, uint32_t *id, uint32_t *gen) {
    mp_ref block = mp_alloc(sizeof(mp_queue_shm));
    if (!block) return -ENOMEM;
    mp_queue_shm *q = mp_at(block);
    memset(q, 0, sizeof *q);
    q->maxsize = maxsize;
    int r = mp_object_create(MP_TYPE_QUEUE, block, id, gen);
    if (r < 0) mp_free(block);
    return r < 0 ? -ENOMEM : 0;
}
