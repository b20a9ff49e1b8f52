#include "bind/task.h"

#include <errno.h>

#include "bind/bind.h"
#include "os/signal.h"
#include "os/threads.h"

static _Thread_local bind_task *here;

/* ---- why ------------------------------------------------------------ */

enum { GO_ON, LATE, CANCELLED };

static uint64_t due_of(const bind_task *task, const mp_job_shm *job) {
    uint64_t since =
        atomic_load_explicit(&task->shm->since, memory_order_relaxed);
    return job->with.timeout_ns && since ? since + job->with.timeout_ns
                                         : UINT64_MAX;
}

static int reason(const bind_task *task) {
    const mp_job_shm *job = task->job;
    if (!job) return GO_ON;
    if (mp_job_cancelled(job)) return CANCELLED;
    return due_of(task, job) <= (uint64_t)mp_now_ns() ? LATE : GO_ON;
}

/* ---- the error ------------------------------------------------------- */

/* Pushes the error that is due to the task, true; or false. Once per item. */
static bool push_error(lua_State *L, bind_task *task) {
    task->pending = false;
    int why = reason(task);
    uint64_t item = atomic_load_explicit(&task->shm->claim.at,
                                         memory_order_relaxed) + 1;
    if (why == GO_ON || task->told == item) return false;
    task->told = item;
    if (why == CANCELLED)
        bind_pusherror(L, "Cancelled", "the task was cancelled");
    else
        bind_pusherror(L, "TaskTimeout",
                       "the task ran longer than its timeout of %f s",
                       (lua_Number)task->job->with.timeout_ns / 1e9);
    return true;
}

static void stop(lua_State *L, lua_Debug *at) {
    (void)at;
    lua_sethook(L, NULL, 0, 0);
    if (here && push_error(L, here)) lua_error(L);
}

void bind_task_raise(lua_State *L) {
    if (here && here->pending && push_error(L, here)) lua_error(L);
}

/* ---- the signal ------------------------------------------------------ */

void bind_task_arm(bind_task *task, uint64_t ns) {
    if (!task->timer.made && mp_timer_make(&task->timer, SIGURG) < 0) return;
    task->armed = ns;
    mp_timer_set(&task->timer, ns);
}

/* Only Lua code is stopped: what a C function has done, it has done. */
static void send(bind_task *task) {
    task->pending = true;
    lua_sethook(task->L, stop, LUA_MASKCOUNT, 1);
}

/* Everything here may be called in a handler: lua_sethook is meant to be, and
   so is timer_settime. */
static void on_signal(int signal) {
    int saved = errno;
    bind_task *task = here;
    (void)signal;
    if (!task) return;
    const mp_job_shm *job = task->job;
    task->armed = UINT64_MAX;
    if (!job) return;
    if (reason(task) != GO_ON) {
        send(task);
    } else if (due_of(task, job) != UINT64_MAX && task->timer.made) {
        bind_task_arm(task, due_of(task, job));
    }
    errno = saved;
}

bool bind_task_signal(void) { return mp_signal_take(SIGURG, on_signal); }

/* ---- the worker ------------------------------------------------------ */

void bind_task_begin(bind_task *task, lua_State *L, mp_worker_shm *shm) {
    *task = (bind_task){.L = L, .shm = shm, .armed = UINT64_MAX};
    atomic_store(&shm->thread, mp_threads_number());
    here = task;
    bind_task_signal();
}

void bind_task_drop(bind_task *task) {
    task->pending = false;
    lua_sethook(task->L, NULL, 0, 0);
}

void bind_task_again(bind_task *task, const mp_job_shm *job) {
    task->job = job;
    if (reason(task) != GO_ON) send(task);
}

void bind_task_end(bind_task *task) {
    task->job = NULL;
    if (here == task) here = NULL;
    mp_timer_close(&task->timer);
}
