/* Who may connect: digests, the handshake, and listeners with callers that
   mean no good. */
#include "wire/auth.h"

#include <poll.h>
#include <stdio.h>

#include "wire/listen.h"
#include "wire_tools.h"

/* --- digests ----------------------------------------------------------- */

static const char *hex(const unsigned char *p, size_t size) {
    static char text[2 * MP_DIGEST_MOST + 1];
    for (size_t i = 0; i < size; i++) sprintf(text + 2 * i, "%02x", p[i]);
    return text;
}

static const char *digest_of(mp_digest digest, const char *text) {
    unsigned char out[MP_DIGEST_MOST];
    return hex(out, mp_digest_of(digest, text, strlen(text), out));
}

static const char *hmac_of(mp_digest digest, const char *key,
                           const char *text) {
    unsigned char out[MP_DIGEST_MOST];
    return hex(out, mp_hmac(digest, key, strlen(key), text, strlen(text),
                            out));
}

SPEC("digest: SHA-256 and MD5 are those of their standards") {
    CHECK_STR(digest_of(MP_SHA256, "abc"),
              "ba7816bf8f01cfea414140de5dae2223"
              "b00361a396177a9cb410ff61f20015ad");
    CHECK_STR(digest_of(MP_SHA256, "abcdbcdecdefdefgefghfghighijhijkijkljklm"
                                   "klmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039"
              "a33ce45964ff2167f6ecedd419db06c1");
    CHECK_STR(digest_of(MP_SHA256, ""),
              "e3b0c44298fc1c149afbf4c8996fb924"
              "27ae41e4649b934ca495991b7852b855");
    CHECK_STR(digest_of(MP_MD5, ""), "d41d8cd98f00b204e9800998ecf8427e");
    CHECK_STR(digest_of(MP_MD5, "1234567890123456789012345678901234567890"
                                "1234567890123456789012345678901234567890"),
              "57edf4a22be3c955ac49da2e2107b67a");
}

SPEC("digest: the HMAC is that of its standard, of long keys and none, too") {
    char key[132] = "";
    CHECK_STR(hmac_of(MP_SHA256, "Jefe", "what do ya want for nothing?"),
              "5bdcc146bf60754e6a042426089575c7"
              "5a003f089d2739839dec58b964ec3843");
    CHECK_STR(hmac_of(MP_MD5, "Jefe", "what do ya want for nothing?"),
              "750c783e6ab0b503eaa86e310a5db738");
    CHECK_STR(hmac_of(MP_SHA256, "", ""),
              "b613679a0814d9ec772f95d778c35fc5"
              "ff1697c493715653c6c712144292c5ad");
    memset(key, 0xaa, 131);
    CHECK_STR(hmac_of(MP_SHA256, key, "Test Using Larger Than Block-Size Key "
                                      "- Hash Key First"),
              "60e431591ee0b67f0d8a26aacbf5b77f"
              "8e0bc6213728c5140546040f0ee37f54");
}

SPEC("digest: bytes are the same only when all are") {
    CHECK(mp_same_bytes("abc", "abc", 3));
    CHECK(!mp_same_bytes("abc", "abd", 3));
    CHECK(!mp_same_bytes("xbc", "abc", 3));
    CHECK(mp_same_bytes("x", "y", 0));
}

/* --- the handshake ------------------------------------------------------ */

/* Both sides of a handshake, turn by turn; what each says at the end. */
static void shake(const mp_key *server, const mp_key *client,
                  mp_digest digest, int results[2]) {
    mp_conn ends[2];
    mp_auth auths[2];
    const mp_key *keys[] = {server, client};
    CHECK_OK(mp_conn_pair(ends, true));
    mp_auth_begin(&auths[0], MP_AUTH_SERVER, digest);
    mp_auth_begin(&auths[1], MP_AUTH_CLIENT, digest);
    results[0] = results[1] = -ETIMEDOUT;
    for (int i = 0; i < 20; i++) {
        int side = i % 2;
        if (results[side] == -ETIMEDOUT)
            results[side] = mp_auth_run(&auths[side], &ends[side],
                                        keys[side], wire_at_once);
    }
    wire_close(ends);
}

SPEC("auth: CON-20 who knows the key is welcome, and an empty one is a key") {
    const mp_key keys[] = {{"secret", 6}, {"", 0}};
    int results[2];
    for (int digest = MP_SHA256; digest <= MP_MD5; digest++)
        for (int i = 0; i < 2; i++) {
            shake(&keys[i], &keys[i], (mp_digest)digest, results);
            CHECK_OK(results[0]);
            CHECK_OK(results[1]);
            shake(&keys[i], &keys[1 - i], (mp_digest)digest, results);
            CHECK_EQ(results[0], -EKEYREJECTED);
            CHECK_EQ(results[1], -EKEYREVOKED);
        }
}

/* What the other side of a half of the handshake says, by hand. */
static int answered(const char *answer, size_t size) {
    mp_conn c;
    mp_auth auth;
    const mp_key key = {"k", 1};
    int peer = wire_packets(&c);
    unsigned char text[MP_AUTH_MOST + 4] = {0, 0, 0, (unsigned char)size};
    memcpy(text + 4, answer, size);
    mp_auth_begin(&auth, MP_AUTH_DELIVER, MP_SHA256);
    CHECK_EQ(mp_auth_run(&auth, &c, &key, wire_at_once), -ETIMEDOUT);
    wire_put(peer, text, size + 4);
    int r = mp_auth_run(&auth, &c, &key, wire_at_once);
    mp_conn_close(&c);
    close(peer);
    return r;
}

SPEC("auth: an answer of no known form, or cut short, is refused") {
    CHECK_EQ(answered("", 0), -EBADE);
    CHECK_EQ(answered("{sha256}", 8), -EKEYREJECTED);
    CHECK_EQ(answered("{sha256}0123456789abcdef0123456789abcdef", 40),
             -EKEYREJECTED);
    CHECK_EQ(answered("0123456789abcdef", 16), -EKEYREJECTED);
    CHECK_EQ(answered("0123456789abcdef0123", 20), -EKEYREJECTED);
    CHECK_EQ(answered("{sha512}0123456789abcdef", 24), -EBADE);
    CHECK_EQ(answered("{a name that is too long}", 25), -EBADE);
    CHECK_EQ(answered("{", 1), -EBADE);
    CHECK_EQ(answered("{}0123456789abcdef0123456", 25), -EBADE);
}

static int challenged(const char *challenge, size_t size) {
    mp_conn c;
    mp_auth auth;
    const mp_key key = {"k", 1};
    int peer = wire_packets(&c);
    unsigned char text[512] = {0, 0, (unsigned char)(size >> 8),
                               (unsigned char)size};
    memcpy(text + 4, challenge, size);
    wire_put(peer, text, size + 4);
    mp_auth_begin(&auth, MP_AUTH_ANSWER, MP_SHA256);
    int r = mp_auth_run(&auth, &c, &key, wire_at_once);
    mp_conn_close(&c);
    close(peer);
    return r;
}

SPEC("auth: what is no challenge, too short or too long a one is refused") {
    char text[300];
    memset(text, 'x', sizeof text);
    CHECK_EQ(challenged(text, 60), -EBADE);
    CHECK_EQ(challenged("#CHALLENGE#", 11), -EBADE);
    CHECK_EQ(challenged("#CHALLENGE#0123456789", 21), -EBADE);
    CHECK_EQ(challenged("#CHALLENGE#{sha3_256}0123456789abcdef012345", 43),
             -EBADE);
    CHECK_EQ(challenged("#CHALLENGE#0123456789abcdef0123", 31), -ETIMEDOUT);
    CHECK_EQ(challenged(text, 300), -EMSGSIZE);
}

/* --- listeners ---------------------------------------------------------- */

static const mp_key secret = {"secret", 6};

static void address_of(mp_address *a, const char *name) {
    char text[64] = "";
    int n = snprintf(text + 1, sizeof text - 1, "mp-spec-%d-%s", getpid(),
                     name);
    CHECK_OK(mp_address_unix(a, text, (size_t)n + 1));
}

static void open_listener(mp_listener *l, const char *name, double patience) {
    mp_address address;
    address_of(&address, name);
    CHECK_OK(mp_listener_open(l, &address, 200, (int64_t)(patience * 1e9)));
}

/* Connects and says nothing. */
static int call_silently(const mp_listener *l) {
    int fd = -1;
    CHECK_OK(mp_net_connect(&l->address, &fd, wire_soon()));
    return fd;
}

static int accept_within(mp_listener *l, const mp_key *key, double seconds,
                         mp_conn *c) {
    mp_address peer;
    mp_deadline deadline = mp_deadline_in(seconds);
    int r;
    while ((r = mp_listener_accept(l, key, c, &peer, deadline)) == -EINTR) {
    }
    return r;
}

static void call_with_key(void *argument) {
    mp_listener *l = argument;
    mp_calling calling = {.fd = -1, .conn = {.fd = -1}};
    mp_conn c;
    int r;
    while ((r = mp_call(&calling, &l->address, &secret, &c, MP_FOREVER)) ==
           -EINTR) {
    }
    CHECK_OK(r);
    CHECK_OK(wire_send(&c, "it is me", 8));
    mp_conn_close(&c);
    mp_listener_close(l);
}

SPEC("listener: PAIN-13 callers that say nothing keep nobody waiting") {
    mp_listener l;
    mp_conn c;
    int silent[10];
    open_listener(&l, "silent", 60);
    for (int i = 0; i < 10; i++) silent[i] = call_silently(&l);
    pid_t child = spec_fork(call_with_key, &l);
    CHECK_OK(accept_within(&l, &secret, 10, &c));
    wire_expect(&c, "it is me", 8);
    mp_conn_close(&c);
    CHECK_EQ(spec_wait(child), 0);
    for (int i = 0; i < 10; i++) close(silent[i]);
    mp_listener_close(&l);
}

SPEC("listener: a caller that says nothing is dropped at its deadline") {
    mp_listener l;
    mp_conn c;
    open_listener(&l, "late", 0.05);
    int silent = call_silently(&l), before = wire_open_fds();
    CHECK_EQ(accept_within(&l, &secret, 0.3, &c), -ETIMEDOUT);
    CHECK_EQ(l.n, 0);
    CHECK_EQ(wire_open_fds(), before);
    char challenge[100];
    CHECK(read(silent, challenge, sizeof challenge) > 0);
    CHECK_EQ(read(silent, challenge, 1), 0);
    close(silent);
    mp_listener_close(&l);
}

SPEC("listener: of more silent callers than have a place the oldest goes") {
    enum { MANY = MP_LISTENER_CALLERS + 40 };
    mp_listener l;
    mp_conn c;
    int silent[MANY];
    open_listener(&l, "many", 60);
    int before = wire_open_fds();
    for (int i = 0; i < MANY; i++) silent[i] = call_silently(&l);
    struct pollfd p = {.fd = l.fd, .events = POLLIN};
    while (poll(&p, 1, 0) == 1)
        CHECK_EQ(accept_within(&l, &secret, 0, &c), -ETIMEDOUT);
    CHECK_EQ(l.n, MP_LISTENER_CALLERS);
    CHECK_EQ(wire_open_fds(), before + MANY + MP_LISTENER_CALLERS);
    pid_t child = spec_fork(call_with_key, &l);
    CHECK_OK(accept_within(&l, &secret, 10, &c));
    wire_expect(&c, "it is me", 8);
    mp_conn_close(&c);
    CHECK_EQ(spec_wait(child), 0);
    for (int i = 0; i < MANY; i++) close(silent[i]);
    mp_listener_close(&l);
}

SPEC("listener: garbage, half a message, a huge length, a flood: dropped") {
    static const char *const said[] = {
        "GET / HTTP/1.0\r\n\r\n", "\177\377\377\377xxxxxxxxxxxxxx",
        "\377\377\377\377\377\377\377\377\377\377\377\377xxxxxx",
        "\200\0\0\0xxxxxxxxxxxxxx"};
    mp_listener l;
    mp_conn c;
    int callers[5];
    open_listener(&l, "garbage", 60);
    int before = wire_open_fds();
    for (int i = 0; i < 4; i++) {
        callers[i] = call_silently(&l);
        wire_put(callers[i], said[i], 18);
    }
    callers[4] = call_silently(&l);
    wire_put(callers[4], "\0\0", 2);
    shutdown(callers[4], SHUT_WR);
    CHECK_EQ(accept_within(&l, &secret, 0.1, &c), -ETIMEDOUT);
    CHECK_EQ(l.n, 0);
    for (int i = 0; i < 5; i++) close(callers[i]);
    CHECK_EQ(wire_open_fds(), before);
    mp_listener_close(&l);
}

SPEC("listener: CON-17 a wrong answer is told, and the listener goes on") {
    mp_listener l;
    mp_conn c;
    open_listener(&l, "wrong", 60);
    int caller = call_silently(&l);
    wire_put(caller, "\0\0\0\0200123456789abcdef", 20);
    CHECK_EQ(accept_within(&l, &secret, 10, &c), -EKEYREJECTED);
    char told[200];
    CHECK(read(caller, told, sizeof told) > 12);
    close(caller);
    pid_t child = spec_fork(call_with_key, &l);
    CHECK_OK(accept_within(&l, &secret, 10, &c));
    wire_expect(&c, "it is me", 8);
    mp_conn_close(&c);
    CHECK_EQ(spec_wait(child), 0);
    mp_listener_close(&l);
}

SPEC("listener: what it gives out to poll is readable when there is work") {
    mp_listener l;
    mp_conn c;
    open_listener(&l, "poll", 60);
    struct pollfd p = {.fd = mp_listener_pollfd(&l), .events = POLLIN};
    CHECK_EQ(poll(&p, 1, 0), 0);
    int caller = call_silently(&l);
    CHECK_EQ(poll(&p, 1, 5000), 1);
    CHECK_EQ(accept_within(&l, &secret, 0, &c), -ETIMEDOUT);
    p.fd = mp_listener_pollfd(&l);
    CHECK_EQ(poll(&p, 1, 0), 0);
    wire_put(caller, "\0\0\0\0200123456789abcdef", 20);
    CHECK_EQ(poll(&p, 1, 5000), 1);
    CHECK_EQ(accept_within(&l, &secret, 0, &c), -EKEYREJECTED);
    p.fd = mp_listener_pollfd(&l);
    CHECK_EQ(poll(&p, 1, 0), 0);
    close(caller);
    mp_listener_close(&l);
}

static void close_copy(void *argument) {
    mp_listener *l = argument;
    mp_conn c;
    CHECK_EQ(accept_within(l, &secret, 0, &c), -ETIMEDOUT);
    CHECK_EQ(l->n, 0);
    mp_listener_close(l);
}

SPEC("listener: CON-18 a child's copy takes neither path nor callers away") {
    char path[64];
    mp_address address;
    mp_listener l;
    mp_conn c;
    snprintf(path, sizeof path, "/tmp/mp-spec-%d", getpid());
    CHECK_OK(mp_address_unix(&address, path, strlen(path)));
    CHECK_OK(mp_listener_open(&l, &address, 5, 1000000000));
    CHECK_EQ(mp_listener_open(&l, &address, 5, 1), -EADDRINUSE);
    int caller = call_silently(&l);
    CHECK_EQ(accept_within(&l, &secret, 0, &c), -ETIMEDOUT);
    CHECK_EQ(spec_wait(spec_fork(close_copy, &l)), 0);
    CHECK_EQ(access(path, F_OK), 0);
    wire_put(caller, "\0\0\0\0200123456789abcdef", 20);
    CHECK_EQ(accept_within(&l, &secret, 5, &c), -EKEYREJECTED);
    close(caller);
    mp_listener_close(&l);
    mp_listener_close(&l);
    CHECK_EQ(access(path, F_OK), -1);
}

SPEC("listener: CON-19 who calls where nobody is, or waits too long") {
    mp_address address;
    mp_calling calling = {.fd = -1, .conn = {.fd = -1}};
    mp_conn c;
    address_of(&address, "nobody");
    CHECK_EQ(mp_call(&calling, &address, NULL, &c, wire_soon()),
             -ECONNREFUSED);
    CHECK_OK(mp_address_unix(&address, "/nowhere/at/all", 15));
    CHECK_EQ(mp_call(&calling, &address, NULL, &c, wire_soon()), -ENOENT);
    mp_listener l;
    open_listener(&l, "slow", 60);
    double start = spec_now();
    int r;
    mp_deadline deadline = mp_deadline_in(0.15);
    while ((r = mp_call(&calling, &l.address, &secret, &c, deadline)) ==
           -EINTR) {
    }
    CHECK_EQ(r, -ETIMEDOUT);
    CHECK(spec_now() - start >= 0.14);
    mp_listener_close(&l);
}

SPEC("listener: a name may be too long, and must be one") {
    mp_address a;
    char name[200];
    memset(name, 'x', sizeof name);
    CHECK_EQ(mp_address_unix(&a, name, 200), -ENAMETOOLONG);
    CHECK_EQ(mp_address_unix(&a, name, 108), -ENAMETOOLONG);
    CHECK_OK(mp_address_unix(&a, name, 107));
    CHECK_EQ(mp_address_unix(&a, name, 0), -EINVAL);
    CHECK_EQ(mp_address_unix(&a, "a\0b", 3), -EINVAL);
}
