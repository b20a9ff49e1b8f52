/* What the nouns of synchronisation share, and what other nouns of this
   floor need of the locks: a view of a lock that lies in their own block,
   and to use a lock that a user gives. */
#ifndef MP_BIND_SYNC_H
#define MP_BIND_SYNC_H

#include "bind/bind.h"

/* ---- for other nouns (lock.c) --------------------------------------- */

/* Pushes an RLock that is the mp_rlock_shm at `aux` (> 0) bytes into the
   block of `of`'s object; it keeps that object alive by itself. The owner
   of the block calls mp_lock_bury in its on_death. */
void bind_push_rlock_view(lua_State *L, const bind_object *of, uint32_t aux);

/* The Lock or RLock at `arg`, or NULL; `*recursive`: it is an RLock, its
   `shm` an mp_rlock_shm (else an mp_lock_shm). */
bind_object *bind_test_lock(lua_State *L, int arg, bool *recursive);

/* ---- among these nouns (sync.c) ------------------------------------- */

/* Raises what misuse of a recursive lock raises, for the code that acquire or
   release returned. */
int bind_fail_rlock(lua_State *L, int code);

/* How to acquire and to release what lies at o->shm: 0, MP_LOCK_ABANDONED or
   -errno, as sync/lock.h has it. */
typedef struct bind_lockable {
    int (*acquire)(void *shm, mp_deadline deadline);
    int (*release)(void *shm);
    /* Turns the -errno of either into an error. */
    int (*fail)(lua_State *L, int code);
} bind_lockable;

/* The object of some class at `arg`; raises as bind_check. */
typedef bind_object *(*bind_self)(lua_State *L, int arg);

/* The method acquire([block [, timeout]]) -> boolean [, "abandoned"]. */
int bind_acquire(lua_State *L, bind_self self, const bind_lockable *how);

/* The method guard() -> a value to be closed [, "abandoned"]. */
int bind_guard(lua_State *L, bind_self self, const bind_lockable *how);

/* Waits for ever; true: it was abandoned. */
bool bind_acquire_now(lua_State *L, int arg, bind_self self,
                      const bind_lockable *how);

/* bind_interrupted for one who must tidy up first: true when it raised, the
   error is then pushed. */
bool bind_interrupted_caught(lua_State *L);

/* Gives `o`, which bind_new pushed, the object {id, gen} that the caller
   made after that. */
void bind_adopt(bind_object *o, uint32_t id, uint32_t gen);

/* The parts of bind_sync_open, by file. */
void bind_lock_open(lua_State *L);
void bind_sem_open(lua_State *L);
void bind_cond_open(lua_State *L);
void bind_event_open(lua_State *L);
void bind_barrier_open(lua_State *L);

#endif
