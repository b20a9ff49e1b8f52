/* A team: the workers of a pool (pool.h) that are threads of the caller's
   process. There is no crew: the caller is it, and a worker whose state ends
   begins anew by itself.

   Nobody can kill a thread. So a team that is to stop is asked to; who joins
   it waits for it, and who only leaves it does not: it is in the family then
   (proc/family.h), asked once more at its end, and abandoned.
   Safe: the thread that started it. */
#ifndef MP_WORK_TEAM_H
#define MP_WORK_TEAM_H

#include "work/pool.h"

typedef struct mp_team mp_team;

/* Starts a worker for each place of `pool`, in the family of `owner`, as
   `start` says, whose method is "thread". 0 and *team is the caller's to
   leave; -errno: the pool is terminated then. */
int mp_team_start(mp_pool_shm *pool, const struct mp_start *start,
                  const void *owner, mp_team **team);

/* The pool was resized: starts the workers that are too few. 0; -errno, and
   those that were there still are. */
int mp_team_fill(mp_pool_shm *pool, const struct mp_start *start,
                 const void *owner, mp_team *team);

/* Until all have ended: 0, -ETIMEDOUT, -EINTR. */
int mp_team_wait(mp_team *team, mp_deadline deadline);

/* Whoever runs an item of `job`, which was cancelled, is asked to stop it. */
void mp_team_ask(mp_pool_shm *pool, mp_ref job);

/* All stop, between two items or in their next wait. */
void mp_team_terminate(mp_pool_shm *pool, mp_team *team);

/* Frees it; those that still run go on. NULL: nothing. */
void mp_team_leave(mp_team *team);

#endif
