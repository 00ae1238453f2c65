/* Counts, sums, sums of squares and decayed sums, exact, so that what was taken can be taken back. */
#ifndef HR_STATE_SUM_H
#define HR_STATE_SUM_H

#include <math.h>

#include "hr_state_round.h"

typedef struct {
    int64_t count;               /* values, odd ones included */
    int64_t nans, highs, lows;   /* NaN, +inf and -inf among them */
    __int128 whole;              /* sum of whole numbers */
    hr_exact exact;              /* sum of floats */
} hr_sum;

#define HR_TIME_LIMIT (INT64_C(1) << 61)  /* of decayed sums; us, 73,000 years around 1970 */

static inline void hr_sum_reset(hr_sum *sum)
{
    sum->count = 0, sum->nans = 0, sum->highs = 0, sum->lows = 0, sum->whole = 0;
    if (sum->exact.lanes != NULL) hr_exact_reset(&sum->exact);
}

static inline int hr_sum_is_odd(const hr_sum *sum) { return (sum->nans | sum->highs | sum->lows) != 0; }

static inline int64_t hr_sum_finite_count(const hr_sum *sum)
{
    return sum->count - sum->nans - sum->highs - sum->lows;
}

/* A finite float as m 2^bit units of 2^-1074. */
static inline uint64_t hr_float_parts(uint64_t bits, int64_t *bit)
{
    uint64_t exponent = bits >> 52 & 0x7FF, fraction = bits & ((UINT64_C(1) << 52) - 1);
    *bit = exponent == 0 ? 0 : (int64_t)exponent - 1;
    return exponent == 0 ? fraction : fraction | UINT64_C(1) << 52;
}

/* Takes a float that is not finite, or takes it back. */
static inline int hr_sum_odd(hr_sum *sum, double value, int back)
{
    int64_t *which = value != value ? &sum->nans : value > 0 ? &sum->highs : &sum->lows;
    if (back && *which == 0) return HR_STATE_NOT_RETRACTABLE;
    *which += back ? -1 : 1;
    return HR_STATE_OK;
}

static inline int hr_sum_float(hr_sum *sum, double value, int back)
{
    uint64_t bits = hr_float_bits(value), m;
    int64_t bit;
    if (__builtin_expect((bits >> 52 & 0x7FF) == 0x7FF, 0)) return hr_sum_odd(sum, value, back);
    m = hr_float_parts(bits, &bit);
    if (m == 0) return HR_STATE_OK;
    return hr_exact_add(&sum->exact, m, bit, (int)(bits >> 63) ^ back);
}

/* One value; `back` is 0 or 1. */
static inline int hr_sum_take(hr_sum *sum, uint8_t scalar, const hr_value *value, int back)
{
    int status = HR_STATE_OK;
    if (back ? sum->count == 0 : sum->count == INT64_MAX)
        return back ? HR_STATE_NOT_RETRACTABLE : HR_STATE_TOO_LARGE;
    if (hr_scalar_is_float(scalar)) status = hr_sum_float(sum, value->f, back);
    else sum->whole += back ? -(__int128)value->i : value->i;
    if (status == HR_STATE_OK) sum->count += back ? -1 : 1;
    return status;
}

/* The square of one value. */
static inline int hr_squares_take(hr_exact *squares, uint8_t scalar, const hr_value *value, int back)
{
    hr_u128 square;
    uint64_t m;
    int64_t bit = 0;
    int status = HR_STATE_OK;
    if (hr_scalar_is_float(scalar)) {
        uint64_t bits = hr_float_bits(value->f);
        if ((bits >> 52 & 0x7FF) == 0x7FF) return HR_STATE_OK;
        m = hr_float_parts(bits, &bit);
    } else {
        m = value->i < 0 ? 0 - (uint64_t)value->i : (uint64_t)value->i;
    }
    square = (hr_u128)m * m;
    if ((uint64_t)square != 0) status = hr_exact_add(squares, (uint64_t)square, 2 * bit, back);
    if (square >> 64 != 0 && status == HR_STATE_OK)
        status = hr_exact_add(squares, (uint64_t)(square >> 64), 2 * bit + 64, back);
    return status;
}

/* ---- encoding of a sum: the count, and for a count above 0
 * whole numbers: the sum, sign in the lowest bit;
 * floats: a number as in hr_state_exact.h, flagged where NaNs, +infs and -infs follow as three counts. ---- */

static inline int hr_sum_encode(hr_sum *sum, uint8_t scalar, const hr_exact_kind *kind, hr_sink *sink)
{
    int status;
    hr_put_number(sink, (uint64_t)sum->count);
    if (sum->count == 0 || scalar == 0) return HR_STATE_OK;
    if (!hr_scalar_is_float(scalar) && kind != &HR_EXACT_DECAYED) {
        hr_put_wide(sink, (hr_u128)sum->whole << 1 ^ (hr_u128)(sum->whole >> 127));
        return HR_STATE_OK;
    }
    status = hr_exact_encode(&sum->exact, kind, sink, hr_sum_is_odd(sum), hr_sum_finite_count(sum));
    if (hr_sum_is_odd(sum)) {
        hr_put_number(sink, (uint64_t)sum->nans);
        hr_put_number(sink, (uint64_t)sum->highs);
        hr_put_number(sink, (uint64_t)sum->lows);
    }
    return status;
}

/* An encoded sum as it was read. */
typedef struct {
    int64_t count, nans, highs, lows;
    __int128 whole;
    hr_exact_bytes exact;
} hr_sum_bytes;

static inline void hr_sum_take_bytes(
    hr_source *source, uint8_t scalar, const hr_exact_kind *kind, hr_sum_bytes *found)
{
    hr_source ahead;
    uint64_t head;
    hr_u128 folded, size;
    memset(found, 0, sizeof(*found));
    found->count = hr_take_count(source);
    if (found->count == 0 || scalar == 0) return;
    if (!hr_scalar_is_float(scalar) && kind != &HR_EXACT_DECAYED) {
        folded = hr_take_wide(source, 128);
        found->whole = (__int128)(folded >> 1 ^ (0 - (folded & 1)));
        size = found->whole < 0 ? -(hr_u128)found->whole : (hr_u128)found->whole;
        if (size > (hr_u128)found->count << 63) source->is_bad = 1;
        return;
    }
    head = hr_take_number(source);
    ahead = *source;  /* the counts follow the number, and bound it: they are read first */
    if (head & 2) {
        if (head >> 2 != 0) {
            hr_take_signed(&ahead);
            hr_take(&ahead, (size_t)(head >> 2));
        }
        found->nans = hr_take_count(&ahead);
        found->highs = hr_take_count(&ahead);
        found->lows = hr_take_count(&ahead);
        if ((found->nans | found->highs | found->lows) == 0 || found->nans > found->count ||
            found->highs > found->count - found->nans || found->lows > found->count - found->nans - found->highs)
            ahead.is_bad = 1;
        if (ahead.is_bad) found->nans = 0, found->highs = 0, found->lows = 0;
    }
    found->exact = hr_exact_take(source, kind, head, found->count - found->nans - found->highs - found->lows);
    ahead.is_bad |= source->is_bad;
    if (head & 2) *source = ahead;
}

/* Adds what was read, or takes it away. */
static inline int hr_sum_merge(hr_sum *sum, const hr_sum_bytes *found, int back)
{
    int64_t sign = back ? -1 : 1;
    if (back && (sum->count < found->count || sum->nans < found->nans || sum->highs < found->highs ||
                 sum->lows < found->lows))
        return HR_STATE_NOT_RETRACTABLE;
    if (!back && found->count > INT64_MAX - sum->count) return HR_STATE_TOO_LARGE;
    sum->count += sign * found->count;
    sum->nans += sign * found->nans, sum->highs += sign * found->highs, sum->lows += sign * found->lows;
    sum->whole += sign * found->whole;
    return found->exact.count > 0 ? hr_exact_merge_bytes(&sum->exact, &found->exact, back) : HR_STATE_OK;
}

/* ---- results ---- */

/* NaN or an infinity, where one was among the values. */
static inline double hr_sum_odd_value(const hr_sum *sum)
{
    if (sum->nans > 0 || (sum->highs > 0 && sum->lows > 0)) return hr_float_of(HR_NAN_BITS);
    return sum->highs > 0 ? HUGE_VAL : -HUGE_VAL;
}

/* The sum divided by `by`, rounded once. A sum of 0 is +0. */
static inline int hr_sum_divided(hr_sum *sum, uint8_t scalar, uint64_t by, double *value)
{
    hr_big big;
    int negative, more = 0, status;
    if (hr_sum_is_odd(sum)) {
        *value = hr_sum_odd_value(sum);
        return HR_STATE_OK;
    }
    if (hr_scalar_is_float(scalar)) {
        status = hr_big_of_exact(&big, &sum->exact, &negative);
        if (status != HR_STATE_OK) return status;
    } else {
        negative = sum->whole < 0;
        hr_big_of_wide(&big, negative ? -(hr_u128)sum->whole : (hr_u128)sum->whole);
    }
    if (by > 1) {
        hr_big_lower(&big, 4);
        more = hr_big_divide(&big, by);
    }
    *value = hr_big_round(&big, more, hr_scalar_is_float(scalar) ? HR_EXACT_SUM.unit : 0, negative);
    return HR_STATE_OK;
}

/* Sample variance (n sum of squares - square of sum) / (n (n - 1)), rounded once; at least two values. */
static inline int hr_sum_variance(hr_sum *sum, hr_exact *squares, uint8_t scalar, double *value)
{
    hr_big of_sum, square, of_squares;
    int negative, more, status;
    uint64_t n = (uint64_t)sum->count;
    if (hr_sum_is_odd(sum)) {
        *value = hr_float_of(HR_NAN_BITS);
        return HR_STATE_OK;
    }
    if (hr_scalar_is_float(scalar)) {
        status = hr_big_of_exact(&of_sum, &sum->exact, &negative);
        if (status != HR_STATE_OK) return status;
    } else {
        hr_big_of_wide(&of_sum, sum->whole < 0 ? -(hr_u128)sum->whole : (hr_u128)sum->whole);
    }
    status = hr_big_of_exact(&of_squares, squares, &negative);
    if (status != HR_STATE_OK) return status;
    hr_big_square(&of_sum, &square);
    hr_big_multiply(&of_squares, n);
    if (negative || !hr_big_subtract(&of_squares, &square)) return HR_STATE_CORRUPT;
    hr_big_lower(&of_squares, 7);
    more = hr_big_divide(&of_squares, n);
    more |= hr_big_divide(&of_squares, n - 1);
    *value = hr_big_round(&of_squares, more, hr_scalar_is_float(scalar) ? HR_EXACT_SQUARES.unit : 0, 0);
    return HR_STATE_OK;
}

#endif
