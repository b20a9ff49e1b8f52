#include "sync/event.h"

#include <errno.h>

#include "bind/sync.h"
#include "mem/arena.h"
#include "mem/object.h"

static const bind_class event_class;

static mp_event_shm *self(lua_State *L) {
    return bind_check(L, 1, &event_class)->shm;
}

static int event_is_set(lua_State *L) {
    lua_pushboolean(L, mp_event_is_set(self(L)));
    return 1;
}

static int event_set(lua_State *L) {
    mp_event_set(self(L));
    return 0;
}

static int event_clear(lua_State *L) {
    mp_event_clear(self(L));
    return 0;
}

/* wait([timeout]) -> was it set? */
static int event_wait(lua_State *L) {
    mp_event_shm *event = self(L);
    mp_deadline deadline = bind_deadline(L, 2, "wait");
    uint32_t sets = mp_event_sets(event);
    int r;
    while ((r = mp_event_wait(event, sets, deadline)) == -EINTR) {
        bind_interrupted(L);
        event = self(L); /* a hook may have closed it */
    }
    lua_pushboolean(L, r == 0);
    return 1;
}

static int event_tostring(lua_State *L) {
    const bind_object *o = bind_is(L, 1, &event_class);
    lua_pushfstring(L, "<Event(%s)>",
                    !o || !o->shm || !mp_me   ? "closed"
                    : mp_event_is_set(o->shm) ? "set"
                                              : "unset");
    return 1;
}

static const luaL_Reg methods[] = {{"is_set", event_is_set},
                                   {"set", event_set},
                                   {"clear", event_clear},
                                   {"wait", event_wait},
                                   {NULL, NULL}};
static const luaL_Reg meta[] = {{"__tostring", event_tostring},
                                {NULL, NULL}};
static const bind_class event_class = {.name = "Event",
                                       .code = 6,
                                       .type = MP_TYPE_EVENT,
                                       .methods = methods,
                                       .meta = meta};

static int new_event(lua_State *L) {
    bind_open_runtime(L);
    bind_object *o = bind_new(L, &event_class, sizeof *o);
    uint32_t id, gen;
    int r = mp_event_create(&id, &gen);
    if (r < 0) return bind_oserror(L, r, "Event");
    bind_adopt(o, id, gen);
    return 1;
}

void bind_event_open(lua_State *L) {
    mp_event_open();
    bind_class_open(&event_class);
    lua_pushcfunction(L, new_event);
    lua_setfield(L, -2, "Event");
}
