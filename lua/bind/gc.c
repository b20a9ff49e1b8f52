#include "bind/gc.h"

#include <stdbool.h>

#include "bind/nursery.h"

enum {
    SORT_ALL = 200, SORT_SOME = 10, /* times, see nursery.h */
    BIG = 16 * 1024,   /* KB from which a heap is worth the care */
    NURSERY = 2 * 1024, /* KB that a child allocates between collections */
    MINOR = 20          /* percent of the heap, Lua's own way */
};

/* What is known of a state whose heap is big; in the registry under its
   address. */
typedef struct heap {
    int full;  /* KB after the last collection of all, by us */
    bool ages; /* generational, and memory as nursery.h wants it: objects are
                  old at the fork */
} heap;

static const char HEAP;

static heap *heap_of(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &HEAP);
    heap *h = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return h;
}

static heap *new_heap(lua_State *L) {
    heap *h = lua_newuserdatauv(L, sizeof *h, 0);
    *h = (heap){0};
    lua_rawsetp(L, LUA_REGISTRYINDEX, &HEAP);
    return h;
}

/* There is no way to ask for the mode but to set one. From incremental to
   generational is a collection of all, so it is asked only when the heap has
   doubled; one that ages is collected when it has grown by a quarter. */
static void collect_all(lua_State *L, heap *h) {
    bool generational = lua_gc(L, LUA_GCGEN, 0, 0) == LUA_GCGEN;
    if (generational)
        lua_gc(L, LUA_GCCOLLECT);
    else
        lua_gc(L, LUA_GCINC, 0, 0, 0);
    h->ages = generational && bind_nursery_fits(L);
    if (h->ages) bind_nursery_prepare(SORT_ALL);
    h->full = lua_gc(L, LUA_GCCOUNT);
}

void bind_gc_before_fork(lua_State *L) {
    int now = lua_gc(L, LUA_GCCOUNT);
    if (now < BIG || !lua_gc(L, LUA_GCISRUNNING)) return;
    heap *h = heap_of(L);
    if (!h) h = new_heap(L);
    int grown = h->ages || !h->full ? now / 5 * 4 : now / 2;
    if (grown > h->full) {
        collect_all(L, h);
    } else if (h->ages) {
        bind_nursery_prepare(SORT_SOME);
        /* What is new is old after three collections that it survives. */
        for (int i = 0; i < 3; i++) lua_gc(L, LUA_GCSTEP, 0);
    }
    /* A collector that came to think generations do not pay comes back. */
    if (h->ages) lua_gc(L, LUA_GCGEN, 0, 0);
}

void bind_gc_in_child(lua_State *L) {
    int now = lua_gc(L, LUA_GCCOUNT);
    heap *h = now < BIG ? NULL : heap_of(L);
    if (!h || !h->ages) {
        lua_gc(L, LUA_GCSTEP, -now); /* puts the next step off by so much */
        return;
    }
    bind_nursery_enter(L);
    int percent = NURSERY / (now / 100);
    lua_gc(L, LUA_GCGEN, percent < 1 ? 1 : percent < MINOR ? percent : MINOR,
           0);
    lua_gc(L, LUA_GCSTEP, 0); /* from here it counts by that */
}
