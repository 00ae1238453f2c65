"""Numbers of window states in plain whole numbers and fractions: forms, rounding, powers of two."""

import math
from decimal import Context, Decimal
from fractions import Fraction
from typing import Final

_DIGITS: Final = 60


def number(value: int) -> bytes:
    """Seven bits a byte, low ones first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """A number with its sign in the lowest bit."""
    return number(2 * value if value >= 0 else -2 * value - 1)


def exact(value: int, is_flagged: bool | int, origin: int) -> bytes:
    """Bytes of a whole number without the zeros at either end, their place counted from `origin`."""
    if value == 0:
        return bytes([is_flagged << 1])
    data = abs(value).to_bytes(abs(value).bit_length() // 8 + 1, "little").rstrip(b"\0")
    kept = data.lstrip(b"\0")
    return number(len(kept) << 2 | is_flagged << 1 | (value < 0)) + signed(len(data) - len(kept) - origin) + kept


def units(value: float) -> int:
    """A finite float in units of 2^-1074."""
    above, below = value.as_integer_ratio()
    return (above << 1074) // below


def nearest(value: Fraction) -> float:
    """The nearest float, ties to even; beyond the greatest, infinity."""
    try:
        return value.numerator / value.denominator
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def scaled(whole: int, exponent: int) -> float:
    """The float nearest to whole * 2^exponent, for exponents of any size."""
    exponent = max(min(exponent, 3_000), -3_000)  # beyond these the result is 0 or infinite at any whole number
    return nearest(whole * Fraction(2) ** exponent)


def cut(whole: int, exponent: int) -> tuple[int, int]:
    """Whole * 2^exponent as at most 53 bits and their exponent, to the nearest, ties to even."""
    shift = whole.bit_length() - 53
    return (whole, exponent) if shift <= 0 else (round(Fraction(whole, 1 << shift)), exponent + shift)


def _coefficients() -> list[int]:
    context = Context(prec=_DIGITS)
    step = context.ln(Decimal(2))
    found, power = [], Decimal(2**64)
    for i in range(1, 19):
        power = context.divide(context.multiply(power, step), Decimal(i))
        found.append(int(power))
    return found


_EXP2: Final = _coefficients()


def exp2(rest: int, whole: int) -> int:
    """2^(rest / whole) in units of 2^-63, by the steps of native/hr_state_decay.h."""
    part, total = (rest << 64) // whole, _EXP2[-1]
    for coefficient in reversed(_EXP2[:-1]):
        total = coefficient + (total * part >> 64)
    return 2**63 + ((total * part >> 64) >> 1)
