#include "wire/auth.h"

#include <errno.h>
#include <string.h>

#include "os/random.h"

#define CHALLENGE "#CHALLENGE#"
#define WELCOME "#WELCOME#"
#define FAILURE "#FAILURE#"

enum {
    RANDOM = 40,      /* bytes in a challenge of ours */
    OLD_CHALLENGE = 20, /* bytes in one of a peer that knows only MD5 */
    OLD_ANSWER = 16,
    LONGEST_NAME = 8  /* of a digest: "sha3_256" */
};

/* What a handshake consists of. */
enum { END, ASK, CHECK, JUDGE, GET_ASKED, ANSWER, GET_JUDGED };

static const uint8_t steps[][7] = {
    [MP_AUTH_DELIVER] = {ASK, CHECK, JUDGE, END},
    [MP_AUTH_ANSWER] = {GET_ASKED, ANSWER, GET_JUDGED, END},
    [MP_AUTH_SERVER] = {ASK, CHECK, JUDGE, GET_ASKED, ANSWER, GET_JUDGED,
                        END},
    [MP_AUTH_CLIENT] = {GET_ASKED, ANSWER, GET_JUDGED, ASK, CHECK, JUDGE,
                        END}};

void mp_auth_begin(mp_auth *a, mp_auth_role role, mp_digest digest) {
    *a = (mp_auth){.role = (uint8_t)role, .digest = digest};
}

/* ---- messages ------------------------------------------------------- */

static void put(mp_auth *a, const void *bytes, size_t size) {
    memcpy(a->bytes + a->size, bytes, size);
    a->size += size;
}

static bool is(const mp_conn_received *m, const char *text) {
    return m->size == strlen(text) && memcmp(m->data, text, m->size) == 0;
}

/* The digest that a «{name}» at the beginning names: how long that is. 0: it
   is of the old form, by its length; -EBADE: neither. */
static int named_digest(const unsigned char *p, size_t size,
                        mp_digest *digest) {
    *digest = MP_MD5;
    if (size == OLD_CHALLENGE || size == OLD_ANSWER) return 0;
    size_t most = size < LONGEST_NAME + 2 ? size : LONGEST_NAME + 2;
    const unsigned char *end = memchr(p, '}', most);
    if (size == 0 || p[0] != '{' || !end) return -EBADE;
    size_t length = (size_t)(end - p) - 1;
    return mp_digest_named((const char *)p + 1, length, digest)
               ? (int)length + 2
               : -EBADE;
}

/* ---- we ask --------------------------------------------------------- */

static int make_challenge(mp_auth *a) {
    const char *name = a->digest == MP_MD5 ? "{md5}" : "{sha256}";
    unsigned char random[RANDOM];
    int r = mp_random_bytes(random, RANDOM);
    if (r < 0) return r;
    put(a, CHALLENGE, strlen(CHALLENGE));
    size_t begin = a->size;
    put(a, name, strlen(name));
    put(a, random, RANDOM);
    a->challenge_size = a->size - begin;
    memcpy(a->challenge, a->bytes + begin, a->challenge_size);
    return 0;
}

static void check_answer(mp_auth *a, const mp_conn_received *m,
                         const mp_key *key) {
    unsigned char expected[MP_DIGEST_MOST];
    mp_digest digest;
    int at = named_digest(m->data, m->size, &digest);
    a->verdict = at < 0 ? -EBADE : 0;
    if (at < 0) return;
    /* The name is part of what was asked, so nobody between us can make us
       settle for a weaker one than both know. */
    size_t size = mp_hmac(digest, key->bytes, key->size, a->challenge,
                          a->challenge_size, expected);
    if (m->size - (size_t)at != size ||
        !mp_same_bytes(m->data + at, expected, size))
        a->verdict = -EKEYREJECTED;
}

/* ---- we answer ------------------------------------------------------ */

static int make_answer(mp_auth *a, const mp_conn_received *m,
                       const mp_key *key) {
    size_t head = strlen(CHALLENGE);
    unsigned char answer[MP_DIGEST_MOST];
    mp_digest digest;
    if (m->size < head + OLD_CHALLENGE ||
        memcmp(m->data, CHALLENGE, head) != 0)
        return -EBADE;
    const unsigned char *challenge = m->data + head;
    int named = named_digest(challenge, m->size - head, &digest);
    if (named < 0) return named;
    size_t size = mp_hmac(digest, key->bytes, key->size, challenge,
                          m->size - head, answer);
    put(a, challenge, (size_t)named);
    put(a, answer, size);
    return 0;
}

/* ---- the handshake -------------------------------------------------- */

static int receive(mp_auth *a, mp_conn *c, const mp_key *key, int step,
                   mp_deadline deadline) {
    mp_conn_received m;
    int r = mp_conn_receive(c, MP_AUTH_MOST, &m, deadline);
    if (r < 0) return r;
    if (step == CHECK) {
        check_answer(a, &m, key);
    } else if (step == GET_ASKED) {
        a->size = 0;
        r = make_answer(a, &m, key);
    } else if (!is(&m, WELCOME)) {
        r = -EKEYREVOKED;
    }
    mp_conn_release(c);
    return r;
}

static int make(mp_auth *a, int step) {
    if (step == ANSWER) return 0; /* as it was received */
    a->size = 0;
    if (step == ASK) return make_challenge(a);
    if (a->verdict == 0)
        put(a, WELCOME, strlen(WELCOME));
    else
        put(a, FAILURE, strlen(FAILURE));
    return 0;
}

static int send(mp_auth *a, mp_conn *c, int step, mp_deadline deadline) {
    if (!a->ready) {
        int r = make(a, step);
        if (r < 0) return r;
        a->ready = true;
    }
    mp_conn_message m = {.body = a->bytes, .size = a->size};
    int r = mp_conn_send(c, &m, deadline);
    if (r == -EINTR || r == -ETIMEDOUT) return r;
    a->ready = false;
    /* Of a wrong answer we tell, even if its sender is gone. */
    return step == JUDGE && a->verdict < 0 ? a->verdict : r;
}

int mp_auth_ask(mp_auth *a, mp_conn *c, mp_deadline deadline) {
    if (a->step > 0 || steps[a->role][0] != ASK) return 0;
    int r = send(a, c, ASK, deadline);
    if (r == 0) a->step++;
    return r;
}

int mp_auth_run(mp_auth *a, mp_conn *c, const mp_key *key,
                mp_deadline deadline) {
    int step;
    while ((step = steps[a->role][a->step]) != END) {
        bool sends = step == ASK || step == JUDGE || step == ANSWER;
        int r = sends ? send(a, c, step, deadline)
                      : receive(a, c, key, step, deadline);
        if (r < 0) return r;
        a->step++;
    }
    return 0;
}
