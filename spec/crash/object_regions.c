/* Objects: who holds them, and what goes with the last holder. */
#include "mem/object.h"

#include <errno.h>
#include <string.h>

#include "crash.h"
#include "data/queue.h"
#include "mem/heap.h"
#include "mem/object_shm.h"
#include "mem/slot.h"
#include "region_tools.h"
#include "sync/lock.h"

typedef struct handle {
    uint32_t id, gen;
} handle;

static handle new_lock(void) {
    handle h;
    CHECK_OK(mp_lock_create(&h.id, &h.gen));
    return h;
}

SPEC_PREPARE {
    CHECK_OK(mp_open());
    mp_lock_open();
    mp_queue_declare();
    mp_object_detach(new_lock().id);
}

/* ---- messages and queues ---------------------------------------------- */

/* A message of mine with room for `most` handles. */
static mp_ref new_message(uint32_t most) {
    mp_ref block = mp_alloc(sizeof(mp_message_shm) + most * sizeof(uint32_t));
    CHECK(block != 0);
    mp_message_shm *m = mp_at(block);
    m->length = 0;
    m->handles_at = sizeof *m;
    atomic_store(&m->n_handles, 0);
    mp_mark_handles(block);
    return block;
}

/* It holds the object instead of me. */
static void give_to(mp_ref message, handle h) {
    CHECK_OK(mp_message_hold(message, h.id, h.gen));
    mp_object_detach(h.id);
}

static void put(handle queue, const mp_queue_item *item) {
    uint32_t patience = 0;
    CHECK_EQ(mp_queue_put(mp_object_block(queue.id), item, 1, &patience,
                          MP_AT_ONCE), 1);
}

static void put_block(handle queue, mp_ref block) {
    put(queue, &(mp_queue_item){.kind = MP_QUEUE_BLOCK, .value = block});
}

static handle new_queue(void) {
    handle h;
    CHECK_OK(mp_queue_create(0, &h.id, &h.gen));
    put(h, &(mp_queue_item){.kind = MP_QUEUE_WORD, .value = 3});
    put_block(h, mp_alloc(100));
    return h;
}

/* A queue with blocks, one of them a run, and a message that holds a lock and
   another queue. */
static handle new_full_queue(void) {
    handle outer = new_queue();
    mp_ref message = new_message(2);
    give_to(message, new_lock());
    give_to(message, new_queue());
    put_block(outer, message);
    put_block(outer, mp_alloc(70000));
    return outer;
}

/* ---- what all of them do ---------------------------------------------- */

enum { PEERS = 2 };

static void use_objects(void) {
    handle a = new_lock(), b = new_full_queue();
    CHECK(a.id != b.id);
    CHECK_OK(mp_object_attach(a.id, a.gen));
    CHECK_EQ(mp_object_attach(b.id, b.gen + 1), -ENOENT);
    mp_object_detach(a.id);
    CHECK_EQ(mp_object_refs(a.id), 1);
    CHECK_EQ(mp_object_refs(b.id), 1);
    mp_object_detach(a.id);
    mp_object_detach(b.id);
    CHECK_EQ(mp_object_attach(b.id, b.gen), -ENOENT);
}

static void peer(int which) {
    (void)which;
    for (int i = 0; i < 2; i++) use_objects();
}

/* A lock that no process holds, but a message of the killer's. */
static mp_ref keeper;
static handle kept;

static void keep_lock(void) {
    keeper = new_message(1);
    kept = new_lock();
    give_to(keeper, kept);
}

static void keep_nothing(void) { CHECK(mp_free(keeper)); }

/* Peers use it, too. */
static void peer_of_kept(int which) {
    for (int i = 0; i < 3; i++) {
        CHECK_OK(mp_object_attach(kept.id, kept.gen));
        mp_object_detach(kept.id);
    }
    peer(which);
}

static void check_kept(void) { CHECK_EQ(mp_object_refs(kept.id), 1); }

/* ---- birth ------------------------------------------------------------ */

/* Spans for locks, messages and ledgers; how those come is the heap's. */
static void warm_spans(void) {
    warm_up(64);
    warm_up(PER_PAGE / 8);
}

static void create(void) { new_lock(); }

/* A participant that had none: its ledger is made, too. */
static const crash_region object_create = {
    .name = "object: create",
    .begin = warm_spans,
    .run = create,
    .peers = PEERS,
    .peer = peer};
CRASH_REGION(object_create)

/* A message of the killer's holds all objects that there are, so a new one
   needs a new entry. `last`: the number of the one before it. The killer
   forgets, before each life, those that came later. */
static uint64_t last;

static entry_shm *entry_at(uint64_t id) {
    mp_ref segment = atomic_load(&mp_me->super->segments[id / PER_SEGMENT]);
    return segment ? (entry_shm *)mp_at(segment) + id % PER_SEGMENT : NULL;
}

static void hold_all_to(uint64_t id) {
    handle h;
    last = id;
    keeper = new_message((uint32_t)last);
    do {
        h = new_lock();
        give_to(keeper, h);
    } while (h.id < last);
    CHECK_EQ(atomic_load(&mp_me->super->free_entry), 0);
}

static void forget_later(void) {
    mp_super_shm *super = mp_me->super;
    uint64_t entries = atomic_load(&super->entries), next = last + 1;
    CHECK(atomic_load(&super->free_entry) > last || entries == next);
    atomic_store(&super->free_entry, 0);
    for (uint64_t id = next; id < entries; id++) {
        CHECK_EQ(HEAD_STATE(atomic_load(&entry_at(id)->head)), FREE);
        memset(entry_at(id), 0, sizeof(entry_shm));
    }
    atomic_store(&super->entries, next);
    mp_ref segment = atomic_load(&super->segments[1]);
    if (next > PER_SEGMENT || !segment) return;
    atomic_store(&super->segments[1], 0);
    CHECK(mp_free(segment));
}

static void hold_three(void) { hold_all_to(3); }

static const crash_region object_entry = {
    .name = "object: create, with a new entry",
    .set_up = hold_three,
    .ready = forget_later,
    .begin = warm_spans,
    .run = create,
    .peers = PEERS,
    .peer = peer,
    .tear_down = keep_nothing};
CRASH_REGION(object_entry)

static void hold_segment(void) { hold_all_to(PER_SEGMENT - 1); }

static void drop_segment(void) {
    forget_later();
    keep_nothing();
}

static const crash_region object_segment = {
    .name = "object: create, with a new segment",
    .set_up = hold_segment,
    .ready = forget_later,
    .begin = warm_spans,
    .run = create,
    .peers = PEERS,
    .peer = peer,
    .tear_down = drop_segment};
CRASH_REGION(object_segment)

/* ---- holders ---------------------------------------------------------- */

static void attach_and_detach(void) {
    for (int i = 0; i < 2; i++)
        CHECK_OK(mp_object_attach(kept.id, kept.gen));
    for (int i = 0; i < 2; i++) mp_object_detach(kept.id);
}

static const crash_region object_attach = {
    .name = "object: attach, detach, as its first ever",
    .set_up = keep_lock,
    .begin = warm_spans,
    .run = attach_and_detach,
    .peers = PEERS,
    .peer = peer_of_kept,
    .check = check_kept,
    .tear_down = keep_nothing};
CRASH_REGION(object_attach)

static const crash_region object_attach_more = {
    .name = "object: attach, detach, as one more",
    .set_up = keep_lock,
    .begin = create,
    .run = attach_and_detach,
    .peers = PEERS,
    .peer = peer_of_kept,
    .check = check_kept,
    .tear_down = keep_nothing};
CRASH_REGION(object_attach_more)

static void hold_in_message(void) {
    mp_ref message = new_message(2);
    CHECK_OK(mp_message_hold(message, kept.id, kept.gen));
    CHECK_EQ(mp_message_hold(message, kept.id, kept.gen + 1), -ENOENT);
    CHECK_OK(mp_message_hold(message, kept.id, kept.gen));
    CHECK(mp_free(message));
}

static const crash_region object_message = {
    .name = "object: hold and drop by a message",
    .set_up = keep_lock,
    .begin = warm_spans,
    .run = hold_in_message,
    .peers = PEERS,
    .peer = peer_of_kept,
    .check = check_kept,
    .tear_down = keep_nothing};
CRASH_REGION(object_message)

/* What a fork does for the child: it is born holding what I hold. */
static void hold_some(void) {
    CHECK_OK(mp_object_attach(kept.id, kept.gen));
    create();
}

static void copy_ledger(void) {
    uint32_t index;
    CHECK_OK(mp_slot_reserve(&index));
    CHECK_OK(mp_object_copy_ledger(index));
    mp_slot_release(index);
}

static const crash_region object_copy = {
    .name = "object: copy the ledger for a child",
    .set_up = keep_lock,
    .begin = hold_some,
    .run = copy_ledger,
    .peers = PEERS,
    .peer = peer_of_kept,
    .check = check_kept,
    .tear_down = keep_nothing};
CRASH_REGION(object_copy)

/* ---- death ------------------------------------------------------------ */

/* The victim's own. */
static handle mine;
static mp_ref message;

static void make_full_queue(void) { mine = new_full_queue(); }
static void make_queue(void) { mine = new_queue(); }

static void detach_mine(void) { mp_object_detach(mine.id); }

static const crash_region object_destroy = {
    .name = "object: destroy a queue of blocks and queues",
    .begin = make_full_queue,
    .run = detach_mine,
    .peers = PEERS,
    .peer = peer};
CRASH_REGION(object_destroy)

/* The killer had it, too, until the victim was forked. */
static const crash_region object_last = {
    .name = "object: detach as the last of two",
    .ready = make_queue,
    .poised = detach_mine,
    .run = detach_mine,
    .peers = PEERS,
    .peer = peer};
CRASH_REGION(object_last)

static void make_message(void) {
    message = new_message(3);
    give_to(message, new_queue());
    CHECK_OK(mp_message_hold(message, kept.id, kept.gen));
    give_to(message, new_lock());
}

static void free_message(void) { CHECK(mp_free(message)); }

static const crash_region object_message_last = {
    .name = "object: free a message that holds the last",
    .set_up = keep_lock,
    .begin = make_message,
    .run = free_message,
    .peers = PEERS,
    .peer = peer_of_kept,
    .check = check_kept,
    .tear_down = keep_nothing};
CRASH_REGION(object_message_last)

/* ---- handles that do not count ---------------------------------------- */

enum { ID, GEN }; /* notes: the victim's object */

static void create_and_tell(void) {
    handle h = new_lock();
    crash_note(GEN, h.gen);
    crash_note(ID, h.id);
    mp_object_detach(h.id);
}

/* Peers find it, or do not. */
static void peer_of_victim(int which) {
    uint32_t id = (uint32_t)crash_noted(ID);
    int r = mp_object_attach(id, (uint32_t)crash_noted(GEN));
    CHECK(r == 0 || r == -ENOENT);
    if (r == 0) CHECK_EQ(mp_object_type(id), MP_TYPE_LOCK);
    peer(which);
    if (r == 0) mp_object_detach(id);
}

static const crash_region object_weak = {
    .name = "object: create, detach, others try to attach",
    .begin = warm_spans,
    .run = create_and_tell,
    .peers = PEERS,
    .peer = peer_of_victim};
CRASH_REGION(object_weak)
