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

static uint64_t rotate(uint64_t v, int bits) {
    return v << bits | v >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], int n) {
    while (n-- > 0) {
        v[0] += v[1];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[0] = rotate(v[0], 32);
        v[2] += v[3];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] += v[3];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] += v[1];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[2] = rotate(v[2], 32);
    }
}

static void sip_word(uint64_t v[4], uint64_t word) {
    v[3] ^= word;
    sip_rounds(v, 2);
    v[0] ^= word;
}

uint64_t mp_siphash(const unsigned char key[16], const void *data,
                    size_t len) {
    const unsigned char *p = data;
    uint64_t k0 = mp_u64_get(key), k1 = mp_u64_get(key + 8);
    uint64_t v[4] = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du,
                     k0 ^ 0x6c7967656e657261u, k1 ^ 0x7465646279746573u};
    uint64_t last = (uint64_t)len << 56;
    for (; len >= 8; p += 8, len -= 8)
        sip_word(v, mp_u64_get(p));
    for (size_t i = 0; i < len; i++)
        last |= (uint64_t)p[i] << (8 * i);
    sip_word(v, last);
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
