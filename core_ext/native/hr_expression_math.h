/* Floating-point functions of expressions with the same bits on every machine.
 *
 * exp, log and pow are computed in double-double arithmetic (about 100 bits) out of +, -, * and / alone, which IEEE 754
 * fixes, and rounded once at the end; a libm's own results differ between versions and machines. Needs
 * -ffp-contract=off. NaN results have one form. core_ext/twin/expression_math.py is the oracle. */
#ifndef HR_EXPRESSION_MATH_H
#define HR_EXPRESSION_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct { double high, low; } hr_pair;

enum { HR_EXP_TERMS = 15, HR_LOG_TERMS = 22, HR_EXP_HALVINGS = 4 };

static const double HR_LN2_HIGH = 0x1.62e42fefa39efp-1, HR_LN2_LOW = 0x1.abc9e3b39803fp-56;
static const double HR_LN2_LEAST = 0x1.7b57a079a1934p-111;  /* third part, so that k ln 2 is right to 150 bits */

static inline double hr_one_nan(double value)
{
    uint64_t bits = 0x7FF8000000000000ULL;
    if (value == value) return value;
    memcpy(&value, &bits, 8);
    return value;
}

/* NaN equals NaN and is above every number; -0 equals 0. */
static inline int hr_float_less(double a, double b) { return a == a && (b != b || a < b); }
static inline int hr_float_equal(double a, double b) { return a == b || (a != a && b != b); }

static inline hr_pair hr_two_sum(double a, double b)
{
    hr_pair r;
    double part;
    r.high = a + b;
    part = r.high - a;
    r.low = (a - (r.high - part)) + (b - part);
    return r;
}

/* |a| >= |b| or a is 0. */
static inline hr_pair hr_quick_sum(double a, double b)
{
    hr_pair r;
    r.high = a + b;
    r.low = b - (r.high - a);
    return r;
}

static inline hr_pair hr_split(double a)
{
    hr_pair r;
    double scaled = 134217729.0 * a;
    r.high = scaled - (scaled - a);
    r.low = a - r.high;
    return r;
}

static inline hr_pair hr_two_product(double a, double b)
{
    hr_pair r, x = hr_split(a), y = hr_split(b);
    r.high = a * b;
    r.low = ((x.high * y.high - r.high) + x.high * y.low + x.low * y.high) + x.low * y.low;
    return r;
}

static inline hr_pair hr_pair_add(hr_pair a, hr_pair b)
{
    hr_pair s = hr_two_sum(a.high, b.high), t = hr_two_sum(a.low, b.low);
    s = hr_quick_sum(s.high, s.low + t.high);
    return hr_quick_sum(s.high, s.low + t.low);
}

static inline hr_pair hr_pair_multiply(hr_pair a, hr_pair b)
{
    hr_pair p = hr_two_product(a.high, b.high);
    return hr_quick_sum(p.high, p.low + (a.high * b.low + a.low * b.high));
}

static inline hr_pair hr_pair_divide(hr_pair a, hr_pair b)
{
    hr_pair part, rest, r;
    double first = a.high / b.high, second;
    part.high = -first, part.low = 0;
    rest = hr_pair_add(a, hr_pair_multiply(part, b));
    second = rest.high / b.high;
    part.high = -second;
    rest = hr_pair_add(rest, hr_pair_multiply(part, b));
    r = hr_quick_sum(first, second);
    part.high = rest.high / b.high;
    return hr_pair_add(r, part);
}

static inline hr_pair hr_pair_of(double high) { hr_pair r = {high, 0}; return r; }

/* The pair times 2^k, rounded once; k is within what exp produces. */
static inline double hr_scaled(hr_pair a, int k)
{
    return ldexp(a.high + a.low, k);
}

/* exp of a pair within about 710; the series runs on a 16th of the rest, which is squared back. */
static inline double hr_exp_pair(hr_pair x)
{
    double k = rint(x.high / HR_LN2_HIGH);
    hr_pair r = x, sum, part;
    int i;
    part = hr_two_product(-k, HR_LN2_HIGH);
    r = hr_pair_add(r, part);
    part = hr_two_product(-k, HR_LN2_LOW);
    r = hr_pair_add(r, part);
    r = hr_pair_add(r, hr_pair_of(-k * HR_LN2_LEAST));
    r.high *= 0.0625, r.low *= 0.0625;
    /* sum = r (1 + r/2 (1 + r/3 (...))): exp(r) - 1, kept without the 1 so that squaring loses nothing. */
    sum = hr_pair_of(1.0);
    for (i = HR_EXP_TERMS; i >= 2; i--)
        sum = hr_pair_add(hr_pair_of(1.0), hr_pair_multiply(hr_pair_divide(r, hr_pair_of(i)), sum));
    sum = hr_pair_multiply(r, sum);
    for (i = 0; i < HR_EXP_HALVINGS; i++) {
        hr_pair square = hr_pair_multiply(sum, sum);
        sum.high *= 2, sum.low *= 2;
        sum = hr_pair_add(sum, square);
    }
    return hr_scaled(hr_pair_add(hr_pair_of(1.0), sum), (int)k);
}

static inline double hr_exp(double x)
{
    if (x != x) return hr_one_nan(x);
    if (x > 710.0) return HUGE_VAL;
    if (x < -746.0) return 0.0;
    return hr_exp_pair(hr_pair_of(x));
}

/* ln of a finite x above 0: x = m 2^e with m around 1, ln m = 2 artanh((m-1)/(m+1)). */
static inline hr_pair hr_log_pair(double x)
{
    int e, i;
    double m = frexp(x, &e);
    hr_pair s, square, sum;
    if (m < 0.70710678118654757) m *= 2, e -= 1;
    s = hr_pair_divide(hr_pair_of(m - 1.0), hr_two_sum(m, 1.0));
    square = hr_pair_multiply(s, s);
    sum = hr_pair_of(0.0);
    for (i = HR_LOG_TERMS; i >= 0; i--)
        sum = hr_pair_add(hr_pair_divide(hr_pair_of(1.0), hr_pair_of(2.0 * i + 1.0)), hr_pair_multiply(square, sum));
    sum = hr_pair_multiply(s, sum);
    sum.high *= 2, sum.low *= 2;
    if (e == 0) return sum;
    square = hr_pair_add(hr_two_product(e, HR_LN2_HIGH), hr_two_product(e, HR_LN2_LOW));
    return hr_pair_add(square, sum);
}

/* x > 0, may be infinite. */
static inline double hr_log(double x)
{
    hr_pair r;
    if (isinf(x)) return x;
    r = hr_log_pair(x);
    return r.high + r.low;
}

static inline int hr_is_whole(double y) { return floor(y) == y; }
static inline int hr_is_odd(double y) { return hr_is_whole(y) && fabs(y) < 9007199254740992.0 && fmod(y, 2.0) != 0; }

/* 1 where x^y has no value: 0 to a negative power, or a negative number to a power that is not whole. */
static inline int hr_pow_fails(double x, double y)
{
    if (x != x || y != y) return 0;
    if (x == 0 && y < 0) return 1;
    return x < 0 && isfinite(x) && isfinite(y) && !hr_is_whole(y);
}

/* IEEE 754 pow where hr_pow_fails is 0. */
static inline double hr_pow(double x, double y)
{
    double size = fabs(x), sign = x < 0 && hr_is_odd(y) ? -1.0 : 1.0;
    hr_pair power;
    if (y == 0 || x == 1) return 1.0;
    if (x != x || y != y) return hr_one_nan(x + y);
    if (isinf(y)) return size == 1 ? 1.0 : (size > 1) == (y > 0) ? HUGE_VAL : 0.0;
    if (x == 0) return hr_is_odd(y) ? x : 0.0;
    if (isinf(x)) return sign * (y > 0 ? HUGE_VAL : 0.0);
    power = hr_log_pair(size);
    if (fabs(y) > 1e300 || fabs(power.high * y) > 746.0) {
        /* |ln x| is 2^-53 at least unless x is 1 in size, so that a y above 1e300 is out of range as well. */
        if (power.high == 0) return sign;
        return sign * ((power.high > 0) == (y > 0) ? HUGE_VAL : 0.0);
    }
    power = hr_pair_multiply(power, hr_pair_of(y));
    if (power.high > 710.0) return sign * HUGE_VAL;
    return sign * hr_exp_pair(power);
}

/* Remainder with the sign of the divisor, which is not 0: as Python's %. */
static inline double hr_float_mod(double a, double b)
{
    double rest = fmod(a, b);
    if (rest == 0) return copysign(0.0, b);
    if (rest == rest && (rest < 0) != (b < 0)) rest += b;
    return hr_one_nan(rest);
}

#endif
