#include "bind/pack_memo.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define FIRST_SLOTS 64

/* Within 64 KiB of addresses the order is kept; the blocks scatter. */
static size_t place(uintptr_t key, size_t nslots) {
    uint64_t block = ((uint64_t)key >> 16) * 0x9e3779b97f4a7c15u;
    return (size_t)(((uint64_t)key >> 4) + (block >> 20)) & (nslots - 1);
}

/* The slot that holds `key`, or the free one where it would go. */
static size_t seek(const pack_memo *m, uintptr_t key) {
    size_t at = place(key, m->nslots);
    while (m->slots[at] && m->entries[m->slots[at] - 1].key != key)
        at = (at + 1) & (m->nslots - 1);
    return at;
}

size_t pack_memo_find(const pack_memo *m, uintptr_t key) {
    if (m->nslots) {
        uint32_t found = m->slots[seek(m, key)];
        return found ? found - 1 : PACK_MEMO_NONE;
    }
    for (size_t i = 0; i < m->count; i++)
        if (m->entries[i].key == key)
            return i;
    return PACK_MEMO_NONE;
}

/* Builds the hash anew for `nslots` places. Of two entries with one key the
   last is found. */
static bool rehash(pack_memo *m, size_t nslots) {
    uint32_t *slots = mp_grow(m->slots, &m->slots_cap, sizeof *slots, nslots);
    if (!slots)
        return false;
    memset(slots, 0, nslots * sizeof *slots);
    m->slots = slots;
    m->nslots = nslots;
    for (size_t i = 0; i < m->count; i++)
        slots[seek(m, m->entries[i].key)] = (uint32_t)(i + 1);
    return true;
}

bool pack_memo_add(pack_memo *m, uintptr_t key, uint64_t info) {
    if (m->count == m->cap || m->count * 2 >= m->nslots) {
        if (m->count >= UINT32_MAX - 1)
            return false;
        pack_entry *grown = mp_grow(m->entries, &m->cap, sizeof *grown,
                                    m->count < 8 ? 8 : m->count + 1);
        if (!grown)
            return false;
        m->entries = grown;
        if (m->count >= PACK_MEMO_LINEAR && m->count * 2 >= m->nslots &&
            !rehash(m, m->nslots ? m->nslots * 2 : FIRST_SLOTS))
            return false;
    }
    if (m->nslots)
        m->slots[seek(m, key)] = (uint32_t)(m->count + 1);
    m->entries[m->count++] = (pack_entry){key, info};
    return true;
}

void pack_memo_cut(pack_memo *m, size_t count) {
    if (count >= m->count)
        return;
    m->count = count;
    if (m->nslots)
        rehash(m, m->nslots); /* no growth: cannot fail */
}

void pack_memo_reset(pack_memo *m, size_t keep) {
    m->count = m->nslots = 0;
    if (m->cap * sizeof *m->entries > keep) {
        free(m->entries);
        m->entries = NULL;
        m->cap = 0;
    }
    if (m->slots_cap * sizeof *m->slots > keep) {
        free(m->slots);
        m->slots = NULL;
        m->slots_cap = 0;
    }
}

void pack_memo_free(pack_memo *m) {
    pack_memo_reset(m, 0);
}
