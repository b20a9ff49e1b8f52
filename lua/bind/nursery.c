#include "bind/nursery.h"

#include <lauxlib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bind/cradle.h"
#include "bind/spare.h"
#include "os/pages.h"

enum {
    GRAIN = 16,
    FINE = 1024,        /* up to here a class for each multiple of GRAIN */
    FINE_CLASSES = FINE / GRAIN,
    MOST = 32768,       /* from FINE to here, four for each doubling */
    CLASSES = FINE_CLASSES + 5 * 4,
    RUN = 32768,        /* what a class takes from a chunk, at least */
    RUN_PIECES = 8,
    CHUNK_BITS = 22,
    ADDRESS_BITS = 48
};

#define CHUNK ((size_t)1 << CHUNK_BITS)
#define MAP_BYTES ((size_t)1 << (ADDRESS_BITS - CHUNK_BITS - 3))

typedef struct piece {
    struct piece *next;
} piece;

typedef struct size_class {
    piece *free;
    char *at, *end; /* the rest of its run */
} size_class;

typedef struct nursery {
    lua_Alloc before; /* whose is what lies in no chunk of ours */
    void *before_ud;
    unsigned char *map; /* a bit for each chunk that the address space has */
    char *at, *end;     /* the rest of the chunk */
    size_class classes[CLASSES];
} nursery;

/* ---- chunks ----------------------------------------------------------- */

static bool is_ours(const nursery *n, const void *p) {
    uintptr_t chunk = (uintptr_t)p >> CHUNK_BITS;
    return chunk / 8 < MAP_BYTES &&
           n->map[chunk / 8] & (1U << chunk % 8);
}

/* A chunk that begins at a multiple of its size. */
static bool new_chunk(nursery *n) {
    char *p = mp_pages_map(CHUNK, CHUNK);
    if (!p) return false;
    uintptr_t chunk = (uintptr_t)p >> CHUNK_BITS;
    if (chunk / 8 >= MAP_BYTES) {
        mp_pages_unmap(p, CHUNK);
        return false;
    }
    n->map[chunk / 8] |= (unsigned char)(1U << chunk % 8);
    n->at = p;
    n->end = n->at + CHUNK;
    return true;
}

/* ---- classes ---------------------------------------------------------- */

/* The class of a size from 1 to MOST, and what its pieces hold. */
static unsigned class_of(size_t size, size_t *piece_size) {
    if (size <= FINE) {
        unsigned i = (unsigned)((size - 1) / GRAIN);
        *piece_size = (i + 1) * (size_t)GRAIN;
        return i;
    }
    unsigned top = 63U - (unsigned)__builtin_clzll(size - 1);
    unsigned shift = top - 2;
    unsigned quarter = (unsigned)((size - 1) >> shift); /* 4 to 7 */
    *piece_size = ((size_t)quarter + 1) << shift;
    return FINE_CLASSES + (top - 10) * 4 + quarter - 4;
}

static bool new_run(nursery *n, size_class *c, size_t piece_size) {
    size_t size = piece_size * RUN_PIECES;
    if (size < RUN) size = RUN;
    if ((size_t)(n->end - n->at) < size && !new_chunk(n)) return false;
    c->at = n->at;
    c->end = n->at += size;
    return true;
}

static void *take(nursery *n, size_t size) {
    size_t piece_size;
    size_class *c = &n->classes[class_of(size, &piece_size)];
    piece *p = c->free;
    if (p) {
        c->free = p->next;
        return p;
    }
    if ((size_t)(c->end - c->at) < piece_size && !new_run(n, c, piece_size))
        return NULL;
    p = (piece *)(void *)c->at;
    c->at += piece_size;
    return p;
}

static void give_back(nursery *n, void *old, size_t size) {
    size_t piece_size;
    size_class *c = &n->classes[class_of(size, &piece_size)];
    piece *p = old;
    p->next = c->free;
    c->free = p;
}

/* ---- the allocator ---------------------------------------------------- */

/* Moves what lies at `p`, in our chunks or not, to another size. */
static void *move(nursery *n, void *p, size_t osize, size_t nsize) {
    void *to = nsize <= MOST ? take(n, nsize)
                             : n->before(n->before_ud, NULL, 0, nsize);
    /* Lua counts on it that what shrinks stays. */
    if (!to) return nsize <= osize ? p : NULL;
    memcpy(to, p, osize < nsize ? osize : nsize);
    if (is_ours(n, p))
        give_back(n, p, osize);
    else
        n->before(n->before_ud, p, osize, 0);
    return to;
}

static void *allocate(void *ud, void *p, size_t osize, size_t nsize) {
    nursery *n = ud;
    if (!p) {
        if (nsize == 0) return NULL;
        return nsize <= MOST ? take(n, nsize)
                             : n->before(n->before_ud, NULL, osize, nsize);
    }
    bool ours = is_ours(n, p);
    if (nsize == 0) {
        if (ours)
            give_back(n, p, osize);
        else
            n->before(n->before_ud, p, osize, 0);
        return NULL;
    }
    if (ours) {
        size_t is, will;
        if (nsize <= MOST && class_of(osize, &is) == class_of(nsize, &will))
            return p;
        return move(n, p, osize, nsize);
    }
    /* Shrinking in its place costs no page; growing takes a place of ours. */
    if (nsize <= osize || nsize > MOST)
        return n->before(n->before_ud, p, osize, nsize);
    return move(n, p, osize, nsize);
}

bool bind_nursery_fits(lua_State *L) {
    lua_Alloc f = lua_getallocf(L, NULL);
    if (f == allocate || bind_spare_is(f) || bind_cradle_is(f)) return true;
    lua_State *fresh = luaL_newstate();
    if (!fresh) return false;
    bool fits = lua_getallocf(fresh, NULL) == f;
    lua_close(fresh);
    return fits;
}

/* glibc joins small free pieces with their neighbours, and sorts those of no
   bin, when it is asked for a large one; each time it writes into them.
   Elsewhere this does no harm. */
void bind_nursery_prepare(int times) {
    enum { LARGE = 100000 };
    for (int i = 0; i < times; i++) {
        void *volatile p = malloc(LARGE);
        free(p);
    }
}

void bind_nursery_enter(lua_State *L) {
    void *ud;
    lua_Alloc f = lua_getallocf(L, &ud);
    nursery *n = ud;
    if (f == allocate) { /* the parent's: its chunks are inherited, too */
        n->at = n->end = NULL;
        memset(n->classes, 0, sizeof n->classes);
        return;
    }
    n = mp_pages_map(sizeof *n, 0);
    if (!n) return;
    n->map = mp_pages_map(MAP_BYTES, 0);
    if (!n->map) {
        mp_pages_unmap(n, sizeof *n);
        return;
    }
    n->before = f;
    n->before_ud = ud;
    lua_setallocf(L, allocate, n);
}
