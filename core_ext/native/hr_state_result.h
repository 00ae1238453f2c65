/* Results of window states; part of hr_state.h. */
#ifndef HR_STATE_RESULT_H
#define HR_STATE_RESULT_H

static inline void hr_result_lose(hr_result *result, uint8_t lost)
{
    result->value = hr_value_null();
    result->lost = lost;
}

/* One NaN. */
static inline void hr_result_float(hr_result *result, double value)
{
    result->value = hr_value_float(value == value ? value : hr_float_of(HR_NAN_BITS));
}

static inline int hr_result_sum(hr_state *state, hr_result *result)
{
    double value;
    int status;
    if (!hr_scalar_is_float(state->spec.scalar)) {
        __int128 whole = state->sum.whole;
        if (whole == (int64_t)whole) result->value = hr_value_whole((int64_t)whole);
        else hr_result_lose(result, HR_LOST_OVERFLOW);
        return HR_STATE_OK;
    }
    status = hr_sum_divided(&state->sum, state->spec.scalar, 1, &value);
    hr_result_float(result, value);
    return status;
}

/* Two sums, each rounded, divided. Without denominators it is NULL, with those that add up to 0 it is lost. */
static inline int hr_result_ratio(hr_state *state, hr_result *result)
{
    double above = 0, below = 0;
    int status = hr_sum_divided(&state->second, state->spec.scalar2, 1, &below);
    if (status == HR_STATE_OK) status = hr_sum_divided(&state->sum, state->spec.scalar, 1, &above);
    if (status != HR_STATE_OK || state->second.count == 0) return status;
    if (below == 0) hr_result_lose(result, HR_LOST_DIVISION);
    else hr_result_float(result, above / below);
    return HR_STATE_OK;
}

static inline int hr_result_float_of(hr_state *state, int aggregate, int64_t read_us, hr_result *result)
{
    double value = 0;
    int status = HR_STATE_OK;
    if (aggregate == HR_AGG_AVG) {
        status = hr_sum_divided(&state->sum, state->spec.scalar, (uint64_t)state->sum.count, &value);
    } else if (aggregate == HR_AGG_DECAYED) {
        status = hr_decayed_result(&state->sum, state->spec.parameter, read_us, &value);
    } else {
        if (state->sum.count < 2) return HR_STATE_OK;
        status = hr_sum_variance(&state->sum, &state->squares, state->spec.scalar, &value);
        if (aggregate == HR_AGG_STDDEV && value == value) value = sqrt(value);
    }
    if (status == HR_STATE_OK) hr_result_float(result, value);
    return status;
}

static inline int hr_result_list(hr_state *state, int aggregate, uint32_t most, hr_result *result)
{
    uint8_t scalar = state->spec.scalar;
    result->items = aggregate == HR_AGG_TOP_K ? hr_top_greatest(&state->top, scalar, most, &result->item_count)
                                              : hr_items_newest(&state->items, scalar, most, &result->item_count);
    result->value.is_null = result->items == NULL;
    return result->items == NULL ? HR_STATE_NO_MEMORY : HR_STATE_OK;
}

static inline int hr_state_result(
    hr_state *state, int aggregate, int64_t parameter, int64_t read_us, hr_result *result)
{
    memset(result, 0, sizeof(*result));
    result->value = hr_value_null();
    result->is_list = aggregate == HR_AGG_TOP_K || aggregate == HR_AGG_LAST_N;
    if (!hr_state_answers(&state->spec, aggregate, parameter)) return HR_STATE_MISUSED;
    if (aggregate == HR_AGG_COUNT) {
        result->value = hr_value_whole(state->sum.count);
        return HR_STATE_OK;
    }
    if (aggregate == HR_AGG_SUM) return hr_result_sum(state, result);
    if (hr_state_is_empty(state)) return HR_STATE_OK;
    switch (aggregate) {
    case HR_AGG_DISTINCT:
        result->value = hr_value_whole(hr_registers_estimate(&state->registers));
        return HR_STATE_OK;
    case HR_AGG_QUANTILE:
        if (state->buckets.is_over) hr_result_lose(result, HR_LOST_BUCKETS);
        else hr_result_float(result, hr_buckets_quantile(&state->buckets, parameter));
        return HR_STATE_OK;
    case HR_AGG_TOP_K: case HR_AGG_LAST_N:
        if (state->top.is_over) hr_result_lose(result, HR_LOST_VALUES);
        else return hr_result_list(state, aggregate, (uint32_t)parameter, result);
        return HR_STATE_OK;
    case HR_AGG_RATIO: return hr_result_ratio(state, result);
    case HR_AGG_AVG: case HR_AGG_STDDEV: case HR_AGG_VARIANCE: case HR_AGG_DECAYED:
        return hr_result_float_of(state, aggregate, read_us, result);
    default:
        result->value = hr_item_value(&state->items, state->spec.scalar, &state->items.list[0]);
        return HR_STATE_OK;
    }
}

#endif
