/* Memory of this process's own, in whole pages, fresh from the kernel: zero,
   and not there before it is touched.
   Safe: threads; a child after fork. */
#ifndef MP_OS_PAGES_H
#define MP_OS_PAGES_H

#include <stddef.h>

/* `size` bytes at a multiple of `align` (0: of a page; else a power of two
   that is a multiple of it), both counted in whole pages; NULL: there are
   none. Owns: the caller. */
void *mp_pages_map(size_t size, size_t align);

/* Gives back what mp_pages_map returned for this size. */
void mp_pages_unmap(void *pages, size_t size);

#endif
