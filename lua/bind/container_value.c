/* Values and keys of containers as a table's bytes, and back.

   A scalar is a word, a string its bytes, a container a handle without a
   pickle around it (nested ones are read often), and all else is pickled. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "bind/container.h"
#include "bind/pack.h"
#include "mem/heap.h"
#include "mem/object.h"

/* A tag of ours, beside those of messages. */
enum { TAG_CONTAINER = 0x80 };
_Static_assert((int)TAG_CONTAINER >= (int)MESSAGE_TAGS, "tags differ");
_Static_assert(sizeof(mp_table_handle) == sizeof(pack_handle) &&
                   offsetof(mp_table_handle, gen) ==
                       offsetof(pack_handle, gen),
               "the pickler's handles are the table's");

/* ---- to bytes ------------------------------------------------------- */

static void encode_container(const bind_object *o, container_form *form) {
    form->handle[0] = o->class->code;
    form->handle[1] = o->id;
    form->handle[2] = o->gen;
    form->handle[3] = o->aux;
    form->held = (mp_table_handle){o->id, o->gen};
    form->value.tag = TAG_CONTAINER;
    form->value.data = form->handle;
    form->value.length = sizeof form->handle;
    form->value.handles = &form->held;
    form->value.n_handles = 1;
}

static void encode_packed(lua_State *L, int idx, const char *what,
                          container_form *form) {
    pack_out *out = pack_begin_shared(L);
    pack_value(L, out, idx, what);
    form->packed = true;
    form->value.tag = MESSAGE_PACKED;
    form->value.data = out->data;
    form->value.length = out->len;
    form->value.handles = (const mp_table_handle *)(void *)out->handles;
    form->value.n_handles = out->nhandles;
}

void container_encode(lua_State *L, int idx, const char *what,
                      container_form *form) {
    idx = lua_absindex(L, idx);
    luaL_checkstack(L, 6, "a value of a container");
    form->packed = false;
    if (container_scalar(L, idx, &form->value)) {
        lua_pushnil(L);
    } else if (lua_type(L, idx) == LUA_TSTRING) {
        form->value.tag = MESSAGE_STRING;
        form->value.data = lua_tolstring(L, idx, &form->value.length);
        lua_pushvalue(L, idx);
    } else if (container_kind(L, idx) >= 0 &&
               ((bind_object *)lua_touserdata(L, idx))->shm) {
        encode_container(lua_touserdata(L, idx), form);
        lua_pushvalue(L, idx);
    } else {
        encode_packed(L, idx, what, form);
    }
}

void container_release(lua_State *L, const container_form *form) {
    if (form->packed) pack_end(L, -1);
    lua_pop(L, 1);
}

/* ---- keys ----------------------------------------------------------- */

static int refuse_key(lua_State *L, int idx, const char *fn,
                      const char *what) {
    const char *got = luaL_typename(L, idx);
    if (luaL_getmetafield(L, idx, "__name") == LUA_TSTRING)
        got = lua_tostring(L, -1);
    return bind_error(L, "TypeError",
                      "%s: a key must be a string, number or boolean, got "
                      "%s%s%s",
                      fn, got, what ? " in " : "", what ? what : "");
}

/* Of two numbers that are equal, one is the key: the integer. */
static void number_key(lua_State *L, int idx, const char *fn,
                       mp_table_value *key) {
    lua_Integer n;
    lua_Number x = lua_tonumber(L, idx);
    if (isnan(x))
        bind_error(L, "ValueError", "%s: a key must not be NaN", fn);
    if (lua_isinteger(L, idx) || !lua_numbertointeger(x, &n) ||
        (lua_Number)n != x) {
        message_scalar(L, idx, &key->tag, &key->word);
    } else {
        key->tag = MESSAGE_INTEGER;
        key->word = (uint64_t)n;
    }
}

void container_key(lua_State *L, int idx, const char *fn, const char *what,
                   mp_table_value *key) {
    *key = (mp_table_value){0};
    int type = lua_type(L, idx);
    if (type == LUA_TNUMBER) {
        number_key(L, idx, fn, key);
    } else if (type == LUA_TSTRING) {
        if (message_scalar(L, idx, &key->tag, &key->word)) return;
        key->tag = MESSAGE_STRING;
        key->data = lua_tolstring(L, idx, &key->length);
    } else if (type == LUA_TBOOLEAN) {
        message_scalar(L, idx, &key->tag, &key->word);
    } else {
        refuse_key(L, idx, fn, what);
    }
}

/* ---- from bytes ----------------------------------------------------- */

/* Registry: identity -> the view of that container that was read last, as
   long as there is one (weak). Who reads d.config over and over makes no
   garbage that way. The key is an address of ours. */
static const char views;

static void push_views(lua_State *L) {
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &views) == LUA_TTABLE) return;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "v");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &views);
}

void container_charge(lua_State *L, uint64_t entries) {
    enum { ENTRY = 32 };
    uint64_t kilobytes = entries * ENTRY >> 10;
    if (kilobytes > 0 && lua_gc(L, LUA_GCISRUNNING))
        lua_gc(L, LUA_GCSTEP, kilobytes > INT_MAX ? INT_MAX
                                                  : (int)kilobytes);
}

static lua_Integer identity_of(const uint32_t handle[4]) {
    return (lua_Integer)((uint64_t)handle[2] << 32 | handle[1]);
}

/* Pushes the view there is of the container {code, id, gen, aux}, if it is
   open, else nothing. */
static bool push_known(lua_State *L, const uint32_t handle[4]) {
    push_views(L);
    lua_rawgeti(L, -1, identity_of(handle));
    lua_remove(L, -2);
    const bind_object *o = lua_touserdata(L, -1);
    if (o && o->shm && o->class->code == handle[0]) return true;
    lua_pop(L, 1);
    return false;
}

/* Pushes a view of a container. */
static void push_view(lua_State *L, const uint32_t handle[4]) {
    luaL_checkstack(L, 8, "a view of a container");
    if (push_known(L, handle)) return;
    push_views(L);
    bind_push_handle(L, (uint8_t)handle[0], handle[1], handle[2], handle[3]);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, identity_of(handle));
    lua_remove(L, -2);
    const bind_object *o = lua_touserdata(L, -1);
    container_charge(L, mp_table_length(o->shm));
}

void container_push(lua_State *L, const mp_table_value *value) {
    uint32_t handle[4];
    if (!value->data) {
        message_push_scalar(L, value->tag, value->word);
    } else if (value->tag != TAG_CONTAINER) {
        int n = message_push_bytes(L, value->tag, value->data,
                                   value->length);
        if (n != 1)
            bind_error(L, "PicklingError", "a container is damaged: %d "
                       "values, expected 1", n);
    } else if (value->length == sizeof handle) {
        memcpy(handle, value->data, sizeof handle);
        push_view(L, handle);
    } else {
        bind_error(L, "PicklingError", "a container is damaged: a handle of "
                   "%d bytes", (int)value->length);
    }
}

/* ---- room ----------------------------------------------------------- */

/* The keeper of a reading, which an error leaves to the collector.
   tag  of the participant that owns the block: in a copy of that, a forked
        child, it is not there to be freed */
typedef struct keeper_box {
    mp_ref keeper;
    uint32_t tag;
} keeper_box;

static void box_free(keeper_box *box) {
    if (box->keeper && mp_me && mp_me->tag == box->tag) mp_free(box->keeper);
    box->keeper = 0;
}

static int box_gc(lua_State *L) {
    box_free(lua_touserdata(L, 1));
    return 0;
}

static keeper_box *push_box(lua_State *L) {
    keeper_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (keeper_box){0, mp_me->tag};
    if (luaL_newmetatable(L, "mp.container.keeper")) {
        lua_pushcfunction(L, box_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return box;
}

void container_room_begin(container_room *r) {
    r->room = (mp_table_room){.at = r->few, .size = sizeof r->few};
    r->box = NULL;
}

static void grow_keeper(lua_State *L, container_room *r) {
    if (!r->box) r->box = push_box(L);
    box_free(r->box);
    r->box->keeper = mp_table_keeper(r->room.need_keeper);
    if (!r->box->keeper)
        bind_oserror(L, -ENOMEM, "cannot read a container");
    r->room.keeper = r->box->keeper;
}

bool container_room_grow(lua_State *L, container_room *r, int code) {
    if (code != -ENOBUFS) return false;
    luaL_checkstack(L, 6, "reading a container");
    size_t need = r->room.need;
    if (need > r->room.size) {
        /* What others add meanwhile shall not make this a long race. */
        if (r->room.at != r->few) need += need / 4;
        r->room.at = lua_newuserdatauv(L, need, 0);
        r->room.size = need;
    }
    if (r->room.need_keeper > 0)
        grow_keeper(L, r);
    else if (r->box)
        mp_message_drop(r->box->keeper); /* it was filled in vain */
    return true;
}

void container_room_end(container_room *r) {
    if (r->box) box_free(r->box);
}

/* ---- one entry ------------------------------------------------------ */

/* Pushes the container that was read without a keeper, if there is a view of
   it: that holds it. */
static bool push_held(lua_State *L, int code, const mp_table_value *value) {
    uint32_t handle[4];
    if (code != -ENOBUFS || value->tag != TAG_CONTAINER || !value->data ||
        value->length != sizeof handle)
        return false;
    luaL_checkstack(L, 8, "a view of a container");
    memcpy(handle, value->data, sizeof handle);
    return push_known(L, handle);
}

int container_read(lua_State *L, const bind_object *o,
                   const mp_table_value *key, int64_t position,
                   uint64_t *version) {
    int top = lua_gettop(L), r;
    bool pushed;
    container_room room;
    mp_table_value value;
    container_room_begin(&room);
    do {
        mp_table_shm *t = container_table(L, o);
        r = key ? mp_table_get(t, key, &room.room, &value, version)
                : mp_table_get_at(t, position, &room.room, &value, version);
        pushed = push_held(L, r, &value);
    } while (!pushed && container_room_grow(L, &room, r));
    if (r == 0) container_push(L, &value);
    container_room_end(&room);
    if (!pushed && r < 0) {
        lua_settop(L, top);
        return r == -ENOENT || r == -ERANGE ? r : container_fail(L, r, "get");
    }
    if (lua_gettop(L) > top + 1) {
        lua_replace(L, top + 1);
        lua_settop(L, top + 1);
    }
    return 0;
}

static int push_taken(lua_State *L) {
    const mp_table_taken *taken = lua_touserdata(L, 1);
    bool with_key = lua_toboolean(L, 2);
    lua_settop(L, 0);
    if (with_key) container_push(L, &taken->key);
    container_push(L, &taken->value);
    return lua_gettop(L);
}

void container_push_taken(lua_State *L, mp_table_taken *taken,
                          bool with_key) {
    if (!taken->value.data && !with_key) {
        mp_table_release(taken);
        container_push(L, &taken->value);
        return;
    }
    lua_pushcfunction(L, push_taken);
    lua_pushlightuserdata(L, taken);
    lua_pushboolean(L, with_key);
    int r = lua_pcall(L, 2, with_key ? 2 : 1, 0);
    mp_table_release(taken);
    if (r != LUA_OK) lua_error(L);
}
