/* Exact numbers to floats, rounded once to the nearest, ties to even; and the whole-number arithmetic before that. */
#ifndef HR_STATE_ROUND_H
#define HR_STATE_ROUND_H

#include "hr_state_exact.h"

/* A size without sign in words of 32 bits; word i has the weight 2^(32 (lane + i)) units. */
enum { HR_BIG_WORDS = 300 };  /* a square of HR_EXACT_SUM, and what division appends */
typedef struct {
    uint32_t words[HR_BIG_WORDS];
    uint32_t count;
    int64_t lane;
} hr_big;

/* (w, and a little more where `more` is set) 2^exponent, for w > 0; with `more`, w has 66 bits or more. */
static inline double hr_round(hr_u128 w, int more, int64_t exponent, int negative)
{
    int bits = hr_bit_length(w);
    int64_t least = exponent + bits - 53, shift;
    uint64_t kept, sign = (uint64_t)negative << 63;
    if (least < -1074) least = -1074;
    if (least > 971) return hr_float_of(sign | 0x7FF0000000000000ULL);
    shift = least - exponent;
    if (shift <= 0) {
        kept = (uint64_t)w << -shift;
    } else if (shift > 128) {
        return hr_float_of(sign);
    } else {
        hr_u128 half = (hr_u128)1 << (shift - 1), rest = shift == 128 ? w : w & ((half << 1) - 1);
        kept = shift == 128 ? 0 : (uint64_t)(w >> shift);
        if (rest > half || (rest == half && (more || (kept & 1)))) kept++;
    }
    /* Without the hidden bit of a normal number; a carry out of the fraction raises the exponent, up to infinity. */
    return hr_float_of(sign | (((uint64_t)(least + 1075) << 52) + kept - (UINT64_C(1) << 52)));
}

static inline double hr_round_wide(__int128 whole)
{
    if (whole == 0) return 0;
    return hr_round(whole < 0 ? -(hr_u128)whole : (hr_u128)whole, 0, 0, whole < 0);
}

static inline void hr_big_trim(hr_big *x)
{
    while (x->count > 0 && x->words[x->count - 1] == 0) x->count--;
}

static inline void hr_big_of_wide(hr_big *x, hr_u128 value)
{
    for (x->count = 0, x->lane = 0; value != 0; value >>= 32) x->words[x->count++] = (uint32_t)value;
}

static inline int hr_big_of_exact(hr_big *x, hr_exact *exact, int *negative)
{
    return hr_exact_words(exact, x->words, &x->count, &x->lane, negative);
}

static inline void hr_big_multiply(hr_big *x, uint64_t by)
{
    hr_u128 carry = 0;
    uint32_t i, count = x->count;
    for (i = 0; i < count || carry != 0; i++) {
        hr_u128 v = carry + (i < count ? (hr_u128)x->words[i] * by : 0);
        x->words[i] = (uint32_t)v;
        carry = v >> 32;
    }
    x->count = i;
}

static inline void hr_big_square(const hr_big *x, hr_big *to)
{
    uint32_t i, j;
    memset(to->words, 0, 2 * (size_t)x->count * sizeof(uint32_t));
    for (i = 0; i < x->count; i++) {
        uint64_t carry = 0;
        for (j = 0; j < x->count; j++) {
            uint64_t v = (uint64_t)x->words[i] * x->words[j] + to->words[i + j] + carry;
            to->words[i + j] = (uint32_t)v;
            carry = v >> 32;
        }
        to->words[i + j] = (uint32_t)carry;
    }
    to->count = 2 * x->count;
    to->lane = 2 * x->lane;
    hr_big_trim(to);
}

/* x - y into x, or 0 where y is greater: its result. */
static inline int hr_big_subtract(hr_big *x, const hr_big *y)
{
    int64_t lane = x->lane < y->lane ? x->lane : y->lane, borrow = 0;
    uint32_t i, end, moved = (uint32_t)(x->lane - lane), others = (uint32_t)(y->lane - lane);
    if (y->count == 0) return 1;
    if (x->count == 0) return 0;
    memmove(x->words + moved, x->words, x->count * sizeof(uint32_t));
    memset(x->words, 0, moved * sizeof(uint32_t));
    x->lane = lane;
    x->count += moved;
    end = x->count > y->count + others ? x->count : y->count + others;
    for (i = 0; i < end; i++) {
        borrow += i < x->count ? x->words[i] : 0;
        if (i >= others && i - others < y->count) borrow -= y->words[i - others];
        x->words[i] = (uint32_t)borrow;
        borrow >>= 32;
    }
    x->count = end;
    hr_big_trim(x);
    return borrow == 0;
}

/* Whole part of x / by; 1 where there is a rest. */
static inline int hr_big_divide(hr_big *x, uint64_t by)
{
    uint64_t rest = 0;
    uint32_t i;
    for (i = x->count; i-- > 0;) {
        if (by >> 32 == 0) {
            uint64_t v = rest << 32 | x->words[i];
            x->words[i] = (uint32_t)(v / by);
            rest = v % by;
        } else {
            hr_u128 v = (hr_u128)rest << 32 | x->words[i];
            x->words[i] = (uint32_t)(v / by);
            rest = (uint64_t)(v % by);
        }
    }
    hr_big_trim(x);
    return rest != 0;
}

/* Appends zero words below, so that a division leaves enough bits to round. */
static inline void hr_big_lower(hr_big *x, uint32_t count)
{
    memmove(x->words + count, x->words, x->count * sizeof(uint32_t));
    memset(x->words, 0, count * sizeof(uint32_t));
    x->count += count;
    x->lane -= count;
}

/* The size 2^unit as a float; `more` as in hr_round. */
static inline double hr_big_round(const hr_big *x, int more, int64_t unit, int negative)
{
    hr_u128 w = 0;
    uint32_t i, first = x->count > 4 ? x->count - 4 : 0;
    if (x->count == 0) return 0;
    for (i = x->count; i-- > first;) w = w << 32 | x->words[i];
    for (i = 0; i < first; i++) more |= x->words[i] != 0;
    return hr_round(w, more, 32 * (x->lane + first) + unit, negative);
}

#endif
