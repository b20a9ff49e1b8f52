#include "os/pages.h"

#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "harness.h"

enum { BYTES = 1 << 16 };

static bool is_zero(const unsigned char *p, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (p[i]) return false;
    return true;
}

SPEC("pages: they are zero, and begin where they are asked to") {
    for (size_t align = BYTES; align <= (size_t)1 << 24; align *= 4) {
        unsigned char *p = mp_pages_map(BYTES, align);
        CHECK(p != NULL);
        CHECK_EQ((uintptr_t)p % align, 0);
        CHECK(is_zero(p, BYTES));
        p[0] = p[BYTES - 1] = 1;
        mp_pages_unmap(p, BYTES);
    }
}

/* Pages of address space that this process has. */
static long address_pages(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%ld", &pages) == 1);
    fclose(f);
    return pages;
}

SPEC("pages: what is too much of them is given back") {
    enum { TIMES = 64 };
    unsigned char *all[TIMES];
    long before = address_pages(), page = sysconf(_SC_PAGESIZE);
    for (int i = 0; i < TIMES; i++)
        all[i] = mp_pages_map(BYTES, (size_t)1 << 22);
    long taken = address_pages() - before;
    CHECK(taken * page < 2L * TIMES * BYTES);
    for (int i = 0; i < TIMES; i++) mp_pages_unmap(all[i], BYTES);
    CHECK(address_pages() - before <= 16 || spec_valgrind()); /* its own */
}

SPEC("pages: what nobody can have is not had") {
    CHECK(mp_pages_map(SIZE_MAX / 2 + 1, 0) == NULL);
    unsigned char *p = mp_pages_map(BYTES, 0);
    CHECK(p != NULL);
    CHECK_EQ((uintptr_t)p % (uintptr_t)sysconf(_SC_PAGESIZE), 0);
    mp_pages_unmap(p, BYTES);
}
