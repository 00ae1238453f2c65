/* Bodies of the functions that hr_state.h declares. */
#ifndef HR_STATE_RUN_H
#define HR_STATE_RUN_H

static inline int hr_state_kind_of(int aggregate)
{
    static const uint8_t kinds[HR_AGG_END] = {
        0, HR_KIND_COUNT, HR_KIND_SUM, HR_KIND_SUM, HR_KIND_MIN, HR_KIND_MAX, HR_KIND_FIRST, HR_KIND_LAST,
        HR_KIND_MOMENTS, HR_KIND_MOMENTS, HR_KIND_DISTINCT, HR_KIND_QUANTILE, HR_KIND_TOP, HR_KIND_LAST_N,
        HR_KIND_RATIO, HR_KIND_DECAYED};
    return aggregate > 0 && aggregate < HR_AGG_END ? kinds[aggregate] : 0;
}

static inline int hr_state_spec_equal(const hr_state_spec *a, const hr_state_spec *b)
{
    return a->kind == b->kind && a->scalar == b->scalar && a->scalar2 == b->scalar2 && a->parameter == b->parameter;
}

static inline int hr_state_spec_check(const hr_state_spec *spec)
{
    int fits = spec->scalar >= HR_BOOL && spec->scalar <= HR_DATE, has_parameter = 0;
    switch (spec->kind) {
    case HR_KIND_COUNT: fits |= spec->scalar == 0; break;
    case HR_KIND_SUM: case HR_KIND_MOMENTS: case HR_KIND_QUANTILE: fits = hr_scalar_is_number(spec->scalar); break;
    case HR_KIND_MIN: case HR_KIND_MAX: case HR_KIND_FIRST: case HR_KIND_LAST: case HR_KIND_DISTINCT: break;
    case HR_KIND_TOP: fits &= !hr_scalar_is_float(spec->scalar); break;
    case HR_KIND_LAST_N:
        fits &= spec->parameter >= 1 && spec->parameter <= HR_ITEMS_MAX;
        has_parameter = 1;
        break;
    case HR_KIND_RATIO: fits = hr_scalar_is_number(spec->scalar) && hr_scalar_is_number(spec->scalar2); break;
    case HR_KIND_DECAYED:
        fits = hr_scalar_is_number(spec->scalar) && spec->parameter >= 1;
        has_parameter = 1;
        break;
    default: fits = 0;
    }
    if (spec->kind != HR_KIND_RATIO) fits &= spec->scalar2 == 0;
    if (!has_parameter) fits &= spec->parameter == 0;
    return fits ? HR_STATE_OK : HR_STATE_MISUSED;
}

static inline int hr_state_answers(const hr_state_spec *spec, int aggregate, int64_t parameter)
{
    switch (aggregate) {
    case HR_AGG_COUNT:
        return parameter == 0 &&
               (spec->kind == HR_KIND_COUNT || spec->kind == HR_KIND_SUM || spec->kind == HR_KIND_MOMENTS);
    case HR_AGG_SUM: case HR_AGG_AVG:
        return parameter == 0 && (spec->kind == HR_KIND_SUM || spec->kind == HR_KIND_MOMENTS);
    case HR_AGG_QUANTILE: return spec->kind == HR_KIND_QUANTILE && parameter >= 0 && parameter <= HR_QUANTILE_ONE;
    case HR_AGG_TOP_K: return spec->kind == HR_KIND_TOP && parameter >= 1 && parameter <= HR_ITEMS_MAX;
    case HR_AGG_LAST_N: return spec->kind == HR_KIND_LAST_N && parameter >= 1 && parameter <= spec->parameter;
    case HR_AGG_DECAYED: return spec->kind == HR_KIND_DECAYED && parameter == spec->parameter;
    default: return spec->kind == hr_state_kind_of(aggregate) && spec->kind != 0 && parameter == 0;
    }
}

static inline int hr_state_spec_of(
    int aggregate, uint8_t scalar, uint8_t scalar2, int64_t parameter, hr_state_spec *spec)
{
    hr_state_spec made = {(uint8_t)hr_state_kind_of(aggregate), scalar, scalar2, 0};
    if (aggregate == HR_AGG_LAST_N || aggregate == HR_AGG_DECAYED) made.parameter = parameter;
    if (hr_state_spec_check(&made) != HR_STATE_OK || !hr_state_answers(&made, aggregate, parameter))
        return HR_STATE_MISUSED;
    *spec = made;
    return HR_STATE_OK;
}

static inline uint8_t hr_state_result_scalar(int aggregate, uint8_t scalar)
{
    switch (aggregate) {
    case HR_AGG_COUNT: case HR_AGG_DISTINCT: return HR_I64;
    case HR_AGG_SUM: return hr_scalar_is_float(scalar) ? HR_F64 : HR_I64;
    case HR_AGG_MIN: case HR_AGG_MAX: case HR_AGG_FIRST: case HR_AGG_LAST: case HR_AGG_TOP_K: case HR_AGG_LAST_N:
        return scalar;
    default: return HR_F64;
    }
}

static inline int hr_state_can_retract(const hr_state_spec *spec)
{
    switch (spec->kind) {
    case HR_KIND_COUNT: case HR_KIND_SUM: case HR_KIND_MOMENTS: case HR_KIND_RATIO: case HR_KIND_DECAYED:
    case HR_KIND_QUANTILE: case HR_KIND_TOP: return 1;
    default: return 0;
    }
}

static inline size_t hr_state_bytes_max(const hr_state_spec *spec, size_t text_bytes)
{
    size_t count = 9, head = 12, value = hr_scalar_is_text(spec->scalar) ? text_bytes + 5 : 10, order = 40;
    size_t sum = count + head + 4 * HR_EXACT_SUM.lanes + 3 * count;
    switch (spec->kind) {
    case HR_KIND_COUNT: return count;
    case HR_KIND_SUM: return hr_scalar_is_float(spec->scalar) ? sum : count + 19;
    case HR_KIND_MOMENTS: return sum + head + 4 * HR_EXACT_SQUARES.lanes;
    case HR_KIND_RATIO: return 2 * sum;
    case HR_KIND_DECAYED: return count + head + 4 * HR_EXACT_DECAYED.lanes + 3 * count;
    case HR_KIND_DISTINCT: return HR_DENSE_BYTES;
    case HR_KIND_QUANTILE: return 3 + HR_BUCKETS_MAX * (3 + count);
    case HR_KIND_TOP:
        return 3 + HR_TOP_VALUES_MAX * (hr_scalar_is_text(spec->scalar) ? 3 + count : value + count) +
               (hr_scalar_is_text(spec->scalar) ? HR_TOP_BYTES_MAX : 0);
    case HR_KIND_LAST_N: return 2 + (size_t)spec->parameter * (order + value);
    default: return order + value;
    }
}

static inline const hr_exact_kind *hr_state_exact_kind(const hr_state_spec *spec)
{
    return spec->kind == HR_KIND_DECAYED ? &HR_EXACT_DECAYED : &HR_EXACT_SUM;
}

static inline const hr_exact_kind *hr_state_squares_kind(const hr_state_spec *spec)
{
    return hr_scalar_is_float(spec->scalar) ? &HR_EXACT_SQUARES : &HR_EXACT_WHOLE_SQUARES;
}

/* Type by which sums are kept and written: none for counts. */
static inline uint8_t hr_state_sum_scalar(const hr_state_spec *spec)
{
    return spec->kind == HR_KIND_COUNT ? 0 : spec->scalar;
}

static inline void hr_state_free(hr_state *state)
{
    free(state->sum.exact.lanes), free(state->second.exact.lanes), free(state->squares.lanes);
    free(state->registers.values);
    free(state->buckets.list), free(state->buckets.spare);
    free(state->items.list), free(state->items.arena), free(state->items.spare), free(state->items.answers);
    free(state->top.list), free(state->top.slots), free(state->top.arena), free(state->top.sorted);
    free(state->top.answers);
    memset(state, 0, sizeof(*state));
}

static inline int hr_state_init(hr_state *state, const hr_state_spec *spec)
{
    int status = HR_STATE_OK, is_sum = spec->kind == HR_KIND_SUM || spec->kind == HR_KIND_MOMENTS ||
                                       spec->kind == HR_KIND_RATIO;
    memset(state, 0, sizeof(*state));
    if (hr_state_spec_check(spec) != HR_STATE_OK) return HR_STATE_MISUSED;
    state->spec = *spec;
    if (spec->kind == HR_KIND_DECAYED || (is_sum && hr_scalar_is_float(spec->scalar)))
        status = hr_exact_init(&state->sum.exact, hr_state_exact_kind(spec));
    if (status == HR_STATE_OK && spec->kind == HR_KIND_RATIO && hr_scalar_is_float(spec->scalar2))
        status = hr_exact_init(&state->second.exact, &HR_EXACT_SUM);
    if (status == HR_STATE_OK && spec->kind == HR_KIND_MOMENTS)
        status = hr_exact_init(&state->squares, hr_state_squares_kind(spec));
    if (spec->kind == HR_KIND_DISTINCT) {
        state->registers.values = calloc(1, HR_REGISTERS);
        if (state->registers.values == NULL) status = HR_STATE_NO_MEMORY;
    }
    if (status != HR_STATE_OK) hr_state_free(state);
    return status;
}

static inline void hr_state_reset(hr_state *state)
{
    switch (state->spec.kind) {
    case HR_KIND_MOMENTS: hr_exact_reset(&state->squares); hr_sum_reset(&state->sum); break;
    case HR_KIND_RATIO: hr_sum_reset(&state->second); hr_sum_reset(&state->sum); break;
    case HR_KIND_COUNT: case HR_KIND_SUM: case HR_KIND_DECAYED: hr_sum_reset(&state->sum); break;
    case HR_KIND_DISTINCT: hr_registers_reset(&state->registers); break;
    case HR_KIND_QUANTILE: hr_buckets_reset(&state->buckets); break;
    case HR_KIND_TOP: hr_top_reset(&state->top); break;
    default: hr_items_reset(&state->items);
    }
}

static inline int hr_state_is_empty(const hr_state *state)
{
    switch (state->spec.kind) {
    case HR_KIND_COUNT: case HR_KIND_SUM: case HR_KIND_MOMENTS: case HR_KIND_RATIO: case HR_KIND_DECAYED:
        return state->sum.count == 0 && state->second.count == 0;
    case HR_KIND_DISTINCT: return state->registers.used == 0;
    case HR_KIND_QUANTILE: return state->buckets.total == 0 && !state->buckets.is_over;
    case HR_KIND_TOP: return state->top.live == 0 && !state->top.is_over;
    default: return state->items.count == 0;
    }
}

static inline int32_t hr_state_bucket_key(const hr_state_spec *spec, const hr_value *value)
{
    return hr_bucket_key(hr_scalar_is_float(spec->scalar) ? value->f : (double)value->i);
}

static inline int hr_state_add(
    hr_state *state, const hr_value *value, const hr_value *second, const hr_order *order)
{
    const hr_state_spec *spec = &state->spec;
    int status = HR_STATE_OK;
    if (spec->kind == HR_KIND_RATIO) {
        if (!value->is_null) status = hr_sum_take(&state->sum, spec->scalar, value, 0);
        if (!second->is_null && status == HR_STATE_OK)
            status = hr_sum_take(&state->second, spec->scalar2, second, 0);
        return status;
    }
    if (spec->scalar != 0 && value->is_null) return HR_STATE_OK;
    switch (spec->kind) {
    case HR_KIND_COUNT:
        if (state->sum.count == INT64_MAX) return HR_STATE_TOO_LARGE;
        state->sum.count++;
        return HR_STATE_OK;
    case HR_KIND_SUM: return hr_sum_take(&state->sum, spec->scalar, value, 0);
    case HR_KIND_MOMENTS:
        status = hr_sum_take(&state->sum, spec->scalar, value, 0);
        return status == HR_STATE_OK ? hr_squares_take(&state->squares, spec->scalar, value, 0) : status;
    case HR_KIND_DECAYED:
        return hr_decayed_take(&state->sum, spec->scalar, spec->parameter, value, order->event_us, 0);
    case HR_KIND_DISTINCT:
        hr_registers_take(&state->registers, hr_value_hash(spec->scalar, value));
        return HR_STATE_OK;
    case HR_KIND_QUANTILE: return hr_buckets_add(&state->buckets, hr_state_bucket_key(spec, value), 1);
    case HR_KIND_TOP: return hr_top_add(&state->top, spec->scalar, value, 1);
    case HR_KIND_LAST_N:
        return hr_items_take_last(&state->items, spec->scalar, (uint32_t)spec->parameter, value, order);
    default: return hr_items_take_one(&state->items, spec->kind, spec->scalar, value, order);
    }
}

static inline int hr_state_retract_ratio(hr_state *state, const hr_value *value, const hr_value *second)
{
    int status = HR_STATE_OK;
    if (!value->is_null) status = hr_sum_take(&state->sum, state->spec.scalar, value, 1);
    if (second->is_null || status != HR_STATE_OK) return status;
    status = hr_sum_take(&state->second, state->spec.scalar2, second, 1);
    if (status == HR_STATE_NOT_RETRACTABLE && !value->is_null)
        hr_sum_take(&state->sum, state->spec.scalar, value, 0);
    return status;
}

static inline int hr_state_retract(
    hr_state *state, const hr_value *value, const hr_value *second, const hr_order *order)
{
    const hr_state_spec *spec = &state->spec;
    int status;
    if (spec->kind == HR_KIND_RATIO) return hr_state_retract_ratio(state, value, second);
    if (spec->scalar != 0 && value->is_null) return HR_STATE_OK;
    switch (spec->kind) {
    case HR_KIND_COUNT:
        if (state->sum.count == 0) return HR_STATE_NOT_RETRACTABLE;
        state->sum.count--;
        return HR_STATE_OK;
    case HR_KIND_SUM: return hr_sum_take(&state->sum, spec->scalar, value, 1);
    case HR_KIND_MOMENTS:
        status = hr_sum_take(&state->sum, spec->scalar, value, 1);
        return status == HR_STATE_OK ? hr_squares_take(&state->squares, spec->scalar, value, 1) : status;
    case HR_KIND_DECAYED:
        return hr_decayed_take(&state->sum, spec->scalar, spec->parameter, value, order->event_us, 1);
    case HR_KIND_QUANTILE: return hr_buckets_retract(&state->buckets, hr_state_bucket_key(spec, value));
    case HR_KIND_TOP: return hr_top_retract(&state->top, spec->scalar, value, 1, 0);
    default: return HR_STATE_NOT_RETRACTABLE;
    }
}

#include "hr_state_merge.h"
#include "hr_state_result.h"

#endif
