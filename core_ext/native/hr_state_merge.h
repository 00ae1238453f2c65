/* Window states from and to bytes, and into one another; part of hr_state.h. */
#ifndef HR_STATE_MERGE_H
#define HR_STATE_MERGE_H

/* What COUNT, SUM, MOMENTS, RATIO and DECAYED encode to. */
typedef struct {
    hr_sum_bytes sum, second;
    hr_exact_bytes squares;
} hr_sums_bytes;

static inline int hr_state_take_sums(
    const hr_state_spec *spec, const uint8_t *bytes, size_t length, hr_sums_bytes *found)
{
    hr_source source = {bytes, bytes + length, 0};
    found->squares.count = 0, found->second.count = 0;
    hr_sum_take_bytes(&source, hr_state_sum_scalar(spec), hr_state_exact_kind(spec), &found->sum);
    if (spec->kind == HR_KIND_RATIO) {
        hr_sum_take_bytes(&source, spec->scalar2, &HR_EXACT_SUM, &found->second);
    } else if (spec->kind == HR_KIND_MOMENTS) {
        uint64_t head = hr_take_number(&source);
        if (head & 3) source.is_bad = 1;
        found->squares = hr_exact_take(
            &source, hr_state_squares_kind(spec), head,
            found->sum.count - found->sum.nans - found->sum.highs - found->sum.lows);
    }
    if (source.is_bad || source.at != source.end || (found->sum.count == 0 && found->second.count == 0))
        return HR_STATE_CORRUPT;
    return HR_STATE_OK;
}

static inline int hr_state_is_sum(const hr_state_spec *spec)
{
    return spec->kind == HR_KIND_COUNT || spec->kind == HR_KIND_SUM || spec->kind == HR_KIND_MOMENTS ||
           spec->kind == HR_KIND_RATIO || spec->kind == HR_KIND_DECAYED;
}

static inline int hr_state_merge_sums(hr_state *state, const uint8_t *bytes, size_t length, int back)
{
    hr_sums_bytes found;
    int status = hr_state_take_sums(&state->spec, bytes, length, &found);
    if (status != HR_STATE_OK) return status;
    if (state->spec.kind == HR_KIND_RATIO) {
        const hr_sum_bytes *f = &found.sum;
        if (back && (state->sum.count < f->count || state->sum.nans < f->nans || state->sum.highs < f->highs ||
                     state->sum.lows < f->lows))
            return HR_STATE_NOT_RETRACTABLE;
        status = hr_sum_merge(&state->second, &found.second, back);
        if (status != HR_STATE_OK) return status;
    }
    status = hr_sum_merge(&state->sum, &found.sum, back);
    if (status == HR_STATE_OK && found.squares.count > 0)
        status = hr_exact_merge_bytes(&state->squares, &found.squares, back);
    return status;
}

static inline int hr_state_merge_bytes(hr_state *state, const uint8_t *bytes, size_t length)
{
    const hr_state_spec *spec = &state->spec;
    if (length == 0) return HR_STATE_OK;
    if (hr_state_is_sum(spec)) return hr_state_merge_sums(state, bytes, length, 0);
    if (spec->kind == HR_KIND_DISTINCT) return hr_registers_merge_bytes(&state->registers, bytes, length);
    if (spec->kind == HR_KIND_QUANTILE) return hr_buckets_merge_bytes(&state->buckets, bytes, length, 0);
    if (spec->kind == HR_KIND_TOP) return hr_top_walk(&state->top, spec->scalar, bytes, length, HR_TOP_MERGE);
    return hr_items_merge_bytes(&state->items, spec, bytes, length);
}

static inline int hr_state_retract_bytes(hr_state *state, const uint8_t *bytes, size_t length)
{
    const hr_state_spec *spec = &state->spec;
    if (!hr_state_can_retract(spec)) return HR_STATE_NOT_RETRACTABLE;
    if (length == 0) return HR_STATE_OK;
    if (hr_state_is_sum(spec)) return hr_state_merge_sums(state, bytes, length, 1);
    if (spec->kind == HR_KIND_QUANTILE) return hr_buckets_merge_bytes(&state->buckets, bytes, length, 1);
    return hr_top_retract_bytes(&state->top, spec->scalar, bytes, length);
}

static inline int hr_state_check(const hr_state_spec *spec, const uint8_t *bytes, size_t length)
{
    hr_sums_bytes found;
    if (hr_state_spec_check(spec) != HR_STATE_OK) return HR_STATE_MISUSED;
    if (length == 0) return HR_STATE_OK;
    if (hr_state_is_sum(spec)) return hr_state_take_sums(spec, bytes, length, &found);
    if (spec->kind == HR_KIND_DISTINCT) return hr_registers_merge_bytes(NULL, bytes, length);
    if (spec->kind == HR_KIND_QUANTILE) return hr_buckets_merge_bytes(NULL, bytes, length, 0);
    if (spec->kind == HR_KIND_TOP) return hr_top_walk(NULL, spec->scalar, bytes, length, HR_TOP_CHECK);
    return hr_items_merge_bytes(NULL, spec, bytes, length);
}

static inline int hr_state_encode(hr_state *state, uint8_t *to, size_t capacity, size_t *length)
{
    const hr_state_spec *spec = &state->spec;
    hr_sink sink = {to, 0, capacity};
    int status = HR_STATE_OK;
    if (hr_state_is_empty(state)) {
        *length = 0;
        return HR_STATE_OK;
    }
    switch (spec->kind) {
    case HR_KIND_COUNT: case HR_KIND_SUM: case HR_KIND_MOMENTS: case HR_KIND_RATIO: case HR_KIND_DECAYED:
        status = hr_sum_encode(&state->sum, hr_state_sum_scalar(spec), hr_state_exact_kind(spec), &sink);
        if (status == HR_STATE_OK && spec->kind == HR_KIND_MOMENTS)
            status = hr_exact_encode(
                &state->squares, hr_state_squares_kind(spec), &sink, 0, hr_sum_finite_count(&state->sum));
        if (status == HR_STATE_OK && spec->kind == HR_KIND_RATIO)
            status = hr_sum_encode(&state->second, spec->scalar2, &HR_EXACT_SUM, &sink);
        break;
    case HR_KIND_DISTINCT: hr_registers_encode(&state->registers, &sink); break;
    case HR_KIND_QUANTILE: hr_buckets_encode(&state->buckets, &sink); break;
    case HR_KIND_TOP: hr_top_encode(&state->top, spec->scalar, &sink); break;
    default: hr_items_encode(&state->items, spec, &sink);
    }
    if (status != HR_STATE_OK) return status;
    if (sink.used > capacity) return HR_STATE_TOO_LARGE;
    *length = sink.used;
    return HR_STATE_OK;
}

static inline int hr_sum_merge_sum(hr_sum *sum, hr_sum *other)
{
    hr_sum_bytes found = {other->count, other->nans, other->highs, other->lows, other->whole, {NULL, 0, 0, 0}};
    int status = hr_sum_merge(sum, &found, 0);
    return status == HR_STATE_OK && other->exact.lanes != NULL ? hr_exact_merge(&sum->exact, &other->exact) : status;
}

static inline int hr_state_merge_items(hr_state *state, const hr_items *other)
{
    const hr_state_spec *spec = &state->spec;
    int status = HR_STATE_OK;
    uint32_t i;
    for (i = 0; i < other->count && status == HR_STATE_OK; i++) {
        hr_value value = hr_item_value(other, spec->scalar, &other->list[i]);
        status = spec->kind == HR_KIND_LAST_N
                     ? hr_items_take_last(
                           &state->items, spec->scalar, (uint32_t)spec->parameter, &value, &other->list[i].order)
                     : hr_items_take_one(&state->items, spec->kind, spec->scalar, &value, &other->list[i].order);
    }
    return status;
}

static inline int hr_state_merge(hr_state *state, hr_state *other)
{
    const hr_state_spec *spec = &state->spec;
    int status = HR_STATE_OK;
    uint32_t i;
    if (state == other || !hr_state_spec_equal(spec, &other->spec)) return HR_STATE_MISUSED;
    if (hr_state_is_sum(spec)) {
        status = hr_sum_merge_sum(&state->sum, &other->sum);
        if (status == HR_STATE_OK) status = hr_sum_merge_sum(&state->second, &other->second);
        if (status == HR_STATE_OK && other->squares.lanes != NULL)
            status = hr_exact_merge(&state->squares, &other->squares);
        return status;
    }
    if (spec->kind == HR_KIND_DISTINCT) {
        for (i = 0; i < HR_REGISTERS; i++) hr_registers_raise(&state->registers, i, other->registers.values[i]);
    } else if (spec->kind == HR_KIND_QUANTILE) {
        if (other->buckets.is_over) hr_buckets_exceed(&state->buckets);
        for (i = 0; i < other->buckets.count && status == HR_STATE_OK; i++)
            status = hr_buckets_add(&state->buckets, other->buckets.list[i].key, other->buckets.list[i].count);
    } else if (spec->kind == HR_KIND_TOP) {
        if (other->top.is_over) hr_top_exceed(&state->top);
        for (i = 0; i < other->top.count && status == HR_STATE_OK; i++) {
            hr_value value = hr_top_value(&other->top, spec->scalar, &other->top.list[i]);
            if (other->top.list[i].count > 0)
                status = hr_top_add(&state->top, spec->scalar, &value, other->top.list[i].count);
        }
    } else {
        status = hr_state_merge_items(state, &other->items);
    }
    return status;
}

#endif
