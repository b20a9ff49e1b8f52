/* The super block and the slots: who takes part, what they are about to do,
   and what they hold. */
#include <string.h>

#include "base/bytes.h"
#include "mem/fsck_walk.h"
#include "mem/mutex.h"
#include "mem/object_shm.h"
#include "mem/slot.h"

enum { LEDGER_WORDS = PER_PAGE / 64, LIFE_MOST = 36 };

/* A hand that a record is going to fill (mp_hand_take(1, ...)). */
#define HAND_KEPT 1

/* ---- the super block ------------------------------------------------ */

/* A number in the super block; false and reported when it is not within
   [least, most]. */
static bool in_range(mp_check *c, const char *name, uint64_t value,
                     uint64_t least, uint64_t most) {
    if (value >= least && value <= most) return true;
    mp_check_report(c, "%s is %ju, expected %ju to %ju", name,
                    (uintmax_t)value, (uintmax_t)least, (uintmax_t)most);
    return false;
}

static bool check_size(mp_check *c, uint64_t head) {
    const mp_super_shm *super = c->super;
    uint64_t size = mp_check_u64(c, &super->size);
    uint64_t first = mp_check_u64(c, &super->first_unit);
    uint64_t units = mp_check_u64(c, &super->units);
    return in_range(c, "size", size, head, super->reserved) &&
           in_range(c, "the file's size", c->limit, size, UINT64_MAX) &&
           in_range(c, "first_unit", first, head >> MP_UNIT_SHIFT,
                    head >> MP_UNIT_SHIFT) &&
           in_range(c, "units", units, first, size >> MP_UNIT_SHIFT);
}

static bool check_counts(mp_check *c) {
    const mp_super_shm *super = c->super;
    uint64_t entries = mp_check_u64(c, &super->entries);
    uint32_t slots = mp_check_u32(c, &super->slots);
    uint32_t life_at = mp_check_u32(c, &super->life_at);
    if (!in_range(c, "slots", slots, 1, MP_SLOTS) ||
        !in_range(c, "entries", entries, 0, MOST) ||
        !in_range(c, "life_at", life_at, 0, LIFE_MOST))
        return false;
    c->life_at = life_at;
    c->slots = slots;
    c->entries = (uint32_t)entries;
    c->first_unit = mp_check_u64(c, &super->first_unit);
    c->units = mp_check_u64(c, &super->units);
    return true;
}

bool mp_check_super(mp_check *c) {
    const mp_super_shm *super = c->super;
    mp_check_subject(c, "super block");
    if (c->limit < sizeof *super) {
        mp_check_report(c, "the file has %ju bytes, expected at least %zu",
                        (uintmax_t)c->limit, sizeof *super);
        return false;
    }
    if (super->magic != MP_ARENA_MAGIC) {
        mp_check_report(c, "magic is 0x%jx, expected 0x%jx",
                        (uintmax_t)super->magic, (uintmax_t)MP_ARENA_MAGIC);
        return false;
    }
    if (super->reserved % MP_UNIT != 0)
        mp_check_report(c, "reserved is %ju, expected a multiple of %zu",
                        (uintmax_t)super->reserved, MP_UNIT);
    return in_range(c, "reserved", super->reserved, (uint64_t)1 << 24,
                    (uint64_t)1 << 40) &&
           check_size(c, mp_arena_head(super->reserved)) && check_counts(c);
}

/* ---- records -------------------------------------------------------- */

/* Can a record store word `at`? */
static bool can_store(const mp_check *c, uint64_t at) {
    uint64_t width = at & 1 ? 4 : 8, offset = at & ~(uint64_t)1;
    return offset % width == 0 && mp_check_at(c, offset, width);
}

static void note_words(mp_check *c, const mp_txn_shm *record, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        mp_stored word = {record->w[i].at, record->w[i].value};
        if (!can_store(c, word.at)) {
            mp_check_report(c, "its record stores to 0x%jx, which is no "
                               "place of the arena", (uintmax_t)word.at);
            continue;
        }
        mp_stored *more = mp_grow(c->stored, &c->cap_stored, sizeof *more,
                                  c->n_stored + 1);
        if (!more) {
            c->no_memory = true;
            return;
        }
        c->stored = more;
        more[c->n_stored++] = word;
    }
}

/* The count before and after: a record that ended meanwhile, and whose words
   may be another's by now, does not count. */
void mp_check_records(mp_check *c) {
    for (uint32_t i = 1; i < c->slots; i++) {
        const mp_txn_shm *record = &mp_check_slot(c, i)->txn;
        uint32_t n = atomic_load_explicit(&record->n, memory_order_acquire);
        if (n == 0) continue;
        size_t before = c->n_stored;
        mp_check_subject(c, "slot %u", i);
        if (n > MP_TXN_WORDS)
            mp_check_report(c, "its record has %u words, expected at most %d",
                            n, MP_TXN_WORDS);
        else
            note_words(c, record, n);
        if (n <= MP_TXN_WORDS && c->quiet)
            mp_check_report(c, "its record of %u words is open, expected "
                               "none: nobody runs", n);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&record->n, memory_order_relaxed) != n)
            c->n_stored = before;
    }
}

/* ---- ledgers -------------------------------------------------------- */

void mp_check_holder(mp_check *c, uint64_t id, const char *what) {
    if (id == 0 || id >= c->entries) {
        mp_check_report(c, "its %s names object %ju, expected 1 to %u", what,
                        (uintmax_t)id, c->entries ? c->entries - 1 : 0);
        return;
    }
    c->holders[id]++;
    if (!c->quiet) mp_check_note(c, &c->held, id);
}

static void check_page(mp_check *c, const uint64_t *words, uint32_t page) {
    for (uint32_t i = 0; i < LEDGER_WORDS; i++)
        for (uint64_t bits = mp_check_u64(c, &words[i]); bits;
             bits &= bits - 1)
            mp_check_holder(c, (uint64_t)page * PER_PAGE + i * 64 +
                                   (uint32_t)__builtin_ctzll(bits),
                            "ledger");
}

static void check_ledger(mp_check *c, const mp_slot_shm *slot) {
    for (uint32_t page = 0; page < MP_LEDGER_PAGES; page++) {
        mp_ref ref = mp_check_u64(c, &slot->ledger[page]);
        const uint64_t *words =
            ref ? mp_check_block(c, ref, PER_PAGE / 8, "ledger page") : NULL;
        if (words) check_page(c, words, page);
    }
}

static bool in_ledger(const mp_check *c, const mp_slot_shm *slot,
                      uint32_t id) {
    mp_found found;
    mp_ref page = mp_check_u64(c, &slot->ledger[id / PER_PAGE]);
    if (!page || !mp_check_find(c, page, &found) ||
        found.size < PER_PAGE / 8)
        return false;
    const uint64_t *words = mp_check_at(c, MP_REF_OFFSET(page), PER_PAGE / 8);
    return mp_check_u64(c, &words[id % PER_PAGE / 64]) >> id % 64 & 1;
}

/* What this thread believes to hold, and what it does. */
static void check_own_counts(mp_check *c, const mp_slot_shm *slot) {
    for (uint32_t id = 1; id < c->entries; id++) {
        uint32_t uses = id < c->self->held_cap ? c->self->held[id] : 0;
        if ((uses > 0) != in_ledger(c, slot, id))
            mp_check_report(c, "its ledger %s object %u, which it uses %u "
                               "times", uses ? "has not" : "has", id, uses);
    }
}

/* ---- slots ---------------------------------------------------------- */

static void check_empty(mp_check *c, const mp_slot_shm *slot,
                        const char *state) {
    uint64_t dying = mp_check_u64(c, &slot->dying);
    for (int i = 0; i < MP_HANDS; i++) {
        mp_ref block = mp_check_u64(c, &slot->hands[i].block);
        if (block)
            mp_check_report(c, "%s, but hand %d has block 0x%jx, expected "
                               "none", state, i, (uintmax_t)block);
    }
    if (dying)
        mp_check_report(c, "%s, but object %ju is in its list of the dying, "
                           "expected none", state, (uintmax_t)dying);
}

static void check_free(mp_check *c, const mp_slot_shm *slot) {
    uint32_t life = mp_check_u32(c, slot->life.bytes + c->life_at);
    check_empty(c, slot, "FREE");
    if (mp_check_u32(c, &slot->txn.n))
        mp_check_report(c, "FREE, but its record has %u words",
                        mp_check_u32(c, &slot->txn.n));
    if (mp_check_u32(c, &slot->asked))
        mp_check_report(c, "FREE, but asked to end by %u",
                        mp_check_u32(c, &slot->asked));
    if (life)
        mp_check_report(c, "FREE, but its life word is 0x%x, expected 0",
                        life);
    for (uint32_t page = 0; page < MP_LEDGER_PAGES; page++)
        if (mp_check_u64(c, &slot->ledger[page]))
            mp_check_report(c, "FREE, but it has ledger page %u", page);
}

/* Is the word that commits a hand one of the arena's? */
static void check_hand(mp_check *c, const mp_hand_shm *hand, int i) {
    mp_ref block = mp_check_u64(c, &hand->block);
    uint64_t at = mp_check_u64(c, &hand->at);
    if (block && (at % 8 != 0 || !mp_check_at(c, at, 8)))
        mp_check_report(c, "hand %d watches 0x%jx, which is no place of the "
                           "arena", i, (uintmax_t)at);
}

static void check_live(mp_check *c, const mp_slot_shm *slot, uint32_t index,
                       uint32_t state) {
    uint32_t tag = mp_tag_of(index, mp_check_u32(c, &slot->gen));
    bool alive = mp_check_tag(c, tag) == MP_TAG_ALIVE;
    c->seen.participants += alive;
    if (!alive && c->quiet)
        mp_check_report(c, "dead, not yet reaped (pid %u)",
                        mp_check_u32(c, &slot->pid));
    else if (c->quiet)
        check_empty(c, slot, "nobody runs");
    if (state >> 2 && mp_check_tag(c, state >> 2) == MP_TAG_FALSE)
        mp_check_report(c, "its parent's tag is 0x%x, which nobody ever had",
                        state >> 2);
    for (int i = 0; i < MP_HANDS; i++) check_hand(c, &slot->hands[i], i);
    check_ledger(c, slot);
    if (c->self && c->self->index == index) check_own_counts(c, slot);
}

/* FORKING, CLAIMING: the parent fills its ledger, and nothing else. */
static void check_reserved(mp_check *c, const mp_slot_shm *slot,
                           uint32_t state) {
    if (c->quiet)
        mp_check_report(c, "reserved by tag 0x%x for a child that was never "
                           "born", state >> 2);
    check_empty(c, slot, "reserved");
    check_ledger(c, slot);
}

static void check_slot(mp_check *c, uint32_t index) {
    const mp_slot_shm *slot = mp_check_slot(c, index);
    mp_check_subject(c, "slot %u", index);
    c->silent = false;
    mp_check_mutex(c, &slot->reaper, "reaper");
    mp_check_mutex(c, &slot->txn.guard, "guard");
    uint32_t state = (uint32_t)mp_check_u64(c, &slot->state);
    if (state == MP_SLOT_FREE)
        check_free(c, slot);
    else if ((state & 3) == MP_SLOT_LIVE)
        check_live(c, slot, index, state);
    else if ((state & 3) != MP_SLOT_FREE)
        check_reserved(c, slot, state);
    else
        mp_check_report(c, "its state is 0x%x, expected 0 when it is FREE",
                        state);
}

void mp_check_slots(mp_check *c) {
    for (uint32_t i = 1; i < c->slots; i++) check_slot(c, i);
    c->silent = false;
}

/* ---- hands ---------------------------------------------------------- */

/* A block on its way may have arrived already, or be gone. */
void mp_check_hands(mp_check *c) {
    for (uint32_t i = 1; i < c->slots; i++) {
        const mp_slot_shm *slot = mp_check_slot(c, i);
        for (int k = 0; k < MP_HANDS; k++) {
            mp_ref block = mp_check_u64(c, &slot->hands[k].block);
            mp_found found;
            if (block > HAND_KEPT && mp_check_find(c, block, &found))
                c->reached[found.bit / 64] |= (uint64_t)1 << found.bit % 64;
        }
    }
}
