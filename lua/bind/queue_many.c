/* put_many and get_many. All values are encoded before the first is put;
   values that cannot be rebuilt do not take others along. */
#include <errno.h>

#include "bind/queue.h"
#include "mem/heap.h"

static const char batch_key; /* its address: the metatable of batches */

/* ---- put_many ------------------------------------------------------- */

/* Encoded items on their way; blocks from `put` on are still ours. */
typedef struct batch {
    size_t n, put;
    mp_queue_item items[];
} batch;

static int batch_gc(lua_State *L) {
    batch *b = lua_touserdata(L, 1);
    for (; b->put < b->n; b->put++)
        if (b->items[b->put].kind == MP_QUEUE_BLOCK && mp_me)
            mp_free(b->items[b->put].value);
    return 0;
}

static batch *new_batch(lua_State *L, lua_Integer n) {
    size_t most = (SIZE_MAX - sizeof(batch)) / sizeof(mp_queue_item);
    if ((lua_Unsigned)n > most)
        bind_error(L, "ValueError", "put_many: %I items are too many", n);
    batch *b = lua_newuserdatauv(
        L, sizeof *b + (size_t)n * sizeof(mp_queue_item), 0);
    b->n = b->put = 0;
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &batch_key) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_createtable(L, 0, 1);
        lua_pushcfunction(L, batch_gc);
        lua_setfield(L, -2, "__gc");
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &batch_key);
    }
    lua_setmetatable(L, -2);
    return b;
}

/* Encodes the value on top (popped). Its bytes become or stay a string in
   the table at `anchors`, as item number i. */
static void batch_add(lua_State *L, batch *b, int anchors, lua_Integer i) {
    message_form form;
    message_encode(L, -1, "value", MP_QUEUE_INLINE, &form);
    b->items[b->n] = queue_item_of(&form);
    b->n++;
    if (form.tag == MESSAGE_PACKED) {
        mp_queue_item *item = &b->items[b->n - 1];
        item->data = lua_pushlstring(L, form.data, form.length);
        lua_rawseti(L, anchors, i);
    } else if (form.tag == MESSAGE_STRING) {
        lua_pushvalue(L, -1);
        lua_rawseti(L, anchors, i);
    }
    message_release(L, &form);
    lua_pop(L, 1);
}

/* How many are put before the deadline. */
static size_t put_batch(lua_State *L, bind_object *o, batch *b,
                        mp_deadline deadline) {
    while (b->put < b->n) {
        queue_check_open(L, o);
        int r = (int)mp_queue_put(o->shm, b->items + b->put,
                                  b->n - b->put, &o->extra, deadline);
        if (r > 0)
            b->put += (size_t)r;
        else if (r == -EINTR)
            bind_interrupted(L);
        else if (r == -ETIMEDOUT)
            break;
        else
            queue_fail(L, r, "put_many");
    }
    return b->put;
}

/* put_many(list [, timeout]): encodes all before it puts the first. Full has
   `count`: how many were put. */
int queue_put_many(lua_State *L) {
    bind_object *o = queue_self(L, "put_many");
    if (!lua_istable(L, 2)) bind_argerror(L, "put_many", 2, "list", "list");
    mp_deadline deadline = bind_deadline(L, 3, "put_many");
    lua_settop(L, 2);
    lua_Integer n = bind_list_length(L, 2, "put_many");
    lua_newtable(L);
    batch *b = new_batch(L, n);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_geti(L, 2, i);
        batch_add(L, b, 3, i);
    }
    if (put_batch(L, o, b, deadline) == b->n) return 0;
    bind_pusherror(L, "Full", "put_many: the queue is full");
    lua_pushinteger(L, (lua_Integer)b->put);
    lua_setfield(L, -2, "count");
    lua_pushcfunction(L, batch_gc);
    lua_pushvalue(L, 4);
    lua_call(L, 1, 0);
    return bind_raise_arrived(L);
}

/* ---- get_many ------------------------------------------------------- */

enum { MANY = 64, MANY_BYTES = 4 * MP_QUEUE_INLINE };

typedef struct many {
    bind_object *o;
    lua_Integer n, most; /* items in the list; wanted */
    mp_deadline deadline;
} many;

/* One batch into the list at index 2; 0 when the queue is empty. */
static size_t take_batch(lua_State *L, many *m) {
    unsigned char buffer[MANY_BYTES];
    mp_queue_item items[MANY];
    lua_Integer wanted = m->most - m->n;
    size_t n = wanted < MANY ? (size_t)wanted : MANY;
    n = queue_take(L, m->o, items, n, buffer, sizeof buffer,
                   m->n > 0 ? MP_AT_ONCE : m->deadline, "get_many");
    for (size_t i = 0; i < n; i++) {
        queue_push_item(L, &items[i]);
        lua_rawseti(L, 2, m->n + 1);
        m->n++;
    }
    return n;
}

static int fill(lua_State *L) {
    many *m = lua_touserdata(L, 1);
    queue_check_open(L, m->o); /* a finalizer may have closed it */
    while (m->n < m->most && m->o->shm && take_batch(L, m) > 0) {
    }
    return 0;
}

static void set_length(lua_State *L, int list, lua_Integer n) {
    lua_pushinteger(L, n);
    lua_setfield(L, list, "n");
}

/* Raises the error on top, which came when the list at index 3 had `n` items:
   they must not be lost, so the error carries them as `items`. */
static int fail_with_items(lua_State *L, lua_Integer n) {
    if (n == 0) return lua_error(L);
    set_length(L, 3, n);
    if (!lua_istable(L, -1)) {
        bind_pusherror(L, "PicklingError", "get_many: %s",
                       luaL_tolstring(L, -1, NULL));
        lua_pushvalue(L, -3);
        lua_setfield(L, -2, "value");
    }
    lua_pushliteral(L, "items");
    lua_pushvalue(L, 3);
    lua_rawset(L, -3);
    return lua_error(L);
}

/* get_many(max [, timeout]) -> list with n; at least one item, or Empty. An
   error in rebuilding an item has the items before it as `items`. */
int queue_get_many(lua_State *L) {
    many m = {.o = queue_self(L, "get_many")};
    m.most = bind_integer(L, 2, "get_many", "max", 1, LUA_MAXINTEGER);
    m.deadline = bind_deadline(L, 3, "get_many");
    lua_settop(L, 2);
    lua_newtable(L);
    lua_pushcfunction(L, fill);
    lua_pushlightuserdata(L, &m);
    lua_pushvalue(L, 3);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK) return fail_with_items(L, m.n);
    if (m.n == 0) return queue_raise_empty(L, "get_many");
    set_length(L, 3, m.n);
    return 1;
}
