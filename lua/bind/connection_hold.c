/* Shared objects on their way over a connection.

   A message in a socket is the kernel's, which knows nothing of our counts.
   So its sender keeps the objects until the message is no more: a descriptor
   goes along that nobody wants, the write end of a pipe, and when the last
   copy of it is closed (the value was made, or the message was dropped
   unread) the read end tells. It is looked at with each message that holds
   objects, and when the collector runs. */
#include <errno.h>
#include <string.h>

#include "bind/bind.h"
#include "bind/connection_impl.h"
#include "mem/object.h"
#include "os/fd.h"

/* Registry: the newest hold, whose user value is the next one; and whether
   the collector will tell us. */
static const char holds_key, watch_key;

/* ends   of the pipe: read, write; -1: closed */
typedef struct hold {
    int ends[2];
    size_t n;
    pack_handle handles[];
} hold;

static void let_go(hold *h) {
    mp_fd_close(h->ends[0]);
    mp_fd_close(h->ends[1]);
    h->ends[0] = h->ends[1] = -1;
    /* In a child forked behind our back they are not ours. */
    for (; h->n > 0; h->n--)
        if (mp_me) mp_object_detach(h->handles[h->n - 1].id);
}

static int hold_gc(lua_State *L) {
    let_go(lua_touserdata(L, 1));
    return 0;
}

/* Is the message no more? */
static bool is_over(const hold *h) {
    return h->ends[0] < 0 ||
           mp_fd_wait(h->ends[0], MP_FD_READ, MP_AT_ONCE) != -ETIMEDOUT;
}

static int watch_gc(lua_State *L);

/* Has watch_gc called at the next collection. */
static void watch(lua_State *L) {
    lua_newuserdatauv(L, 0, 0);
    if (luaL_newmetatable(L, "mp.connection.watch")) {
        lua_pushcfunction(L, watch_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
    lua_pushboolean(L, true);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &watch_key);
}

/* Takes out those that are over; the rest is linked anew, and pushed. */
static void sweep(lua_State *L) {
    lua_pushnil(L); /* what stays */
    int rest = lua_gettop(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &holds_key);
    while (!lua_isnil(L, -1)) {
        hold *h = lua_touserdata(L, -1);
        lua_getiuservalue(L, -1, 1);
        lua_insert(L, -2); /* rest, next, this one */
        if (is_over(h)) {
            let_go(h);
            lua_pop(L, 1);
        } else {
            lua_pushvalue(L, rest);
            lua_setiuservalue(L, -2, 1);
            lua_replace(L, rest);
        }
    }
    lua_pop(L, 1);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &holds_key);
}

static int watch_gc(lua_State *L) {
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &watch_key);
    sweep(L);
    if (!lua_isnil(L, -1)) watch(L);
    return 0;
}

/* Pushes a hold of nothing. */
static hold *new_hold(lua_State *L, size_t n) {
    hold *h = lua_newuserdatauv(L, sizeof *h + n * sizeof *h->handles, 1);
    h->ends[0] = h->ends[1] = -1;
    h->n = 0;
    if (luaL_newmetatable(L, "mp.connection.hold")) {
        lua_pushcfunction(L, hold_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return h;
}

int connection_hold(lua_State *L, const pack_handle *handles, size_t n) {
    luaL_checkstack(L, 8, "shared objects");
    hold *h = new_hold(L, n);
    int r = mp_fd_pipe(h->ends);
    if (r < 0) bind_oserror(L, r, "send");
    for (; h->n < n; h->n++) {
        h->handles[h->n] = handles[h->n];
        if (mp_object_attach(handles[h->n].id, handles[h->n].gen) < 0)
            bind_error(L, "PicklingError", "cannot pickle value: shared "
                       "object #%d no longer exists",
                       (int)handles[h->n].id);
    }
    return h->ends[1];
}

void connection_held(lua_State *L) {
    hold *h = lua_touserdata(L, -1);
    mp_fd_close(h->ends[1]);
    h->ends[1] = -1;
    sweep(L);
    lua_setiuservalue(L, -2, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &holds_key);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &watch_key) == LUA_TNIL) watch(L);
    lua_pop(L, 1);
}
