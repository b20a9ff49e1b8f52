#include "base/digest.h"

#include <stdint.h>
#include <string.h>

enum { BLOCK = 64, LENGTH_AT = 56 };

/* A digest in the making: both take blocks of 64 bytes and end with the
   length in bits, which one writes high byte first, the other low. */
typedef struct state {
    mp_digest digest;
    uint32_t h[8];
    uint64_t size;
    unsigned char block[BLOCK];
} state;

static uint32_t rotate_left(uint32_t v, unsigned bits) {
    return v << bits | v >> (32 - bits);
}

static uint32_t rotate_right(uint32_t v, unsigned bits) {
    return v >> bits | v << (32 - bits);
}

static uint32_t get_high_first(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
           (uint32_t)p[2] << 8 | p[3];
}

static uint32_t get_low_first(const unsigned char *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 |
           (uint32_t)p[1] << 8 | p[0];
}

/* ---- SHA-256 -------------------------------------------------------- */

static const uint32_t sha256_start[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
    0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
    0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
    0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static void sha256_block(uint32_t h[8], const unsigned char *p) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++) w[i] = get_high_first(p + 4 * i);
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] +
               (rotate_right(a, 7) ^ rotate_right(a, 18) ^ a >> 3) +
               (rotate_right(b, 17) ^ rotate_right(b, 19) ^ b >> 10);
    }
    memcpy(v, h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t a = v[0], e = v[4];
        uint32_t one = v[7] + sha256_k[i] + w[i] +
                       (rotate_right(e, 6) ^ rotate_right(e, 11) ^
                        rotate_right(e, 25)) +
                       ((e & v[5]) ^ (~e & v[6]));
        uint32_t two = (rotate_right(a, 2) ^ rotate_right(a, 13) ^
                        rotate_right(a, 22)) +
                       ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++) h[i] += v[i];
}

/* ---- MD5 ------------------------------------------------------------ */

static const uint32_t md5_start[8] = {0x67452301, 0xefcdab89, 0x98badcfe,
                                      0x10325476};

/* The integer part of 2^32 * |sin(i + 1)|. */
static const uint32_t md5_k[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a,
    0xa8304613, 0xfd469501, 0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be,
    0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340,
    0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8,
    0x676f02d9, 0x8d2a4c8a, 0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c,
    0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa,
    0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92,
    0xffeff47d, 0x85845dd1, 0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1,
    0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};

static void md5_block(uint32_t h[8], const unsigned char *p) {
    static const uint8_t shift[4][4] = {
        {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
    uint32_t a = h[0], b = h[1], c = h[2], d = h[3];
    for (unsigned i = 0; i < 64; i++) {
        uint32_t f;
        unsigned word;
        switch (i / 16) {
        case 0: f = (b & c) | (~b & d); word = i; break;
        case 1: f = (d & b) | (~d & c); word = 5 * i + 1; break;
        case 2: f = b ^ c ^ d; word = 3 * i + 5; break;
        default: f = c ^ (b | ~d); word = 7 * i; break;
        }
        f += a + md5_k[i] + get_low_first(p + 4 * (word % 16));
        a = d;
        d = c;
        c = b;
        b += rotate_left(f, shift[i / 16][i % 4]);
    }
    h[0] += a;
    h[1] += b;
    h[2] += c;
    h[3] += d;
}

/* ---- both ----------------------------------------------------------- */

static void start(state *s, mp_digest digest) {
    *s = (state){.digest = digest};
    memcpy(s->h, digest == MP_SHA256 ? sha256_start : md5_start, sizeof s->h);
}

static void take_block(state *s, const unsigned char *p) {
    if (s->digest == MP_SHA256)
        sha256_block(s->h, p);
    else
        md5_block(s->h, p);
}

static void add(state *s, const void *data, size_t size) {
    const unsigned char *p = data;
    size_t have = s->size % BLOCK;
    s->size += size;
    while (size > 0) {
        size_t n = BLOCK - have < size ? BLOCK - have : size;
        memcpy(s->block + have, p, n);
        have += n;
        p += n;
        size -= n;
        if (have < BLOCK) break;
        take_block(s, s->block);
        have = 0;
    }
}

/* The i-th byte of a number of n. */
static unsigned char byte_of(const state *s, uint64_t v, int i, int n) {
    return (unsigned char)(v >> 8 * (s->digest == MP_SHA256 ? n - 1 - i : i));
}

static size_t finish(state *s, unsigned char out[MP_DIGEST_MOST]) {
    static const unsigned char padding[BLOCK] = {0x80};
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = byte_of(s, s->size * 8, i, 8);
    size_t have = s->size % BLOCK;
    add(s, padding, (have < LENGTH_AT ? LENGTH_AT : LENGTH_AT + BLOCK) -
                        have);
    add(s, length, sizeof length);
    size_t size = s->digest == MP_SHA256 ? 32 : 16;
    for (size_t i = 0; i < size; i++)
        out[i] = byte_of(s, s->h[i / 4], (int)(i % 4), 4);
    return size;
}

bool mp_digest_named(const char *name, size_t size, mp_digest *digest) {
    static const char *const names[] = {[MP_SHA256] = "sha256",
                                        [MP_MD5] = "md5"};
    for (int i = MP_SHA256; i <= MP_MD5; i++)
        if (strlen(names[i]) == size && memcmp(names[i], name, size) == 0) {
            *digest = (mp_digest)i;
            return true;
        }
    return false;
}

size_t mp_digest_of(mp_digest digest, const void *data, size_t size,
                    unsigned char out[MP_DIGEST_MOST]) {
    state s;
    start(&s, digest);
    add(&s, data, size);
    return finish(&s, out);
}

size_t mp_hmac(mp_digest digest, const void *key, size_t key_size,
               const void *data, size_t size,
               unsigned char out[MP_DIGEST_MOST]) {
    unsigned char inner[BLOCK] = {0}, outer[BLOCK];
    if (key_size > BLOCK)
        mp_digest_of(digest, key, key_size, inner);
    else if (key_size > 0)
        memcpy(inner, key, key_size);
    for (int i = 0; i < BLOCK; i++) {
        outer[i] = inner[i] ^ 0x5c;
        inner[i] ^= 0x36;
    }
    state s;
    start(&s, digest);
    add(&s, inner, BLOCK);
    add(&s, data, size);
    size_t n = finish(&s, out);
    start(&s, digest);
    add(&s, outer, BLOCK);
    add(&s, out, n);
    return finish(&s, out);
}

bool mp_same_bytes(const void *a, const void *b, size_t size) {
    const volatile unsigned char *p = a, *q = b;
    unsigned char differ = 0;
    for (size_t i = 0; i < size; i++) differ |= p[i] ^ q[i];
    return differ == 0;
}
