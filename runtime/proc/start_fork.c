/* The child's slot is reserved and its ledger filled before the fork, by the
   parent: so whatever the parent holds is held by the child from its first
   instruction, and if it dies before it can claim the slot, the slot is
   given back by whoever waits for it, or by the parent's own reaper. */
#include <errno.h>
#include <unistd.h>

#include "mem/heap.h"
#include "mem/object.h"
#include "mem/slot.h"
#include "os/child.h"
#include "proc/family.h"
#include "proc/start.h"

static int reserve(uint32_t *index) {
    int r = mp_slot_reserve(index);
    if (r < 0) return r;
    r = mp_object_copy_ledger(*index);
    if (r < 0) mp_slot_release(*index);
    return r;
}

/* From the parent's copy of `self` to a participant. What cannot become one
   has no parent any more, and ends. */
static void become(mp_self *self, uint32_t index, int flags) {
    uint32_t parent = self->tag;
    mp_child_die_with_parent_in_child();
    self->destroying = false;
    mp_heap_forget(self);
    if (mp_open_copied(self, index) < 0) _exit(1);
    mp_start_unmask_in_child();
    /* The kernel marks the parent's life word before it signals children: a
       parent that lives now will be seen to die. */
    if (!mp_tag_alive(parent)) _exit(1);
    if (!(flags & MP_PROC_KEEP_STDIN)) mp_child_no_stdin_in_child(self->null);
    mp_family_begin_in_child();
}

int mp_start_fork(mp_proc *proc, const mp_start *start) {
    mp_self *self = mp_me; /* NULL in the child, by mem/slot.c's handler */
    if (!self) return -EOWNERDEAD;
    uint32_t index;
    int r = reserve(&index);
    if (r < 0) return r;
    uint32_t gen = atomic_load(&mp_slot_at(index)->gen);
    pid_t pid;
    r = mp_child_fork(&pid);
    if (r < 0) {
        mp_slot_release(index);
    } else if (r == 1) {
        become(self, index, start->flags);
    } else {
        int pidfd = mp_child_pidfd(pid);
        *proc = (mp_proc){.pid = pid,
                          .parent = getpid(),
                          .pidfd = pidfd < 0 ? -1 : pidfd,
                          .tag = mp_tag_of(index, gen)};
    }
    return r;
}
