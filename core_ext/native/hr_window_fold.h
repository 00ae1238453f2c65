/* Folds a tile map at a read time T into one value per feature; no Python object, no allocation once buffers have grown.
 *
 * A caller holds one hr_window_fold per thread and plan: hr_fold_open, any number of hr_window_fold_at, hr_fold_close. */
#ifndef HR_WINDOW_FOLD_H
#define HR_WINDOW_FOLD_H

#include "hr_window_result.h"
#include "hr_window_session.h"
#include "hr_window_write.h"

/* A value of a feature, of its type: BOOL, I32, I64, TIMESTAMP_US and DATE in `i`, F32 and F64 in `f`; texts and lists
 * lie in the heap of the fold, in the form of a row's heap: texts as they are, lists of fixed-width elements packed,
 * lists of texts as u32 count, u32 ends, the texts, and as nothing when empty. */
typedef struct {
    union {
        int64_t i;
        double f;
        struct {
            uint32_t start, length;
        } heap;
    };
    uint8_t is_null;
    uint8_t lost;    /* HR_LOST_*: why it is NULL although there were values */
} hr_window_value;

/* States of a tile: bytes [begin, end) of state n stand at heap + begin. */
typedef struct {
    const uint8_t *heap, *ends;
    uint32_t start;
} hr_window_piece;

typedef struct {
    const hr_window_plan *plan;
    hr_state *states;           /* one per state of the plan */
    hr_window_map map;
    hr_window_piece *pieces;
    uint32_t piece_count, piece_capacity;
    hr_window_value *values;    /* one per feature, after a fold */
    hr_window_bytes heap;
    int is_exact;               /* of the last fold: 0 where an event after T may have been counted, or old tiles are gone */
} hr_window_fold;

static inline void hr_fold_close(hr_window_fold *fold)
{
    uint32_t i;
    for (i = 0; fold->states != NULL && i < fold->plan->state_count; i++) hr_state_free(&fold->states[i]);
    free(fold->states);
    free(fold->map.sections);
    free(fold->pieces);
    free(fold->values);
    free(fold->heap.at);
    memset(fold, 0, sizeof(*fold));
}

/* The plan outlives the fold. The caller closes it, also after a failure. */
static inline int hr_fold_open(hr_window_fold *fold, const hr_window_plan *plan)
{
    uint32_t i;
    memset(fold, 0, sizeof(*fold));
    fold->plan = plan;
    fold->states = calloc((size_t)plan->state_count + 1, sizeof(hr_state));
    fold->map.sections = calloc((size_t)plan->section_count + 1, sizeof(hr_window_section));
    fold->values = calloc((size_t)plan->feature_count + 1, sizeof(hr_window_value));
    if (fold->states == NULL || fold->map.sections == NULL || fold->values == NULL) return HR_WINDOW_NO_MEMORY;
    for (i = 0; i < plan->state_count; i++)
        if (hr_state_init(&fold->states[i], &plan->states[i].spec) != HR_STATE_OK) return HR_WINDOW_NO_MEMORY;
    return HR_WINDOW_OK;
}

/* ---- the tiles of a span ---- */

/* Takes the tiles [k, end) of a section. */
static inline int hr_fold_take(hr_window_fold *fold, const hr_window_section *section, int64_t k, int64_t end)
{
    hr_window_tile tile;
    uint32_t i;
    if (section->count == 0 || end <= k) return HR_WINDOW_OK;
    for (i = hr_window_lower_bound(section, k); i < section->count && hr_window_k(section, i) < end; i++) {
        if (hr_window_tile_at(section, i, &tile) != HR_WINDOW_OK) return HR_WINDOW_BAD_TILES;
        if (fold->piece_count == fold->piece_capacity) {
            uint32_t capacity = fold->piece_capacity == 0 ? 64 : 2 * fold->piece_capacity;
            hr_window_piece *grown = realloc(fold->pieces, capacity * sizeof(*grown));
            if (grown == NULL) return HR_WINDOW_NO_MEMORY;
            fold->pieces = grown, fold->piece_capacity = capacity;
        }
        fold->pieces[fold->piece_count++] = (hr_window_piece){section->heap, tile.ends, tile.start};
    }
    return HR_WINDOW_OK;
}

/* Whole tiles up to `read_us`, from coarse to fine, then the finest tile that holds it: where no event of the map is
 * later, a coarser one may be taken instead. */
static inline int hr_fold_descend(
    hr_window_fold *fold, const hr_window_ladder *ladder, uint32_t level, int64_t at, int64_t read_us, int takes_last)
{
    const hr_window_section *sections = fold->map.sections + ladder->first_section;
    uint32_t before;
    int status = HR_WINDOW_OK;
    for (;; level--) {
        int64_t size = ladder->sizes[level], end = hr_floor_div(read_us, size);
        if (fold->map.newest > read_us && at < hr_kept_from(ladder, level, fold->map.newest)) fold->is_exact = 0;
        if (end * size > at) {
            status = hr_fold_take(fold, &sections[level], at / size, end);
            at = end * size;
        }
        if (level == 0 || status != HR_WINDOW_OK) break;
    }
    if (!takes_last || at >= read_us || status != HR_WINDOW_OK) return status;
    before = fold->piece_count;
    status = hr_fold_take(fold, &sections[0], at / ladder->sizes[0], at / ladder->sizes[0] + 1);
    if (fold->piece_count > before) fold->is_exact = 0;
    return status;
}

/* Collects the tiles of (start, read_us], start a whole hop. Fine tiles lead from the start up to the coarsest ones; where no event is
 * later than the read, the tile that holds it is taken whole. With takes_last 0 the finest tile that holds it is left
 * out, and the others are exact. */
static inline int hr_fold_cover(
    hr_window_fold *fold, const hr_window_span *span, int64_t start, int64_t read_us, int takes_last)
{
    const hr_window_ladder *ladder = &fold->plan->ladders[span->ladder];
    const hr_window_section *sections = fold->map.sections + ladder->first_section;
    int64_t at = start;
    uint32_t level = span->level;
    int status = HR_WINDOW_OK;
    fold->piece_count = 0;
    for (; level + 1 < ladder->level_count; level++) {
        int64_t size = ladder->sizes[level], above = ladder->sizes[level + 1];
        int64_t edge = -hr_floor_div(-at, above) * above;
        if (edge >= read_us) break;
        if (fold->map.newest > read_us && at < hr_kept_from(ladder, level, fold->map.newest) && at < edge)
            fold->is_exact = 0;
        status = hr_fold_take(fold, &sections[level], at / size, edge / size);
        if (status != HR_WINDOW_OK) return status;
        at = edge;
    }
    if (!takes_last || fold->map.newest > read_us)
        return hr_fold_descend(fold, ladder, level, at, read_us, takes_last);
    return hr_fold_take(
        fold, &sections[level], at / ladder->sizes[level], hr_tile_of(read_us, ladder->sizes[level]) + 1);
}

/* ---- values ---- */

static inline uint32_t hr_scalar_bytes(uint8_t scalar)
{
    switch (scalar) {
    case HR_BOOL: return 1;
    case HR_I32: case HR_F32: case HR_DATE: return 4;
    case HR_STRING: case HR_BYTES: return 0;
    default: return 8;
    }
}

/* Writes one value of fixed width; its type has hr_scalar_bytes of them. */
static inline void hr_scalar_store(uint8_t scalar, const hr_value *value, uint8_t *to)
{
    float single;
    switch (scalar) {
    case HR_BOOL: *to = value->i != 0; break;
    case HR_F32: single = (float)value->f; memcpy(to, &single, 4); break;
    case HR_I32: case HR_DATE: hr_store_u32(to, (uint32_t)value->i); break;
    case HR_F64: memcpy(to, &value->f, 8); break;
    default: hr_store_u64(to, (uint64_t)value->i);
    }
}

static inline int hr_heap_list(hr_window_bytes *heap, uint8_t scalar, const hr_result *result)
{
    uint32_t i, end = 0, width = hr_scalar_bytes(scalar);
    size_t bytes = result->item_count == 0 ? 0 : width > 0 ? (size_t)width * result->item_count
                                                           : 4 + 4 * (size_t)result->item_count;
    uint8_t *to, *texts;
    if (width == 0)
        for (i = 0; i < result->item_count; i++) bytes += result->items[i].length;
    if (bytes > HR_MAP_BYTES_MAX) return HR_WINDOW_TOO_LARGE;
    if (hr_bytes_reserve(heap, bytes) != HR_WINDOW_OK) return HR_WINDOW_NO_MEMORY;
    to = heap->at + heap->length;
    heap->length += bytes;
    if (width > 0 || result->item_count == 0) {
        for (i = 0; i < result->item_count; i++) hr_scalar_store(scalar, &result->items[i], to + (size_t)i * width);
        return HR_WINDOW_OK;
    }
    hr_store_u32(to, result->item_count);
    texts = to + 4 + 4 * (size_t)result->item_count;
    for (i = 0; i < result->item_count; i++) {
        const hr_value *item = &result->items[i];
        if (item->length > 0) memcpy(texts + end, item->bytes, item->length);
        end += item->length;
        hr_store_u32(to + 4 + 4 * (size_t)i, end);
    }
    return HR_WINDOW_OK;
}

static inline int hr_fold_store(
    hr_window_bytes *heap, const hr_window_feature *feature, const hr_result *result, hr_window_value *value)
{
    size_t start = heap->length;
    int status = HR_WINDOW_OK;
    memset(value, 0, sizeof(*value));
    value->is_null = result->value.is_null, value->lost = result->lost;
    if (result->value.is_null) return HR_WINDOW_OK;
    if (!feature->is_list && !hr_scalar_is_text(feature->scalar)) {
        value->i = result->value.i;  /* the bits of a float as well */
        return HR_WINDOW_OK;
    }
    if (feature->is_list) {
        status = hr_heap_list(heap, feature->scalar, result);
    } else {
        status = hr_bytes_reserve(heap, result->value.length);
        if (status != HR_WINDOW_OK) return status;
        if (result->value.length > 0) memcpy(heap->at + start, result->value.bytes, result->value.length);
        heap->length += result->value.length;
    }
    if (heap->length > UINT32_MAX) return HR_WINDOW_TOO_LARGE;
    value->heap.start = (uint32_t)start, value->heap.length = (uint32_t)(heap->length - start);
    return status;
}

static inline size_t hr_piece_state(const hr_window_piece *piece, uint32_t at, const uint8_t **bytes)
{
    uint32_t begin = at == 0 ? piece->start : hr_load_u32(piece->ends + 4 * (size_t)at - 4);
    *bytes = piece->heap + begin;
    return hr_load_u32(piece->ends + 4 * (size_t)at) - begin;
}

/* The piece that holds the least or greatest float, so that it alone need be merged; UINT32_MAX where the states are of
 * another kind, or not as plain as to be compared here. */
static inline uint32_t hr_fold_best(const hr_window_fold *fold, const hr_state_spec *spec, uint32_t at)
{
    uint32_t i, best = 0, width = hr_scalar_bytes(spec->scalar);
    int64_t rank, best_rank = INT64_MIN, sign = spec->kind == HR_KIND_MIN ? -1 : 0;
    const uint8_t *bytes;
    if ((spec->kind != HR_KIND_MIN && spec->kind != HR_KIND_MAX) || !hr_scalar_is_float(spec->scalar)) return UINT32_MAX;
    for (i = 0; i < fold->piece_count; i++) {
        size_t length = hr_piece_state(&fold->pieces[i], at, &bytes);
        float single;
        double wide;
        if (length == 0) continue;
        if (length != width) return UINT32_MAX;
        if (width == 4) {
            memcpy(&single, bytes, 4);
            wide = single;
        } else {
            memcpy(&wide, bytes, 8);
        }
        if (wide != wide) return UINT32_MAX;
        rank = hr_float_rank(wide) ^ sign;
        if (rank > best_rank) best_rank = rank, best = i;
    }
    return best;
}

/* Merges the collected tiles into the working state n of the plan. */
static inline int hr_fold_state(hr_window_fold *fold, const hr_window_ladder *ladder, uint32_t n)
{
    hr_state *state = &fold->states[n];
    uint32_t at = n - ladder->first_state, best = hr_fold_best(fold, &state->spec, at);
    uint32_t i = best == UINT32_MAX ? 0 : best, end = best < fold->piece_count ? best + 1 : fold->piece_count;
    const uint8_t *bytes;
    int status = HR_STATE_OK;
    hr_state_reset(state);
    for (; i < end && status == HR_STATE_OK; i++) {
        size_t length = hr_piece_state(&fold->pieces[i], at, &bytes);
        if (length > 0) status = hr_state_merge_bytes(state, bytes, length);
    }
    return hr_merged(status);
}

static inline int hr_fold_span(hr_window_fold *fold, const hr_window_span *span, int64_t read_us)
{
    const hr_window_plan *plan = fold->plan;
    uint32_t u, end = span->first_use + span->use_count, folded = UINT32_MAX;
    int64_t start = hr_window_start(span, read_us);
    hr_result result;
    int status = HR_WINDOW_OK;
    if (span->gap_us > 0)
        status = hr_session_start(&fold->map, &plan->ladders[span->ladder], span, read_us, &start, &fold->is_exact);
    fold->piece_count = 0;
    if (status == HR_WINDOW_OK && start < read_us) status = hr_fold_cover(fold, span, start, read_us, 1);
    for (u = span->first_use; u < end && status == HR_WINDOW_OK; u++) {
        const hr_window_feature *feature = &plan->features[plan->uses[u]];
        if (feature->state != folded) status = hr_fold_state(fold, &plan->ladders[span->ladder], feature->state);
        folded = feature->state;
        if (status == HR_WINDOW_OK)
            status = hr_merged(hr_window_result(
                &fold->states[folded], feature->aggregate, feature->parameter, read_us, &result));
        if (status == HR_WINDOW_OK)
            status = hr_fold_store(&fold->heap, feature, &result, &fold->values[plan->uses[u]]);
    }
    return status;
}

/* Values at `read_us` of a full map or a delta; NULL bytes are a row that is not stored. fold->values, fold->heap and
 * fold->is_exact hold until the next call. */
static inline int hr_window_fold_at(hr_window_fold *fold, const uint8_t *bytes, size_t length, int64_t read_us)
{
    uint32_t i;
    int status = hr_window_open(fold->plan, bytes, length, &fold->map);
    if (status == HR_WINDOW_OK && !hr_time_fits(read_us)) status = HR_WINDOW_BAD_TIME;
    fold->heap.length = 0;
    fold->is_exact = 1;
    for (i = 0; i < fold->plan->span_count && status == HR_WINDOW_OK; i++)
        status = hr_fold_span(fold, &fold->plan->spans[i], read_us);
    return status;
}

#endif
