/* The object table: its free list, the dying, each object by its type, and
   at last the counts of holders, when all holders have been met. */
#include <stdlib.h>

#include "mem/fsck_walk.h"
#include "mem/mutex.h"
#include "mem/object_shm.h"

enum { TRIES = 5 }; /* of a check that others disturb */

/* Each segment once, by the first of its entries. */
static const entry_shm *segment_at(mp_check *c, uint32_t index) {
    mp_ref ref = mp_check_u64(c, &c->super->segments[index]);
    return mp_check_block(c, ref, PER_SEGMENT * sizeof(entry_shm),
                          "segment");
}

/* The entry of an object whose segment is in order, else NULL. */
static const entry_shm *entry_at(const mp_check *c, uint32_t id) {
    mp_found found;
    mp_ref ref = mp_check_u64(c, &c->super->segments[id / PER_SEGMENT]);
    if (!mp_check_find(c, ref, &found) ||
        found.size < PER_SEGMENT * sizeof(entry_shm))
        return NULL;
    return (const entry_shm *)mp_check_at(c, MP_REF_OFFSET(ref),
                                          found.size) + id % PER_SEGMENT;
}

static void check_segments(mp_check *c) {
    uint32_t n = (c->entries + PER_SEGMENT - 1) / PER_SEGMENT;
    mp_check_subject(c, "object table");
    for (uint32_t i = 0; i < n; i++)
        if (!segment_at(c, i)) c->partial = true;
    for (uint32_t i = n; i < MP_SEGMENTS; i++)
        if (mp_check_u64(c, &c->super->segments[i]))
            mp_check_report(c, "segment %u is 0x%jx, expected none beyond "
                               "entry %u", i,
                            (uintmax_t)mp_check_u64(
                                c, &c->super->segments[i]),
                            c->entries);
}

/* ---- lists ---------------------------------------------------------- */

/* The entries of a list are in `state`, and in no other list. */
static void check_list(mp_check *c, uint64_t id, unsigned state,
                       const char *list) {
    while (id) {
        const entry_shm *e =
            id < c->entries ? entry_at(c, (uint32_t)id) : NULL;
        if (!e) {
            mp_check_report(c, "%s names object %ju, expected 1 to %u", list,
                            (uintmax_t)id, c->entries ? c->entries - 1 : 0);
            return;
        }
        if (c->queued[id]) {
            mp_check_report(c, "%s has object %ju, which a list had already",
                            list, (uintmax_t)id);
            return;
        }
        c->queued[id] = 1;
        unsigned is = HEAD_STATE(mp_check_u64(c, &e->head));
        if (is != state)
            mp_check_report(c, "%s has object %ju in state %u, expected %u",
                            list, (uintmax_t)id, is, state);
        id = mp_check_u64(c, &e->link);
    }
}

static void check_lists(mp_check *c) {
    mp_check_subject(c, "object table");
    mp_check_mutex(c, &c->super->table, "table");
    check_list(c, mp_check_u64(c, &c->super->free_entry), FREE,
               "the free list");
    c->silent = false;
    for (uint32_t i = 1; i < c->slots; i++) {
        mp_check_subject(c, "slot %u", i);
        check_list(c, mp_check_u64(c, &mp_check_slot(c, i)->dying), DYING,
                   "its list of the dying");
    }
}

/* ---- an object by its type ------------------------------------------ */

bool mp_check_size(mp_check *c, uint64_t size) {
    if (c->block_size >= size) return true;
    mp_check_report(c, "its block has %ju bytes, expected %ju",
                    (uintmax_t)c->block_size, (uintmax_t)size);
    return false;
}

bool mp_check_hold(mp_check *c, uint32_t id, const char *what, uint64_t *at,
                   uint64_t *size) {
    const entry_shm *e = id && id < c->entries ? entry_at(c, id) : NULL;
    mp_check_holder(c, id, what);
    if (!e) return false;
    mp_ref block = mp_check_u64(c, &e->block);
    unsigned state = HEAD_STATE(mp_check_u64(c, &e->head));
    *at = MP_REF_OFFSET(block);
    *size = mp_check_block_size(c, block);
    if (state == LIVE && *size > 0) return true;
    mp_check_report(c, "its %s names object %u, which is %s", what, id,
                    state == LIVE ? "without a block" : "not alive");
    return false;
}

/* One try: block and contents. */
static void check_contents(mp_check *c, const entry_shm *e,
                           const mp_object_ops *ops) {
    mp_ref ref = mp_check_u64(c, &e->block);
    const void *object = mp_check_block(c, ref, 1, "block");
    if (!object) return;
    c->block_size = mp_check_block_size(c, ref);
    if (ops->check) ops->check(c, object);
}

static void take_back(mp_check *c) {
    for (size_t i = 0; i < c->marked.n; i++) {
        uint64_t bit = c->marked.item[i];
        c->reached[bit / 64] &= ~((uint64_t)1 << bit % 64);
    }
    for (size_t i = 0; i < c->held.n; i++) c->holders[c->held.item[i]]--;
}

static void drop_since(mp_check *c, size_t n) {
    mp_findings *f = &c->findings;
    while (f->n > n) free(f->text[--f->n]);
}

/* Others may change the object while it is walked; so what does not look
   right is looked at again. */
static void check_object(mp_check *c, const entry_shm *e,
                         const mp_object_ops *ops, bool dying) {
    bool partial = c->partial;
    size_t n = c->findings.n, more = c->findings.more;
    for (int i = 0; i < (c->quiet ? 1 : TRIES); i++) {
        if (i > 0) {
            take_back(c);
            drop_since(c, n);
            c->findings.more = more;
        }
        c->marked.n = c->held.n = 0;
        c->partial = false;
        c->silent = dying;
        check_contents(c, e, ops);
        if (c->findings.n == n && c->findings.more == more && !c->partial)
            break;
    }
    /* What was not reached because of it, is not lost. */
    c->partial |= partial || c->findings.n > n;
    c->silent = false;
}

static void check_type(mp_check *c, uint32_t id) {
    const entry_shm *e = entry_at(c, id);
    uint64_t head = e ? mp_check_u64(c, &e->head) : 0;
    if (HEAD_STATE(head) == FREE) return;
    const mp_object_ops *ops = mp_object_ops_of(HEAD_TYPE(head));
    c->id = id;
    c->seen.objects += HEAD_STATE(head) == LIVE;
    mp_check_subject(c, "object %u (%s)", id, ops ? ops->name : "?");
    if (ops) {
        check_object(c, e, ops, HEAD_STATE(head) == DYING);
    } else {
        mp_check_report(c, "its type is %d, which nobody declared",
                        HEAD_TYPE(head));
        c->partial = true;
    }
}

/* ---- counts --------------------------------------------------------- */

static void check_count(mp_check *c, uint32_t id) {
    const entry_shm *e = entry_at(c, id);
    if (!e) return;
    uint64_t head = mp_check_u64(c, &e->head);
    uintmax_t refs = mp_check_u64(c, &e->refs);
    unsigned state = HEAD_STATE(head);
    mp_check_subject(c, "object %u", id);
    c->silent = false;
    mp_check_mutex(c, &e->lock, "lock");
    if (state > DYING)
        mp_check_report(c, "its state is %u, expected FREE, LIVE or DYING",
                        state);
    else if (state != LIVE && !c->queued[id])
        mp_check_report(c, "%s, but in no list of such",
                        state == FREE ? "FREE" : "DYING");
    if (refs != c->holders[id])
        mp_check_report(c, "refs is %ju, expected %u: so many hold it", refs,
                        c->holders[id]);
    else if (state == LIVE && refs == 0)
        mp_check_report(c, "LIVE, but nobody holds it");
    else if (state != LIVE && refs > 0)
        mp_check_report(c, "not LIVE, but refs is %ju, expected 0", refs);
    c->silent = false;
}

void mp_check_objects(mp_check *c) {
    check_segments(c);
    check_lists(c);
    for (uint32_t id = 1; id < c->entries; id++) check_type(c, id);
    for (uint32_t id = 1; id < c->entries; id++) check_count(c, id);
}
