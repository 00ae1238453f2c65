/* Compiled selections, the plans that are published together, and the rows of one request beside the table. */
#ifndef HR_PLAN_H
#define HR_PLAN_H

#include "hr_computed.h"
#include "hr_hash.h"
#include "hr_layout.h"
#include "hr_on_demand_plan.h"
#include "hr_wire.h"

enum {
    HR_HANDLE_BYTES = 32,
    HR_READ_COUNTERS = 16,  /* of a plan, each in a cache line of its own: threads that read count apart */
    HR_READ_COUNTER_WORDS = 8
};
#define HR_ON_DEMAND_GROUP UINT32_MAX

typedef struct {
    const uint8_t *name;
    uint32_t name_bytes, type;
} hr_join_key;

/* One entity of a row: which request columns form its key, and which groups read its rows. */
typedef struct {
    uint32_t entity_id, key_count;
    uint32_t keys[HR_KEY_PARTS_MAX];
    uint32_t first_group, group_count;
} hr_lookup;

/* One view version read through one lookup. Groups are sorted by lookup. `fixed_bytes` are those of a stored row;
 * `computed` is NULL where rows are answered as they are stored. */
typedef struct {
    hr_computed *computed;
    uint32_t lookup, view_id, schema_id, fixed_bytes, row_lines;
    int64_t ttl_us, stale_us;
    int fallback;
    uint32_t first_output, output_count;  /* into hr_plan.by_group */
} hr_group;

/* One column of the answer, or an input of on-demand features. With a group of HR_ON_DEMAND_GROUP it is the result of
 * program `index`. `head` is its encoded name field, `tail` its encoded type field. */
typedef struct {
    hr_column column;
    uint32_t group, index;                /* index: of the column in its schema */
    const uint8_t *head, *tail, *default_value;
    uint32_t head_bytes, tail_bytes, default_bytes;
    int has_default;
    int is_computed;                      /* has a value although no row is stored */
    int is_framed;                        /* of fixed width and out of a row: without names its frame is that of its width */
} hr_output;

typedef struct {
    uint8_t handle[HR_HANDLE_BYTES];
    int64_t revision;
    uint32_t join_key_count, lookup_count, group_count, output_count, input_count;
    hr_join_key *join_keys;
    hr_lookup *lookups;
    hr_group *groups;
    hr_output *outputs;
    uint32_t *by_group;                   /* output numbers, sorted by group; on-demand ones are left out */
    hr_output *inputs;                    /* of on-demand features: gathered, and not answered */
    hr_on_demand *on_demand;              /* NULL: the plan has none */
    int has_tiles;                        /* the machine has what hr_gather_tile needs */
    uint64_t *reads;                      /* atomic: rows that were answered by it, in HR_READ_COUNTERS parts; or NULL */
} hr_plan;

/* Name (service, service@version or handle) to plan; open addressing, never changed once built. */
typedef struct {
    uint64_t hash;
    const uint8_t *name;
    uint32_t name_bytes;
    const hr_plan *plan;
} hr_plan_name;

typedef struct {
    uint64_t mask;
    int64_t revision;
    hr_plan_name *names;
} hr_plan_set;

static inline const hr_plan *hr_plan_find(const hr_plan_set *set, hr_span name)
{
    size_t name_bytes = hr_span_bytes(name);
    uint64_t hash = hr_xxh3_64(name.at, name_bytes);
    for (uint64_t at = hash & set->mask;; at = (at + 1) & set->mask) {
        const hr_plan_name *entry = &set->names[at];
        if (entry->plan == NULL) return NULL;
        if (entry->hash == hash && entry->name_bytes == name_bytes && memcmp(entry->name, name.at, name_bytes) == 0)
            return entry->plan;
    }
}

/* The caller sizes `names` to a power of two above twice the count, so that a free entry always ends a search. */
static inline void hr_plan_set_add(hr_plan_set *set, const uint8_t *name, uint32_t name_bytes, const hr_plan *plan)
{
    hr_plan_name added = {hr_xxh3_64(name, name_bytes), name, name_bytes, plan};
    uint64_t at = added.hash & set->mask;
    while (set->names[at].plan != NULL) at = (at + 1) & set->mask;
    set->names[at] = added;
}

/* One row of an overlay. cause 0: read (row NULL: storage holds none); else why it is unavailable. */
typedef struct {
    const uint8_t *key;                   /* storage key */
    const uint8_t *row;
    uint32_t key_bytes;
    uint8_t cause, used;
} hr_overlay_row;

typedef struct {
    uint64_t mask, count;
    hr_overlay_row *rows;
} hr_overlay;

static inline uint64_t hr_overlay_hash(const uint8_t *prefix, uint32_t prefix_bytes, uint32_t view_id)
{
    return hr_xxh3_64(prefix, prefix_bytes) ^ ((uint64_t)view_id * 0x9E3779B97F4A7C15ULL);
}

static inline hr_overlay_row *hr_overlay_find(
    const hr_overlay *overlay, const uint8_t *prefix, uint32_t prefix_bytes, uint32_t view_id)
{
    uint64_t at = hr_overlay_hash(prefix, prefix_bytes, view_id) & overlay->mask;
    for (;; at = (at + 1) & overlay->mask) {
        hr_overlay_row *row = &overlay->rows[at];
        if (!row->used) return row;
        if (row->key_bytes == prefix_bytes + HR_VIEW_ID_BYTES && memcmp(row->key, prefix, prefix_bytes) == 0
            && hr_load_u32_be(row->key + prefix_bytes) == view_id)
            return row;
    }
}

#endif
