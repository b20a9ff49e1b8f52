/* What mp_fsck finds in the arena's own structures, each by a damage that is
   done on purpose: super block, units, blocks, slots, object table. */
#include "fsck_fixture.h"

SPEC_PREPARE { prepare_world(); }

static world w;

static mp_super_shm *super_of(void) {
    open_world(&w);
    return mp_me->super;
}

static entry_shm *entry_of(const object *o) {
    mp_ref segment = mp_me->super->segments[o->id / PER_SEGMENT];
    return (entry_shm *)mp_at(segment) + o->id % PER_SEGMENT;
}

SPEC("fsck: finds a super block that is not right") {
    mp_super_shm *super = super_of();
    poke64(&super->magic, 1);
    EXPECT("super block: magic is 0x1, expected 0x31414c504d50");
    poke64(&super->reserved, super->reserved + 1);
    EXPECT("super block: reserved is");
    poke64(&super->size, super->size + MP_UNIT);
    EXPECT("super block: the file's size is");
    poke64(&super->units, super->units << 8);
    EXPECT("super block: units is");
    poke64(&super->first_unit, 1);
    EXPECT("super block: first_unit is 1, expected");
    poke32(&super->slots, 5000);
    EXPECT("super block: slots is 5000, expected 1 to 4096");
    poke32(&super->slots, 0);
    EXPECT("super block: slots is 0, expected 1 to 4096");
    poke64(&super->entries, MOST + 1);
    EXPECT("super block: entries is 1048577, expected 0 to 1048576");
    poke32(&super->life_at, 60);
    EXPECT("super block: life_at is 60, expected 0 to 36");
    close_world(&w);
}

SPEC("fsck: finds sums of the heap that are not right") {
    mp_super_shm *super = super_of();
    uint64_t large = MP_REF_OFFSET(w.large) >> MP_UNIT_SHIFT;
    poke64(&super->spare, super->spare + 77);
    EXPECT("super block: spare is 77, expected 0 free units with pages");
    poke64(&super->abandoned[3], 5);
    EXPECT("super block: abandoned[3] is 5, expected 0 spans");
    poke64(&super->abandoned[63], 1);
    EXPECT("super block: abandoned[63] is 1, expected 0 spans");
    poke64(&super->low, large + 1);
    EXPECT("expected the first unit of a run");
    poke64(&super->low, super->units + 1);
    EXPECT("expected the first unit of a run");
    poke64(&mp_me->unit[large], ENTRY(K_FREE, 3));
    poke64(&super->low, super->units);
    EXPECT_QUIET("which is free");
    close_world(&w);
}

SPEC("fsck: finds units that do not tile the arena") {
    super_of();
    _Atomic uint64_t *large = mp_me->unit + (MP_REF_OFFSET(w.large) >> 16);
    _Atomic uint64_t *wide = mp_me->unit + (MP_REF_OFFSET(w.wide) >> 16);
    while (E_KIND(*wide) == K_CONT) wide--;
    poke64(large, 7);
    EXPECT(": kind 7, 0 units: expected a run that begins here");
    poke64(large, ENTRY(K_OWNED, 0) | (*large & 0x7ffffff8));
    EXPECT(": kind 3, 0 units: expected a run that begins here");
    poke64(large, *large + ENTRY(0, 1 << 20));
    EXPECT(": kind 3, 1048579 units: expected a run");
    poke64(large, *large - ENTRY(0, 1));
    EXPECT(": kind 0, 0 units: expected a run");
    poke64(wide + 2, ENTRY(K_CONT, 1));
    EXPECT("entry 2 behind the span's head is 0x8000000002, expected "
           "0x10000000002");
    poke64(wide, *wide | E_WITH_CLASS(63));
    EXPECT(": a span of class 63, expected at most 26");
    poke64(wide, *wide & ~E_BACKED);
    EXPECT(": a span of 4 units without pages, expected 4 with");
    close_world(&w);
}

SPEC("fsck: finds runs and spans of those who are not") {
    super_of();
    _Atomic uint64_t *large = mp_me->unit + (MP_REF_OFFSET(w.large) >> 16);
    _Atomic uint64_t *wide = mp_me->unit + (MP_REF_OFFSET(w.wide) >> 16);
    while (E_KIND(*wide) == K_CONT) wide--;
    uint64_t owner = E_WITH_OWNER(0xfff);
    poke64(wide, (*wide & ~owner) | E_WITH_OWNER(w.child));
    EXPECT(": a span of slot 2, expected one in use");
    poke64(wide, (*wide & ~owner) | E_WITH_OWNER(4000));
    EXPECT(": a span of slot 4000, expected one in use");
    poke64(large, (*large & ~owner) | E_WITH_OWNER(w.child));
    EXPECT(": a run of slot 2, expected one in use");
    poke64(large, (*large & ~(uint64_t)7) | K_PUBLISHED);
    EXPECT(": a published run of slot 1, expected no owner");
    poke64(large, *large | E_WITH_CLASS(5));
    EXPECT(": a run of class 5, expected 0");
    poke64(large, *large & ~E_BACKED);
    EXPECT_QUIET(": a run of 3 units without pages");
    poke64(large, ENTRY(K_FREE, 3) | E_HANDLES);
    EXPECT_QUIET(": a free run's entry is 0x18000000010, expected only a "
                 "length");
    poke32((uint32_t *)mp_at((uint64_t)(wide - mp_me->unit) << 16) + 1, 7);
    EXPECT(": the span's head says 7 blocks of 10240 bytes from");
    close_world(&w);
}

SPEC("fsck: finds spans that this thread has, and does not know") {
    super_of();
    mp_spans *mine = mp_me->spans;
    uint64_t large = MP_REF_OFFSET(w.large) >> MP_UNIT_SHIFT;
    poke32(&mine[0].n, 0);
    EXPECT("slot 1: uses 7 spans, expected 8, which it owns");
    poke32(&mine[0].unit[0], (uint32_t)large);
    EXPECT("for blocks of class 0, but its entry is 0x");
    close_world(&w);
}

/* The state word of a block in a span of one unit. */
static _Atomic uint32_t *state_of(mp_ref block) {
    uint64_t offset = MP_REF_OFFSET(block);
    span_shm *span = mp_at(offset & ~(uint64_t)(MP_UNIT - 1));
    return &span->state[(offset % MP_UNIT - span->data) / span->size];
}

SPEC("fsck: finds states of blocks that cannot be") {
    super_of();
    _Atomic uint32_t *s = state_of(w.owned);
    uint32_t gen = *s & 0xffff0000U;
    poke32(s, *s | 3);
    EXPECT("expected FREE, OWNED or PUBLISHED");
    poke32(s, *s | 8);
    EXPECT("expected bit 3 to be 0");
    poke32(s, gen | w.child << 4 | S_OWNED);
    EXPECT("expected the owner's slot to be in use");
    poke32(s, gen | S_OWNED);
    EXPECT("expected the owner's slot to be in use");
    poke32(s, gen | 1 << 4 | S_PUBLISHED);
    EXPECT("expected no owner, as it is published");
    poke32(s, gen | 1 << 4);
    EXPECT("expected nothing but a generation: it is FREE");
    close_world(&w);
}

SPEC("fsck: finds a published block that nothing refers to") {
    super_of();
    _Atomic uint32_t *s = state_of(w.owned);
    _Atomic uint64_t *large = mp_me->unit + (MP_REF_OFFSET(w.large) >> 16);
    poke32(s, (*s & 0xffff0000U) | S_PUBLISHED);
    EXPECT(": 128 bytes, published, but nothing refers to it");
    poke64(large, (*large & ~(E_WITH_OWNER(0xfff) | 7)) | K_PUBLISHED);
    EXPECT(": 196608 bytes, published, but nothing refers to it");
    close_world(&w);
}

SPEC("fsck: finds a reference to a block that is free, another's, or small") {
    super_of();
    entry_shm *lock = entry_of(&w.lock), *event = entry_of(&w.event);
    _Atomic uint32_t *s = state_of(lock->block);
    poke32(s, *s & ~3U);
    EXPECT("(Lock): its block 0x");
    poke64(&lock->block, lock->block + ((uint64_t)1 << 48));
    EXPECT("is no block, or a free one");
    poke64(&lock->block, lock->block + 8);
    EXPECT("is no block, or a free one");
    poke64(&lock->block, UINT64_MAX);
    EXPECT("(Lock): its block 0xffffffffffffffff is no block");
    poke32(s, (*s & 0xffff0000U) | 1 << 4 | S_OWNED);
    EXPECT("is owned by a participant, expected published");
    poke64(&lock->block, event->block);
    EXPECT("is referred to twice");
    poke64(&lock->head, HEAD(LIVE, MP_TYPE_QUEUE, 0));
    EXPECT("(Queue): its block has 64 bytes, expected 768");
    close_world(&w);
}

SPEC("fsck: finds handles of a message that cannot be") {
    super_of();
    mp_ref block = new_message_with(&w.lock);
    mp_message_shm *m = mp_at(block);
    poke32(&m->n_handles, 1000);
    EXPECT(": 1000 handles at 16, expected within its 64 bytes");
    poke32(&m->handles_at, 3);
    EXPECT(": 1 handles at 3, expected within");
    poke32(m + 1, 4000);
    EXPECT("its message names object 4000, expected 1 to");
    poke32(&m->n_handles, 0);
    EXPECT("refs is");
    mp_free(block);
    close_world(&w);
}

/* ---- slots ---------------------------------------------------------- */

SPEC("fsck: finds what a free slot has") {
    super_of();
    mp_slot_shm *slot = mp_slot_at(w.child);
    poke32(&slot->state, 4);
    EXPECT("slot 2: its state is 0x4, expected 0 when it is FREE");
    poke64(&slot->hands[3].block, 4711);
    EXPECT("slot 2: FREE, but hand 3 has block 0x1267, expected none");
    poke64(&slot->dying, 1);
    EXPECT("slot 2: FREE, but object 1 is in its list of the dying");
    poke32(&slot->txn.n, 1);
    EXPECT("slot 2: FREE, but its record has 1 words");
    poke32(&slot->asked, 15);
    EXPECT("slot 2: FREE, but asked to end by 15");
    poke32(slot->life.bytes + mp_me->super->life_at, 1234);
    EXPECT("slot 2: FREE, but its life word is 0x4d2, expected 0");
    poke64(&slot->ledger[5], 1);
    EXPECT("slot 2: FREE, but it has ledger page 5");
    close_world(&w);
}

SPEC("fsck: finds a participant that is dead, or was never born") {
    super_of();
    mp_slot_shm *slot = mp_slot_at(w.child);
    uint32_t tag = mp_me->tag;
    poke32(&slot->state, tag << 2 | MP_SLOT_LIVE);
    EXPECT_QUIET("slot 2: dead, not yet reaped");
    poke32(&slot->state, tag << 2 | MP_SLOT_FORKING);
    EXPECT_QUIET("slot 2: reserved by tag 0x1 for a child that was never");
    poke32(&slot->state, tag << 2 | MP_SLOT_CLAIMING);
    EXPECT_QUIET("slot 2: reserved by tag 0x1 for a child that was never");
    poke32(&slot->state, 77 << 2 | MP_SLOT_LIVE);
    EXPECT("slot 2: its parent's tag is 0x4d, which nobody ever had");
    close_world(&w);
}

SPEC("fsck: finds records that are open, or not to be") {
    super_of();
    mp_slot_shm *slot = mp_me->slot;
    poke32(&slot->txn.n, 3);
    EXPECT_QUIET("slot 1: its record of 3 words is open, expected none");
    poke32(&slot->txn.n, 99);
    EXPECT("slot 1: its record has 99 words, expected at most 14");
    poke64(&slot->txn.w[0].at, (uint64_t)1 << 50);
    poke32(&slot->txn.n, 1);
    EXPECT("slot 1: its record stores to 0x4000000000000, which is no place");
    poke64(&slot->txn.w[0].at, 12);
    poke32(&slot->txn.n, 1);
    EXPECT("slot 1: its record stores to 0xc, which is no place");
    close_world(&w);
}

SPEC("fsck: takes an open record's words for stored, when others run") {
    mp_super_shm *super = super_of();
    mp_txn_shm *record = &mp_me->slot->txn;
    poke64(&record->w[0].at, mp_offset(&super->spare));
    poke64(&record->w[0].value, super->spare);
    poke64(&super->spare, 99);
    poke32(&record->n, 1);
    CHECK_CLEAN_LIVE();
    undo();
    poke64(&record->w[0].at, mp_offset(&super->spare));
    poke64(&record->w[0].value, 99);
    poke32(&record->n, 1);
    EXPECT("super block: spare is 99, expected 0");
    close_world(&w);
}

SPEC("fsck: finds hands that are not empty, and what they watch") {
    super_of();
    mp_slot_shm *slot = mp_me->slot;
    poke64(&slot->hands[2].at, 0);
    poke64(&slot->hands[2].block, w.owned);
    EXPECT_QUIET("slot 1: nobody runs, but hand 2 has block 0x");
    poke64(&slot->hands[2].at, (uint64_t)1 << 41);
    poke64(&slot->hands[2].block, w.owned);
    EXPECT("slot 1: hand 2 watches 0x20000000000, which is no place");
    close_world(&w);
}

SPEC("fsck: takes a published block in a hand for one on its way") {
    super_of();
    _Atomic uint32_t *s = state_of(w.owned);
    poke32(s, (*s & 0xffff0000U) | S_PUBLISHED);
    poke64(&mp_me->slot->hands[2].at, 0);
    poke64(&mp_me->slot->hands[2].block, w.owned);
    CHECK_CLEAN_LIVE();
    undo();
    close_world(&w);
}

SPEC("fsck: finds ledgers that are not right") {
    super_of();
    mp_slot_shm *slot = mp_me->slot;
    uint64_t *page = mp_at(slot->ledger[0]);
    poke64(&slot->ledger[0], slot->ledger[0] + ((uint64_t)1 << 48));
    EXPECT("slot 1: its ledger page 0x");
    poke64(&slot->ledger[1], slot->ledger[0]);
    EXPECT("slot 1: its ledger page 0x");
    poke64(&page[400], 1);
    EXPECT("slot 1: its ledger names object 25600, expected 1 to");
    poke64(&page[0], page[0] | 1);
    EXPECT("slot 1: its ledger names object 0, expected 1 to");
    poke64(&page[0], page[0] & ~((uint64_t)1 << w.event.id));
    EXPECT("slot 1: its ledger has not object 4, which it uses 1 times");
    poke64(&page[0], page[0] & ~((uint64_t)1 << w.event.id));
    EXPECT("object 4: refs is 1, expected 0: so many hold it");
    poke32(&mp_me->held[w.event.id], 0);
    EXPECT("slot 1: its ledger has object 4, which it uses 0 times");
    close_world(&w);
}

SPEC("fsck: finds internal locks that nobody holds, or somebody") {
    mp_super_shm *super = super_of();
    mp_slot_shm *slot = mp_slot_at(w.child);
    uint32_t mine = mp_me->tag, dead = w.child;
    poke32(&super->heap.word, mine);
    EXPECT_QUIET("super block: its mutex heap is held by slot 1, expected "
                 "free");
    poke32(&super->table.word, mine | MP_WAITERS);
    EXPECT_QUIET("its mutex table is held by slot 1");
    poke32(&super->table.word, 4000);
    EXPECT("its mutex table is 0xfa0, expected 0 or the tag");
    poke32(&super->table.word, dead);
    CHECK_CLEAN(); /* free for the taking */
    undo();
    poke32(&super->table.word, 5 << 12 | mine);
    EXPECT("its mutex table is 0x5001, expected 0 or the tag");
    poke32(&slot->reaper.word, MP_WAITERS);
    EXPECT("slot 2: its mutex reaper is 0x80000000, expected 0 or the tag");
    poke32(&slot->txn.guard.word, 0x60000000U | mine);
    EXPECT("slot 2: its mutex guard is 0x60000001, expected 0 or the tag");
    poke32(&entry_of(&w.lock)->lock.word, mine);
    EXPECT_QUIET("object 1: its mutex lock is held by slot 1");
    close_world(&w);
}

SPEC("fsck: does not judge what somebody changes under a lock") {
    mp_super_shm *super = super_of();
    poke64(&super->spare, 99);
    poke32(&super->heap.word, mp_me->tag);
    CHECK_CLEAN_LIVE();
    undo();
    poke64(&entry_of(&w.lock)->refs, 99);
    poke32(&entry_of(&w.lock)->lock.word, mp_me->tag);
    CHECK_CLEAN_LIVE();
    undo();
    close_world(&w);
}

/* ---- the object table ----------------------------------------------- */

SPEC("fsck: finds counts of holders that are not right") {
    super_of();
    entry_shm *sem = entry_of(&w.sem), *lock = entry_of(&w.lock);
    CHECK_EQ(sem->refs, 2);  /* mine, and a message's in the queue */
    CHECK_EQ(lock->refs, 3); /* mine, a condition's, an array's */
    poke64(&sem->refs, 1);
    EXPECT("object 3: refs is 1, expected 2: so many hold it");
    poke64(&lock->refs, 4);
    EXPECT("object 1: refs is 4, expected 3: so many hold it");
    uint64_t *page = mp_at(mp_me->slot->ledger[0]);
    poke64(&page[0], page[0] & ~((uint64_t)1 << w.event.id));
    poke64(&entry_of(&w.event)->refs, 0);
    EXPECT("object 4: LIVE, but nobody holds it");
    close_world(&w);
}

SPEC("fsck: finds lists of free and of dying objects that are broken") {
    mp_super_shm *super = super_of();
    object gone;
    CHECK_OK(mp_lock_create(&gone.id, &gone.gen));
    mp_object_detach(gone.id);
    entry_shm *e = entry_of(&gone);
    poke64(&super->free_entry, 0);
    EXPECT("object 13: FREE, but in no list of such");
    poke64(&e->link, gone.id);
    EXPECT("object table: the free list has object 13, which a list had");
    poke64(&e->link, w.lock.id);
    EXPECT("object table: the free list has object 1 in state 1, expected 0");
    poke64(&e->link, 99999);
    EXPECT("object table: the free list names object 99999, expected 1 to");
    poke64(&e->refs, 2);
    EXPECT("object 13: refs is 2, expected 0");
    poke64(&e->head, HEAD(DYING, MP_TYPE_LOCK, 0));
    EXPECT("object table: the free list has object 13 in state 2, expected");
    poke64(&mp_me->slot->dying, gone.id);
    EXPECT("slot 1: its list of the dying has object 13, which a list had");
    poke64(&mp_me->slot->dying, 4711);
    EXPECT("slot 1: its list of the dying names object 4711, expected 1 to");
    poke64(&mp_me->slot->dying, w.lock.id);
    EXPECT("slot 1: its list of the dying has object 1 in state 1, expected");
    close_world(&w);
}

SPEC("fsck: finds entries that cannot be") {
    mp_super_shm *super = super_of();
    entry_shm *lock = entry_of(&w.lock);
    poke64(&lock->head, HEAD(3, MP_TYPE_LOCK, 0));
    EXPECT("object 1: its state is 3, expected FREE, LIVE or DYING");
    poke64(&lock->head, HEAD(LIVE, 99, 0));
    EXPECT("object 1 (?): its type is 99, which nobody declared");
    poke64(&super->segments[7], super->segments[0]);
    EXPECT("object table: segment 7 is 0x");
    poke64(&super->segments[0], 0);
    EXPECT("object table: its segment 0x0 is no block, or a free one");
    close_world(&w);
}
