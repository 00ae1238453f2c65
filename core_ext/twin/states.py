"""Twin of core_ext.states: bytes and results of a state, derived from the whole list of its events."""

import math
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum
from fractions import Fraction
from typing import Any, Final, NamedTuple

from core_ext.twin import state_numbers as numbers
from core_ext.twin.hashing import xxh3_64

BOOL, I32, I64, F32, F64, STRING, BYTES = range(1, 8)
BUCKETS_MAX: Final = 4096
TOP_VALUES_MAX: Final = 4096
TOP_BYTES_MAX: Final = 65_536
KEY_NAN: Final = (0x7FF << 5) + 1
REGISTERS: Final = 2048
RANK_BITS: Final = 31
SPARSE_MAX: Final = 512
NOTHING, OVERFLOW, DIVISION, BUCKETS, VALUES = range(5)

_MILLION: Final = 1_000_000


class Kind(IntEnum):
    """Kinds of states, numbered as in native/hr_state_value.h."""

    COUNT = 1
    SUM = 2
    MOMENTS = 3
    MIN = 4
    MAX = 5
    FIRST = 6
    LAST = 7
    DISTINCT = 8
    QUANTILE = 9
    TOP = 10
    LAST_N = 11
    RATIO = 12
    DECAYED = 13


class Spec(NamedTuple):
    """What a state keeps."""

    kind: int
    scalar: int
    scalar2: int = 0
    parameter: int = 0


class Event(NamedTuple):
    """One event as a state sees it; the total order is (event_us, write_us, source_id, partition, offset)."""

    value: Any  # of any type of the table
    second: Any = None
    event_us: int = 0
    write_us: int = 0
    source_id: int = 0
    partition: int = 0
    offset: int = 0

    @property
    def order(self) -> tuple[int, ...]:
        """What events are ordered by."""
        return self[2:]


def encode(spec: Spec, events: Sequence[Event]) -> bytes:
    """Bytes of the state that has taken the events."""
    events = _taken(spec, events)
    if not events:
        return b""
    if spec.kind == Kind.RATIO:
        return _encoded_sum(spec.scalar, _first(events)) + _encoded_sum(spec.scalar2, _second(events))
    values = _first(events)
    match spec.kind:
        case Kind.COUNT:
            return numbers.number(len(values))
        case Kind.SUM:
            return _encoded_sum(spec.scalar, values)
        case Kind.MOMENTS:
            return _encoded_sum(spec.scalar, values) + _encoded_squares(spec.scalar, values)
        case Kind.DECAYED:
            return _encoded_decayed(spec, events)
        case Kind.DISTINCT:
            return _encoded_registers(_registers(spec.scalar, values))
        case Kind.QUANTILE:
            return _encoded_buckets(_buckets(values))
        case Kind.TOP:
            counts = Counter(values)
            kept = sorted(counts, key=lambda value: rank(spec.scalar, value))
            pairs = (encoded_value(spec.scalar, value) + numbers.number(counts[value]) for value in kept)
            return b"\0" if _is_over(spec.scalar, counts) else numbers.number(len(kept)) + b"".join(pairs)
    return _encoded_items(spec, _kept(spec, events))


def result(spec: Spec, events: Sequence[Event], aggregate: str, parameter: int = 0, read_us: int = 0) -> Any:
    """Value of an aggregate, named as in headrace, with the reason of its loss."""
    events = _taken(spec, events)
    values = _first(events)
    if aggregate == "count":
        return len(values), NOTHING
    if aggregate == "sum":
        total = _sum(values) if values else 0 if spec.scalar in (I32, I64) else 0.0
        lost = spec.scalar in (I32, I64) and not -(2**63) <= total < 2**63
        return (None, OVERFLOW) if lost else (total, NOTHING)
    if not events:
        return None, NOTHING
    match aggregate:
        case "min" | "max" | "first" | "last":
            return _kept(spec, events)[0].value, NOTHING
        case "avg":
            return _average(values), NOTHING
        case "variance" | "stddev":
            return _variance(values, aggregate == "stddev"), NOTHING
        case "approx_distinct":
            return _estimate(_registers(spec.scalar, values)), NOTHING
        case "quantile":
            return _quantile(_buckets(values), parameter)
        case "top_k":
            counts = Counter(values)
            best = sorted(counts, key=lambda value: (-counts[value], rank(spec.scalar, value)))
            return (None, VALUES) if _is_over(spec.scalar, counts) else (best[:parameter], NOTHING)
        case "last_n":
            return [event.value for event in _kept(spec, events)[::-1]][:parameter], NOTHING
        case "ratio":
            return _ratio(values, _second(events))
    return _decayed(spec, events, read_us), NOTHING


def rank(scalar: int, value: Any) -> Any:
    """What values of a type are ordered by: NaN is the greatest float and -0 is before 0."""
    if scalar == STRING:
        return value.encode("utf-8", "surrogateescape")
    if scalar not in (F32, F64):
        return value
    if math.isnan(value):
        return (True, 0.0, 0.0)
    return (False, value, math.copysign(1, value))


def encoded_value(scalar: int, value: Any) -> bytes:
    """Bytes of one value."""
    if scalar == BOOL:
        return bytes([value])
    if scalar in (F32, F64):
        held = math.nan if math.isnan(value) else value
        return struct.pack("<f" if scalar == F32 else "<d", held)
    if scalar in (STRING, BYTES):
        data = rank(scalar, value)
        return numbers.number(len(data)) + bytes(data)
    return numbers.signed(value)


def _taken(spec: Spec, events: Sequence[Event]) -> list[Event]:
    """The events that are not NULL; floats of 4 bytes as they are held."""
    kept = []
    for event in events:
        value = None if event.value is None and spec.scalar else _held(spec.scalar, event.value)
        second = None if event.second is None else _held(spec.scalar2, event.second)
        if spec.scalar == 0 or value is not None or (spec.kind == Kind.RATIO and second is not None):
            kept.append(event._replace(value=value, second=second))
    return kept


def _held(scalar: int, value: Any) -> Any:
    return struct.unpack("<f", struct.pack("<f", value))[0] if scalar == F32 else value


def _first(events: Iterable[Event]) -> list[Any]:
    return [event.value for event in events if event.value is not None or event.second is None]


def _second(events: Iterable[Event]) -> list[Any]:
    return [event.second for event in events if event.second is not None]


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _odd(values: Sequence[Any]) -> tuple[int, int, int]:
    """NaNs, +infs and -infs."""
    odd = [value for value in values if not _is_finite(value)]
    return sum(map(math.isnan, odd)), odd.count(math.inf), odd.count(-math.inf)


def _odd_bytes(values: Sequence[Any]) -> bytes:
    return b"".join(map(numbers.number, _odd(values))) if any(_odd(values)) else b""


def _encoded_sum(scalar: int, values: Sequence[Any]) -> bytes:
    if not values:
        return b"\0"
    count = numbers.number(len(values))
    if scalar not in (F32, F64):
        return count + numbers.signed(sum(values))
    units = sum(numbers.units(value) for value in values if _is_finite(value))
    return count + numbers.exact(units, any(_odd(values)), 128) + _odd_bytes(values)


def _encoded_squares(scalar: int, values: Sequence[Any]) -> bytes:
    if scalar not in (F32, F64):
        return numbers.exact(sum(value * value for value in values), 0, 0)
    return numbers.exact(sum(numbers.units(value) ** 2 for value in values if _is_finite(value)), 0, 256)


def _encoded_decayed(spec: Spec, events: Sequence[Event]) -> bytes:
    values = _first(events)
    total, lowest = _decayed_units(spec, events)
    return numbers.number(len(values)) + numbers.exact(total, any(_odd(values)), -lowest) + _odd_bytes(values)


def _decayed_units(spec: Spec, events: Sequence[Event]) -> tuple[int, int]:
    """The sum of the weighted values as a whole number of 2^(8 lowest), and lowest."""
    parts = []
    for event in events:
        if _is_finite(event.value) and event.value != 0:
            landmark, rest = divmod(event.event_us, spec.parameter)
            above, below = abs(event.value).as_integer_ratio()
            m, bit = numbers.cut(above * numbers.exp2(rest, spec.parameter), 1 - below.bit_length())
            parts.append((m if event.value > 0 else -m, bit + landmark - 63))
    lowest = min((bit for _, bit in parts), default=0) // 8
    return sum(m << (bit - 8 * lowest) for m, bit in parts), lowest


def _decayed(spec: Spec, events: Sequence[Event], read_us: int) -> float:
    if any(_odd(_first(events))):
        return _odd_sum(_first(events))
    total, lowest = _decayed_units(spec, events)
    landmark, rest = divmod(read_us, spec.parameter)
    m, bit = numbers.cut(abs(total), 8 * lowest)
    scale = numbers.exp2(spec.parameter - rest, spec.parameter) if rest else 2**63
    exponent = bit - landmark - 63 - (rest != 0)
    size = numbers.scaled(m * scale, exponent)
    return -size if total < 0 else size


def _odd_sum(values: Sequence[float]) -> float:
    nans, highs, lows = _odd(values)
    return math.nan if nans or (highs and lows) else math.inf if highs else -math.inf


def _sum(values: Sequence[Any]) -> Any:
    if not any(isinstance(value, float) for value in values):
        return sum(values)
    if any(_odd(values)):
        return _odd_sum(values)
    return numbers.nearest(sum(map(Fraction, values), Fraction()))


def _average(values: Sequence[Any]) -> float:
    if any(_odd(values)):
        return _odd_sum(values)
    return numbers.nearest(sum(map(Fraction, values), Fraction()) / len(values))


def _variance(values: Sequence[Any], is_root: bool) -> float | None:
    if len(values) < 2:
        return None
    if any(_odd(values)):
        return math.nan
    n, total = len(values), sum(map(Fraction, values), Fraction())
    squares = sum((Fraction(value) ** 2 for value in values), Fraction())
    variance = numbers.nearest((n * squares - total**2) / (n * (n - 1)))
    return math.sqrt(variance) if is_root else variance


def _ratio(above: Sequence[Any], below: Sequence[Any]) -> tuple[float | None, int]:
    if not below:
        return None, NOTHING
    numerator, denominator = _rounded(above), _rounded(below)
    if denominator == 0:
        return None, DIVISION
    try:
        return numerator / denominator, NOTHING
    except OverflowError:
        return math.copysign(math.inf, numerator * denominator), NOTHING


def _rounded(values: Sequence[Any]) -> float:
    total = _sum(values)
    return total if isinstance(total, float) else numbers.nearest(Fraction(total))


def _kept(spec: Spec, events: Sequence[Event]) -> list[Event]:
    """What a state of single values or of the last ones keeps, the newest last."""
    if spec.kind in (Kind.MIN, Kind.MAX):
        return sorted(events, key=lambda event: rank(spec.scalar, event.value))[:: 1 if spec.kind == Kind.MIN else -1][
            :1
        ]
    ordered = sorted(events, key=lambda event: (event.order, rank(spec.scalar, event.value)))
    if spec.kind == Kind.FIRST:
        return ordered[:1]
    return ordered[-1:] if spec.kind == Kind.LAST else ordered[-spec.parameter :]


def _encoded_items(spec: Spec, kept: Sequence[Event]) -> bytes:
    if spec.kind in (Kind.MIN, Kind.MAX):
        return encoded_value(spec.scalar, kept[0].value)
    out = numbers.number(len(kept)) if spec.kind == Kind.LAST_N else b""
    before = None
    for event in kept:
        out += numbers.signed(event.event_us) if before is None else numbers.number(event.event_us - before)
        out += numbers.signed((event.write_us - event.event_us + 2**63) % 2**64 - 2**63)
        out += numbers.number(event.source_id) + numbers.signed(event.partition) + numbers.signed(event.offset)
        out += encoded_value(spec.scalar, event.value)
        before = event.event_us
    return out


def _is_over(scalar: int, counts: Counter[Any]) -> bool:
    text_bytes = sum(len(rank(scalar, value)) for value in counts) if scalar in (STRING, BYTES) else 0
    return len(counts) > TOP_VALUES_MAX or text_bytes > TOP_BYTES_MAX


def _buckets(values: Sequence[Any]) -> Counter[int]:
    return Counter(_key(float(value)) for value in values)


def _key(value: float) -> int:
    if math.isnan(value):
        return KEY_NAN
    if abs(value) < 2.0**-1022:
        return 0
    size = int.from_bytes(struct.pack("<d", abs(value)), "little") >> 47
    return size if value > 0 else -size


def _encoded_buckets(buckets: Counter[int]) -> bytes:
    if len(buckets) > BUCKETS_MAX:
        return b"\0"
    out, before = numbers.number(len(buckets)), None
    for key in sorted(buckets):
        out += numbers.signed(key) if before is None else numbers.number(key - before - 1)
        out += numbers.number(buckets[key])
        before = key
    return out


def _quantile(buckets: Counter[int], millionths: int) -> tuple[float | None, int]:
    if len(buckets) > BUCKETS_MAX:
        return None, BUCKETS
    keys = sorted(buckets.elements())
    key = keys[max(-(-len(keys) * millionths // _MILLION), 1) - 1]
    size = abs(key)
    if key == KEY_NAN:
        return math.nan, NOTHING
    bits = 0 if key == 0 else size << 47 | (0 if size == KEY_NAN - 1 else 1 << 46)
    value: float = struct.unpack("<d", bits.to_bytes(8, "little"))[0]
    return -value if key < 0 else value, NOTHING


def _registers(scalar: int, values: Sequence[Any]) -> dict[int, int]:
    registers: dict[int, int] = {}
    for value in values:
        hashed = xxh3_64(_hashed_bytes(scalar, value))
        rest = hashed >> (53 - RANK_BITS) & (2**RANK_BITS - 1)
        index, position = hashed >> 53, RANK_BITS - rest.bit_length() + 1
        registers[index] = max(registers.get(index, 0), position)
    return registers


def _hashed_bytes(scalar: int, value: Any) -> bytes:
    if scalar in (STRING, BYTES):
        return bytes(rank(scalar, value))
    if scalar in (F32, F64):
        return struct.pack("<d", math.nan if math.isnan(value) else value + 0.0)
    return struct.pack("<q", value)


def _encoded_registers(registers: dict[int, int]) -> bytes:
    if len(registers) <= SPARSE_MAX:
        return b"".join(struct.pack("<H", index << 5 | registers[index] - 1) for index in sorted(registers))
    packed = sum(position << 6 * index for index, position in registers.items())
    return packed.to_bytes(REGISTERS * 6 // 8, "little")


def _estimate(registers: dict[int, int]) -> int:
    counts = Counter(registers.values())
    counts[0] = REGISTERS - len(registers)
    z = REGISTERS * numbers.tau(1 - counts[RANK_BITS + 1] / REGISTERS)
    for position in range(RANK_BITS, 0, -1):
        z = 0.5 * (z + counts[position])
    z += REGISTERS * numbers.sigma(counts[0] / REGISTERS)
    return math.floor(float.fromhex("0x1.71547652b82fep-1") * REGISTERS * REGISTERS / z + 0.5)
