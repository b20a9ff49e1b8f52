/* Two processes that meet over a connection prove to each other that they
   know the same key, without showing it: each sends random bytes, and wants
   their HMAC under the key back.

   The messages are those of Python's multiprocessing from 3.12 on, digest
   SHA-256; peers that know only the older form, HMAC-MD5 of up to 3.11, are
   answered in it, as Python does. An empty key is a key.

   Safe: one thread per mp_auth. Returns: 0 or -errno:
   -EKEYREJECTED  what the peer answered is not made with our key
   -EKEYREVOKED   the peer says that what we answered is not made with its
   -EBADE         it sent something else
   -EINTR, -ETIMEDOUT   call again with the same arguments
   and what mp_conn_send and mp_conn_receive return: it is gone, ... */
#ifndef MP_WIRE_AUTH_H
#define MP_WIRE_AUTH_H

#include "base/digest.h"
#include "wire/conn.h"

enum { MP_AUTH_MOST = 256 }; /* bytes of a message */

/* Bytes that are the caller's, and stay while the handshake goes on. */
typedef struct mp_key {
    const void *bytes;
    size_t size;
} mp_key;

/* Which halves of the handshake, and in which order. */
typedef enum mp_auth_role {
    MP_AUTH_DELIVER, /* the peer proves it */
    MP_AUTH_ANSWER,  /* we prove it */
    MP_AUTH_SERVER,  /* first the peer, then we */
    MP_AUTH_CLIENT   /* the other way round */
} mp_auth_role;

/* A handshake that goes on. */
typedef struct mp_auth {
    mp_digest digest;
    uint8_t step;          /* of the role's list, 0 at first */
    uint8_t role;
    bool ready;            /* `bytes` is what this step sends */
    int verdict;           /* what is returned once it is told */
    size_t challenge_size;
    unsigned char challenge[64];
    size_t size;
    unsigned char bytes[MP_AUTH_MOST];
} mp_auth;

/* `digest` is the one we ask for. */
void mp_auth_begin(mp_auth *a, mp_auth_role role, mp_digest digest);

/* Sends the first message, if that is ours and has not gone: from then on it
   is the peer's turn, which who waits by poll hears of. Blocks. */
int mp_auth_ask(mp_auth *a, mp_conn *c, mp_deadline deadline);

/* Goes on until it is done, or has to wait beyond the deadline. Blocks. */
int mp_auth_run(mp_auth *a, mp_conn *c, const mp_key *key,
                mp_deadline deadline);

#endif
