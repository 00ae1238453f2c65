/* The spine of an as-of join: a hash table of its entities, and their query times in order. */
#ifndef HR_ASOF_SPINE_H
#define HR_ASOF_SPINE_H

#include "hr_huge.h"
#include "hr_key.h"
#include "hr_rules.h"

enum {
    HR_ASOF_OK = 0,
    HR_ASOF_NO_MEMORY = 1,
    HR_ASOF_SLOTS_MIN = 1 << 10,
    HR_ASOF_BLOCK = 32,     /* rows in flight: their cache misses overlap */
    HR_ASOF_FEW = 16,       /* times of one entity that are fetched whole */
    HR_ASOF_TAIL_BYTES = 8,
    HR_ASOF_INLINE_BYTES = 9,  /* keys up to here are compared inside their slot: one i64, or a short string */
    HR_ASOF_DENSE_SHARE = 4,   /* integers that span up to so many times their count are found by subtraction */
    HR_ASOF_DENSE_MIN = 1 << 10
};
#define HR_ASOF_ROWS_MAX INT32_MAX  /* positions are 32 bits, and one is kept for "none" */
#define HR_ASOF_NONE UINT32_MAX

/* Canonical keys of many rows: key i is bytes[starts[i], starts[i + 1]). */
typedef struct {
    const uint8_t *bytes;
    const uint64_t *starts;
    int64_t row_count;
} hr_asof_keys;

/* One entity in the hash table; two fit a cache line. */
typedef struct {
    uint64_t hash, tail;      /* tail: the last bytes of the key */
    uint32_t first, count;    /* its positions */
    uint32_t entity;          /* HR_ASOF_NONE when the slot is empty */
    uint16_t length;
    uint8_t head, reserved;   /* head: the first byte of the key */
} hr_asof_slot;

/* A spine, read-only once built. Positions order its rows by entity, then by time. */
typedef struct {
    hr_asof_keys keys;
    uint64_t hash_mask;       /* all ones; tests narrow it to make keys collide */
    hr_asof_slot *slots;
    uint64_t slot_mask;
    uint32_t entity_count;
    uint32_t *entity_rows;    /* a row that holds the entity's key */
    uint32_t *entity_firsts;  /* entity_count + 1 positions */
    int64_t *times;           /* by position */
    uint32_t *rows;           /* by position */
    uint32_t *dense;          /* entity of dense_first + i; NULL where the keys are no integers or lie far apart */
    uint64_t dense_count;
    int64_t dense_first;
} hr_asof_spine;

typedef struct {
    int64_t time, row;
} hr_asof_pair;

static inline uint64_t hr_asof_tail(const uint8_t *key, size_t length)
{
    uint64_t tail = 0;
    if (length >= HR_ASOF_TAIL_BYTES) return hr_load_u64(key + length - HR_ASOF_TAIL_BYTES);
    memcpy(&tail, key, length);
    return tail;
}

static inline int hr_asof_holds(
    const hr_asof_spine *spine, const hr_asof_slot *slot, uint64_t hash, const uint8_t *key, size_t length)
{
    uint64_t start;
    if (slot->hash != hash || slot->length != length || slot->head != key[0]) return 0;
    if (slot->tail != hr_asof_tail(key, length)) return 0;
    if (length <= HR_ASOF_INLINE_BYTES) return 1;
    start = spine->keys.starts[spine->entity_rows[slot->entity]];
    return memcmp(spine->keys.bytes + start, key, length) == 0;
}

/* Where the search for a hash begins. Of its low bits the slots of entities are made: keys of few slots agree in them,
 * and would crowd into a part of the table. */
static inline uint64_t hr_asof_home(uint64_t hash, uint64_t slot_mask) { return hash / HR_SLOT_COUNT & slot_mask; }

/* Slot of a key, or the empty slot where it would go. */
static inline hr_asof_slot *hr_asof_find(const hr_asof_spine *spine, uint64_t hash, const uint8_t *key, size_t length)
{
    uint64_t at = hr_asof_home(hash, spine->slot_mask);
    while (spine->slots[at].entity != HR_ASOF_NONE && !hr_asof_holds(spine, &spine->slots[at], hash, key, length))
        at = (at + 1) & spine->slot_mask;
    return &spine->slots[at];
}

/* The same for the key of one integer, whose last eight bytes are `tail`. */
static inline const hr_asof_slot *hr_asof_find_integer(const hr_asof_spine *spine, uint64_t hash, uint64_t tail)
{
    uint64_t at = hr_asof_home(hash, spine->slot_mask);
    for (;; at = (at + 1) & spine->slot_mask) {
        const hr_asof_slot *slot = &spine->slots[at];
        if (slot->entity == HR_ASOF_NONE) return slot;
        if (slot->hash == hash && slot->tail == tail && slot->length == HR_KEY_I64_BYTES && slot->head == HR_KEY_I64)
            return slot;
    }
}

/* How far from its home the key lies that lies farthest. */
static inline uint64_t hr_asof_longest_search(const hr_asof_spine *spine)
{
    uint64_t i, away, longest = 0;
    for (i = 0; i <= spine->slot_mask; i++) {
        if (spine->slots[i].entity == HR_ASOF_NONE) continue;
        away = (i - hr_asof_home(spine->slots[i].hash, spine->slot_mask)) & spine->slot_mask;
        if (away > longest) longest = away;
    }
    return longest;
}

static inline uint64_t hr_asof_hash(const hr_asof_spine *spine, const uint8_t *key, size_t length)
{
    return hr_xxh3_64(key, length) & spine->hash_mask;
}

/* The last eight bytes of the key of one integer. */
static inline uint64_t hr_asof_integer_tail(int64_t value) { return __builtin_bswap64((uint64_t)value ^ 1ULL << 63); }

/* Memory of a table: tables are read at random, and small pages cost a walk each. */
static inline void *hr_asof_allocate(size_t bytes) { return hr_huge_allocate(bytes); }

static inline hr_asof_slot *hr_asof_empty_slots(uint64_t count)
{
    hr_asof_slot *slots = hr_asof_allocate(count * sizeof(*slots));
    if (slots != NULL) memset(slots, 0xFF, count * sizeof(*slots));
    return slots;
}

/* Doubles the table. */
static inline int hr_asof_grow(hr_asof_spine *spine)
{
    uint64_t i, at, mask = 2 * spine->slot_mask + 1;
    hr_asof_slot *slots = hr_asof_empty_slots(mask + 1);
    if (slots == NULL) return HR_ASOF_NO_MEMORY;
    for (i = 0; i <= spine->slot_mask; i++) {
        if (spine->slots[i].entity == HR_ASOF_NONE) continue;
        for (at = hr_asof_home(spine->slots[i].hash, mask); slots[at].entity != HR_ASOF_NONE;) at = (at + 1) & mask;
        slots[at] = spine->slots[i];
    }
    free(spine->slots);
    spine->slots = slots;
    spine->slot_mask = mask;
    return HR_ASOF_OK;
}

/* Numbers the entities by their first row, found by their hashes; entities[row] is the entity of a row. */
static inline int hr_asof_number(hr_asof_spine *spine, uint32_t *entities)
{
    uint64_t hashes[HR_ASOF_BLOCK];
    int64_t i, ahead;
    for (i = 0, ahead = 0; i < spine->keys.row_count; i++) {
        const uint8_t *key = spine->keys.bytes + spine->keys.starts[i];
        size_t length = (size_t)(spine->keys.starts[i + 1] - spine->keys.starts[i]);
        uint64_t hash;
        hr_asof_slot *slot;
        for (; ahead < spine->keys.row_count && ahead < i + HR_ASOF_BLOCK; ahead++) {
            uint64_t start = spine->keys.starts[ahead];
            uint64_t found = hr_asof_hash(
                spine, spine->keys.bytes + start, (size_t)(spine->keys.starts[ahead + 1] - start));
            hashes[ahead % HR_ASOF_BLOCK] = found;
            __builtin_prefetch(&spine->slots[hr_asof_home(found, spine->slot_mask)], 1);
        }
        hash = hashes[i % HR_ASOF_BLOCK];
        slot = hr_asof_find(spine, hash, key, length);
        if (slot->entity == HR_ASOF_NONE) {
            if (2 * ((uint64_t)spine->entity_count + 1) > spine->slot_mask) {
                if (hr_asof_grow(spine) != HR_ASOF_OK) return HR_ASOF_NO_MEMORY;
                slot = hr_asof_find(spine, hash, key, length);
            }
            *slot = (hr_asof_slot){hash, hr_asof_tail(key, length), 0, 0, spine->entity_count, (uint16_t)length,
                                   key[0], 0};
            spine->entity_rows[spine->entity_count++] = (uint32_t)i;
        }
        entities[i] = slot->entity;
    }
    return HR_ASOF_OK;
}

/* The integer that is the key of a row. */
static inline int64_t hr_asof_integer(const hr_asof_keys *keys, int64_t row)
{
    return (int64_t)(__builtin_bswap64(hr_load_u64(keys->bytes + keys->starts[row] + 1)) ^ 1ULL << 63);
}

/* Whether every key is one integer; then *low is the least and *span how far the greatest lies from it. */
static inline int hr_asof_are_integers(const hr_asof_keys *keys, int64_t *low, uint64_t *span)
{
    int64_t i, value, high = INT64_MIN;
    *low = INT64_MAX;
    for (i = 0; i < keys->row_count; i++) {
        if (keys->starts[i + 1] - keys->starts[i] != HR_KEY_I64_BYTES) return 0;
        if (keys->bytes[keys->starts[i]] != HR_KEY_I64) return 0;
        value = hr_asof_integer(keys, i);
        if (value < *low) *low = value;
        if (value > high) high = value;
    }
    *span = (uint64_t)high - (uint64_t)*low;
    return keys->row_count > 0;
}

/* Puts the entities into slots of a table that holds them all. */
static inline int hr_asof_fill_slots(hr_asof_spine *spine)
{
    uint64_t at, mask = spine->slot_mask;
    uint32_t e;
    while (2 * (uint64_t)spine->entity_count > mask) mask = 2 * mask + 1;
    free(spine->slots);
    spine->slots = hr_asof_empty_slots(mask + 1);
    spine->slot_mask = mask;
    if (spine->slots == NULL) return HR_ASOF_NO_MEMORY;
    for (e = 0; e < spine->entity_count; e++) {
        uint64_t start = spine->keys.starts[spine->entity_rows[e]];
        const uint8_t *key = spine->keys.bytes + start;
        size_t length = (size_t)(spine->keys.starts[spine->entity_rows[e] + 1] - start);
        uint64_t hash = hr_asof_hash(spine, key, length);
        for (at = hr_asof_home(hash, mask); spine->slots[at].entity != HR_ASOF_NONE;) at = (at + 1) & mask;
        spine->slots[at] = (hr_asof_slot){hash, hr_asof_tail(key, length), 0, 0, e, (uint16_t)length, key[0], 0};
    }
    return HR_ASOF_OK;
}

static inline int hr_asof_is_close(uint64_t span, uint64_t count)
{
    return span < count * HR_ASOF_DENSE_SHARE + HR_ASOF_DENSE_MIN;
}

/* hr_asof_number for integers that lie close together: each is looked up by subtraction, and hashed once. */
static inline int hr_asof_number_dense(hr_asof_spine *spine, uint32_t *entities, int64_t low, uint64_t span)
{
    int64_t i;
    spine->dense = hr_asof_allocate((size_t)(span + 1) * sizeof(uint32_t));
    if (spine->dense == NULL) return HR_ASOF_NO_MEMORY;
    memset(spine->dense, 0xFF, (size_t)(span + 1) * sizeof(uint32_t));
    spine->dense_first = low;
    spine->dense_count = span + 1;
    for (i = 0; i < spine->keys.row_count; i++) {
        uint32_t *entity = &spine->dense[(uint64_t)hr_asof_integer(&spine->keys, i) - (uint64_t)low];
        if (*entity == HR_ASOF_NONE) {
            spine->entity_rows[spine->entity_count] = (uint32_t)i;
            *entity = spine->entity_count++;
        }
        entities[i] = *entity;
    }
    if (!hr_asof_is_close(span, spine->entity_count)) {
        free(spine->dense);
        spine->dense = NULL;
    }
    return hr_asof_fill_slots(spine);
}

/* Numbers the entities by their first row, and makes the table of them. */
static inline int hr_asof_number_any(hr_asof_spine *spine, uint32_t *entities)
{
    int64_t low;
    uint64_t span;
    if (hr_asof_are_integers(&spine->keys, &low, &span) && hr_asof_is_close(span, (uint64_t)spine->keys.row_count))
        return hr_asof_number_dense(spine, entities, low, span);
    return hr_asof_number(spine, entities);
}

static inline int hr_asof_pair_compare(const void *a, const void *b)
{
    const hr_asof_pair *x = a, *y = b;
    if (x->time != y->time) return x->time < y->time ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

/* Orders the positions of one entity by time, where they are not yet. */
static inline int hr_asof_sort(hr_asof_spine *spine, uint32_t first, uint32_t end)
{
    uint32_t i;
    hr_asof_pair *pairs;
    for (i = first + 1; i < end && spine->times[i - 1] <= spine->times[i];) i++;
    if (i >= end) return HR_ASOF_OK;
    pairs = malloc((size_t)(end - first) * sizeof(*pairs));
    if (pairs == NULL) return HR_ASOF_NO_MEMORY;
    for (i = first; i < end; i++) pairs[i - first] = (hr_asof_pair){spine->times[i], spine->rows[i]};
    qsort(pairs, end - first, sizeof(*pairs), hr_asof_pair_compare);
    for (i = first; i < end; i++) {
        spine->times[i] = pairs[i - first].time;
        spine->rows[i] = (uint32_t)pairs[i - first].row;
    }
    free(pairs);
    return HR_ASOF_OK;
}

/* Places the rows at their positions, from the entities of the rows. */
static inline int hr_asof_place(hr_asof_spine *spine, const uint32_t *entities, const int64_t *times)
{
    uint64_t i;
    int64_t row;
    uint32_t e, end, *firsts = spine->entity_firsts;
    for (row = 0; row < spine->keys.row_count; row++) firsts[entities[row] + 1]++;
    for (e = 0; e < spine->entity_count; e++) firsts[e + 1] += firsts[e];
    for (i = 0; i <= spine->slot_mask; i++) {
        hr_asof_slot *slot = &spine->slots[i];
        if (slot->entity == HR_ASOF_NONE) continue;
        slot->first = firsts[slot->entity];
        slot->count = firsts[slot->entity + 1] - slot->first;
    }
    for (row = 0; row < spine->keys.row_count; row++) {  /* each first moves to its end, and back below */
        uint32_t at = firsts[entities[row]]++;
        spine->times[at] = times[row];
        spine->rows[at] = (uint32_t)row;
    }
    for (e = spine->entity_count; e > 0; e--) firsts[e] = firsts[e - 1];
    firsts[0] = 0;
    for (e = 0; e < spine->entity_count; e++) {
        end = firsts[e + 1];
        if (hr_asof_sort(spine, firsts[e], end) != HR_ASOF_OK) return HR_ASOF_NO_MEMORY;
    }
    return HR_ASOF_OK;
}

static inline void hr_asof_free(hr_asof_spine *spine)
{
    free(spine->slots);
    free(spine->entity_rows);
    free(spine->entity_firsts);
    free(spine->times);
    free(spine->rows);
    free(spine->dense);
    spine->slots = NULL, spine->entity_rows = spine->entity_firsts = spine->rows = spine->dense = NULL;
    spine->times = NULL;
}

/* Builds a spine whose keys and hash_mask are set; the keys outlive it. The caller frees it, also after a failure. */
static inline int hr_asof_build(hr_asof_spine *spine, const int64_t *times)
{
    size_t count = (size_t)spine->keys.row_count;
    uint32_t *entities = malloc((count + 1) * sizeof(*entities));
    int status = HR_ASOF_NO_MEMORY;
    spine->slot_mask = HR_ASOF_SLOTS_MIN - 1;
    spine->slots = hr_asof_empty_slots(HR_ASOF_SLOTS_MIN);
    spine->entity_rows = malloc((count + 1) * sizeof(uint32_t));
    spine->times = hr_asof_allocate((count + 1) * sizeof(int64_t));
    spine->rows = malloc((count + 1) * sizeof(uint32_t));
    if (entities != NULL && spine->slots != NULL && spine->entity_rows != NULL && spine->times != NULL &&
        spine->rows != NULL && hr_asof_number_any(spine, entities) == HR_ASOF_OK) {
        spine->entity_firsts = calloc((size_t)spine->entity_count + 1, sizeof(uint32_t));
        if (spine->entity_firsts != NULL) status = hr_asof_place(spine, entities, times);
    }
    free(entities);
    return status;
}

#endif
