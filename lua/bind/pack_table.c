/* The decoder's part for scalars and tables, where most of its time goes.

   A table is filled without a frame as long as what it holds needs none: a
   list of flat records takes one frame in all.  The first thing inside that
   is no scalar makes it open one, and pack_read.c goes on from there. */
#include <time.h>

#include "bind/bind.h"
#include "bind/pack_impl.h"

/* ---- scalars -------------------------------------------------------- */

static int quick_slot(const unpacker *u, uint64_t number) {
    return u->base + UNPACK_SLOTS + 1 + (int)number;
}

static void read_short_key(unpacker *u, bool shared) {
    uint64_t number = u->keys++;
    unpack_string(u, *unpack_bytes(u, 1));
    if (shared && number < UNPACK_QUICK) {
        lua_copy(u->L, -1, quick_slot(u, number));
        u->quick |= (uint32_t)1 << number;
    } else {
        unpack_keep(u, UNPACK_SLOT_KEYS, number, shared);
    }
}

static inline void push_key(unpacker *u, uint64_t number) {
    if (number < UNPACK_QUICK && u->quick >> number & 1)
        lua_pushvalue(u->L, quick_slot(u, number));
    else
        unpack_kept(u, UNPACK_SLOT_KEYS, number);
}

static inline bool scalar(unpacker *u) {
    lua_State *L = u->L;
    if (u->p == u->end)
        unpack_damaged(u, "the end is missing");
    int tag = *u->p++;
    if (tag < TAG_STRING0) {
        lua_pushinteger(L, tag - TAG_INT0);
        return true;
    }
    if (tag < TAG_KEYREF0) {
        unpack_string(u, (uint64_t)(tag - TAG_STRING0));
        return true;
    }
    if (tag < TAG_NIL) {
        push_key(u, (uint64_t)(tag - TAG_KEYREF0));
        return true;
    }
    switch (tag) {
    case TAG_NIL: lua_pushnil(L); break;
    case TAG_FALSE: lua_pushboolean(L, 0); break;
    case TAG_TRUE: lua_pushboolean(L, 1); break;
    case TAG_INT:
        lua_pushinteger(L, mp_unzigzag(unpack_number(u, UINT64_MAX)));
        break;
    case TAG_FLOAT:
        lua_pushnumber(L, mp_double_get(unpack_bytes(u, 8)));
        break;
    case TAG_STR: unpack_string(u, unpack_number(u, UINT64_MAX)); break;
    case TAG_KEY: read_short_key(u, false); break;
    case TAG_KEY | TAG_SHARED: read_short_key(u, true); break;
    case TAG_KEYREF:
        push_key(u, unpack_number(u, UINT32_MAX));
        break;
    default: u->p--; return false;
    }
    return true;
}

bool unpack_scalar(unpacker *u) {
    return scalar(u);
}

/* ---- time ----------------------------------------------------------- */

/* Lua hashes numbers without a secret: who chooses keys that collide makes
   each take as long as all before it.  So bytes of strangers get no more
   processor time than any honest ones could need. */
enum { SECONDS_AT_LEAST = 4, NS_PER_PAIR = 20000 };

static int64_t processor_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void look_at_clock(unpacker *u) {
    u->patience = UNPACK_LOOK;
    if (u->flags & PACK_CODE)
        return;
    int64_t now = processor_time();
    if (!u->stop)
        u->stop = now + (int64_t)SECONDS_AT_LEAST * 1000000000;
    u->stop += (int64_t)NS_PER_PAIR * UNPACK_LOOK;
    if (now > u->stop)
        bind_error(u->L, "PicklingError", "gave up loading at byte %I: its "
                   "keys collide, as if they were chosen to",
                   (LUAI_UACINT)(u->p - u->start));
}

void unpack_call(unpacker *u, int arguments, int results) {
    int64_t before = u->stop ? processor_time() : 0;
    lua_call(u->L, arguments, results);
    if (u->stop)
        u->stop += processor_time() - before;
}

/* ---- tables --------------------------------------------------------- */

/* Is there another pair of an open table that has had all that is certain?
   More than it announced would make Lua rehash the table, which takes no
   look at the clock. */
static bool next_open_pair(unpacker *u, unpack_frame *f) {
    if (u->p < u->end && *u->p == TAG_END) {
        u->p++;
        return false;
    }
    if (f->more == 0)
        unpack_damaged(u, "more pairs than were announced");
    f->more--;
    return true;
}

/* Is there another pair? Then counts it as begun. */
static inline bool next_pair(unpacker *u, unpack_frame *f) {
    if (--u->patience == 0)
        look_at_clock(u);
    if (f->pairs > 0) {
        f->pairs--;
        return true;
    }
    return f->open && next_open_pair(u, f);
}

/* The key on top: may it be one? */
static void check_key(unpacker *u) {
    bool bad = lua_isnil(u->L, -1);
    if (lua_type(u->L, -1) == LUA_TNUMBER) {
        lua_Number n = lua_tonumber(u->L, -1);
        bad = n != n;
    }
    if (bad)
        unpack_damaged(u, "a key is nil or not a number");
}

/* Pushes a key if it is a scalar. */
static inline bool read_key(unpacker *u) {
    if (u->p < u->end && *u->p >= TAG_KEYREF0 && *u->p < TAG_NIL) {
        push_key(u, *u->p++ - (uint64_t)TAG_KEYREF0);
        return true; /* a string */
    }
    if (!scalar(u))
        return false;
    check_key(u);
    return true;
}

/* Stores the value on top under the key in its slot. */
static void store_pair(unpacker *u, unpack_frame *f, int table) {
    lua_pushvalue(u->L, table + 1);
    lua_insert(u->L, -2);
    lua_rawset(u->L, table);
    f->state = UNPACK_NEXT;
}

void unpack_table_take(unpacker *u, unpack_frame *f, int table) {
    if (f->state == UNPACK_ITEMS) {
        lua_rawseti(u->L, table, (lua_Integer)++f->next);
    } else if (f->state == UNPACK_KEY) {
        check_key(u);
        lua_replace(u->L, table + 1);
        f->state = UNPACK_VALUE;
    } else {
        store_pair(u, f, table);
    }
}

/* Reads up to the first thing that is no scalar; true: the table is done. */
static bool fill_scalars(unpacker *u, unpack_frame *f, int table) {
    lua_State *L = u->L;
    if (f->state == UNPACK_ITEMS) {
        while (f->next < f->limit) {
            if (!scalar(u))
                return false;
            lua_rawseti(L, table, (lua_Integer)++f->next);
        }
        f->state = UNPACK_NEXT;
    } else if (f->state == UNPACK_KEY) {
        return false; /* it is no scalar: that is why we stopped */
    } else if (f->state == UNPACK_VALUE) {
        if (!scalar(u))
            return false;
        store_pair(u, f, table);
    }
    while (next_pair(u, f)) {
        if (!read_key(u)) {
            f->state = UNPACK_KEY;
            return false;
        }
        if (!scalar(u)) {
            lua_replace(L, table + 1);
            f->state = UNPACK_VALUE;
            return false;
        }
        lua_rawset(L, table);
    }
    return true;
}

bool unpack_table_fill(unpacker *u, unpack_frame *f) {
    int table = pack_slot(&u->window, u->nframes - 1);
    while (!fill_scalars(u, f, table)) {
        if (!unpack_thing(u))
            return false;
        unpack_table_take(u, f, table);
    }
    return true;
}

bool unpack_table(unpacker *u, bool shared) {
    lua_State *L = u->L;
    uint64_t number = u->things++;
    unsigned hint = *unpack_bytes(u, 1);
    uint64_t items = unpack_number(u, UINT64_MAX);
    uint64_t most =
        hint < TABLE_OPEN ? hint : (uint64_t)1 << (hint - TABLE_OPEN);
    uint64_t pairs = hint < TABLE_OPEN ? hint : most / 2 + 1;
    unpack_claim(u, items, pairs);
    lua_createtable(L, unpack_capped(items), unpack_capped(most));
    unpack_keep(u, UNPACK_SLOT_REFS, number, shared);
    lua_pushnil(L); /* the key's slot */
    unpack_frame f = {.kind = FRAME_TABLE, .limit = items, .pairs = pairs,
                      .more = most - pairs, .open = hint >= TABLE_OPEN};
    if (fill_scalars(u, &f, lua_gettop(L) - 1)) {
        lua_pop(L, 1);
        return true;
    }
    unpack_frame *opened = unpack_open(u, FRAME_TABLE);
    lua_pop(L, 1); /* its key's slot: there is one */
    f.owed = opened->owed;
    *opened = f;
    return false;
}
