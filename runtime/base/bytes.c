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

/* ---- SipHash -------------------------------------------------------- */

static inline uint64_t rotate(uint64_t v, int bits) {
    return v << bits | v >> (64 - bits);
}

typedef struct sip {
    uint64_t a, b, c, d;
} sip;

static inline void sip_rounds(sip *s, int n) {
    while (n-- > 0) {
        s->a += s->b;
        s->b = rotate(s->b, 13) ^ s->a;
        s->a = rotate(s->a, 32);
        s->c += s->d;
        s->d = rotate(s->d, 16) ^ s->c;
        s->a += s->d;
        s->d = rotate(s->d, 21) ^ s->a;
        s->c += s->b;
        s->b = rotate(s->b, 17) ^ s->c;
        s->c = rotate(s->c, 32);
    }
}

static inline void sip_word(sip *s, uint64_t word, int rounds) {
    s->d ^= word;
    sip_rounds(s, rounds);
    s->a ^= word;
}

static inline uint64_t siphash(const unsigned char key[16], const void *data,
                               size_t len, int each, int at_last) {
    const unsigned char *p = data;
    uint64_t k0 = mp_u64_get(key), k1 = mp_u64_get(key + 8);
    sip s = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du,
             k0 ^ 0x6c7967656e657261u, k1 ^ 0x7465646279746573u};
    uint64_t last = (uint64_t)len << 56;
    for (; len >= 8; p += 8, len -= 8)
        sip_word(&s, mp_u64_get(p), each);
    for (size_t i = 0; i < len; i++)
        last |= (uint64_t)p[i] << (8 * i);
    sip_word(&s, last, each);
    s.c ^= 0xff;
    sip_rounds(&s, at_last);
    return s.a ^ s.b ^ s.c ^ s.d;
}

uint64_t mp_siphash(const unsigned char key[16], const void *data,
                    size_t len) {
    return siphash(key, data, len, 2, 4);
}

uint64_t mp_siphash_quick(const unsigned char key[16], const void *data,
                          size_t len) {
    return siphash(key, data, len, 1, 3);
}
