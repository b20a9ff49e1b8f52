/* core.sleep, time, monotonic, getpid, getppid, cpu_count, random, terminal:
   what Lua lacks. */
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "bind/bind.h"
#include "bind/core.h"
#include "mem/slot.h"
#include "os/cpu.h"
#include "os/random.h"
#include "os/terminal.h"

/* A thread that is asked to end is woken. */
static int sleep_as_participant(lua_State *L, mp_deadline deadline) {
    int r;
    if (mp_deadline_passed(deadline)) sched_yield();
    while ((r = mp_slot_sleep(deadline)) == -EINTR) bind_interrupted(L);
    return 0;
}

/* Of who takes no part. False: it is not yet time. A signal may have come just
   before the sleep, so that is not long. */
static bool sleep_slice(mp_deadline deadline) {
    mp_deadline slice = mp_deadline_slice(deadline, MP_SLICE_NS);
    struct timespec t = {.tv_sec = (time_t)(slice.ns / 1000000000),
                         .tv_nsec = (long)(slice.ns % 1000000000)};
    int r = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    return r != EINTR && slice.ns == deadline.ns;
}

/* sleep(seconds): 0 or less gives the processor away. */
static int system_sleep(lua_State *L) {
    if (lua_type(L, 1) != LUA_TNUMBER)
        return bind_argerror(L, "sleep", 1, "seconds", "number");
    if (isnan(lua_tonumber(L, 1)))
        return bind_error(L, "ValueError",
                          "sleep: argument 'seconds': number expected, got "
                          "NaN");
    mp_deadline deadline = mp_deadline_in(lua_tonumber(L, 1));
    if (mp_me) return sleep_as_participant(L, deadline);
    while (!sleep_slice(deadline)) bind_interrupted(L);
    return 0;
}

static int system_time(lua_State *L) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    lua_pushnumber(L, (lua_Number)t.tv_sec + (lua_Number)t.tv_nsec / 1e9);
    return 1;
}

static int system_monotonic(lua_State *L) {
    lua_pushnumber(L, (lua_Number)mp_now_ns() / 1e9);
    return 1;
}

static int system_getpid(lua_State *L) {
    lua_pushinteger(L, getpid());
    return 1;
}

static int system_getppid(lua_State *L) {
    lua_pushinteger(L, getppid());
    return 1;
}

static int system_cpu_count(lua_State *L) {
    lua_pushinteger(L, mp_cpu_count());
    return 1;
}

/* random() -> 32 bytes that nobody can foretell: a key */
static int system_random(lua_State *L) {
    char bytes[32];
    int r = mp_random_bytes(bytes, sizeof bytes);
    if (r < 0) return bind_oserror(L, r, "random");
    lua_pushlstring(L, bytes, sizeof bytes);
    return 1;
}

void bind_reseed(lua_State *L) {
    lua_Integer seed[2];
    if (!lua_isfunction(L, -1) || mp_random_bytes(seed, sizeof seed) < 0) {
        lua_pop(L, 1);
        return;
    }
    lua_pushinteger(L, seed[0]);
    lua_pushinteger(L, seed[1]);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK) lua_pop(L, 1); /* a user's own */
}

/* terminal(fd) -> columns of the terminal behind it; nil: there is none */
static int system_terminal(lua_State *L) {
    int width = mp_terminal_width((int)luaL_checkinteger(L, 1));
    if (width < 0) return 0;
    lua_pushinteger(L, width);
    return 1;
}

void bind_system_open(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"sleep", system_sleep},         {"time", system_time},
        {"monotonic", system_monotonic}, {"getpid", system_getpid},
        {"getppid", system_getppid},     {"cpu_count", system_cpu_count},
        {"random", system_random},       {"terminal", system_terminal},
        {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
