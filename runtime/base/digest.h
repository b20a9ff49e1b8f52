/* SHA-256, MD5, and the HMAC of either: what the processes that meet over a
   socket prove to each other that they know the same key with. MD5 is here
   for peers that know nothing else (Python up to 3.11).

   Safe: threads, processes, signal handler. Blocks: never.
   Source: FIPS 180-4; RFC 1321; RFC 2104. */
#ifndef MP_BASE_DIGEST_H
#define MP_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

enum { MP_DIGEST_MOST = 32 };

typedef enum mp_digest { MP_SHA256, MP_MD5 } mp_digest;

/* The digest by Python's name of it ("sha256", "md5"): false, there is none
   of `size` bytes at `name`. */
bool mp_digest_named(const char *name, size_t size, mp_digest *digest);

/* Writes the digest of the bytes to `out`; returns its size. */
size_t mp_digest_of(mp_digest digest, const void *data, size_t size,
                    unsigned char out[MP_DIGEST_MOST]);

/* Writes the HMAC under a key of any length (0, too); returns its size. */
size_t mp_hmac(mp_digest digest, const void *key, size_t key_size,
               const void *data, size_t size,
               unsigned char out[MP_DIGEST_MOST]);

/* Are these bytes the same? Takes as long wherever they differ. */
bool mp_same_bytes(const void *a, const void *b, size_t size);

#endif
