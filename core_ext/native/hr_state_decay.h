/* Decayed sums: each value weighs 2^(t / half life), rounded once to 53 bits, and their exact sum is scaled at read. */
#ifndef HR_STATE_DECAY_H
#define HR_STATE_DECAY_H

#include "hr_state_sum.h"

enum { HR_EXP2_TERMS = 18 };

/* (ln 2)^i / i! in units of 2^-64, i = 1 ...; those after them are less than one unit. */
static const uint64_t HR_EXP2[HR_EXP2_TERMS] = {
    0xB17217F7D1CF79ABULL, 0x3D7F7BFF058B1D50ULL, 0x0E35846B82505FC5ULL, 0x0276556DF749CEE5ULL,
    0x005761FF9E299CC4ULL, 0x000A184897C363C3ULL, 0x0000FFE5FE2C4586ULL, 0x0000162C0223A5C8ULL,
    0x000001B5253D395EULL, 0x0000001E4CF5158BULL, 0x00000001E8CAC735ULL, 0x000000001C3BD650ULL,
    0x0000000001816193ULL, 0x0000000000131496ULL, 0x000000000000E1B7ULL, 0x00000000000009C7ULL,
    0x0000000000000066ULL, 0x0000000000000003ULL};

/* 2^(rest / whole) in units of 2^-63, for 0 <= rest < whole; whole numbers alone, so that every machine agrees. */
static inline uint64_t hr_exp2(uint64_t rest, uint64_t whole)
{
    uint64_t part = (uint64_t)(((hr_u128)rest << 64) / whole), sum = HR_EXP2[HR_EXP2_TERMS - 1];
    int i;
    for (i = HR_EXP2_TERMS - 2; i >= 0; i--) sum = HR_EXP2[i] + (uint64_t)((hr_u128)sum * part >> 64);
    return (UINT64_C(1) << 63) + ((uint64_t)((hr_u128)sum * part >> 64) >> 1);
}

/* t = landmark * half_life + rest. */
static inline int64_t hr_landmark(int64_t t, int64_t half_life, uint64_t *rest)
{
    int64_t landmark = t / half_life, left = t % half_life;
    if (left < 0) landmark--, left += half_life;
    *rest = (uint64_t)left;
    return landmark;
}

/* w cut to 53 bits, to the nearest, ties to even; *bit grows by what was cut. */
static inline uint64_t hr_cut(hr_u128 w, int more, int64_t *bit)
{
    int shift = hr_bit_length(w) - 53;
    hr_u128 half, rest;
    uint64_t kept;
    if (shift <= 0) return (uint64_t)w;
    half = (hr_u128)1 << (shift - 1);
    rest = w & ((half << 1) - 1);
    kept = (uint64_t)(w >> shift);
    *bit += shift;
    return kept + (rest > half || (rest == half && (more || (kept & 1))));
}

static inline int hr_decayed_take(
    hr_sum *sum, uint8_t scalar, int64_t half_life, const hr_value *value, int64_t event_us, int back)
{
    uint64_t m, rest;
    int64_t bit = 0, landmark;
    int negative, status = HR_STATE_OK;
    if (event_us > HR_TIME_LIMIT || event_us < -HR_TIME_LIMIT) return HR_STATE_MISUSED;
    if (back ? sum->count == 0 : sum->count == INT64_MAX)
        return back ? HR_STATE_NOT_RETRACTABLE : HR_STATE_TOO_LARGE;
    if (hr_scalar_is_float(scalar)) {
        uint64_t bits = hr_float_bits(value->f);
        negative = (int)(bits >> 63);
        if ((bits >> 52 & 0x7FF) == 0x7FF) {
            status = hr_sum_odd(sum, value->f, back);
            if (status == HR_STATE_OK) sum->count += back ? -1 : 1;
            return status;
        }
        m = hr_float_parts(bits, &bit);
        bit += HR_EXACT_SUM.unit;
    } else {
        negative = value->i < 0;
        m = negative ? 0 - (uint64_t)value->i : (uint64_t)value->i;
    }
    if (m != 0) {
        landmark = hr_landmark(event_us, half_life, &rest);
        bit += landmark - 63;
        m = hr_cut((hr_u128)m * hr_exp2(rest, (uint64_t)half_life), 0, &bit);
        status = hr_exact_add(&sum->exact, m, bit, negative ^ back);
    }
    if (status == HR_STATE_OK) sum->count += back ? -1 : 1;
    return status;
}

/* The sum at T: cut to 53 bits, times 2^(-T / half life), rounded once more. */
static inline int hr_decayed_result(hr_sum *sum, int64_t half_life, int64_t read_us, double *value)
{
    hr_big big;
    hr_u128 w = 0;
    uint64_t rest, m, scale;
    uint32_t i, first;
    int64_t landmark, bit;
    int negative, more = 0, status;
    if (read_us > HR_TIME_LIMIT || read_us < -HR_TIME_LIMIT) return HR_STATE_MISUSED;
    if (hr_sum_is_odd(sum)) {
        *value = hr_sum_odd_value(sum);
        return HR_STATE_OK;
    }
    status = hr_big_of_exact(&big, &sum->exact, &negative);
    *value = 0;
    if (status != HR_STATE_OK || big.count == 0) return status;
    first = big.count > 4 ? big.count - 4 : 0;
    for (i = big.count; i-- > first;) w = w << 32 | big.words[i];
    for (i = 0; i < first; i++) more |= big.words[i] != 0;
    bit = 32 * (big.lane + first);
    m = hr_cut(w, more, &bit);
    landmark = hr_landmark(read_us, half_life, &rest);
    /* 2^(-rest / half life) is half of 2^((half life - rest) / half life). */
    scale = rest == 0 ? UINT64_C(1) << 63 : hr_exp2((uint64_t)half_life - rest, (uint64_t)half_life);
    *value = hr_round((hr_u128)m * scale, 0, bit - landmark - 63 - (rest != 0), negative);
    return HR_STATE_OK;
}

#endif
