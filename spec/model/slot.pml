/* A slot: reserved by a parent, claimed by its child, given back by whoever
   finds that this came to nothing.

   Stands for runtime/mem/slot.c: mp_slot_reserve, claim_free, mp_slot_claim,
   mp_owner_look; runtime/mem/reap.c: mp_reap, reap_live, reap_unborn, seize,
   mp_reap_reserved, recycle, died_claiming, mp_reap_sweep;
   runtime/proc/start_fork.c: reserve, become; runtime/proc/proc.c: look,
   reap; runtime/os/robust.c: mp_robust_register.

   There is one slot to be had; 0 and 1 are parents who want it, 2 and 3 their
   children, 4 sweeps and is not killed. The ledger is its parent's copy, the
   dropping of it one step. A pid is not used again.

   Holds: nobody takes the slot from a parent that lives and whose child does,
   nor from a child that claims it or lives in it; who becomes LIVE finds the
   ledger it was given; at last the slot is free, or the home of one that
   lives.

   run holds -DCRASHES=3
   run holds -DSWEEPS -DCRASHES=1
   run fails -DMUTANT_BY_INDEX
   run fails -DMUTANT_CLAIMER_APART
   run fails -DMUTANT_SEIZED_WITH_LIFE
   run fails -DMUTANT_NO_CLAIMING
   run fails -DMUTANT_NO_PID
   run fails -DMUTANT_LIVE_BEFORE_LIFE
   run fails -DMUTANT_UNBORN_FORGOTTEN */

#define N 4
#ifndef CRASHES
#define CRASHES 2
#endif
#include "kernel.pml"

#define FREE     0 /* mp_slot_shm.state: kind, ... */
#define FORKING  1
#define LIVE     2
#define CLAIMING 3
byte kind, parent, claimer; /* ... parent's tag, and the claiming child */

byte gen;
byte word;                  /* its life word: 0, a tid, or DEAD */
#define DEAD   9
byte reaper;                /* a tag */
byte ledger;                /* whose copy it is */
#define NOBODY 7

#define CHILD(p)    ((p) + 2)
#define PARENT(c)   ((c) - 2)
#define TAG(p)      ((p) + 1)
#define ALIVE_AT(g) (word != 0 && word != DEAD && gen == (g))

byte started;               /* children that were forked */
byte gone;                  /* processes that are zombies, or waited for */
byte home;                  /* who lives in the slot, truly */

/* ---- repair ------------------------------------------------------------ */

#define HELD (reaper != 0 && (reaper > 2 || life[reaper - 1] == ALIVE))

inline lock_reaper() {
    atomic { !HELD ->
        reaper = TAG(_pid) }
}

inline recycle() {
    gen++;
    word = 0;
    atomic { parent = 0; claimer = 0; kind = FREE }
}

/* mp_reap of the one with generation g */
inline reap_slot(g) {
    lock_reaper();
    if
    :: atomic { kind == LIVE && gen == g && !ALIVE_AT(g) ->
        assert(!LIVING(home)) }
        ledger = NOBODY;
        recycle()
    :: atomic { else }
    fi;
    reaper = 0
}

/* mp_reap_reserved; seize is one step since the exchange decides */
inline reap_reserved(g, no_child) {
    lock_reaper();
    if
#ifndef MUTANT_BY_INDEX
    :: atomic { gen != g }
    :: atomic { gen == g && kind == FORKING ->
#else
    :: atomic { kind == FORKING ->
#endif
        assert(KILLED(parent) || KILLED(CHILD(parent)));
        kind = LIVE }
        ledger = NOBODY;
        recycle()
#ifndef MUTANT_BY_INDEX
    :: atomic { gen == g && kind == CLAIMING && no_child ->
#else
    :: atomic { kind == CLAIMING && no_child ->
#endif
        assert(KILLED(CHILD(parent))) }
#ifndef MUTANT_SEIZED_WITH_LIFE
        word = 0; /* which it may have written before the kernel knew it */
#endif
        kind = LIVE;
        ledger = NOBODY;
        recycle()
    :: atomic { else }
    fi;
    reaper = 0
}

/* mp_reap of a parent: for what it reserved; its own slot is another one */
inline reap_parent(p) {
    if
    :: atomic { life[p] == MARKED } ->
        g = gen;
#ifndef MUTANT_UNBORN_FORGOTTEN
        if
        :: atomic { kind == FORKING && parent == p } ->
            reap_reserved(g, false)
        :: atomic { else }
        fi;
#endif
        life[p] = GONE
    :: atomic { else }
    fi
}

#ifndef MUTANT_CLAIMER_APART
#define NAMED(p, c) (life[p] != ALIVE && (gone & BIT(c)))
#else
#define NAMED(p, c) (life[p] != ALIVE && claimer / 8 == gen &&              \
                     (gone & BIT(claimer % 8)))
#endif
#define DIED_CLAIMING(k, p, c) (k == CLAIMING && (word == DEAD || NAMED(p, c)))

/* mp_reap_sweep: this slot, and those of the parents */
inline sweep() {
    g = gen;
    atomic { k = kind; p = parent; c = claimer }
    if
    :: atomic { k == LIVE && !ALIVE_AT(g) } -> reap_slot(g)
    :: atomic { DIED_CLAIMING(k, p, c) } -> reap_reserved(g, true)
    :: atomic { else }
    fi;
    atomic { k = 0; p = 0; c = 0 }
    reap_parent(0);
    reap_parent(1);
    g = 0
}

/* ---- who takes part ---------------------------------------------------- */

active [2] proctype mother() {
    byte g, mine, k, p, c;
    bit swept;
    {
    skip;
end_want:
    atomic { kind == FREE -> kind = FORKING; parent = _pid } /* claim_free */
    mine = gen;
    ledger = _pid;                         /* mp_object_copy_ledger */
    started = started | BIT(CHILD(_pid));  /* mp_child_fork */
end_wait:
    do
    :: atomic { gone & BIT(CHILD(_pid)) } -> /* proc.c: reap */
        if
        :: atomic { gen != mine }
        :: atomic { gen == mine && (kind == FORKING || kind == CLAIMING) } ->
            reap_reserved(mine, true)
        :: atomic { gen == mine && !(kind == FORKING || kind == CLAIMING) } ->
            reap_slot(mine)
        fi;
        break
#ifdef SWEEPS
    :: atomic { !swept -> swept = 1 } sweep() /* a slice's end */
#endif
    od;
    atomic { mine = 0; swept = 0 }
    } unless { KILLED(_pid) };
end:
    atomic { KILLED(_pid) -> g = 0; mine = 0; k = 0; p = 0; c = 0; swept = 0 }
    life[_pid] = MARKED;
    gone = gone | MINE
}

active [2] proctype child() {
    byte g;
    bit linked;
    {
    skip;
end_unborn:
    started & MINE;
    /* mp_slot_claim */
#ifdef MUTANT_CLAIMER_APART
    g = gen;
    claimer = _pid + 8 * g;
#endif
    atomic {
        if
        :: kind == FORKING && parent == PARENT(_pid) ->
#ifndef MUTANT_CLAIMER_APART
            g = gen;
            claimer = _pid;
#endif
#ifdef MUTANT_NO_PID
            claimer = 6;
#endif
#ifndef MUTANT_NO_CLAIMING
            kind = CLAIMING
#endif
        :: else -> g = 0; goto over
        fi
    }
#ifdef MUTANT_LIVE_BEFORE_LIFE
    atomic { kind = LIVE; home = MINE }
#endif
    word = _pid;               /* mp_robust_register: the word */
    linked = 1;                /* and the link */
    atomic {
        assert(gen == g && parent == PARENT(_pid));
        assert(ledger == PARENT(_pid));
        kind = LIVE;
        home = MINE;
        g = 0
    }
    if /* become */
    :: atomic { life[PARENT(_pid)] != ALIVE }
    :: atomic { life[PARENT(_pid)] == ALIVE -> goto end_home }
    fi;
over:
    dying = dying | MINE; /* _exit */
end_home:
    false
    } unless { KILLED(_pid) };
    atomic { /* the kernel marks its own words only */
        if
        :: linked && word == _pid -> word = DEAD
        :: else
        fi;
        g = 0; linked = 0;
        unqueue(home)
    }
    gone = gone | MINE
}

active proctype sweeper() {
    byte g, k, p, c;
end:
    do
    :: life[0] == MARKED || life[1] == MARKED ||
       (kind == LIVE && !ALIVE_AT(gen)) ||
       DIED_CLAIMING(kind, parent, claimer) -> sweep()
    od
}

active proctype killer() {
    byte kills = CRASHES;
    do
    :: atomic { kills > 0 ->
        if /* alike: call the family of the first one killed 0 and 2 */
        :: !KILLED(0) -> dying = dying | 1
        :: !KILLED(2) && (started & 4) -> dying = dying | 4
        :: !KILLED(1) && (dying & 5) -> dying = dying | 2
        :: !KILLED(3) && (dying & 5) && (started & 8) -> dying = dying | 8
        :: else
        fi;
        kills-- }
    :: atomic { kills = 0; break }
    od
}

/* When nothing happens any more */
active proctype monitor() {
    timeout;
    assert(!HELD);
    assert(kind == FREE || (kind == LIVE && LIVING(home)))
}
