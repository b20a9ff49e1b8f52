/* mp.Queue, SimpleQueue, JoinableQueue: three views of one shared object.

   Encoding and decoding happen outside of the queue's locks. A value that
   cannot travel is refused before anything is put. */
#include <errno.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/core.h"
#include "bind/message.h"
#include "bind/queue.h"
#include "data/queue.h"
#include "mem/heap.h"
#include "mem/object.h"

enum { QUEUE, SIMPLE_QUEUE, JOINABLE_QUEUE, CLASSES };
static const bind_class classes[CLASSES];

/* ---- self ----------------------------------------------------------- */

static bool is_queue(const bind_object *o) {
    return o->class == &classes[QUEUE] ||
           o->class == &classes[SIMPLE_QUEUE] ||
           o->class == &classes[JOINABLE_QUEUE];
}

static int not_a_queue(lua_State *L, const char *fn) {
    return bind_argerror(L, fn, 1, "self", "Queue");
}

/* An open queue that may be used. */
bind_object *queue_check_open(lua_State *L, bind_object *o) {
    if (!mp_me) bind_open_runtime(L);
    if (!o->shm) bind_error(L, "StateError", "%s is closed", o->class->name);
    return o;
}

static bind_object *self_open_or_closed(lua_State *L, const char *fn) {
    bind_object *o = lua_touserdata(L, 1);
    if (lua_type(L, 1) != LUA_TUSERDATA || lua_rawlen(L, 1) < sizeof *o ||
        !is_queue(o))
        not_a_queue(L, fn);
    return o;
}

bind_object *queue_self(lua_State *L, const char *fn) {
    bind_object *o = self_open_or_closed(L, fn);
    return o->shm && mp_me ? o : queue_check_open(L, o);
}

/* The deadline that Python's (block, timeout) at `arg` say. */
static mp_deadline block_timeout(lua_State *L, int arg, const char *fn) {
    if (lua_gettop(L) < arg) return MP_FOREVER;
    if (!lua_isnoneornil(L, arg) && !lua_isboolean(L, arg))
        bind_argerror(L, fn, arg, "block", "boolean or nil");
    mp_deadline deadline = bind_deadline(L, arg + 1, fn);
    return lua_isboolean(L, arg) && !lua_toboolean(L, arg) ? MP_AT_ONCE
                                                           : deadline;
}

/* The try_ forms: no timeout is at once. */
static mp_deadline try_timeout(lua_State *L, int arg, const char *fn) {
    return lua_isnoneornil(L, arg) ? MP_AT_ONCE : bind_deadline(L, arg, fn);
}

int queue_fail(lua_State *L, int r, const char *fn) {
    const char *kind = "StateError", *why;
    if (r == -EMFILE)
        why = "called from too many nested rebuilding functions";
    else if (r == -EBADMSG)
        why = "the queue's memory is damaged";
    else
        return bind_oserror(L, r, fn);
    return bind_error(L, kind, "%s: %s", fn, why);
}

/* ---- put ------------------------------------------------------------ */

/* The encoded value as an item. */
mp_queue_item queue_item_of(const message_form *form) {
    mp_queue_item item = {.tag = form->tag, .value = form->value};
    if (form->tag >= MESSAGE_NIL) {
        item.kind = MP_QUEUE_WORD;
    } else if (form->tag == MESSAGE_BLOCK) {
        item.kind = MP_QUEUE_BLOCK;
    } else {
        item.kind = MP_QUEUE_BYTES;
        item.data = form->data;
        item.length = (uint32_t)form->length;
        /* Unpickling may fail; then it must not take others along. */
        item.last = form->tag == MESSAGE_PACKED;
    }
    return item;
}

/* True: put. False: full, and the block is freed. */
static bool put_item(lua_State *L, bind_object *o, const mp_queue_item *item,
                     mp_deadline deadline, const char *fn) {
    mp_ref block = item->kind == MP_QUEUE_BLOCK ? item->value : 0;
    int r;
    while ((r = (int)mp_queue_put(o->shm, item, 1, &o->extra, deadline)) ==
           -EINTR) {
        message_interrupted(L, block);
        if (!o->shm) break; /* closed by a hook */
    }
    if (r > 0) return true;
    if (block) mp_free(block);
    if (r == -EINTR) queue_check_open(L, o);
    if (r != -ETIMEDOUT) queue_fail(L, r, fn);
    return false;
}

static bool put_value(lua_State *L, bind_object *o, mp_deadline deadline,
                      const char *fn) {
    mp_queue_item item = {.kind = MP_QUEUE_WORD};
    if (message_scalar(L, 2, &item.tag, &item.value))
        return put_item(L, o, &item, deadline, fn);
    message_form form;
    message_encode(L, 2, "value", MP_QUEUE_INLINE, &form);
    queue_check_open(L, o); /* a hook of the pickler may have closed it */
    item = queue_item_of(&form);
    bool done = put_item(L, o, &item, deadline, fn);
    message_release(L, &form);
    return done;
}

static bind_object *self_and_value(lua_State *L, const char *fn) {
    bind_object *o = queue_self(L, fn);
    if (lua_isnone(L, 2)) bind_argerror(L, fn, 2, "value", "any value");
    return o;
}

static int full(lua_State *L, const char *fn) {
    return bind_error(L, "Full", "%s: the queue is full", fn);
}

/* put(value [, block [, timeout]]) */
static int queue_put(lua_State *L) {
    bind_object *o = self_and_value(L, "put");
    mp_deadline deadline = block_timeout(L, 3, "put");
    if (!put_value(L, o, deadline, "put")) full(L, "put");
    return 0;
}

/* put_nowait(value) */
static int queue_put_nowait(lua_State *L) {
    bind_object *o = self_and_value(L, "put_nowait");
    if (!put_value(L, o, MP_AT_ONCE, "put_nowait")) full(L, "put_nowait");
    return 0;
}

/* try_put(value [, timeout]) -> true | false, "Full" */
static int queue_try_put(lua_State *L) {
    bind_object *o = self_and_value(L, "try_put");
    mp_deadline deadline = try_timeout(L, 3, "try_put");
    bool done = put_value(L, o, deadline, "try_put");
    lua_pushboolean(L, done);
    if (!done) lua_pushliteral(L, "Full");
    return done ? 1 : 2;
}

/* ---- get ------------------------------------------------------------ */

/* Pushes what an item holds. */
void queue_push_item(lua_State *L, const mp_queue_item *item) {
    int n = 1;
    if (item->kind == MP_QUEUE_WORD)
        message_push_scalar(L, item->tag, item->value);
    else if (item->kind == MP_QUEUE_BLOCK)
        n = message_take(L, item->value, item->hand);
    else
        n = message_push_bytes(L, item->tag, item->data, item->length);
    if (n != 1) lua_settop(L, lua_gettop(L) - n + 1);
}

size_t queue_take(lua_State *L, bind_object *o, mp_queue_item *items,
                  size_t n, void *buffer, size_t size, mp_deadline deadline,
                  const char *fn) {
    int r;
    while ((r = (int)mp_queue_get(o->shm, items, n, buffer, size, &o->extra,
                                  deadline)) == -EINTR) {
        bind_interrupted(L);
        queue_check_open(L, o);
    }
    if (r < 0 && r != -ETIMEDOUT) queue_fail(L, r, fn);
    return r > 0 ? (size_t)r : 0;
}

/* Pushes an item's value, or returns false when there is none. */
static bool get_value(lua_State *L, bind_object *o, mp_deadline deadline,
                      const char *fn) {
    unsigned char buffer[MP_QUEUE_INLINE];
    mp_queue_item item;
    if (!queue_take(L, o, &item, 1, buffer, sizeof buffer, deadline, fn))
        return false;
    queue_push_item(L, &item);
    return true;
}

int queue_raise_empty(lua_State *L, const char *fn) {
    return bind_error(L, "Empty", "%s: the queue is empty", fn);
}

/* get([block [, timeout]]) -> value */
static int queue_get(lua_State *L) {
    bind_object *o = queue_self(L, "get");
    mp_deadline deadline = block_timeout(L, 2, "get");
    if (!get_value(L, o, deadline, "get")) queue_raise_empty(L, "get");
    return 1;
}

/* get_nowait() -> value */
static int queue_get_nowait(lua_State *L) {
    bind_object *o = queue_self(L, "get_nowait");
    if (!get_value(L, o, MP_AT_ONCE, "get_nowait"))
        queue_raise_empty(L, "get_nowait");
    return 1;
}

/* try_get([timeout]) -> true, value | false, "Empty" */
static int queue_try_get(lua_State *L) {
    bind_object *o = queue_self(L, "try_get");
    mp_deadline deadline = try_timeout(L, 2, "try_get");
    lua_settop(L, 1);
    lua_pushboolean(L, true);
    if (get_value(L, o, deadline, "try_get")) return 2;
    lua_pushboolean(L, false);
    lua_pushliteral(L, "Empty");
    return 2;
}

/* ---- state ---------------------------------------------------------- */

/* qsize() -> integer */
static int queue_qsize(lua_State *L) {
    bind_object *o = queue_self(L, "qsize");
    lua_pushinteger(L, (lua_Integer)mp_queue_size(o->shm));
    return 1;
}

/* empty() -> boolean */
static int queue_empty(lua_State *L) {
    bind_object *o = queue_self(L, "empty");
    lua_pushboolean(L, mp_queue_size(o->shm) == 0);
    return 1;
}

/* full() -> boolean */
static int queue_full(lua_State *L) {
    bind_object *o = queue_self(L, "full");
    const mp_queue_shm *q = o->shm;
    lua_pushboolean(L, q->maxsize > 0 && mp_queue_size(q) >= q->maxsize);
    return 1;
}

/* close(): this handle puts and gets no more; others are not concerned. */
static int queue_close(lua_State *L) {
    bind_object *o = self_open_or_closed(L, "close");
    if (!o->shm) return 0;
    o->shm = NULL;
    if (mp_me) mp_object_detach(o->id);
    return 0;
}

/* join_thread(): there is no thread, every item is where it belongs when put
   returns. Wants close() before, as Python does. */
static int queue_join_thread(lua_State *L) {
    bind_object *o = self_open_or_closed(L, "join_thread");
    if (o->shm)
        bind_error(L, "StateError", "join_thread: %s is not closed",
                   o->class->name);
    return 0;
}

/* cancel_join_thread(): nothing to cancel. */
static int queue_cancel_join_thread(lua_State *L) {
    self_open_or_closed(L, "cancel_join_thread");
    return 0;
}

/* task_done(): an item that was taken is worked off. */
static int queue_task_done(lua_State *L) {
    bind_object *o = queue_self(L, "task_done");
    if (mp_queue_done(o->shm) < 0)
        bind_error(L, "ValueError", "task_done() called too many times");
    return 0;
}

/* join([timeout]) -> boolean: was each item put worked off? */
static int queue_join(lua_State *L) {
    bind_object *o = queue_self(L, "join");
    mp_deadline deadline = bind_deadline(L, 2, "join");
    int r;
    while ((r = mp_queue_join(o->shm, deadline)) == -EINTR) {
        bind_interrupted(L);
        queue_check_open(L, o);
    }
    lua_pushboolean(L, r == 0);
    return 1;
}

/* ---- classes -------------------------------------------------------- */

#define COMMON                                                              \
    {"put", queue_put}, {"get", queue_get}, {"try_put", queue_try_put},     \
        {"try_get", queue_try_get}, {"put_many", queue_put_many},           \
        {"get_many", queue_get_many}, {"qsize", queue_qsize},               \
        {"empty", queue_empty}, {"close", queue_close}

#define BOUNDED                                                             \
    {"put_nowait", queue_put_nowait}, {"get_nowait", queue_get_nowait},     \
        {"full", queue_full}, {"join_thread", queue_join_thread},           \
        {"cancel_join_thread", queue_cancel_join_thread}

static const luaL_Reg queue_methods[] = {COMMON, BOUNDED, {NULL, NULL}};
static const luaL_Reg simple_methods[] = {COMMON, {NULL, NULL}};
static const luaL_Reg joinable_methods[] = {
    COMMON, BOUNDED, {"task_done", queue_task_done}, {"join", queue_join},
    {NULL, NULL}};

static const bind_class classes[CLASSES] = {
    {.name = "Queue", .code = 12, .type = MP_TYPE_QUEUE,
     .methods = queue_methods},
    {.name = "SimpleQueue", .code = 13, .type = MP_TYPE_QUEUE,
     .methods = simple_methods},
    {.name = "JoinableQueue", .code = 14, .type = MP_TYPE_QUEUE,
     .methods = joinable_methods}};

static int new_queue(lua_State *L, const bind_class *class,
                     lua_Integer maxsize) {
    bind_open_runtime(L);
    bind_object *o = bind_new(L, class, sizeof *o);
    int r = mp_queue_create(maxsize > 0 ? (uint64_t)maxsize : 0, &o->id,
                            &o->gen);
    if (r < 0) bind_oserror(L, r, class->name);
    o->shm = mp_object_block(o->id);
    return 1;
}

/* Queue([maxsize]): 0 or less is unbounded. */
static lua_Integer maxsize_at(lua_State *L, int arg, const char *fn) {
    if (lua_isnoneornil(L, arg)) return 0;
    return bind_integer(L, arg, fn, "maxsize", LUA_MININTEGER,
                        LUA_MAXINTEGER);
}

static int core_queue(lua_State *L) {
    return new_queue(L, &classes[QUEUE], maxsize_at(L, 1, "Queue"));
}

static int core_simple_queue(lua_State *L) {
    return new_queue(L, &classes[SIMPLE_QUEUE], 0);
}

static int core_joinable_queue(lua_State *L) {
    return new_queue(L, &classes[JOINABLE_QUEUE],
                     maxsize_at(L, 1, "JoinableQueue"));
}

void bind_queue_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"Queue", core_queue},
        {"SimpleQueue", core_simple_queue},
        {"JoinableQueue", core_joinable_queue},
        {NULL, NULL}};
    mp_queue_declare();
    for (int i = 0; i < CLASSES; i++) bind_class_open(&classes[i]);
    luaL_setfuncs(L, functions, 0);
}
