/* Freed blocks are poison in builds with the address sanitizer; in all others
   this is nothing at all.

   What is poison is known to each process for itself: what it has freed. Of
   a block that another one has freed or made it learns when it follows the
   block's ref: mp_at looks at the state, takes the poison from a block that
   is alive, and reports a stale ref just as a touch of freed memory is
   reported. Places without a generation (offsets into blocks) are trusted,
   and poison if this process has freed the block.
   Safe: threads, processes, child after fork (it knows what its parent
   knew). Blocks: never. */
#ifndef MP_MEM_POISON_H
#define MP_MEM_POISON_H

#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__)
#define MP_POISONS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MP_POISONS 1
#endif
#endif

#ifdef MP_POISONS
#include <sanitizer/asan_interface.h>

/* Poison costs an eighth of it in memory: of large runs, the beginning. */
static inline void mp_poison(const volatile void *p, size_t size) {
    enum { MOST = 1 << 20 };
    __asan_poison_memory_region(p, size < MOST ? size : MOST);
}

static inline void mp_unpoison(const volatile void *p, size_t size) {
    __asan_unpoison_memory_region(p, size);
}

/* Before a ref (or an offset) is followed. */
void mp_poison_look(uint64_t ref);

/* Nothing is poison any more: for who looks at everything. */
void mp_poison_forget(void);
#else
static inline void mp_poison(const volatile void *p, size_t size) {
    (void)p, (void)size;
}

static inline void mp_unpoison(const volatile void *p, size_t size) {
    (void)p, (void)size;
}

static inline void mp_poison_look(uint64_t ref) { (void)ref; }

static inline void mp_poison_forget(void) {}
#endif

#endif
