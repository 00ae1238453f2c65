/* As-of join: the spine is a table of entities with their query times, and the history streams past it once.
 *
 * A history row is seen by the query times T >= max(event, available) of its entity; a tombstone, which may stand behind
 * rows of the near future, by T >= available. It is kept at the first of them
 * only, and the greatest row by the total order stays there; a running maximum over the times of the entity then gives
 * every T its row. So the history is never sorted or held, and two tables of matches merge in any order. */
#ifndef HR_ASOF_H
#define HR_ASOF_H

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
    HR_ASOF_INLINE_BYTES = 9  /* keys up to here are compared inside their slot: one i64, or a short string */
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
} hr_asof_spine;

/* The greatest history row kept at a position; mark is index * 2 + tombstone, or -1. */
typedef struct {
    int64_t event_us, mark;
} hr_asof_match;

/* What decides between rows of one event time; a history without such columns keeps none of it. */
typedef struct {
    int64_t write_us, offset;
    uint32_t source_id;
    int32_t partition;
} hr_asof_tie;

typedef struct {
    hr_asof_match match;
    hr_asof_tie tie;
} hr_asof_candidate;

/* One per position; ties is NULL where only the event time orders the rows. */
typedef struct {
    hr_asof_match *matches;
    hr_asof_tie *ties;
} hr_asof_kept;

/* History columns of one batch; keys that are one integer each may stand in `integers` instead. NULL where the view has
 * none: write = event, available = write, order 0. */
typedef struct {
    hr_asof_keys keys;
    const int64_t *integers;
    const int64_t *event_us, *write_us, *available_us;
    const uint8_t *tombstones;
    const uint32_t *source_ids;
    const int32_t *partitions;
    const int64_t *offsets;
    int64_t cutoff_us, first_index;
} hr_asof_batch;

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

/* Slot of a key, or the empty slot where it would go. */
static inline hr_asof_slot *hr_asof_find(const hr_asof_spine *spine, uint64_t hash, const uint8_t *key, size_t length)
{
    uint64_t at = hash & spine->slot_mask;
    while (spine->slots[at].entity != HR_ASOF_NONE && !hr_asof_holds(spine, &spine->slots[at], hash, key, length))
        at = (at + 1) & spine->slot_mask;
    return &spine->slots[at];
}

/* The same for the key of one integer, whose last eight bytes are `tail`. */
static inline const hr_asof_slot *hr_asof_find_integer(const hr_asof_spine *spine, uint64_t hash, uint64_t tail)
{
    uint64_t at = hash & spine->slot_mask;
    for (;; at = (at + 1) & spine->slot_mask) {
        const hr_asof_slot *slot = &spine->slots[at];
        if (slot->entity == HR_ASOF_NONE) return slot;
        if (slot->hash == hash && slot->tail == tail && slot->length == HR_KEY_I64_BYTES && slot->head == HR_KEY_I64)
            return slot;
    }
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
        for (at = spine->slots[i].hash & mask; slots[at].entity != HR_ASOF_NONE;) at = (at + 1) & mask;
        slots[at] = spine->slots[i];
    }
    free(spine->slots);
    spine->slots = slots;
    spine->slot_mask = mask;
    return HR_ASOF_OK;
}

/* Numbers the entities by their first row; entities[row] is the entity of a row. */
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
            __builtin_prefetch(&spine->slots[found & spine->slot_mask], 1);
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
        slot->count++;
        entities[i] = slot->entity;
    }
    return HR_ASOF_OK;
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

/* Places the rows at their positions, from the entities of the rows and the counts in the slots. */
static inline int hr_asof_place(hr_asof_spine *spine, const uint32_t *entities, const int64_t *times)
{
    uint64_t i;
    int64_t row;
    uint32_t e, end, *firsts = spine->entity_firsts;
    for (i = 0; i <= spine->slot_mask; i++)
        if (spine->slots[i].entity != HR_ASOF_NONE) firsts[spine->slots[i].entity + 1] = spine->slots[i].count;
    for (firsts[0] = 0, e = 0; e < spine->entity_count; e++) firsts[e + 1] += firsts[e];
    for (i = 0; i <= spine->slot_mask; i++)
        if (spine->slots[i].entity != HR_ASOF_NONE) spine->slots[i].first = firsts[spine->slots[i].entity];
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
    spine->slots = NULL, spine->entity_rows = spine->entity_firsts = spine->rows = NULL, spine->times = NULL;
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
        spine->rows != NULL && hr_asof_number(spine, entities) == HR_ASOF_OK) {
        spine->entity_firsts = calloc((size_t)spine->entity_count + 1, sizeof(uint32_t));
        if (spine->entity_firsts != NULL) status = hr_asof_place(spine, entities, times);
    }
    free(entities);
    return status;
}

/* First position of [first, first + count) whose time is >= wanted, or first + count. Which half comes next is
 * arithmetic: a branch on it would be guessed wrong every second time. */
static inline uint32_t hr_asof_lower_bound(const int64_t *times, uint32_t first, uint32_t count, int64_t wanted)
{
    if (count == 0) return first;
    while (count > 1) {
        uint32_t half = count >> 1;
        first += half & -(uint32_t)(times[first + half - 1] < wanted);
        count -= half;
    }
    return first + (times[first] < wanted);
}

static inline hr_order hr_asof_order(const hr_asof_match *match, const hr_asof_tie *tie)
{
    return (hr_order){match->event_us, tie->write_us, tie->source_id, tie->partition, tie->offset};
}

/* Whether a comes after b; rows equal in the total order keep the one that stands first in the history. Ties are both
 * given or both NULL. */
static inline int hr_asof_beats(
    const hr_asof_match *a, const hr_asof_tie *a_tie, const hr_asof_match *b, const hr_asof_tie *b_tie)
{
    int order;
    if (a->mark < 0 || b->mark < 0) return a->mark >= 0;
    if (a->event_us != b->event_us) return a->event_us > b->event_us;  /* the first of the total order decides most */
    if (a_tie != NULL) {
        hr_order first = hr_asof_order(a, a_tie), second = hr_asof_order(b, b_tie);
        order = hr_order_fields_compare(&first, &second);
        if (order != 0) return order > 0;
    }
    return a->mark < b->mark;
}

static inline hr_asof_tie *hr_asof_tie_at(const hr_asof_kept *kept, int64_t at)
{
    return kept->ties != NULL ? &kept->ties[at] : NULL;
}

/* Keeps row i of a batch at a position when it is the greatest there. */
static inline void hr_asof_keep(const hr_asof_kept *kept, const hr_asof_batch *batch, int64_t i, uint32_t at)
{
    hr_asof_candidate row = {{batch->event_us[i], 2 * (batch->first_index + i)}, {batch->event_us[i], 0, 0, 0}};
    hr_asof_tie *tie = hr_asof_tie_at(kept, at);
    if (batch->tombstones != NULL && batch->tombstones[i]) row.match.mark++;
    if (tie != NULL) {
        if (batch->write_us != NULL) row.tie.write_us = batch->write_us[i];
        if (batch->source_ids != NULL) row.tie.source_id = batch->source_ids[i];
        if (batch->partitions != NULL) row.tie.partition = batch->partitions[i];
        if (batch->offsets != NULL) row.tie.offset = batch->offsets[i];
    }
    if (!hr_asof_beats(&row.match, tie != NULL ? &row.tie : NULL, &kept->matches[at], tie)) return;
    kept->matches[at] = row.match;
    if (tie != NULL) *tie = row.tie;
}

/* When a row is first seen by a query, or INT64_MAX and *is_known 0 when it was written after the cut-off. */
static inline int64_t hr_asof_seen_us(const hr_asof_batch *batch, int64_t i, int *is_known)
{
    int64_t event = batch->event_us[i];
    int64_t write = batch->write_us != NULL ? batch->write_us[i] : event;
    int64_t available = batch->available_us != NULL ? batch->available_us[i] : write;
    *is_known = write <= batch->cutoff_us;
    if (batch->tombstones != NULL && batch->tombstones[i]) return available;
    return event > available ? event : available;
}

static inline uint64_t hr_asof_batch_hash(const hr_asof_spine *spine, const hr_asof_batch *batch, int64_t i)
{
    const uint64_t *bounds;
    if (batch->integers != NULL) {
        uint64_t tail = hr_asof_integer_tail(batch->integers[i]);
        return hr_xxh3_9_to_16(tail << 8 | HR_KEY_I64, tail, HR_KEY_I64_BYTES) & spine->hash_mask;
    }
    bounds = batch->keys.starts + i;
    return hr_asof_hash(spine, batch->keys.bytes + bounds[0], (size_t)(bounds[1] - bounds[0]));
}

static inline const hr_asof_slot *hr_asof_batch_find(
    const hr_asof_spine *spine, const hr_asof_batch *batch, int64_t i, uint64_t hash)
{
    const uint64_t *bounds;
    if (batch->integers != NULL) return hr_asof_find_integer(spine, hash, hr_asof_integer_tail(batch->integers[i]));
    bounds = batch->keys.starts + i;
    return hr_asof_find(spine, hash, batch->keys.bytes + bounds[0], (size_t)(bounds[1] - bounds[0]));
}

/* Up to HR_ASOF_BLOCK rows from `start`, in four steps that each fetch what the next one reads. */
static inline void hr_asof_feed_block(
    const hr_asof_spine *spine, const hr_asof_kept *kept, const hr_asof_batch *batch, int64_t start, int count)
{
    uint64_t hashes[HR_ASOF_BLOCK];
    uint32_t firsts[HR_ASOF_BLOCK], counts[HR_ASOF_BLOCK];
    int64_t seen[HR_ASOF_BLOCK];
    int i, is_known;
    for (i = 0; i < count; i++) {
        hashes[i] = hr_asof_batch_hash(spine, batch, start + i);
        __builtin_prefetch(&spine->slots[hashes[i] & spine->slot_mask]);
    }
    for (i = 0; i < count; i++) {
        const hr_asof_slot *slot = hr_asof_batch_find(spine, batch, start + i, hashes[i]);
        seen[i] = hr_asof_seen_us(batch, start + i, &is_known);
        counts[i] = slot->entity == HR_ASOF_NONE || !is_known ? 0 : slot->count;
        firsts[i] = slot->first;
        if (counts[i] > 0) {  /* few times fill a line or two, and of many the middle is read first */
            __builtin_prefetch(&spine->times[counts[i] > HR_ASOF_FEW ? firsts[i] + counts[i] / 2 - 1 : firsts[i]]);
            if (counts[i] <= HR_ASOF_FEW) __builtin_prefetch(&spine->times[firsts[i] + counts[i] - 1]);
        }
    }
    for (i = 0; i < count; i++) {
        uint32_t end = firsts[i] + counts[i];
        if (counts[i] == 0) continue;
        firsts[i] = hr_asof_lower_bound(spine->times, firsts[i], counts[i], seen[i]);
        if (firsts[i] == end) counts[i] = 0;
        else __builtin_prefetch(&kept->matches[firsts[i]], 1);
    }
    for (i = 0; i < count; i++)
        if (counts[i] > 0) hr_asof_keep(kept, batch, start + i, firsts[i]);
}

static inline void hr_asof_feed(const hr_asof_spine *spine, const hr_asof_kept *kept, const hr_asof_batch *batch)
{
    int64_t i, left;
    for (i = 0; i < batch->keys.row_count; i += HR_ASOF_BLOCK) {
        left = batch->keys.row_count - i;
        hr_asof_feed_block(spine, kept, batch, i, left < HR_ASOF_BLOCK ? (int)left : HR_ASOF_BLOCK);
    }
}

/* Entity of every key, -1 for keys that the spine lacks. */
static inline void hr_asof_lookup(const hr_asof_spine *spine, const hr_asof_keys *keys, int64_t *entities)
{
    uint64_t hashes[HR_ASOF_BLOCK];
    int64_t start, i, count;
    for (start = 0; start < keys->row_count; start += HR_ASOF_BLOCK) {
        const uint64_t *bounds = keys->starts + start;
        count = keys->row_count - start < HR_ASOF_BLOCK ? keys->row_count - start : HR_ASOF_BLOCK;
        for (i = 0; i < count; i++) {
            hashes[i] = hr_asof_hash(spine, keys->bytes + bounds[i], (size_t)(bounds[i + 1] - bounds[i]));
            __builtin_prefetch(&spine->slots[hashes[i] & spine->slot_mask]);
        }
        for (i = 0; i < count; i++) {
            const hr_asof_slot *slot =
                hr_asof_find(spine, hashes[i], keys->bytes + bounds[i], (size_t)(bounds[i + 1] - bounds[i]));
            entities[start + i] = slot->entity == HR_ASOF_NONE ? -1 : (int64_t)slot->entity;
        }
    }
}

/* Entity and query time of every row of the spine. */
static inline void hr_asof_rows(const hr_asof_spine *spine, int64_t *entities, int64_t *times)
{
    uint32_t e, at;
    for (e = 0; e < spine->entity_count; e++)
        for (at = spine->entity_firsts[e]; at < spine->entity_firsts[e + 1]; at++) {
            entities[spine->rows[at]] = e;
            times[spine->rows[at]] = spine->times[at];
        }
}

/* Takes over what another table kept; both have ties, or neither. */
static inline void hr_asof_merge(const hr_asof_kept *kept, const hr_asof_kept *other, int64_t count)
{
    int64_t i;
    for (i = 0; i < count; i++) {
        hr_asof_tie *tie = hr_asof_tie_at(kept, i), *other_tie = hr_asof_tie_at(other, i);
        if (!hr_asof_beats(&other->matches[i], other_tie, &kept->matches[i], tie)) continue;
        kept->matches[i] = other->matches[i];
        if (tie != NULL) *tie = *other_tie;
    }
}

/* Index of the greatest row that every spine row sees, tombstones included; -1 where there is none. */
static inline void hr_asof_newest(const hr_asof_spine *spine, const hr_asof_kept *kept, int64_t *indexes)
{
    uint32_t e, at, best;
    for (e = 0; e < spine->entity_count; e++) {
        best = spine->entity_firsts[e];
        for (at = best; at < spine->entity_firsts[e + 1]; at++) {
            if (hr_asof_beats(&kept->matches[at], hr_asof_tie_at(kept, at), &kept->matches[best],
                              hr_asof_tie_at(kept, best)))
                best = at;
            indexes[spine->rows[at]] = kept->matches[best].mark < 0 ? -1 : kept->matches[best].mark >> 1;
        }
    }
}

/* Index of the history row and row status for every spine row; no row and a tombstone have index -1. */
static inline void hr_asof_resolve(
    const hr_asof_spine *spine, const hr_asof_kept *kept, int64_t ttl_us, int64_t stale_us, int64_t *indexes,
    uint8_t *statuses)
{
    uint32_t e, at, best;
    for (e = 0; e < spine->entity_count; e++) {
        best = spine->entity_firsts[e];
        for (at = best; at < spine->entity_firsts[e + 1]; at++) {
            uint32_t row = spine->rows[at];
            const hr_asof_match *match;
            if (hr_asof_beats(&kept->matches[at], hr_asof_tie_at(kept, at), &kept->matches[best],
                              hr_asof_tie_at(kept, best)))
                best = at;
            match = &kept->matches[best];
            indexes[row] = match->mark < 0 || match->mark & 1 ? -1 : match->mark >> 1;
            statuses[row] = match->mark < 0 ? hr_row_status(NULL, spine->times[at], ttl_us, stale_us)
                                            : hr_status_at(match->event_us, match->mark & 1 ? HR_FLAG_TOMBSTONE : 0,
                                                           spine->times[at], ttl_us, stale_us);
        }
    }
}

#endif
