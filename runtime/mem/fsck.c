/* One look: super block, open records, heap, slots, objects; then what was
   met is compared with what there is. A LIVE arena is looked at until a look
   has nothing in common with those before it, or often enough. */
#include "mem/fsck.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "mem/fsck_walk.h"
#include "mem/mutex.h"
#include "mem/slot.h"
#include "os/futex.h"

enum {
    LOOKS = 16,        /* at most, of a LIVE arena */
    BETWEEN_NS = 3000000,
    MOST_FINDINGS = 1000 /* of one look; the others are counted */
};

/* ---- findings ------------------------------------------------------- */

static void add_finding(mp_check *c, const char *text) {
    mp_findings *f = &c->findings;
    if (f->n == MOST_FINDINGS) {
        f->more++;
        return;
    }
    char **list = mp_grow(f->text, &f->cap, sizeof *list, f->n + 1);
    char *copy = list ? strdup(text) : NULL;
    if (list) f->text = list;
    if (copy)
        f->text[f->n++] = copy;
    else
        c->no_memory = true;
}

void mp_check_report(mp_check *c, const char *fmt, ...) {
    char text[400];
    if (c->silent) {
        c->partial = true;
        return;
    }
    int n = snprintf(text, sizeof text, "%s: ", c->subject);
    va_list args;
    va_start(args, fmt);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, args);
    va_end(args);
    add_finding(c, text);
}

void mp_check_subject(mp_check *c, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(c->subject, sizeof c->subject, fmt, args);
    va_end(args);
}

static void drop_findings(mp_findings *f) {
    while (f->n > 0) free(f->text[--f->n]);
    free(f->text);
    *f = (mp_findings){0};
}

static bool has_finding(const mp_findings *f, const char *text) {
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->text[i], text) == 0) return true;
    return false;
}

/* Keeps those of `kept` that `now` has, too. */
static void keep_common(mp_findings *kept, const mp_findings *now) {
    size_t n = 0;
    for (size_t i = 0; i < kept->n; i++)
        if (has_finding(now, kept->text[i]))
            kept->text[n++] = kept->text[i];
        else
            free(kept->text[i]);
    kept->n = n;
    if (now->more < kept->more) kept->more = now->more;
}

/* ---- what the walks ask --------------------------------------------- */

bool mp_check_quiet(const mp_check *c) {
    return c->quiet;
}

uint32_t mp_check_id(const mp_check *c) {
    return c->id;
}

const void *mp_check_at(const mp_check *c, uint64_t offset, uint64_t size) {
    return offset <= c->limit && size <= c->limit - offset ? c->base + offset
                                                           : NULL;
}

uint64_t mp_check_offset(const mp_check *c, const volatile void *p) {
    return (uint64_t)((const volatile unsigned char *)p - c->base);
}

const mp_slot_shm *mp_check_slot(const mp_check *c, uint32_t index) {
    return (const mp_slot_shm *)(const void *)(c->base + MP_SUPER_SIZE) +
           index;
}

/* The last of several records wins; there are hardly ever any. */
static const mp_stored *find_stored(const mp_check *c, uint64_t at) {
    for (size_t i = c->n_stored; i-- > 0;)
        if (c->stored[i].at == at) return &c->stored[i];
    return NULL;
}

uint64_t mp_check_u64(const mp_check *c, const volatile void *word) {
    const mp_stored *s =
        c->n_stored ? find_stored(c, mp_check_offset(c, word)) : NULL;
    return s ? s->value
             : __atomic_load_n((const volatile uint64_t *)word,
                               __ATOMIC_ACQUIRE);
}

uint32_t mp_check_u32(const mp_check *c, const volatile void *word) {
    const mp_stored *s =
        c->n_stored ? find_stored(c, mp_check_offset(c, word) | 1) : NULL;
    return s ? (uint32_t)s->value
             : __atomic_load_n((const volatile uint32_t *)word,
                               __ATOMIC_ACQUIRE);
}

bool mp_check_note(mp_check *c, mp_marks *list, uint64_t item) {
    uint64_t *more =
        mp_grow(list->item, &list->cap, sizeof *more, list->n + 1);
    if (!more) {
        c->no_memory = true;
        return false;
    }
    list->item = more;
    more[list->n++] = item;
    return true;
}

/* ---- who is alive --------------------------------------------------- */

int mp_check_tag(const mp_check *c, uint32_t tag) {
    uint32_t index = tag % MP_SLOTS;
    if (index == 0 || index >= c->slots) return MP_TAG_FALSE;
    const mp_slot_shm *slot = mp_check_slot(c, index);
    uint32_t life = mp_check_u32(c, slot->life.bytes + c->life_at);
    uint32_t gen = mp_check_u32(c, &slot->gen);
    uint32_t age = (gen - ((tag & MP_TAG_MASK) >> 12)) & 0x1ffffU;
    if (age > 0) return age < 0x10000U ? MP_TAG_GONE : MP_TAG_FALSE;
    if (mp_check_u64(c, &slot->state) == MP_SLOT_FREE) return MP_TAG_FALSE;
    return life && !(life & MP_ROBUST_DEAD) ? MP_TAG_ALIVE : MP_TAG_DEAD;
}

void mp_check_mutex(mp_check *c, const mp_mutex_shm *mutex,
                    const char *what) {
    uint32_t word = mp_check_u32(c, &mutex->word), tag = word & MP_TAG_MASK;
    if (word == 0) return;
    int is = mp_check_tag(c, tag);
    if ((word & ~(MP_WAITERS | MP_TAG_MASK)) || is == MP_TAG_FALSE)
        mp_check_report(c, "its mutex %s is 0x%x, expected 0 or the tag of a "
                           "participant", what, word);
    else if (is == MP_TAG_ALIVE && c->quiet)
        mp_check_report(c, "its mutex %s is held by slot %u, expected free: "
                           "nobody runs", what, tag % MP_SLOTS);
    else if (is == MP_TAG_ALIVE)
        c->silent = true;
}

/* ---- a look --------------------------------------------------------- */

static bool prepare(mp_check *c) {
    c->words = (size_t)(c->units - c->first_unit) << (MP_UNIT_SHIFT - 12);
    c->published = calloc(c->words + 1, sizeof *c->published);
    c->reached = calloc(c->words + 1, sizeof *c->reached);
    c->holders = calloc(c->entries + 1, sizeof *c->holders);
    c->queued = calloc(c->entries + 1, sizeof *c->queued);
    return c->published && c->reached && c->holders && c->queued;
}

/* Its entries lie with the kernel. */
static void check_shelf(mp_check *c) {
    uint32_t untidy = mp_check_u32(c, &c->super->untidy);
    uint32_t bell = mp_check_u32(c, &c->super->bell);
    mp_check_subject(c, "super block");
    mp_check_mutex(c, &c->super->shelf, "shelf");
    if (untidy > 1 || (bell & ~3U) || bell == MP_BELL_WANTED)
        mp_check_report(c, "untidy is %u and bell %u, expected 0 or 1, and "
                           "0, 2 or 3", untidy, bell);
}

static void walk(mp_check *c) {
    if (!mp_check_super(c)) return;
    if (c->self) mp_poison_forget(); /* not what others made, either */
    if (!prepare(c)) {
        c->no_memory = true;
        return;
    }
    mp_check_records(c);
    mp_check_heap(c);
    mp_check_slots(c);
    mp_check_objects(c);
    mp_check_hands(c);
    check_shelf(c);
    mp_check_lost(c);
}

/* Looks once; the findings are the caller's. 0 or -errno. */
static int look(const mp_memfd_view *arena, const mp_self *self, bool quiet,
                mp_findings *findings, mp_fsck_seen *seen) {
    size_t size;
    int r = mp_memfd_size(arena->fd, &size);
    if (r < 0) return r;
    mp_check c = {.base = arena->base,
                  .limit = size < arena->mapped ? size : arena->mapped,
                  .super = (const void *)arena->base,
                  .self = self,
                  .quiet = quiet};
    walk(&c);
    free(c.published);
    free(c.reached);
    free(c.holders);
    free(c.queued);
    free(c.stored);
    free(c.marked.item);
    free(c.held.item);
    *findings = c.findings;
    if (seen) *seen = c.seen;
    if (c.no_memory) drop_findings(findings);
    return c.no_memory ? -ENOMEM : 0;
}

static void pause_between(void) {
    _Atomic uint32_t never = 0;
    mp_futex_wait(&never, 0, mp_deadline_slice(MP_FOREVER, BETWEEN_NS));
}

/* What is there in every look. */
static int look_often(const mp_memfd_view *arena, const mp_self *self,
                      mp_findings *kept, mp_fsck_seen *seen) {
    int r = look(arena, self, false, kept, seen);
    for (int i = 1; r == 0 && i < LOOKS && kept->n > 0; i++) {
        mp_findings now;
        pause_between();
        r = look(arena, self, false, &now, seen);
        if (r < 0) break;
        keep_common(kept, &now);
        drop_findings(&now);
    }
    if (r < 0) drop_findings(kept);
    return r;
}

static int check(const mp_memfd_view *arena, const mp_self *self,
                 int strength, mp_fsck_report *report, void *ctx,
                 mp_fsck_seen *seen) {
    mp_findings found;
    int r = strength == MP_FSCK_QUIET
                ? look(arena, self, true, &found, seen)
                : look_often(arena, self, &found, seen);
    if (r < 0) return r;
    for (size_t i = 0; report && i < found.n; i++)
        report(ctx, found.text[i]);
    char rest[64];
    snprintf(rest, sizeof rest, "%zu more findings are not listed",
             found.more);
    if (report && found.n > 0 && found.more > 0) report(ctx, rest);
    r = (int)(found.n ? found.n + found.more : 0);
    drop_findings(&found);
    return r;
}

/* ---- public --------------------------------------------------------- */

int mp_fsck(int strength, mp_fsck_report *report, void *ctx) {
    mp_memfd_view arena = {.base = mp_me->base,
                           .mapped = mp_me->mapped,
                           .fd = mp_me->fd};
    return check(&arena, mp_me, strength, report, ctx, NULL);
}

int mp_fsck_other(const mp_memfd_view *arena, int strength,
                  mp_fsck_report *report, void *ctx, mp_fsck_seen *seen) {
    const mp_super_shm *super = (const void *)arena->base;
    size_t size;
    int r = mp_memfd_size(arena->fd, &size);
    if (r < 0) return r;
    if (size < sizeof *super || arena->mapped < sizeof *super ||
        super->magic != MP_ARENA_MAGIC)
        return -EBADMSG;
    return check(arena, NULL, strength, report, ctx, seen);
}
