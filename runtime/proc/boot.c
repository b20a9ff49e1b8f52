#include "proc/boot.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "mem/check.h"
#include "mem/heap.h"
#include "mem/object.h"
#include "mem/reap.h"
#include "mem/slot.h"
#include "os/child.h"
#include "os/futex.h"
#include "os/memfd.h"

#define BOOT_MAGIC 0x544f4f42504d50ULL /* "PMPBOOT" */

_Static_assert(sizeof(mp_boot_shm) == 280, "no padding by chance");
_Static_assert(offsetof(mp_boot_shm, problem) == 16, "where all expect it");

/* Grows with each change of a structure in shared memory. */
enum { MP_LAYOUT = 7 };

/* ---- the object ------------------------------------------------------ */

/* A server's is lent: its owner may need it for the next one. */
static bool has_message(const mp_boot_shm *boot) {
    return boot->message && boot->kind != MP_START_SERVER;
}

static void destroy(void *object) {
    mp_boot_shm *boot = object;
    boot->magic = 0;
    if (has_message(boot)) mp_free(boot->message);
}

static void check_number(mp_check *c, const char *what, uint64_t is,
                         uint64_t least, uint64_t most) {
    if (is < least || is > most)
        mp_check_report(c, "%s is %ju, expected %ju to %ju", what,
                        (uintmax_t)is, (uintmax_t)least, (uintmax_t)most);
}

/* The child frees the message when it has read it. */
static void check(mp_check *c, const void *object) {
    const mp_boot_shm *boot = object;
    if (!mp_check_size(c, sizeof *boot)) return;
    uint32_t parent = mp_check_u32(c, &boot->parent);
    uint64_t size = mp_check_u64(c, &boot->environment);
    check_number(c, "magic", mp_check_u64(c, &boot->magic), BOOT_MAGIC,
                 BOOT_MAGIC);
    check_number(c, "layout", mp_check_u32(c, &boot->layout), MP_LAYOUT,
                 MP_LAYOUT);
    check_number(c, "state", mp_check_u32(c, &boot->state), MP_BOOT_NEW,
                 MP_BOOT_READY);
    check_number(c, "index", mp_check_u32(c, &boot->index), 0, MP_SLOTS - 1);
    if (mp_check_tag(c, parent) == MP_TAG_FALSE)
        mp_check_report(c, "parent is %#x, which nobody ever was", parent);
    uint32_t id = mp_check_u32(c, &boot->self_id);
    if (id) /* else it is being made */
        check_number(c, "self_id", id, mp_check_id(c), mp_check_id(c));
    if (size) mp_check_size(c, sizeof *boot + size);
    if (mp_check_u32(c, &boot->kind) != MP_START_SERVER)
        mp_check_block_if(c, mp_check_u64(c, &boot->message), 1, "message");
}

void mp_boot_open(void) {
    static const mp_object_ops ops = {
        .name = "Boot", .destroy = destroy, .check = check};
    mp_object_declare(MP_TYPE_BOOT, &ops);
}

/* Turns the filled block into an object. The message is in a hand until the
   object answers for it. */
static int publish(mp_ref ref, mp_boot_shm *boot) {
    bool ours = has_message(boot);
    int hand = ours ? mp_hand_take(boot->message, NULL, 0) : 0;
    if (hand < 0) return hand;
    if (ours) mp_publish(boot->message);
    uint32_t id, gen;
    int r = mp_object_create(MP_TYPE_BOOT, ref, &id, &gen);
    if (r < 0 && ours) mp_free(boot->message);
    if (ours) mp_hand_drop(hand);
    if (r < 0) return r;
    boot->self_id = id;
    boot->self_gen = gen;
    return 0;
}

/* ---- the parent ------------------------------------------------------ */

static int make(const mp_start *start, uint32_t index,
                const char *environment, size_t size, mp_ref *out) {
    mp_boot_open();
    mp_ref ref = mp_alloc(sizeof(mp_boot_shm) + size);
    if (!ref) return -ENOMEM;
    mp_boot_shm *boot = mp_at(ref);
    memset(boot, 0, sizeof *boot);
    boot->magic = BOOT_MAGIC;
    boot->layout = MP_LAYOUT;
    boot->flags = (uint32_t)start->flags;
    boot->message = start->message;
    boot->kind = start->kind;
    boot->id = start->id;
    boot->gen = start->gen;
    boot->index = index;
    if (index)
        boot->tag = mp_tag_of(index, atomic_load(&mp_slot_at(index)->gen));
    boot->parent = mp_me->tag;
    boot->environment = size;
    if (size) memcpy(boot + 1, environment, size);
    int r = publish(ref, boot);
    if (r < 0) mp_free(ref);
    *out = ref;
    return r;
}

int mp_boot_make(const mp_start *start, mp_ref *out) {
    uint32_t index;
    int r = mp_slot_reserve(&index);
    if (r < 0) return r;
    r = make(start, index, NULL, 0, out);
    if (r < 0) mp_slot_release(index);
    return r;
}

int mp_boot_make_served(const mp_start *start, const char *environment,
                        size_t size, mp_ref *out) {
    return make(start, 0, environment, environment ? size : 0, out);
}

void mp_boot_free(mp_ref ref) {
    mp_boot_shm *boot = mp_boot_at(ref);
    /* Does nothing for a slot that was claimed: it is reaped by its tag. */
    if (boot->tag) mp_reap_reserved(boot->tag, true);
    /* Whoever else may still hold the block. */
    if (has_message(boot)) mp_free(boot->message);
    mp_object_detach(boot->self_id);
}

/* ---- the child ------------------------------------------------------- */

void mp_boot_tell(mp_boot_shm *boot, uint32_t state) {
    atomic_store(&boot->state, state);
    mp_futex_wake(&boot->state, INT_MAX);
}

void mp_boot_refuse(mp_boot_shm *boot, const char *problem) {
    size_t n = strnlen(problem, MP_BOOT_PROBLEM - 1);
    memcpy(boot->problem, problem, n);
    boot->problem[n] = '\0';
    mp_boot_tell(boot, MP_BOOT_REFUSED);
}

int mp_boot_hold(mp_boot_shm *boot) {
    mp_boot_open();
    int r = mp_object_attach(boot->self_id, boot->self_gen);
    if (r < 0) return r == -ENOENT ? -EOWNERDEAD : r;
    return mp_object_block(boot->self_id) == (void *)boot ? 0 : -EINVAL;
}

void mp_boot_unhold(mp_boot_shm *boot) { mp_object_detach(boot->self_id); }

typedef struct place {
    mp_ref ref;
    mp_boot_shm *boot;
} place;

/* The block, if there is one and it can be read as such. */
static int find(const mp_self *self, mp_ref ref, mp_boot_shm **boot) {
    uint64_t at = MP_REF_OFFSET(ref);
    size_t size;
    int r = mp_memfd_size(self->fd, &size);
    if (r < 0) return r;
    if (at % 64 != 0 || at < mp_arena_head(self->super->reserved) ||
        at + sizeof **boot > size || at + sizeof **boot > self->mapped)
        return -EINVAL;
    *boot = (void *)(self->base + at);
    return (*boot)->magic == BOOT_MAGIC ? 0 : -EINVAL;
}

/* Is the slot still kept for this child? */
static int check_slot(const mp_boot_shm *boot) {
    uint32_t index = boot->index;
    if (index == 0 || index >= MP_SLOTS || boot->tag % MP_SLOTS != index)
        return -EINVAL;
    mp_slot_shm *slot = mp_slot_at(index);
    uint64_t kept = (uint64_t)boot->parent << 2 | MP_SLOT_FORKING;
    if (!mp_tag_alive(boot->parent) ||
        mp_tag_of(index, atomic_load(&slot->gen)) != boot->tag ||
        atomic_load(&slot->state) != kept)
        return -EOWNERDEAD;
    return 0;
}

static int whose(mp_self *self, void *ctx) {
    place *p = ctx;
    int r = find(self, p->ref, &p->boot);
    if (r < 0) return r;
    if (p->boot->layout != MP_LAYOUT) {
        /* Not held: but who made it waits for just this. */
        mp_boot_refuse(p->boot, "its module mp is of another build");
        return -EPROTO;
    }
    if (atomic_load(&p->boot->state) != MP_BOOT_NEW) return -EINVAL;
    r = check_slot(p->boot);
    if (r < 0) return r;
    mp_child_die_with_parent_in_child();
    self->tag = p->boot->parent;
    return (int)p->boot->index;
}

int mp_boot_attach(int fd, mp_ref ref, mp_boot_shm **out) {
    place p = {.ref = ref};
    int r = mp_open_given(fd, whose, &p);
    if (r == 0) r = mp_boot_hold(p.boot);
    if (r < 0) return r;
    /* The kernel marks the parent's life word before it signals children: a
       parent that lives now will be seen to die. */
    if (!mp_tag_alive(p.boot->parent)) return -EOWNERDEAD;
    atomic_store(&p.boot->pid, (int32_t)getpid());
    mp_boot_tell(p.boot, MP_BOOT_CLAIMED);
    *out = p.boot;
    return 0;
}
