#include "bind/cradle.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIZE = 48 << 10, /* a state with its libraries has 25 KB */
    GRAIN = 16,
    MOST = 512, /* bytes of a piece */
    CLASSES = MOST / GRAIN
};

typedef struct piece {
    struct piece *next;
} piece;

/* The head of a block. Only `before` and `before_ud` stay as they are.
   at    where the rest of the block begins
   free  of each class, what was freed */
typedef struct cradle {
    _Alignas(GRAIN) lua_Alloc before;
    void *before_ud;
    char *at;
    piece *free[CLASSES];
} cradle;

_Static_assert(sizeof(cradle) % GRAIN == 0, "pieces are aligned as malloc's");

/* One that has no state; whoever takes it out has it. */
static cradle *_Atomic kept;

static unsigned class_of(size_t size) {
    return (unsigned)((size - 1) / GRAIN);
}

static bool is_ours(const cradle *c, const void *p) {
    return (size_t)((const char *)p - (const char *)c) < SIZE;
}

/* NULL: the block is full. */
static void *take(cradle *c, size_t size) {
    piece **free_ones = &c->free[class_of(size)], *p = *free_ones;
    if (p) {
        *free_ones = p->next;
        return p;
    }
    size_t whole = (class_of(size) + 1) * (size_t)GRAIN;
    if (whole > (size_t)((char *)c + SIZE - c->at)) return NULL;
    p = (piece *)(void *)c->at;
    c->at += whole;
    return p;
}

static void give_back(cradle *c, void *old, size_t size) {
    piece *p = old, **free_ones = &c->free[class_of(size)];
    p->next = *free_ones;
    *free_ones = p;
}

static void *new_piece(cradle *c, size_t osize, size_t nsize) {
    void *p = nsize <= MOST ? take(c, nsize) : NULL;
    return p ? p : c->before(c->before_ud, NULL, osize, nsize);
}

/* A piece of ours gets another size. */
static void *resize(cradle *c, void *p, size_t osize, size_t nsize) {
    if (nsize <= MOST && class_of(osize) == class_of(nsize)) return p;
    void *to = new_piece(c, 0, nsize);
    /* Lua counts on it that what shrinks stays. */
    if (!to) return nsize <= osize ? p : NULL;
    memcpy(to, p, osize < nsize ? osize : nsize);
    give_back(c, p, osize);
    return to;
}

static void *allocate(void *ud, void *p, size_t osize, size_t nsize) {
    cradle *c = ud;
    if (!p) return nsize ? new_piece(c, osize, nsize) : NULL;
    if (!is_ours(c, p)) return c->before(c->before_ud, p, osize, nsize);
    if (nsize) return resize(c, p, osize, nsize);
    give_back(c, p, osize);
    return NULL;
}

void bind_cradle_enter(lua_State *L) {
    cradle *c = atomic_exchange_explicit(&kept, NULL, memory_order_acquire);
    if (!c) c = malloc(SIZE);
    if (!c) return;
    memset(c, 0, sizeof *c);
    c->at = (char *)(c + 1);
    c->before = lua_getallocf(L, &c->before_ud);
    lua_setallocf(L, allocate, c);
}

bool bind_cradle_is(lua_Alloc f) { return f == allocate; }

void bind_cradle_close(lua_State *L) {
    void *ud;
    bool rocked = bind_cradle_is(lua_getallocf(L, &ud));
    lua_close(L);
    /* Release and acquire pair with each other: who writes in it next. */
    if (rocked)
        free(atomic_exchange_explicit(&kept, ud, memory_order_acq_rel));
}

void bind_cradle_drop(void) {
    free(atomic_exchange_explicit(&kept, NULL, memory_order_acquire));
}
