/* Barrier. Its action is a Lua function: those who have inherited it by fork
   call their own (the userdata's user value), the others one made from the
   message that the barrier carries. As in cond.c, what is begun is ended. */
#include "sync/barrier.h"

#include <errno.h>
#include <string.h>

#include "bind/message.h"
#include "bind/sync.h"
#include "mem/arena.h"
#include "mem/object.h"

static const bind_class barrier_class;

static bind_object *self(lua_State *L) {
    return bind_check(L, 1, &barrier_class);
}

/* ---- waiting -------------------------------------------------------- */

/* Calls the action of the barrier at index 1. */
static int act(lua_State *L) {
    const mp_barrier_shm *barrier = self(L)->shm;
    if (lua_getiuservalue(L, 1, 1) == LUA_TNIL) {
        lua_settop(L, 1);
        message_push(L, atomic_load(&barrier->action));
        lua_settop(L, 2);
        lua_pushvalue(L, 2);
        lua_setiuservalue(L, 1, 1);
    }
    lua_call(L, 0, 0);
    return 0;
}

/* An action that is running, in the frame of the wait that called it. The
   registry knows the innermost one of this state, under the address of
   `acting`.
   node   of the wait, which the wait takes out of the list
   tag    who runs it: a child that it forks has a copy of all this */
typedef struct running {
    const struct running *outer;
    const mp_barrier_shm *barrier;
    mp_ref node;
    uint32_t tag;
} running;

static const char acting = 0;

static const running *innermost(lua_State *L) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, &acting);
    const running *action = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return action;
}

/* Never raises: the key has been there since bind_barrier_open. */
static void set_innermost(lua_State *L, const running *action) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)action);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &acting);
}

/* Will the turn of those before not end before this call returns? Not so if
   somebody has reset the barrier under its action: then others may act. */
static bool is_own_turn(lua_State *L, const mp_barrier_shm *barrier) {
    const running *a = innermost(L);
    for (; a && a->tag == mp_me->tag; a = a->outer)
        if (a->barrier == barrier &&
            atomic_load(&mp_waiter_at(a->node)->state) == MP_WAITER_WAITING)
            return true;
    return false;
}

static bool call_action(lua_State *L, const mp_barrier_shm *barrier,
                        mp_ref node) {
    running action = {innermost(L), barrier, node, mp_me->tag};
    set_innermost(L, &action);
    lua_pushcfunction(L, act);
    lua_pushvalue(L, 1);
    bool ok = lua_pcall(L, 1, 0, 0) == LUA_OK;
    set_innermost(L, action.outer);
    return ok;
}

/* The last one's part; false: the action raised, its error is pushed. */
static bool trip(lua_State *L, mp_barrier_shm *barrier, mp_ref node) {
    if (atomic_load(&barrier->action) && !call_action(L, barrier, node))
        return false;
    mp_barrier_trip(barrier, node);
    return true;
}

/* As mp_barrier_arrive, after the turn of those before; -EDEADLK: that is the
   caller's own; -EINTR: an error was raised meanwhile and is pushed. */
static int arrive(lua_State *L, mp_barrier_shm *barrier, mp_ref *node) {
    int r;
    while ((r = mp_barrier_arrive(barrier, node)) == -EAGAIN) {
        if (is_own_turn(L, barrier)) return -EDEADLK;
        while (mp_barrier_wait_turn(barrier) == -EINTR)
            if (bind_interrupted_caught(L)) return -EINTR;
    }
    return r;
}

/* The rank, -EPIPE, -ENOMEM, or -EDEADLK, -EINTR as arrive. */
static int64_t pass(lua_State *L, mp_barrier_shm *barrier,
                    mp_deadline deadline) {
    mp_ref node;
    int r = arrive(L, barrier, &node);
    if (r < 0) return r;
    bool raised = r == 1 && !trip(L, barrier, node);
    while (!raised &&
           (r = mp_barrier_wait(barrier, node, deadline)) == -EINTR)
        raised = bind_interrupted_caught(L);
    if (raised) mp_barrier_fail(barrier, node);
    uint32_t rank = mp_barrier_leave(barrier, node);
    return raised ? -EINTR : r < 0 ? r : (int64_t)rank;
}

static mp_deadline wait_deadline(lua_State *L,
                                 const mp_barrier_shm *barrier) {
    if (!lua_isnoneornil(L, 2) || barrier->timeout < 0)
        return bind_deadline(L, 2, "wait");
    return mp_deadline_in(barrier->timeout);
}

/* wait([timeout]) -> 0 .. parties - 1 */
static int barrier_wait(lua_State *L) {
    const bind_object *o = self(L);
    uint32_t id = o->id;
    mp_deadline deadline = wait_deadline(L, o->shm);
    luaL_checkstack(L, 4, "waiting");
    int r = mp_object_attach(id, o->gen);
    if (r < 0) bind_oserror(L, r, "wait");
    int64_t rank = pass(L, o->shm, deadline);
    mp_object_detach(id);
    if (rank == -EINTR) lua_error(L);
    if (rank == -EPIPE)
        bind_error(L, "BrokenBarrier", "the barrier is broken");
    if (rank == -EDEADLK)
        bind_error(L, "StateError",
                   "wait: called by the barrier's own action");
    if (rank < 0) bind_oserror(L, (int)rank, "wait");
    lua_pushinteger(L, rank);
    return 1;
}

static int barrier_reset(lua_State *L) {
    mp_barrier_reset(self(L)->shm);
    return 0;
}

static int barrier_abort(lua_State *L) {
    mp_barrier_break(self(L)->shm);
    return 0;
}

/* ---- the class ------------------------------------------------------ */

static bool push_field(lua_State *L, const char *name) {
    if (strcmp(name, "parties") == 0) {
        const mp_barrier_shm *barrier = self(L)->shm;
        lua_pushinteger(L, barrier->parties);
    } else if (strcmp(name, "n_waiting") == 0) {
        lua_pushinteger(L, mp_barrier_waiting(self(L)->shm));
    } else if (strcmp(name, "broken") == 0) {
        lua_pushboolean(L, mp_barrier_broken(self(L)->shm));
    } else {
        return false;
    }
    return true;
}

/* Upvalue: the table of methods. */
static int barrier_index(lua_State *L) {
    lua_settop(L, 2);
    if (lua_type(L, 2) == LUA_TSTRING && push_field(L, lua_tostring(L, 2)))
        return 1;
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    return 1;
}

static int barrier_tostring(lua_State *L) {
    const bind_object *o = bind_is(L, 1, &barrier_class);
    const mp_barrier_shm *barrier = o && mp_me ? o->shm : NULL;
    if (!barrier)
        lua_pushliteral(L, "<Barrier(closed)>");
    else if (mp_barrier_broken(barrier))
        lua_pushliteral(L, "<Barrier(broken)>");
    else
        lua_pushfstring(L, "<Barrier(waiting=%I/%I)>",
                        (LUAI_UACINT)mp_barrier_waiting(barrier),
                        (LUAI_UACINT)barrier->parties);
    return 1;
}

static const luaL_Reg methods[] = {{"wait", barrier_wait},
                                   {"reset", barrier_reset},
                                   {"abort", barrier_abort},
                                   {NULL, NULL}};
static const luaL_Reg meta[] = {{"__tostring", barrier_tostring},
                                {NULL, NULL}};
/* __index is a function over the table of methods. */
static void finish(lua_State *L) {
    lua_getfield(L, -1, "__index");
    lua_pushcclosure(L, barrier_index, 1);
    lua_setfield(L, -2, "__index");
}

static const bind_class barrier_class = {.name = "Barrier",
                                         .code = 7,
                                         .type = MP_TYPE_BARRIER,
                                         .methods = methods,
                                         .meta = meta,
                                         .finish = finish};

/* To the barrier, a negative timeout is none; to its user, at once. */
static double timeout_argument(lua_State *L) {
    if (lua_isnoneornil(L, 3)) return -1;
    bind_deadline(L, 3, "Barrier"); /* for its checks */
    double seconds = lua_tonumber(L, 3);
    return seconds > 0 ? seconds : 0;
}

/* Barrier(parties [, action [, timeout]]) */
static int new_barrier(lua_State *L) {
    lua_settop(L, 3);
    uint32_t parties = (uint32_t)bind_integer(L, 1, "Barrier", "parties", 1,
                                              INT32_MAX);
    if (!lua_isnil(L, 2) && !lua_isfunction(L, 2))
        bind_argerror(L, "Barrier", 2, "action", "function or nil");
    double timeout = timeout_argument(L);
    bind_open_runtime(L);
    bind_object *o = bind_new(L, &barrier_class, sizeof *o);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, -2, 1);
    mp_ref action = lua_isnil(L, 2) ? 0 : message_new(L, 2, 1, "action");
    uint32_t id, gen;
    int r = mp_barrier_create(parties, timeout, action, &id, &gen);
    if (r < 0) return bind_oserror(L, r, "Barrier");
    bind_adopt(o, id, gen);
    return 1;
}

void bind_barrier_open(lua_State *L) {
    mp_barrier_open();
    bind_class_open(&barrier_class);
    set_innermost(L, NULL);
    lua_pushcfunction(L, new_barrier);
    lua_setfield(L, -2, "Barrier");
}
