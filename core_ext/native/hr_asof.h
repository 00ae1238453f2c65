/* As-of join: the spine is a table of entities with their query times, and the history streams past it once.
 *
 * A history row is seen by the query times T >= max(event, available) of its entity; a tombstone, which may stand behind
 * rows of the near future, by T >= available. It is kept at the first of them only, and the greatest row by the total order stays there; a running maximum over the times of the entity then gives
 * every T its row. So the history is never sorted or held, and two tables of matches merge in any order. */
#ifndef HR_ASOF_H
#define HR_ASOF_H

#include "hr_asof_spine.h"

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
        __builtin_prefetch(&spine->slots[hr_asof_home(hashes[i], spine->slot_mask)]);
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
            __builtin_prefetch(&spine->slots[hr_asof_home(hashes[i], spine->slot_mask)]);
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
