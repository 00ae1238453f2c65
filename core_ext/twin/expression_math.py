"""Twin of native/hr_expression_math.h: the same IEEE 754 steps on Python's floats."""

import math
from typing import Final, TypeAlias

Pair: TypeAlias = tuple[float, float]

_LN2: Final = (
    float.fromhex("0x1.62e42fefa39efp-1"),
    float.fromhex("0x1.abc9e3b39803fp-56"),
    float.fromhex("0x1.7b57a079a1934p-111"),
)
_EXP_TERMS, _LOG_TERMS, _HALVINGS = 15, 22, 4


def less(a: float, b: float) -> bool:
    """Order in which NaN is above every number."""
    return not math.isnan(a) and (math.isnan(b) or a < b)


def equal(a: float, b: float) -> bool:
    """Equality in which NaN equals NaN."""
    return a == b or (math.isnan(a) and math.isnan(b))


def exp(x: float) -> float:
    """Value of e to the x."""
    if math.isnan(x):
        return math.nan
    if x > 710.0:
        return math.inf
    return 0.0 if x < -746.0 else _exp((x, 0.0))


def log(x: float) -> float:
    """Natural logarithm of a number above 0."""
    return x if math.isinf(x) else sum(_log(x))


def pow_fails(x: float, y: float) -> bool:
    """Whether x to the y has no value."""
    if math.isnan(x) or math.isnan(y):
        return False
    return (x == 0 and y < 0) or (x < 0 and math.isfinite(x) and math.isfinite(y) and math.floor(y) != y)


def power(x: float, y: float) -> float:
    """Value of x to the y, where it has one."""
    size, odd = abs(x), math.isfinite(y) and abs(y) < 2.0**53 and math.fmod(y, 2.0) in (1.0, -1.0)
    sign = -1.0 if x < 0 and odd else 1.0
    if y == 0 or x == 1:
        return 1.0
    if math.isnan(x) or math.isnan(y):
        return math.nan
    if math.isinf(y):
        return 1.0 if size == 1 else math.inf if (size > 1) == (y > 0) else 0.0
    if x == 0:
        return x if odd else 0.0
    if math.isinf(x):
        return sign * (math.inf if y > 0 else 0.0)
    logarithm = _log(size)
    if abs(y) > 1e300 or abs(logarithm[0] * y) > 746.0:
        if logarithm[0] == 0:
            return sign
        return sign * (math.inf if (logarithm[0] > 0) == (y > 0) else 0.0)
    exponent = _multiply(logarithm, (y, 0.0))
    return sign * (math.inf if exponent[0] > 710.0 else _exp(exponent))


def _two_sum(a: float, b: float) -> Pair:
    high = a + b
    part = high - a
    return high, (a - (high - part)) + (b - part)


def _quick_sum(a: float, b: float) -> Pair:
    high = a + b
    return high, b - (high - a)


def _split(a: float) -> Pair:
    scaled = 134217729.0 * a
    high = scaled - (scaled - a)
    return high, a - high


def _two_product(a: float, b: float) -> Pair:
    (x, x_low), (y, y_low) = _split(a), _split(b)
    high = a * b
    return high, ((x * y - high) + x * y_low + x_low * y) + x_low * y_low


def _add(a: Pair, b: Pair) -> Pair:
    high, low = _two_sum(a[0], b[0]), _two_sum(a[1], b[1])
    high = _quick_sum(high[0], high[1] + low[0])
    return _quick_sum(high[0], high[1] + low[1])


def _multiply(a: Pair, b: Pair) -> Pair:
    high, low = _two_product(a[0], b[0])
    return _quick_sum(high, low + (a[0] * b[1] + a[1] * b[0]))


def _divide(a: Pair, b: Pair) -> Pair:
    first = a[0] / b[0]
    rest = _add(a, _multiply((-first, 0.0), b))
    second = rest[0] / b[0]
    rest = _add(rest, _multiply((-second, 0.0), b))
    return _add(_quick_sum(first, second), (rest[0] / b[0], 0.0))


def _exp(x: Pair) -> float:
    k = float(round(x[0] / _LN2[0]))
    r = _add(_add(x, _two_product(-k, _LN2[0])), _two_product(-k, _LN2[1]))
    r = _add(r, (-k * _LN2[2], 0.0))
    r = (r[0] * 0.0625, r[1] * 0.0625)
    total: Pair = (1.0, 0.0)
    for i in range(_EXP_TERMS, 1, -1):
        total = _add((1.0, 0.0), _multiply(_divide(r, (float(i), 0.0)), total))
    total = _multiply(r, total)
    for _ in range(_HALVINGS):
        total = _add((total[0] * 2, total[1] * 2), _multiply(total, total))
    total = _add((1.0, 0.0), total)
    try:
        return math.ldexp(total[0] + total[1], int(k))
    except OverflowError:
        return math.inf


def _log(x: float) -> Pair:
    m, e = math.frexp(x)
    if m < 0.70710678118654757:
        m, e = m * 2, e - 1
    s = _divide((m - 1.0, 0.0), _two_sum(m, 1.0))
    square = _multiply(s, s)
    total: Pair = (0.0, 0.0)
    for i in range(_LOG_TERMS, -1, -1):
        total = _add(_divide((1.0, 0.0), (2.0 * i + 1.0, 0.0)), _multiply(square, total))
    total = _multiply(s, total)
    total = (total[0] * 2, total[1] * 2)
    if e == 0:
        return total
    return _add(_add(_two_product(float(e), _LN2[0]), _two_product(float(e), _LN2[1])), total)
