/* A queue's chain, from the next item to be taken to the place where the next
   one goes: it holds just as many items as the counts say, each block of
   them is alive, and the segments between are all there are. */
#include "data/queue_shm.h"
#include "mem/check.h"

enum { TRIES = 8 }; /* to read a count and its place, which others move */

/* One end of the queue, as it was at one moment. */
typedef struct end {
    uint64_t word;
    mp_queue_place_shm place;
} end;

static end read_end(const mp_check *c, const _Atomic uint64_t *word,
                    const mp_queue_place_shm *places) {
    end e;
    int i = 0;
    do {
        e.word = mp_check_u64(c, word);
        const mp_queue_place_shm *p = &places[VALID(e.word)];
        e.place.segment = mp_check_u64(c, &p->segment);
        e.place.offset = mp_check_u64(c, &p->offset);
    } while (mp_check_u64(c, word) != e.word && ++i < TRIES);
    return e;
}

static bool check_place(mp_check *c, const char *name,
                        const mp_queue_place_shm *place) {
    uint64_t least = place->segment ? START : 0;
    uint64_t most = place->segment ? SEGMENT : 0;
    if (place->offset >= least && place->offset <= most &&
        place->offset % STEP == 0)
        return true;
    mp_check_report(c, "the %s's place is at %ju of segment 0x%jx, expected "
                       "%ju to %ju by steps of %d", name,
                    (uintmax_t)place->offset, (uintmax_t)place->segment,
                    (uintmax_t)least, (uintmax_t)most, (int)STEP);
    return false;
}

static void check_counts(mp_check *c, const mp_queue_shm *q, uint64_t gets,
                         uint64_t puts) {
    uint64_t dones = mp_check_u64(c, &q->dones);
    if (dones > puts)
        mp_check_report(c, "%ju items done, but %ju put", (uintmax_t)dones,
                        (uintmax_t)puts);
    if (q->maxsize && puts - gets > q->maxsize)
        mp_check_report(c, "%ju items, expected at most %ju",
                        (uintmax_t)(puts - gets), (uintmax_t)q->maxsize);
}

/* ---- the chain ------------------------------------------------------ */

/* Where the walk is; `segment` is that of the place, NULL = none yet. */
typedef struct walk {
    mp_check *c;
    mp_queue_place_shm place;
    const unsigned char *segment;
} walk;

static bool enter(walk *w, mp_ref segment, uint64_t offset) {
    w->place = (mp_queue_place_shm){segment, offset};
    w->segment = mp_check_block(w->c, segment, SEGMENT, "segment");
    return w->segment != NULL;
}

static const record_shm *record_at(const walk *w) {
    return (const void *)(w->segment + w->place.offset);
}

/* To where the next record is; false when the chain breaks. */
static bool follow_link(walk *w, const mp_queue_shm *q) {
    if (!w->segment) return enter(w, mp_check_u64(w->c, &q->first), START);
    if (w->place.offset < SEGMENT && record_at(w)->kind != LINK) return true;
    const segment_shm *segment = (const void *)w->segment;
    return enter(w, mp_check_u64(w->c, &segment->next), START);
}

/* Steps over a record, item `n` of the queue. */
static bool check_record(walk *w, uint64_t n) {
    const record_shm *r = record_at(w);
    const volatile record_shm *seen = r; /* once: it may change */
    mp_queue_item item = {.kind = seen->kind, .length = seen->length};
    uint64_t size = record_size(item.kind, item.length);
    if (item.kind < MP_QUEUE_WORD || item.kind > MP_QUEUE_BLOCK ||
        (item.kind == MP_QUEUE_BYTES && item.length > MP_QUEUE_INLINE) ||
        w->place.offset + size > SEGMENT) {
        mp_check_report(w->c, "item %ju at %ju of segment 0x%jx is of kind "
                              "%d and %u bytes, expected one that is sound",
                        (uintmax_t)n, (uintmax_t)w->place.offset,
                        (uintmax_t)w->place.segment, item.kind, item.length);
        return false;
    }
    if (item.kind == MP_QUEUE_BLOCK)
        mp_check_block(w->c, mp_check_u64(w->c, &r->value), 1, "item");
    w->place.offset += size;
    return true;
}

static void check_chain(mp_check *c, const mp_queue_shm *q,
                        const mp_queue_place_shm *from, uint64_t items,
                        const mp_queue_place_shm *to) {
    walk w = {.c = c, .place = *from};
    if (from->segment && !enter(&w, from->segment, from->offset)) return;
    for (uint64_t n = 0; n < items; n++)
        if (!follow_link(&w, q) || !check_record(&w, n)) return;
    if (w.place.segment != to->segment || w.place.offset != to->offset)
        mp_check_report(c, "%ju items end at %ju of segment 0x%jx, expected "
                           "at %ju of 0x%jx, where the next one goes",
                        (uintmax_t)items, (uintmax_t)w.place.offset,
                        (uintmax_t)w.place.segment, (uintmax_t)to->offset,
                        (uintmax_t)to->segment);
}

/* ---- the queue ------------------------------------------------------ */

/* The hints before the counts that bound them. */
void mp_queue_check(mp_check *c, const void *object) {
    const mp_queue_shm *q = object;
    if (!mp_check_size(c, sizeof *q)) return;
    mp_check_mutex(c, &q->get_lock, "get_lock");
    mp_check_mutex(c, &q->put_lock, "put_lock");
    uint64_t seen_gets = mp_check_u64(c, &q->seen_gets);
    uint64_t seen_puts = mp_check_u64(c, &q->seen_puts);
    end get = read_end(c, &q->gets, q->get);
    end put = read_end(c, &q->puts, q->put);
    uint64_t gets = COUNT(get.word), puts = COUNT(put.word);
    if (gets > puts || seen_gets > gets || seen_puts > puts) {
        mp_check_report(c, "%ju items got (%ju seen), %ju put (%ju seen): "
                           "expected no more got than put, or seen than is",
                        (uintmax_t)gets, (uintmax_t)seen_gets,
                        (uintmax_t)puts, (uintmax_t)seen_puts);
        return;
    }
    check_counts(c, q, gets, puts);
    if (check_place(c, "getter", &get.place) &&
        check_place(c, "putter", &put.place))
        check_chain(c, q, &get.place, puts - gets, &put.place);
}
