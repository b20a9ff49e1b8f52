/* What may end the task that a worker runs, from inside: its time is up, or
   its job was cancelled. It gets an error, once, TaskTimeout or Cancelled,
   which it may catch: in Lua code at its next instruction, in a wait of mp at
   once. C code that blocks is not ended so, nor is a coroutine that computes,
   before it comes back: a process is killed then (work/pool.h).

   SIGURG says that there may be a reason, by the thread's own alarm or by
   whoever cancels; what there is, is looked up in the worker's place. While
   nothing is timed this costs nothing.
   Safe: the worker's thread. */
#ifndef MP_BIND_TASK_H
#define MP_BIND_TASK_H

#include <lua.h>
#include <stdbool.h>

#include "os/timer.h"
#include "work/pool.h"

/* job    whose items run; NULL: nothing that may be ended
   armed  when the alarm goes off (ns), UINT64_MAX: not
   told   the item that had its error, + 1 */
typedef struct bind_task {
    lua_State *L;
    mp_worker_shm *shm;
    const mp_job_shm *_Atomic job;
    mp_timer timer;
    _Atomic uint64_t armed, told;
    _Atomic bool pending;
} bind_task;

/* Can this process's threads be told? Not where SIGURG is another's. */
bool bind_task_signal(void);

/* The worker with that place begins to run tasks on L's stack, in this
   thread. */
void bind_task_begin(bind_task *task, lua_State *L, mp_worker_shm *shm);

/* What came for a task that is over is not for the next. */
void bind_task_drop(bind_task *task);

/* It runs items of that job from now on; NULL: none. Relaxed: only a handler
   in the same thread reads it. */
static inline void bind_task_of(bind_task *task, const mp_job_shm *job) {
    atomic_store_explicit(&task->job, job, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst);
    if (!job &&
        atomic_load_explicit(&task->pending, memory_order_relaxed))
        bind_task_drop(task);
}

/* The same for a task that goes on: what became due to it meanwhile is. */
void bind_task_again(bind_task *task, const mp_job_shm *job);

/* An item with a timeout began; it is up at `ns`. */
static inline void bind_task_until(bind_task *task, uint64_t ns);

/* Raises in L what is due to the task that this thread runs, if anything. */
void bind_task_raise(lua_State *L);

/* This thread runs no tasks any more. */
void bind_task_end(bind_task *task);

/* The alarm is set for the first of the items that want one: when it goes
   off, it looks who runs. */
void bind_task_arm(bind_task *task, uint64_t ns);

static inline void bind_task_until(bind_task *task, uint64_t ns) {
    atomic_store_explicit(&task->told, 0, memory_order_relaxed);
    if (ns < atomic_load_explicit(&task->armed, memory_order_relaxed))
        bind_task_arm(task, ns);
}

#endif
