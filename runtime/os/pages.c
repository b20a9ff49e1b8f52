#include "os/pages.h"

#include <stdint.h>
#include <sys/mman.h>

static void *map(size_t size) {
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void *mp_pages_map(size_t size, size_t align) {
    char *p = map(size + align);
    if (!p || align == 0) return p;
    /* What is too much lies before and behind. */
    size_t before = -(uintptr_t)p % align;
    if (before) munmap(p, before);
    if (before < align) munmap(p + before + size, align - before);
    return p + before;
}

void mp_pages_unmap(void *pages, size_t size) { munmap(pages, size); }
