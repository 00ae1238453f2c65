/* Features whose values a range of sorted events gives: counts, sums and what is made of them, least and greatest. */
#ifndef HR_WINDOW_RANGES_H
#define HR_WINDOW_RANGES_H

#include "hr_window_walk.h"

#define HR_PRESENT_NONE INT32_MIN

/* The ranges of the reads of the group; 0 where a read sees an event that follows one it does not see. */
static inline int hr_ranges_find(hr_history *history, uint32_t first_read, uint32_t count)
{
    uint32_t i;
    history->longest = 0, history->present_of = HR_PRESENT_NONE;
    for (i = 0; i < count; i++) {
        hr_history_edge edge = history->edges[i];
        uint32_t end = edge.known > edge.low ? edge.known : edge.low, held = end - edge.low;
        if (end < edge.high && hr_walk_has_more(history, end, edge.high, history->reads.times[first_read + i])) return 0;
        history->ranges[i] = (hr_history_range){edge.low, end};
        history->longest = held > history->longest ? held : history->longest;
    }
    return 1;
}

/* How many values of an input each range holds; its events where there is none. */
static inline void hr_ranges_count(hr_history *history, int32_t c, uint32_t count)
{
    const hr_history_range *ranges = history->ranges;
    uint32_t *present = history->present, i;
    if (history->present_of == c) return;
    history->present_of = c;
    if (c < 0 || !history->plain[c].has_nulls) {
        for (i = 0; i < count; i++) present[i] = ranges[i].end - ranges[i].low;
    } else {
        const uint32_t *counts = history->plain[c].counts;
        for (i = 0; i < count; i++) present[i] = counts[ranges[i].end] - counts[ranges[i].low];
    }
}

/* ---- values of one feature ---- */

static inline void hr_ranges_put_counts(const hr_history *history, hr_history_column *to, uint32_t count)
{
    uint8_t *at = to->held;
    uint32_t i;
    memset(to->held_nulls, 0, count);
    for (i = 0; i < count; i++, at += to->stride) hr_store_u64(at, history->present[i]);
}

/* Sums that are exact as floats; of whole numbers as well. */
static inline void hr_ranges_put_sums(
    const hr_history *history, const hr_plain_column *from, int is_float, hr_history_column *to, uint32_t count)
{
    const hr_history_range *ranges = history->ranges;
    const double *sums = from->sums;
    uint8_t *at = to->held;
    uint32_t i;
    memset(to->held_nulls, 0, count);
    for (i = 0; i < count; i++, at += to->stride) {
        double sum = sums[ranges[i].end] - sums[ranges[i].low];
        hr_store_u64(at, is_float ? hr_float_bits(sum) : (uint64_t)(int64_t)sum);
    }
}

static inline void hr_ranges_put_averages(
    const hr_history *history, const hr_plain_column *from, hr_history_column *to, uint32_t count)
{
    const hr_history_range *ranges = history->ranges;
    const double *sums = from->sums;
    uint8_t *at = to->held;
    uint32_t i;
    for (i = 0; i < count; i++, at += to->stride) {
        int64_t present = history->present[i];
        double sum = sums[ranges[i].end] - sums[ranges[i].low];
        to->held_nulls[i] = present == 0;
        hr_store_u64(at, hr_float_bits(sum / (double)(present + (present == 0))));
    }
}

/* Sums and averages of numbers of 128 bits, rounded once; a sum of whole numbers that does not fit i64 is lost. */
static inline void hr_ranges_put_wide(
    const hr_history *history, const hr_plain_column *from, const hr_window_feature *feature, hr_history_column *to,
    uint32_t count)
{
    int is_average = feature->aggregate == HR_AGG_AVG, is_float = hr_scalar_is_float(feature->scalar);
    uint8_t *at = to->held;
    uint32_t i;
    for (i = 0; i < count; i++, at += to->stride) {
        uint32_t present = history->present[i];
        __int128 sum = from->wides[history->ranges[i].end] - from->wides[history->ranges[i].low];
        int is_lost = !is_float && sum != (int64_t)sum, is_null = is_lost || (is_average && present == 0);
        uint64_t bits = (uint64_t)sum;
        if (is_float) bits = hr_float_bits(hr_near_divided(sum, from->exponent, is_average && present > 0 ? present : 1));
        hr_store_u64(at, is_null ? 0 : bits);
        to->held_nulls[i] = (uint8_t)(is_null | (is_lost ? HR_LOST_OVERFLOW << 1 : 0));
        to->losses[HR_LOST_OVERFLOW] += (uint64_t)is_lost;
    }
}

static inline void hr_ranges_put_variances(
    const hr_history *history, const hr_plain_column *from, uint8_t scalar, int is_root, hr_history_column *to,
    uint32_t count)
{
    uint8_t *at = to->held;
    uint32_t i;
    for (i = 0; i < count; i++, at += to->stride) {
        hr_history_range range = history->ranges[i];
        uint32_t present = history->present[i];
        double value = present < 2 ? 0 : hr_plain_variance(from, scalar, range.low, range.end, present);
        hr_store_u64(at, hr_float_bits(is_root ? sqrt(value) : value));
        to->held_nulls[i] = present < 2;
    }
}

/* Sums of two inputs, each rounded, divided; `history->present` counts the denominators. */
static inline void hr_ranges_put_ratios(
    const hr_history *history, const hr_plain_column *above, const hr_plain_column *below, hr_history_column *to,
    uint32_t count)
{
    uint8_t *at = to->held;
    uint32_t i;
    for (i = 0; i < count; i++, at += to->stride) {
        hr_history_range range = history->ranges[i];
        double divisor = hr_plain_total(below, range.low, range.end);
        int is_null = history->present[i] == 0, is_lost = !is_null && divisor == 0;
        double value = is_null || is_lost ? 0 : hr_plain_total(above, range.low, range.end) / divisor;
        hr_store_u64(at, hr_float_bits(value == value ? value : hr_float_of(HR_NAN_BITS)));
        to->held_nulls[i] = (uint8_t)(is_null | is_lost | (is_lost ? HR_LOST_DIVISION << 1 : 0));
        to->losses[HR_LOST_DIVISION] += (uint64_t)is_lost;
    }
}

/* `scalar` and `is_least` are constants wherever this is called. */
static inline void hr_ranges_put_extremes(
    const hr_history *history, const int64_t *table, uint8_t scalar, int is_least, hr_history_column *to, uint32_t count)
{
    const hr_history_range *ranges = history->ranges;
    uint8_t *at = to->held;
    uint32_t i;
    for (i = 0; i < count; i++, at += to->stride) {
        int is_null = history->present[i] == 0;
        int64_t rank = is_null ? 0 : hr_plain_best(table, history->count, ranges[i].low, ranges[i].end, is_least);
        hr_plain_store(scalar, rank, at);
        to->held_nulls[i] = (uint8_t)is_null;
    }
}

static inline void hr_ranges_put_best(
    const hr_history *history, const int64_t *table, uint8_t scalar, int is_least, hr_history_column *to, uint32_t count)
{
    switch (scalar) {
    case HR_BOOL: hr_ranges_put_extremes(history, table, HR_BOOL, is_least, to, count); break;
    case HR_I32: case HR_DATE: hr_ranges_put_extremes(history, table, HR_I32, is_least, to, count); break;
    case HR_F32: hr_ranges_put_extremes(history, table, HR_F32, is_least, to, count); break;
    case HR_F64: hr_ranges_put_extremes(history, table, HR_F64, is_least, to, count); break;
    default: hr_ranges_put_extremes(history, table, HR_I64, is_least, to, count);
    }
}

/* ---- features of one state ---- */

static inline int hr_ranges_give(const hr_window_feature *feature, const hr_window_state *planned)
{
    switch (feature->aggregate) {
    case HR_AGG_COUNT: return planned->column >= -1;
    case HR_AGG_MIN: case HR_AGG_MAX: return planned->column >= 0 && !hr_scalar_is_text(planned->spec.scalar);
    case HR_AGG_SUM: case HR_AGG_AVG: case HR_AGG_VARIANCE: case HR_AGG_STDDEV: return planned->column >= 0;
    case HR_AGG_RATIO: return planned->column >= 0 && planned->column2 >= 0;
    default: return 0;
    }
}

/* Gathers an input of the group; a negative `column` is none. */
static inline int hr_ranges_gather(hr_history *history, int32_t column, uint8_t scalar)
{
    if (column < 0) return HR_WINDOW_OK;
    return hr_plain_gather(
        &history->plain[column], &history->events->arrays[column], scalar, history->rows, history->count);
}

static inline int hr_ranges_put_sum(
    hr_history *history, const hr_window_state *planned, const hr_window_feature *feature, hr_history_column *to,
    uint32_t count)
{
    hr_plain_column *from = &history->plain[planned->column], *below = NULL;
    uint8_t scalar = planned->spec.scalar;
    hr_plain_sums kind = hr_plain_sum(from, scalar, history->count);
    if (kind == HR_PLAIN_UNFIT) return 0;
    switch (feature->aggregate) {
    case HR_AGG_RATIO:
        below = &history->plain[planned->column2];
        if (hr_plain_sum(below, planned->spec.scalar2, history->count) == HR_PLAIN_UNFIT) return 0;
        hr_ranges_put_ratios(history, from, below, to, count);
        break;
    case HR_AGG_VARIANCE: case HR_AGG_STDDEV:
        if (!hr_plain_square(from, scalar, history->count)) return 0;
        hr_ranges_put_variances(history, from, scalar, feature->aggregate == HR_AGG_STDDEV, to, count);
        break;
    default:
        if (kind == HR_PLAIN_WIDE) hr_ranges_put_wide(history, from, feature, to, count);
        else if (feature->aggregate == HR_AGG_AVG) hr_ranges_put_averages(history, from, to, count);
        else hr_ranges_put_sums(history, from, hr_scalar_is_float(scalar), to, count);
    }
    return 1;
}

static inline int hr_ranges_put_extreme(
    hr_history *history, const hr_window_state *planned, int is_least, hr_history_column *to, uint32_t count)
{
    uint8_t scalar = planned->spec.scalar;
    const int64_t *table = hr_plain_extremes(
        &history->plain[planned->column], scalar, history->count, history->longest, is_least);
    if (table == NULL) return 0;
    if (is_least) hr_ranges_put_best(history, table, scalar, 1, to, count);
    else hr_ranges_put_best(history, table, scalar, 0, to, count);
    return 1;
}

/* The values of one feature, unless its inputs do not allow that; to->is_done says so. */
static inline int hr_ranges_put(
    hr_history *history, const hr_window_state *planned, const hr_window_feature *feature, hr_history_column *to,
    uint32_t count)
{
    int status = hr_ranges_gather(history, planned->column, planned->spec.scalar);
    if (feature->aggregate == HR_AGG_RATIO && status == HR_WINDOW_OK)
        status = hr_ranges_gather(history, planned->column2, planned->spec.scalar2);
    if (status != HR_WINDOW_OK) return status;
    hr_ranges_count(history, feature->aggregate == HR_AGG_RATIO ? planned->column2 : planned->column, count);
    to->is_done = 1;
    switch (feature->aggregate) {
    case HR_AGG_COUNT: hr_ranges_put_counts(history, to, count); break;
    case HR_AGG_MIN: to->is_done = hr_ranges_put_extreme(history, planned, 1, to, count); break;
    case HR_AGG_MAX: to->is_done = hr_ranges_put_extreme(history, planned, 0, to, count); break;
    default: to->is_done = hr_ranges_put_sum(history, planned, feature, to, count);
    }
    return HR_WINDOW_OK;
}

/* Values of the features of one state, uses [first, end) of the plan; *left counts those that need a walk. */
static inline int hr_ranges_run(
    hr_history *history, const hr_window_state *planned, uint32_t first, uint32_t end, uint32_t count, uint32_t *left)
{
    const hr_window_plan *plan = history->plan;
    uint32_t u;
    int status = HR_WINDOW_OK;
    for (u = first; u < end && status == HR_WINDOW_OK; u++) {
        const hr_window_feature *feature = &plan->features[plan->uses[u]];
        hr_history_column *to = &history->columns[plan->uses[u]];
        if (hr_ranges_give(feature, planned)) status = hr_ranges_put(history, planned, feature, to, count);
        *left += !to->is_done;
    }
    return status;
}

#endif
