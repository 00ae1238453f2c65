/* As-of join of history rows that come in the order in which they are seen: a sweep over the times of the spine.
 *
 * A sweep keeps the greatest row of every entity so far, and gives it to the queries that it passes. Its memory is read
 * where the entities lie and not where their times lie, so it stays in the caches. Several sweeps over parts of a history,
 * and rows that were fed out of order, are compared query by query at the end; so any history may be cut anywhere. */
#ifndef HR_ASOF_SWEEP_H
#define HR_ASOF_SWEEP_H

#include "hr_asof.h"
#include "hr_radix.h"

enum {
    HR_ASOF_UNORDERED = 2,      /* a batch is not in order: it is left to hr_asof_feed */
    HR_ASOF_AHEAD = 16          /* queries whose entity is fetched before its turn */
};

/* One row of the spine. */
typedef struct {
    int64_t time;
    uint32_t entity, row;
} hr_asof_query;

/* The rows of a spine by time; read-only once built. */
typedef struct {
    const hr_asof_spine *spine;
    hr_asof_query *queries;
} hr_asof_queries;

/* What the rows of one part of a history gave; queries from `end` on see the latest rows. */
typedef struct {
    hr_asof_kept latest;        /* by entity */
    hr_asof_kept passed;        /* of the queries [begin, end) */
    int64_t begin, end, capacity;
    int64_t last_us;            /* when the last row was seen */
    int64_t greatest_us;        /* of the event times of all rows */
    int is_begun;
} hr_asof_sweep;

static inline void hr_asof_queries_free(hr_asof_queries *queries)
{
    free(queries->queries);
    queries->queries = NULL;
}

static inline void hr_asof_kept_free(hr_asof_kept *kept)
{
    free(kept->matches);
    free(kept->ties);
    kept->matches = NULL, kept->ties = NULL;
}

static inline void hr_asof_sweep_free(hr_asof_sweep *sweep)
{
    hr_asof_kept_free(&sweep->latest);
    hr_asof_kept_free(&sweep->passed);
}

/* Whether the tables could be had; without `has_ties` one is enough. */
static inline int hr_asof_kept_allocate(hr_asof_kept *kept, int64_t count, int has_ties)
{
    kept->matches = hr_asof_allocate((size_t)(count + 1) * sizeof(*kept->matches));
    kept->ties = has_ties ? calloc((size_t)(count + 1), sizeof(*kept->ties)) : NULL;
    if (kept->matches == NULL || (has_ties && kept->ties == NULL)) return 0;
    memset(kept->matches, 0xFF, (size_t)(count + 1) * sizeof(*kept->matches));
    return 1;
}

/* Queries in the order of the spine's rows; tells whether their times ascend. */
static inline int hr_asof_queries_fill(hr_asof_queries *queries)
{
    const hr_asof_spine *spine = queries->spine;
    int64_t i;
    uint32_t e, at;
    for (e = 0; e < spine->entity_count; e++)
        for (at = spine->entity_firsts[e]; at < spine->entity_firsts[e + 1]; at++)
            queries->queries[spine->rows[at]] = (hr_asof_query){spine->times[at], e, spine->rows[at]};
    for (i = 1; i < spine->keys.row_count; i++)
        if (queries->queries[i - 1].time > queries->queries[i].time) return 0;
    return 1;
}

/* Orders the queries by time. */
static inline int hr_asof_queries_sort(hr_asof_queries *queries)
{
    int64_t i, count = queries->spine->keys.row_count;
    hr_asof_query *ordered = hr_asof_allocate((size_t)(count + 1) * sizeof(*ordered));
    hr_radix_pair *pairs = malloc((size_t)(2 * count + 1) * sizeof(*pairs));
    if (ordered != NULL && pairs != NULL) {
        for (i = 0; i < count; i++)
            pairs[i] = (hr_radix_pair){(uint64_t)queries->queries[i].time ^ 1ULL << 63, (uint64_t)i};
        hr_radix_sort(pairs, pairs + count, count);
        for (i = 0; i < count; i++) ordered[i] = queries->queries[pairs[i].value];
        free(queries->queries);
        queries->queries = ordered;
        ordered = NULL;
        free(pairs);
        return HR_ASOF_OK;
    }
    free(ordered);
    free(pairs);
    return HR_ASOF_NO_MEMORY;
}

/* Builds the queries of a spine, which outlives them. The caller frees them, also after a failure. */
static inline int hr_asof_queries_build(hr_asof_queries *queries)
{
    size_t count = (size_t)queries->spine->keys.row_count + 1;
    queries->queries = hr_asof_allocate(count * sizeof(*queries->queries));
    if (queries->queries == NULL) return HR_ASOF_NO_MEMORY;
    return hr_asof_queries_fill(queries) ? HR_ASOF_OK : hr_asof_queries_sort(queries);
}

/* First query of [from, count) that sees a row, or count. */
static inline int64_t hr_asof_first_seeing(const hr_asof_queries *queries, int64_t from, int64_t seen_us)
{
    int64_t end = queries->spine->keys.row_count;
    while (from < end) {
        int64_t middle = from + ((end - from) >> 1);
        if (queries->queries[middle].time < seen_us) from = middle + 1;
        else end = middle;
    }
    return from;
}

/* Whether rows are seen at their event times, which alone order them. */
static inline int hr_asof_is_plain(const hr_asof_sweep *sweep, const hr_asof_batch *batch)
{
    return sweep->latest.ties == NULL && batch->write_us == NULL && batch->available_us == NULL &&
           batch->tombstones == NULL;
}

/* Whether the rows of a batch are seen in ascending order, none before `last_us`. */
static inline int hr_asof_ascends(const hr_asof_batch *batch, int64_t last_us, int is_plain)
{
    const int64_t *event_us = batch->event_us;
    int64_t i;
    int is_known, falls = event_us[0] < last_us;
    if (is_plain) {
        for (i = 1; i < batch->keys.row_count; i++) falls |= event_us[i] < event_us[i - 1];
        return !falls;
    }
    for (i = 0; i < batch->keys.row_count; i++) {
        int64_t seen = hr_asof_seen_us(batch, i, &is_known);
        if (seen < last_us) return 0;
        last_us = seen;
    }
    return 1;
}

/* Room for `count` passed queries. */
static inline int hr_asof_sweep_reserve(hr_asof_sweep *sweep, int64_t count)
{
    int64_t capacity = count + count / 4 + 1024;
    void *matches, *ties;
    if (count <= sweep->capacity) return HR_ASOF_OK;
    matches = realloc(sweep->passed.matches, (size_t)capacity * sizeof(hr_asof_match));
    if (matches == NULL) return HR_ASOF_NO_MEMORY;
    sweep->passed.matches = matches;
    if (sweep->latest.ties != NULL) {
        ties = realloc(sweep->passed.ties, (size_t)capacity * sizeof(hr_asof_tie));
        if (ties == NULL) return HR_ASOF_NO_MEMORY;
        sweep->passed.ties = ties;
    }
    sweep->capacity = capacity;
    return HR_ASOF_OK;
}

/* Gives the queries before `seen_us` what their entities have so far; room for them was reserved. */
static inline void hr_asof_sweep_pass(
    const hr_asof_queries *queries, hr_asof_sweep *sweep, int64_t seen_us, int64_t past)
{
    for (; sweep->end < past && queries->queries[sweep->end].time < seen_us; sweep->end++) {
        int64_t to = sweep->end - sweep->begin;
        uint32_t entity = queries->queries[sweep->end].entity;
        if (sweep->end + HR_ASOF_AHEAD < past)
            __builtin_prefetch(&sweep->latest.matches[queries->queries[sweep->end + HR_ASOF_AHEAD].entity]);
        sweep->passed.matches[to] = sweep->latest.matches[entity];
        if (sweep->passed.ties != NULL) sweep->passed.ties[to] = sweep->latest.ties[entity];
    }
}

/* Entities of some rows of a batch, HR_ASOF_NONE for those that the spine lacks. */
static inline void hr_asof_batch_entities(
    const hr_asof_queries *queries, const hr_asof_batch *batch, int64_t start, int count, uint32_t *entities)
{
    uint64_t hashes[HR_ASOF_BLOCK], place;
    int i;
    if (queries->spine->dense != NULL && batch->integers != NULL) {
        for (i = 0; i < count; i++) {
            place = (uint64_t)batch->integers[start + i] - (uint64_t)queries->spine->dense_first;
            entities[i] = place < queries->spine->dense_count ? queries->spine->dense[place] : HR_ASOF_NONE;
        }
        return;
    }
    for (i = 0; i < count; i++) {
        hashes[i] = hr_asof_batch_hash(queries->spine, batch, start + i);
        __builtin_prefetch(&queries->spine->slots[hr_asof_home(hashes[i], queries->spine->slot_mask)]);
    }
    for (i = 0; i < count; i++)
        entities[i] = hr_asof_batch_find(queries->spine, batch, start + i, hashes[i])->entity;
}

/* hr_asof_batch_entities, which fetches what is kept of them. */
static inline int hr_asof_sweep_fetch(
    const hr_asof_queries *queries, const hr_asof_sweep *sweep, const hr_asof_batch *batch, int64_t start,
    uint32_t *entities)
{
    int64_t left = batch->keys.row_count - start;
    int i, count = left < HR_ASOF_BLOCK ? (int)left : HR_ASOF_BLOCK;
    if (count <= 0) return 0;
    hr_asof_batch_entities(queries, batch, start, count, entities);
    for (i = 0; i < count; i++)
        if (entities[i] != HR_ASOF_NONE) __builtin_prefetch(&sweep->latest.matches[entities[i]], 1);
    return count;
}

/* Some rows of a plain batch; what hr_asof_keep does, without asking for what is not there. */
static inline void hr_asof_sweep_plain(
    const hr_asof_queries *queries, hr_asof_sweep *sweep, const hr_asof_batch *batch, int64_t start, int count,
    const uint32_t *entities, int64_t past)
{
    const int64_t *event_us = batch->event_us + start, cutoff_us = batch->cutoff_us;
    hr_asof_match *latest = sweep->latest.matches, *held;
    int64_t next_us = sweep->end < past ? queries->queries[sweep->end].time : INT64_MAX;
    int64_t mark = 2 * (batch->first_index + start);
    int i;
    for (i = 0; i < count; i++, mark += 2) {
        if (event_us[i] > next_us) {
            hr_asof_sweep_pass(queries, sweep, event_us[i], past);
            next_us = sweep->end < past ? queries->queries[sweep->end].time : INT64_MAX;
        }
        if (entities[i] == HR_ASOF_NONE || event_us[i] > cutoff_us) continue;
        held = &latest[entities[i]];
        if (event_us[i] > held->event_us || held->mark < 0 || (event_us[i] == held->event_us && mark < held->mark))
            *held = (hr_asof_match){event_us[i], mark};
    }
}

/* Some rows of any batch. */
static inline void hr_asof_sweep_rows(
    const hr_asof_queries *queries, hr_asof_sweep *sweep, const hr_asof_batch *batch, int64_t start, int count,
    const uint32_t *entities, int64_t past)
{
    int i, is_known;
    for (i = 0; i < count; i++) {
        hr_asof_sweep_pass(queries, sweep, hr_asof_seen_us(batch, start + i, &is_known), past);
        if (batch->event_us[start + i] > sweep->greatest_us) sweep->greatest_us = batch->event_us[start + i];
        if (entities[i] != HR_ASOF_NONE && is_known) hr_asof_keep(&sweep->latest, batch, start + i, entities[i]);
    }
}

/* Takes a batch whose rows are seen in order, none before those taken so far; else HR_ASOF_UNORDERED. */
static inline int hr_asof_sweep_feed(const hr_asof_queries *queries, hr_asof_sweep *sweep, const hr_asof_batch *batch)
{
    uint32_t entities[2][HR_ASOF_BLOCK];  /* of some rows, and of those behind them, which are fetched meanwhile */
    int64_t start, past, row_count = batch->keys.row_count;
    int count, ahead, turn = 0, is_known, is_plain = hr_asof_is_plain(sweep, batch);
    if (row_count == 0) return HR_ASOF_OK;
    if (!hr_asof_ascends(batch, sweep->is_begun ? sweep->last_us : INT64_MIN, is_plain)) return HR_ASOF_UNORDERED;
    if (!sweep->is_begun) {
        sweep->begin = sweep->end = hr_asof_first_seeing(queries, 0, hr_asof_seen_us(batch, 0, &is_known));
        sweep->greatest_us = INT64_MIN;
        sweep->is_begun = 1;
    }
    sweep->last_us = hr_asof_seen_us(batch, row_count - 1, &is_known);
    past = hr_asof_first_seeing(queries, sweep->end, sweep->last_us);
    if (hr_asof_sweep_reserve(sweep, past - sweep->begin) != HR_ASOF_OK) return HR_ASOF_NO_MEMORY;
    count = hr_asof_sweep_fetch(queries, sweep, batch, 0, entities[turn]);
    for (start = 0; count > 0; start += count, count = ahead, turn = !turn) {
        ahead = hr_asof_sweep_fetch(queries, sweep, batch, start + count, entities[!turn]);
        if (is_plain) hr_asof_sweep_plain(queries, sweep, batch, start, count, entities[turn], past);
        else hr_asof_sweep_rows(queries, sweep, batch, start, count, entities[turn], past);
    }
    if (is_plain && sweep->last_us > sweep->greatest_us) sweep->greatest_us = sweep->last_us;
    return HR_ASOF_OK;
}

/* Matches that were fed out of order, for every row of the spine: the running maximum over the times of its entity. */
static inline void hr_asof_spread(const hr_asof_spine *spine, const hr_asof_kept *kept, const hr_asof_kept *by_row)
{
    uint32_t e, at, best;
    for (e = 0; e < spine->entity_count; e++) {
        best = spine->entity_firsts[e];
        for (at = best; at < spine->entity_firsts[e + 1]; at++) {
            if (hr_asof_beats(&kept->matches[at], hr_asof_tie_at(kept, at), &kept->matches[best],
                              hr_asof_tie_at(kept, best)))
                best = at;
            by_row->matches[spine->rows[at]] = kept->matches[best];
            if (kept->ties != NULL) by_row->ties[spine->rows[at]] = kept->ties[best];
        }
    }
}

/* Where the greater of two matches lies. */
typedef struct {
    const hr_asof_match *match;
    const hr_asof_tie *tie;
} hr_asof_found;

static inline void hr_asof_found_more(hr_asof_found *best, const hr_asof_kept *kept, int64_t at)
{
    const hr_asof_match *match = &kept->matches[at];
    const hr_asof_tie *tie = hr_asof_tie_at(kept, at);
    if (match->mark < 0 || (best->match != NULL && !hr_asof_beats(match, tie, best->match, best->tie))) return;
    best->match = match, best->tie = tie;
}

/* Index of the history row and row status of the queries [from, past); by_row is what was fed out of order, or NULL. */
static inline void hr_asof_sweeps_resolve(
    const hr_asof_queries *queries, const hr_asof_sweep *const *sweeps, int64_t sweep_count, const hr_asof_kept *by_row,
    int64_t ttl_us, int64_t stale_us, int64_t from, int64_t past, int64_t *indexes, uint8_t *statuses)
{
    int64_t q, k;
    for (q = from; q < past; q++) {
        const hr_asof_query *query = &queries->queries[q];
        hr_asof_found best = {NULL, NULL};
        for (k = sweep_count; k-- > 0;) {  /* the last are the latest as a rule, and settle it */
            const hr_asof_sweep *sweep = sweeps[k];
            if (!sweep->is_begun || q < sweep->begin) continue;
            if (best.match != NULL && best.match->event_us > sweep->greatest_us) continue;
            if (q < sweep->end) hr_asof_found_more(&best, &sweep->passed, q - sweep->begin);
            else hr_asof_found_more(&best, &sweep->latest, query->entity);
        }
        if (by_row != NULL) hr_asof_found_more(&best, by_row, query->row);
        if (best.match == NULL) {
            indexes[query->row] = -1;
            statuses[query->row] = hr_row_status(NULL, query->time, ttl_us, stale_us);
            continue;
        }
        indexes[query->row] = best.match->mark & 1 ? -1 : best.match->mark >> 1;
        statuses[query->row] = hr_status_at(best.match->event_us, best.match->mark & 1 ? HR_FLAG_TOMBSTONE : 0,
                                            query->time, ttl_us, stale_us);
    }
}

/* ---- the matched rows in the order of the history ---- */

/* Room for hr_asof_arrange of `count` rows; free() takes it. */
static inline void *hr_asof_arrange_room(int64_t count)
{
    return hr_asof_allocate((size_t)(2 * count + 1) * sizeof(hr_radix_pair));
}

/* Indexes [low, high) of the history; `highest` is the greatest of them that is there. */
typedef struct {
    int64_t low, high, highest, count;
} hr_asof_range;

static inline void hr_asof_range_count(const int64_t *indexes, int64_t row_count, hr_asof_range *range)
{
    uint64_t width = (uint64_t)(range->high - range->low);
    int64_t i;
    range->count = 0, range->highest = -1;
    for (i = 0; i < row_count; i++) {
        int is_in = (uint64_t)(indexes[i] - range->low) < width;
        range->count += is_in;
        if (is_in && indexes[i] > range->highest) range->highest = indexes[i];
    }
}

/* Writes the indexes of a range, ascending, and their places. Places have 32 bits, as a spine has no more rows. */
static inline void hr_asof_arrange(
    const int64_t *indexes, int64_t row_count, const hr_asof_range *range, void *room, int64_t *sources,
    int64_t *places)
{
    uint64_t *numbers = room, width = (uint64_t)(range->high - range->low);
    hr_radix_pair *pairs = room;
    int64_t i, count = 0;
    if (range->highest <= UINT32_MAX) {  /* both halves of one number: half of the memory to move */
        for (i = 0; i < row_count; i++)
            if ((uint64_t)(indexes[i] - range->low) < width)
                numbers[count++] = (uint64_t)indexes[i] << 32 | (uint64_t)i;
        hr_radix_sort_numbers(numbers, numbers + count, count, 32);
        for (i = 0; i < count; i++) sources[i] = (int64_t)(numbers[i] >> 32), places[i] = numbers[i] & UINT32_MAX;
        return;
    }
    for (i = 0; i < row_count; i++)
        if ((uint64_t)(indexes[i] - range->low) < width)
            pairs[count++] = (hr_radix_pair){(uint64_t)indexes[i], (uint64_t)i};
    hr_radix_sort(pairs, pairs + count, count);
    for (i = 0; i < count; i++) sources[i] = (int64_t)pairs[i].key, places[i] = (int64_t)pairs[i].value;
}

#endif
