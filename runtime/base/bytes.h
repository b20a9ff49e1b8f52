/* Numbers as bytes, and arrays that grow: what every encoder needs.

   Varints are LEB128: 7 bits a byte, low bits first, at most 10 bytes.
   A varint may be padded to a fixed width, so that it can be written
   before its value is known.  Fixed-width numbers are little-endian on
   every machine.
   Safe: threads yes, processes yes, signal handler yes but for mp_grow.
   Blocks: never. */
#ifndef MP_BASE_BYTES_H
#define MP_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MP_VARINT_MAX 10

/* Returns `data` (malloc'ed, or NULL) grown to hold at least `need` items
   of `size` bytes, and stores the new capacity; at least doubles.  NULL
   when there is no memory: `data` and `*cap` are then as before. */
void *mp_grow(void *data, size_t *cap, size_t size, size_t need);

/* A 64-bit hash of `len` bytes; for tables, not against an enemy. */
uint64_t mp_hash(const void *data, size_t len);

/* SipHash-2-4 of `len` bytes under a key: who does not know the key can
   neither make nor change bytes with a given result.
   Source: Aumasson, Bernstein, "SipHash: a fast short-input PRF" (2012). */
uint64_t mp_siphash(const unsigned char key[16], const void *data,
                    size_t len);

/* SipHash-1-3: for tables, whose keys others may choose. */
uint64_t mp_siphash_quick(const unsigned char key[16], const void *data,
                          size_t len);

/* How many bytes the shortest varint of `v` takes. */
static inline size_t mp_varint_size(uint64_t v) {
    size_t n = 1;
    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}

/* Writes `v` at `p`, returns the end. */
static inline unsigned char *mp_varint_put(unsigned char *p, uint64_t v) {
    while (v >= 0x80) {
        *p++ = (unsigned char)(v | 0x80);
        v >>= 7;
    }
    *p++ = (unsigned char)v;
    return p;
}

/* Writes `v` in exactly `width` bytes; it must fit. */
static inline void mp_varint_put_wide(unsigned char *p, uint64_t v,
                                      size_t width) {
    while (--width > 0) {
        *p++ = (unsigned char)(v | 0x80);
        v >>= 7;
    }
    *p = (unsigned char)(v & 0x7f);
}

/* Reads a varint in [p, end) and returns what follows it; NULL when it is
   cut off or has more than 64 bits. */
static inline const unsigned char *mp_varint_get(const unsigned char *p,
                                                 const unsigned char *end,
                                                 uint64_t *v) {
    uint64_t value = 0;
    for (unsigned shift = 0; p < end && shift < 64; shift += 7) {
        uint64_t bits = *p & 0x7fu;
        if (shift == 63 && bits > 1)
            return NULL;
        value |= bits << shift;
        if (!(*p++ & 0x80)) {
            *v = value;
            return p;
        }
    }
    return NULL;
}

/* Signed numbers near 0 become small unsigned ones. */
static inline uint64_t mp_zigzag(int64_t v) {
    return ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0);
}

static inline int64_t mp_unzigzag(uint64_t v) {
    uint64_t half = v >> 1;
    return (int64_t)(v & 1 ? ~half : half);
}

static inline void mp_u64_put(unsigned char *p, uint64_t v) {
    for (int i = 0; i < 8; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static inline uint64_t mp_u64_get(const unsigned char *p) {
    /* Written out, it is one load to the compiler. */
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 |
           (uint64_t)p[3] << 24 | (uint64_t)p[4] << 32 |
           (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48 |
           (uint64_t)p[7] << 56;
}

static inline void mp_double_put(unsigned char *p, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    mp_u64_put(p, bits);
}

static inline double mp_double_get(const unsigned char *p) {
    uint64_t bits = mp_u64_get(p);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

#endif
