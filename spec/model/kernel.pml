/* What the models share: death as the kernel brings it, and futexes. It is
   included by them and is no model itself.

   Death (os/robust.c, the kernel's exit_robust_list). A process is killed by
   the killer between any two of its steps; it is written as
       { body } unless { KILLED(_pid) }
   and from then on executes nothing. Then, in steps of their own: it leaves
   the queues it slept in, and a wake that it had got is lost; its life word
   is marked; ONE sleeper on that is woken.

   Sleep (os/futex.c). A word's queue is the set of its sleepers. Comparing
   and being queued are one step (the kernel holds the bucket's lock). Who
   sleeps on two words (mp_futex_wait2) is queued in two steps, and may be
   woken on both, which swallows one wake; woken and out of time at once, it
   counts as woken. A wake may take any sleeper, where the kernel takes the
   first: more than can happen, not less.

   Slices (MP_SLICE_FIRST_NS to MP_SLICE_NS). A model without slices shows who
   is woken by others; one with slices gives all sleepers together a number of
   them, which are used up only when nothing else can happen. So "no invalid
   end state" says: so many slices at the most, and everybody gets on. `early`
   ones may end at any time, as do sleeps that a signal ends.

   Memory is sequentially consistent: orders between stores and loads are the
   business of the comments at the atomics, not of these models.

   N        how many may be killed: the processes with _pid 0 .. N - 1
   CRASHES  how many of them are, at most */

#define BIT(p)      (1 << (p))
#define MINE        BIT(_pid)
#define KILLED(p)   (dying & BIT(p))
#define LIVING(set) ((set) & ~dying)

#define GONE   0 /* recycled by its reaper, with a new generation */
#define ALIVE  1
#define MARKED 2 /* MP_ROBUST_DEAD is set */

byte dying;              /* those that were killed */
byte life[N] = ALIVE;
byte on_life[N];         /* the queue of each life word */

/* mp_futex_wake(word, 1) */
inline wake_one(queue) {
    if
    :: queue == 0
    :: queue & 1  -> queue = queue & ~1
    :: queue & 2  -> queue = queue & ~2
    :: queue & 4  -> queue = queue & ~4
    :: queue & 8  -> queue = queue & ~8
    :: queue & 16 -> queue = queue & ~16
    fi
}

inline unqueue(queue) {
    queue = queue & ~MINE
}

/* The last that is seen of one that was killed and has left its queues. */
inline be_marked(slot) {
    life[slot] = MARKED;
    atomic { wake_one(on_life[slot]) }
}
