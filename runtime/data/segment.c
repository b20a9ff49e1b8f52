/* Deaths, one after the other, while a segment is made: the file without a
   name goes with its descriptor; an object without a name finds nothing, or
   a link, when it is destroyed; after link() the object has all of it. */
#include "data/segment.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "data/parcel.h"
#include "mem/check.h"
#include "mem/heap.h"
#include "os/fd.h"
#include "os/random.h"

enum { TRIES = 100 }; /* of names, before something must be wrong */

static uint32_t registry_of(const mp_segment_shm *s) {
    return atomic_load_explicit(&s->registry, memory_order_relaxed);
}

/* ---- the registry --------------------------------------------------- */

/* Writes what all IDs of this family begin with. */
static void family_prefix(char prefix[MP_REGISTRY_ID]) {
    const uint8_t *family = mp_me->super->family;
    for (int i = 0; i < 16; i++)
        snprintf(prefix + 2 * i, 3, "%02x", family[i]);
    strcat(prefix, "-");
}

static void new_id(char id[MP_REGISTRY_ID]) {
    uint32_t number;
    family_prefix(id);
    mp_random_bytes(&number, sizeof number);
    snprintf(id + strlen(id), 9, "%08x", number);
}

/* Makes the directory, and puts its descriptor on the shelf. */
static int furnish(mp_registry_shm *r) {
    uint32_t id, gen;
    int fd, e = -EEXIST;
    for (int i = 0; e == -EEXIST && i < TRIES; i++) {
        new_id(r->id);
        e = mp_registry_make(r->id, &fd);
    }
    if (e < 0) return e;
    e = mp_parcel_create(fd, &id, &gen);
    mp_fd_close(fd);
    if (e < 0) return e;
    e = mp_object_hold(id, gen, &r->parcel);
    mp_object_detach(id);
    return e;
}

static int make_registry(uint32_t *id, uint32_t *gen) {
    mp_ref block = mp_alloc(sizeof(mp_registry_shm));
    if (!block) return -ENOMEM;
    memset(mp_at(block), 0, sizeof(mp_registry_shm));
    int r = mp_object_create(MP_TYPE_REGISTRY, block, id, gen);
    if (r < 0) {
        mp_free(block);
        return r;
    }
    r = furnish(mp_at(block));
    if (r < 0) mp_object_detach(*id);
    return r;
}

static int attach_word(uint64_t word, uint32_t *id, uint32_t *gen) {
    *id = (uint32_t)word;
    *gen = (uint32_t)(word >> 32);
    return word ? mp_object_attach(*id, *gen) : -ENOENT;
}

/* One use of the family's registry, which is made if there is none. */
static int attach_registry(uint32_t *id, uint32_t *gen) {
    _Atomic uint64_t *word = &mp_me->super->registry;
    for (;;) {
        uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
        int r = attach_word(seen, id, gen);
        if (r != -ENOENT) return r;
        r = make_registry(id, gen);
        if (r < 0) return r;
        if (atomic_compare_exchange_strong_explicit(
                word, &seen, (uint64_t)*gen << 32 | *id,
                memory_order_relaxed, memory_order_relaxed))
            return 0;
        mp_object_detach(*id); /* another was faster */
    }
}

/* ---- objects -------------------------------------------------------- */

static void destroy_segment(void *object) {
    mp_segment_shm *s = object;
    uint32_t id = registry_of(s);
    if (!id) return;
    const mp_registry_shm *r = mp_object_block(id);
    mp_shm_unlink(s->name, s->dev, s->ino);
    mp_registry_strike(r->id, s->ino);
    mp_object_unhold(&s->registry);
}

static void destroy_registry(void *object) {
    mp_registry_shm *r = object;
    if (r->id[0]) mp_registry_remove(r->id);
    mp_object_unhold(&r->parcel);
}

static void check_segment(mp_check *c, const void *object) {
    const mp_segment_shm *s = object;
    uint64_t at, size;
    if (!mp_check_size(c, sizeof *s)) return;
    if (!memchr(s->name, 0, sizeof s->name) || !s->name[0])
        mp_check_report(c, "its name is no text, expected one");
    uint32_t id = mp_check_u32(c, &s->registry);
    if (id && mp_check_hold(c, id, "registry", &at, &size) &&
        size < sizeof(mp_registry_shm))
        mp_check_report(c, "object %u has %ju bytes, expected a registry", id,
                        (uintmax_t)size);
}

static void check_registry(mp_check *c, const void *object) {
    const mp_registry_shm *r = object;
    uint64_t at, size;
    if (!mp_check_size(c, sizeof *r)) return;
    if (!memchr(r->id, 0, sizeof r->id))
        mp_check_report(c, "its id is no text, expected one");
    uint32_t id = mp_check_u32(c, &r->parcel);
    if (id) mp_check_hold(c, id, "parcel", &at, &size);
}

static const mp_object_ops segment_ops = {.name = "SharedMemory",
                                          .destroy = destroy_segment,
                                          .check = check_segment};
static const mp_object_ops registry_ops = {.name = "registry",
                                           .destroy = destroy_registry,
                                           .check = check_registry};

void mp_segment_open(void) {
    mp_parcel_open();
    mp_object_declare(MP_TYPE_SEGMENT, &segment_ops);
    mp_object_declare(MP_TYPE_REGISTRY, &registry_ops);
}

/* ---- making --------------------------------------------------------- */

/* The object for a file that has no name yet. */
static int make_object(const char *name, mp_segment *made) {
    mp_ref block = mp_alloc(sizeof(mp_segment_shm));
    if (!block) return -ENOMEM;
    mp_segment_shm *s = mp_at(block);
    memset(s, 0, sizeof *s);
    s->dev = made->file.dev;
    s->ino = made->file.ino;
    strcpy(s->name, name);
    int r = mp_object_create(MP_TYPE_SEGMENT, block, &made->id, &made->gen);
    if (r < 0) mp_free(block);
    return r;
}

/* Gives the segment its name, which the registry knows before. */
static int give_name(const mp_segment *made, uint32_t registry,
                     uint32_t gen) {
    mp_segment_shm *s = mp_object_block(made->id);
    const mp_registry_shm *registered = mp_object_block(registry);
    mp_registry_entry entry = {.id = made->id, .gen = made->gen};
    strcpy(entry.name, s->name);
    int r = mp_object_hold(registry, gen, &s->registry);
    if (r == 0) r = mp_registry_enter(registered->id, s->ino, &entry);
    return r == 0 ? mp_shm_link(made->fd, s->name) : r;
}

static int make(const char *name, mp_segment *made) {
    uint32_t registry, gen;
    int r = attach_registry(&registry, &gen);
    if (r < 0) return r;
    r = make_object(name, made);
    if (r == 0) {
        r = give_name(made, registry, gen);
        if (r < 0) mp_object_detach(made->id);
    }
    mp_object_detach(registry);
    return r;
}

int mp_segment_create(const char *name, uint64_t size, mp_segment *made) {
    int r = mp_shm_make(size, &made->fd, &made->file);
    if (r < 0) return r;
    r = make(name, made);
    if (r < 0) mp_fd_close(made->fd);
    return r;
}

/* ---- finding -------------------------------------------------------- */

/* One use of the segment that an entry tells of. -ENOENT: it is not that
   file's. */
static int attach_entry(const mp_registry_entry *entry, mp_segment *found) {
    int r = mp_object_attach(entry->id, entry->gen);
    if (r < 0) return r;
    const mp_segment_shm *s = mp_object_block(entry->id);
    if (mp_object_type(entry->id) != MP_TYPE_SEGMENT ||
        s->ino != found->file.ino || s->dev != found->file.dev) {
        mp_object_detach(entry->id);
        return -ENOENT;
    }
    found->id = entry->id;
    found->gen = entry->gen;
    return 0;
}

static int find_object(mp_segment *found) {
    mp_registry_entry entry;
    uint32_t id, gen;
    uint64_t word = atomic_load_explicit(&mp_me->super->registry,
                                         memory_order_relaxed);
    int r = attach_word(word, &id, &gen);
    if (r < 0) return r;
    const mp_registry_shm *registry = mp_object_block(id);
    r = mp_registry_look(registry->id, found->file.ino, &entry);
    if (r == 0) r = attach_entry(&entry, found);
    mp_object_detach(id);
    return r;
}

int mp_segment_attach(const char *name, mp_segment *found) {
    int r = mp_shm_open(name, &found->fd, &found->file);
    if (r < 0) return r;
    found->id = found->gen = 0;
    r = find_object(found);
    if (r != -ENOMEM) return 0; /* anything else: it is not the family's */
    mp_fd_close(found->fd);
    return r;
}

int mp_segment_again(uint32_t id, mp_segment *found) {
    const mp_segment_shm *s = mp_object_block(id);
    int r = mp_shm_open(s->name, &found->fd, &found->file);
    if (r < 0) return r;
    if (found->file.ino == s->ino && found->file.dev == s->dev) return 0;
    mp_fd_close(found->fd);
    return -ENOENT;
}

/* ---- the end -------------------------------------------------------- */

int mp_segment_unlink(uint32_t id) {
    mp_segment_shm *s = mp_object_block(id);
    int r = mp_shm_unlink(s->name, s->dev, s->ino);
    if (r < 0) return r;
    /* Only one of those who tried comes here. */
    const mp_registry_shm *registry = mp_object_block(registry_of(s));
    mp_registry_strike(registry->id, s->ino);
    mp_object_unhold(&s->registry);
    return 0;
}

bool mp_segment_is_named(uint32_t id) {
    return registry_of(mp_object_block(id)) != 0;
}

void mp_segment_end(void) {
    char prefix[MP_REGISTRY_ID] = "";
    if (!mp_me || !mp_is_founder() || !atomic_load(&mp_me->super->registry))
        return;
    family_prefix(prefix);
    mp_registry_sweep(prefix);
}

void mp_segment_sweep(void) { mp_registry_sweep(NULL); }
