/* Results of states; counts, sums and averages by a short way where 128 bits hold the sum. */
#ifndef HR_WINDOW_RESULT_H
#define HR_WINDOW_RESULT_H

#include "hr_state.h"

/* The sum as whole 2^*exponent, where it fits; 0 where it does not or a value was no finite number. */
static inline int hr_sum_near(const hr_sum *sum, uint8_t scalar, __int128 *whole, int64_t *exponent)
{
    const hr_exact *exact = &sum->exact;
    const int64_t *lanes = exact->lanes;
    uint32_t low = exact->low, high = exact->high, i;
    *whole = sum->whole, *exponent = 0;
    if (!hr_scalar_is_float(scalar)) return 1;
    if (hr_sum_is_odd(sum)) return 0;
    *whole = 0;
    while (low < high && lanes[low] == 0) low++;
    while (low < high && lanes[high - 1] == 0) high--;
    if (low >= high) return 1;
    if (high - low > 3) return 0;  /* a lane is below 2^62, so that three of them stay below 2^127 */
    for (i = high; i-- > low;) *whole = *whole * ((__int128)1 << 32) + lanes[i];
    *exponent = 32 * (exact->base + low) + HR_EXACT_SUM.unit;
    return 1;
}

/* The quotient, rounded once. */
static inline double hr_near_divided(__int128 whole, int64_t exponent, uint64_t by)
{
    hr_u128 size = whole < 0 ? -(hr_u128)whole : (hr_u128)whole, quotient = size;
    int shift = 0, more = 0;
    if (size == 0) return 0;
    if (by > 1) {
        shift = 128 - hr_bit_length(size);
        size <<= shift;
        quotient = size / by;  /* of 66 bits or more, as a count is below 2^61 */
        more = quotient * by != size;
    }
    return hr_round(quotient, more, exponent - shift, whole < 0);
}

/* As hr_state_result. */
static inline int hr_window_result(
    hr_state *state, int aggregate, int64_t parameter, int64_t read_us, hr_result *result)
{
    const hr_sum *sum = &state->sum;
    __int128 whole;
    int64_t exponent;
    if (aggregate == HR_AGG_COUNT || (aggregate == HR_AGG_SUM && hr_scalar_is_float(state->spec.scalar)) ||
        (aggregate == HR_AGG_AVG && sum->count > 0 && sum->count < INT64_C(1) << 60)) {
        if (aggregate == HR_AGG_COUNT || hr_sum_near(sum, state->spec.scalar, &whole, &exponent)) {
            result->items = NULL, result->item_count = 0, result->is_list = 0, result->lost = HR_LOST_NOTHING;
            result->value = aggregate == HR_AGG_COUNT ? hr_value_whole(sum->count)
                                                      : hr_value_float(hr_near_divided(
                                                            whole, exponent,
                                                            aggregate == HR_AGG_AVG ? (uint64_t)sum->count : 1));
            return HR_STATE_OK;
        }
    }
    return hr_state_result(state, aggregate, parameter, read_us, result);
}

#endif
