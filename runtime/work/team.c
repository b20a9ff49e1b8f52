#include "work/team.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "os/threads.h"
#include "proc/family.h"
#include "work/pool_shm.h"

struct mp_team {
    uint32_t n;
    mp_relative *member[];
};

int mp_team_start(mp_pool_shm *pool, const mp_start *start,
                  const void *owner, mp_team **out) {
    mp_team *team =
        calloc(1, sizeof *team + pool->places * sizeof *team->member);
    if (!team) return -ENOMEM;
    atomic_store(&pool->crew, mp_me->tag);
    int r = 0;
    while (r == 0 && team->n < mp_pool_workers(pool)) {
        r = mp_family_start(&team->member[team->n], owner, true, start);
        if (r == 0) team->n++;
    }
    if (r < 0) {
        mp_team_terminate(pool, team);
        mp_team_leave(team);
        return r;
    }
    atomic_store(&pool->started, 1);
    *out = team;
    return 0;
}

/* Forgets those that have ended. */
static void forget_ended(mp_team *team) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < team->n; i++)
        if (mp_family_wait(team->member[i], MP_AT_ONCE) == 0)
            mp_family_drop(team->member[i]);
        else
            team->member[n++] = team->member[i];
    team->n = n;
}

int mp_team_fill(mp_pool_shm *pool, const mp_start *start,
                 const void *owner, mp_team *team) {
    int r = 0;
    forget_ended(team);
    while (r == 0 && team->n < mp_pool_workers(pool)) {
        r = mp_family_start(&team->member[team->n], owner, true, start);
        if (r == 0) team->n++;
    }
    return r;
}

int mp_team_wait(mp_team *team, mp_deadline deadline) {
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < team->n; i++)
        r = mp_family_wait(team->member[i], deadline);
    return r;
}

void mp_team_ask(mp_pool_shm *pool, mp_ref job) {
    for (uint32_t i = 0; i < mp_pool_all_places(pool); i++) {
        mp_worker_shm *w = &pool->worker[i];
        if (mp_get(&w->claim.job) == job)
            mp_threads_signal(atomic_load(&w->thread), SIGURG);
    }
}

void mp_team_terminate(mp_pool_shm *pool, mp_team *team) {
    mp_proc none = {.ended = true};
    mp_pool_terminate(pool, &none);
    for (uint32_t i = 0; i < team->n; i++)
        mp_proc_signal(&team->member[i]->proc, SIGTERM);
}

void mp_team_leave(mp_team *team) {
    for (uint32_t i = 0; team && i < team->n; i++)
        mp_family_drop(team->member[i]);
    free(team);
}
