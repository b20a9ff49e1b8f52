/* A table in a table in a table ... */
#include "table_fixture.h"

static uint32_t depth(void) { return spec_sanitized() ? 10000 : 100000; }

/* A list with `inner` in it, which lives on only there; or nothing. */
static table around(table inner, bool indexed) {
    table outer;
    mp_table_handle h = {inner.id, inner.gen};
    mp_table_value v = naming(&h), k = word(1);
    open_table(&outer, indexed);
    if (!inner.t) return outer;
    if (indexed)
        CHECK_OK(mp_table_set(outer.t, &k, &v, MP_TABLE_ANY));
    else
        CHECK_OK(mp_table_insert(outer.t, INT64_MAX, &v));
    close_table(&inner);
    return outer;
}

static table nest(uint32_t n) {
    table t = {0};
    for (uint32_t i = 0; i < n; i++) t = around(t, i % 2);
    return t;
}

/* Entries of the object table are never given back. */
SPEC_PREPARE {
    prepare_tables();
    table t = nest(depth());
    close_table(&t);
}

SPEC_WITHIN(60, "table: one that lies 100,000 deep is destroyed") {
    table t = nest(depth());
    CHECK_EQ(mp_object_count(), depth());
    close_table(&t);
    CHECK_EQ(mp_object_count(), 0);
}
