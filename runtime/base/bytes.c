#include "base/bytes.h"

#include <stdlib.h>

void *mp_grow(void *data, size_t *cap, size_t size, size_t need) {
    if (need <= *cap)
        return data;
    if (need > SIZE_MAX / size)
        return NULL;
    size_t most = SIZE_MAX / size;
    size_t want = *cap > most / 2 ? most : *cap * 2;
    if (want < need)
        want = need;
    void *grown = realloc(data, want * size);
    if (!grown && want > need) { /* doubling is a wish, `need` is not */
        want = need;
        grown = realloc(data, want * size);
    }
    if (grown)
        *cap = want;
    return grown;
}

uint64_t mp_hash(const void *data, size_t len) {
    const unsigned char *p = data;
    uint64_t h = 0x9e3779b97f4a7c15u ^ len;
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (; len > 0; p++, len--)
        h = (h ^ *p) * 0x100000001b3u;
    return h ^ (h >> 29);
}
