#include "base/bytes.h"

#include <math.h>
#include <stdlib.h>

#include "harness.h"

static const uint64_t numbers[] = {
    0, 1, 127, 128, 16383, 16384, UINT32_MAX, (uint64_t)1 << 35,
    INT64_MAX, (uint64_t)1 << 63, UINT64_MAX};

#define COUNT (sizeof numbers / sizeof *numbers)

SPEC("bytes: a varint is read as it was written") {
    for (size_t i = 0; i < COUNT; i++) {
        unsigned char p[MP_VARINT_MAX];
        size_t n = (size_t)(mp_varint_put(p, numbers[i]) - p);
        uint64_t back = 0;
        CHECK_EQ(n, mp_varint_size(numbers[i]));
        CHECK(mp_varint_get(p, p + n, &back) == p + n);
        CHECK(back == numbers[i]);
    }
}

SPEC("bytes: a varint that is cut off is refused") {
    for (size_t i = 0; i < COUNT; i++) {
        unsigned char p[MP_VARINT_MAX];
        unsigned char *end = mp_varint_put(p, numbers[i]);
        uint64_t back;
        CHECK(!mp_varint_get(p, end - 1, &back));
    }
}

SPEC("bytes: a varint of more than 64 bits is refused") {
    unsigned char p[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                         0xff, 0xff, 0xff, 0x02, 0x00};
    uint64_t back;
    CHECK(!mp_varint_get(p, p + sizeof p, &back));
    p[9] = 0x81;
    CHECK(!mp_varint_get(p, p + sizeof p, &back));
}

SPEC("bytes: a padded varint has its width and its value") {
    for (size_t width = 2; width <= 9; width++) {
        unsigned char p[MP_VARINT_MAX];
        uint64_t back = 0;
        mp_varint_put_wide(p, 200, width);
        CHECK(mp_varint_get(p, p + width, &back) == p + width);
        CHECK_EQ(back, 200);
    }
}

SPEC("bytes: zigzag keeps small numbers small, and all of them") {
    CHECK_EQ(mp_zigzag(0), 0);
    CHECK_EQ(mp_zigzag(-1), 1);
    CHECK_EQ(mp_zigzag(1), 2);
    for (size_t i = 0; i < COUNT; i++) {
        int64_t v = (int64_t)numbers[i];
        CHECK(mp_unzigzag(mp_zigzag(v)) == v);
        CHECK(mp_zigzag(mp_unzigzag(numbers[i])) == numbers[i]);
    }
}

SPEC("bytes: a double keeps its bits, low byte first") {
    unsigned char p[8];
    mp_double_put(p, -0.0);
    CHECK_EQ(p[7], 0x80);
    CHECK_EQ(p[0], 0);
    CHECK(signbit(mp_double_get(p)));
    mp_double_put(p, 0.1);
    CHECK(mp_double_get(p) <= 0.1 && mp_double_get(p) >= 0.1);
}

SPEC("bytes: an array grows by doubling and keeps what is in it") {
    size_t cap = 0;
    int *a = mp_grow(NULL, &cap, sizeof *a, 3);
    CHECK(a && cap == 3);
    a[2] = 42;
    a = mp_grow(a, &cap, sizeof *a, 4);
    CHECK(a && cap == 6);
    CHECK_EQ(a[2], 42);
    CHECK(!mp_grow(a, &cap, sizeof *a, SIZE_MAX / 2));
    CHECK(cap == 6);
    free(a);
}

SPEC("bytes: siphash gives the paper's result") {
    unsigned char key[16], data[15];
    for (unsigned char i = 0; i < 16; i++)
        key[i] = i;
    for (unsigned char i = 0; i < 15; i++)
        data[i] = i;
    CHECK(mp_siphash(key, data, 15) == 0xa129ca6149be45e5u);
    key[3] ^= 1;
    CHECK(mp_siphash(key, data, 15) != 0xa129ca6149be45e5u);
}
