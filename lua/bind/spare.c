#include "bind/spare.h"

#include <limits.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <unistd.h>

enum {
    PLACES = 4, /* a sweep of Lua's collector often frees more than one */
    LARGE_STRING = 1 << 20
};

/* Lies in the block that is kept. */
typedef struct spare {
    size_t size; /* that it was freed with; it may be larger */
    pid_t owner;
} spare;

/* luaL_newstate's, which has no ud; the same for all states. */
static _Atomic lua_Alloc before;
static _Atomic(spare *) kept[PLACES];
static atomic_size_t room = BIND_SPARE_MOST; /* what more may be kept */

static void *ask_before(void *p, size_t osize, size_t nsize) {
    return atomic_load_explicit(&before, memory_order_relaxed)(NULL, p, osize,
                                                               nsize);
}

/* Leaves `s` (or nothing) in a place; what was there is this thread's now.
   Release and acquire pair with each other: what is written in the block, and
   who writes in it next. */
static spare *swap(int place, spare *s) {
    if (!s && !atomic_load_explicit(&kept[place], memory_order_relaxed))
        return NULL;
    return atomic_exchange_explicit(&kept[place], s, memory_order_acq_rel);
}

static void give_back(spare *s) {
    if (!s) return;
    atomic_fetch_add_explicit(&room, s->size, memory_order_relaxed);
    ask_before(s, s->size, 0);
}

void bind_spare_drop(void) {
    for (int i = 0; i < PLACES; i++) give_back(swap(i, NULL));
}

/* One that is kept and good for `size` bytes; else NULL. */
static void *take(size_t size) {
    for (int i = 0; i < PLACES; i++) {
        spare *s = swap(i, NULL);
        if (!s) continue;
        if (s->owner != getpid()) {
            give_back(s);
        } else if (s->size >= size && s->size / 2 <= size) {
            atomic_fetch_add_explicit(&room, s->size, memory_order_relaxed);
            return s;
        } else {
            give_back(swap(i, s));
        }
    }
    return NULL;
}

static bool reserve(size_t size) {
    size_t left = atomic_load_explicit(&room, memory_order_relaxed);
    while (left >= size)
        if (atomic_compare_exchange_weak_explicit(&room, &left, left - size,
                                                  memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

/* The latest stands first; the others move on, over the end if need be. */
static void keep(void *block, size_t size) {
    spare *s = block;
    *s = (spare){size, getpid()};
    for (int i = 0; i < PLACES && s; i++) s = swap(i, s);
    give_back(s);
}

static bool is_large(size_t size) {
    return size >= BIND_SPARE_LEAST && size <= BIND_SPARE_MOST;
}

static void *allocate(void *ud, void *p, size_t osize, size_t nsize) {
    (void)ud;
    if (!p && is_large(nsize)) {
        void *block = take(nsize);
        if (block) return block;
    }
    if (p && nsize == 0 && is_large(osize) && reserve(osize)) {
        keep(p, osize);
        return NULL;
    }
    void *block = ask_before(p, osize, nsize);
    if (block || nsize == 0) return block;
    bind_spare_drop(); /* it may be enough */
    return ask_before(p, osize, nsize);
}

void bind_spare_enter(lua_State *L) {
    void *ud;
    lua_Alloc f = lua_getallocf(L, &ud);
    if (ud || f == allocate) return; /* not as it was known */
    atomic_store_explicit(&before, f, memory_order_relaxed);
    lua_setallocf(L, allocate, NULL);
}

void bind_spare_make_room(lua_State *L, size_t size) {
    if (size >= LARGE_STRING && size >> 10 < INT_MAX &&
        lua_gc(L, LUA_GCISRUNNING))
        lua_gc(L, LUA_GCSTEP, (int)(size >> 10));
}

bool bind_spare_is(lua_Alloc f) { return f == allocate; }
