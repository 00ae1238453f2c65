"""Twin of core_ext.expressions: the same programs on plain Python values, a row at a time."""

import math
import re
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from core_ext.twin import expression_math as numbers
from core_ext.twin.hashing import crc32c

FAULTS: Final = ("overflow", "zero_division", "cast", "domain", "time", "too_long")
BOOL, I32, I64, F32, F64, STRING, BYTES, TIMESTAMP, DATE = range(1, 10)
TEXT_BYTES_MAX: Final = 65_536

_NONE: Final = 0xFFFF
_INTS, _FLOATS, _TEXTS = {I32, I64, TIMESTAMP, DATE}, {F32, F64}, {STRING, BYTES}
_KINDS: Final = {"b": {BOOL}, "i": _INTS, "n": {BOOL, *_INTS}, "f": _FLOATS, "s": {STRING}, "t": _TEXTS}
_RETYPES: Final = {
    *((BOOL, I32), (BOOL, I64), (I32, I64), (I32, DATE), (I64, TIMESTAMP), (F32, F64)),
    *((STRING, BYTES), (TIMESTAMP, I64), (DATE, I32)),
}
_DAY_US: Final = 86_400_000_000

# Name, arguments and result of every op in the order of their numbers, from 1; a result of 0 is named by the program.
_OPS: Final = [
    *(("INPUT", "", 0), ("CONST", "", 0), ("NULL", "", 0), ("RETYPE", "*", 0), ("SELECT", "bxx", 0)),
    *(("COALESCE", "xx", 0), ("IS_NULL", "*", BOOL), ("IS_TRUE", "b", BOOL)),
    *(("AND", "bb", BOOL), ("OR", "bb", BOOL), ("NOT", "b", BOOL)),
    *((f"{name}_{kind}", types, BOOL) for kind, types in (("I", "nn"), ("F", "ff"), ("T", "tt")) for name in
      ("EQ", "LT", "LE")),
    *(("LEAST_I", "xx", 0), ("GREATEST_I", "xx", 0), ("LEAST_F", "xx", 0), ("GREATEST_F", "xx", 0)),
    *((name, "ii", I64) for name in ("ADD_I", "SUB_I", "MUL_I", "FLOORDIV_I", "MOD_I")),
    *(("NEG_I", "i", I64), ("ABS_I", "i", I64)),
    *((name, "ff", F64) for name in ("ADD_F", "SUB_F", "MUL_F", "DIV_F", "MOD_F")),
    *((name, "f", F64) for name in ("NEG_F", "ABS_F", "FLOOR", "CEIL", "ROUND", "SQRT", "EXP", "LOG")),
    *(("POW", "ff", F64), ("LOWER", "s", STRING), ("UPPER", "s", STRING), ("TRIM", "s", STRING), ("LENGTH", "s", I64)),
    *(("SUBSTRING", "sii", STRING), ("CONCAT", "ss", STRING), ("STARTS_WITH", "ss", BOOL), ("ENDS_WITH", "ss", BOOL)),
    *(("CONTAINS", "ss", BOOL), ("REPLACE", "sss", STRING)),
    *((name, "i", I64) for name in ("LOCAL", "DATE_US", "YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND")),
    *(("DAY_OF_WEEK", "i", I64), ("DAYS", "i", DATE), ("INT_TO_I32", "i", I32), ("INT_TO_F64", "i", F64)),
    *(("INT_TO_F32", "i", F32), ("FLOAT_TO_I64", "f", I64), ("FLOAT_TO_F32", "f", F32), ("TEXT_TO_I64", "s", I64)),
    *(("TEXT_TO_F64", "s", F64), ("INT_TO_TEXT", "i", STRING), ("BOOL_TO_TEXT", "b", STRING)),
    ("BYTES_TO_TEXT", "t", STRING),
]  # fmt: skip
_MAKERS: Final = {"LOWER", "UPPER", "CONCAT", "REPLACE", "INT_TO_TEXT"}
_WHOLE: Final = re.compile(r"[+-]?[0-9]+\Z")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")


class CorruptProgramError(ValueError):
    """Bytes that are no program."""


class _Fault(Exception):
    """A value that becomes NULL and counts."""


@dataclass(frozen=True)
class Instruction:
    """One instruction; `constant` is what its operand names in the heap."""

    name: str
    type: int
    arguments: tuple[int, ...]
    guard: int
    operand: int
    constant: Any


class Program:
    """A checked program."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        _check_frame(source)
        input_count, count, self.heap_bytes, self.result = struct.unpack_from("<HHIH", source, 12)
        if input_count > 256 or not 1 <= count <= 1024:
            raise CorruptProgramError("has too many or too few parts")
        code = 24 + (input_count + 7) // 8 * 8
        if code + 16 * count + self.heap_bytes + 4 != len(source):
            raise CorruptProgramError("has a wrong length")
        self.input_types = tuple(source[24 : 24 + input_count])
        if not all(BOOL <= type_ <= DATE for type_ in self.input_types) or any(source[24 + input_count : code]):
            raise CorruptProgramError("has an unknown input type")
        self.heap = source[code + 16 * count : -4]
        self.code: list[Instruction] = []
        for index in range(count):
            self.code.append(self._instruction(struct.unpack_from("<HBBHHHHI", source, code + 16 * index), index))
        if sum(instruction.name in _MAKERS for instruction in self.code) > 32:
            raise CorruptProgramError("has too many or too few parts")
        if self.result >= count:
            raise CorruptProgramError("has no such result")
        self.result_type = self.code[self.result].type

    def evaluate_row(self, values: Sequence[Any]) -> tuple[Any, tuple[int, ...]]:
        """Result and counts of faults for one row."""
        registers: list[Any] = []
        faults: Counter[str] = Counter()
        for instruction in self.code:
            arguments = [registers[argument] for argument in instruction.arguments]
            try:
                registers.append(_value(instruction, arguments, values))
            except _Fault as fault:
                registers.append(None)
                if instruction.guard == _NONE or registers[instruction.guard]:
                    faults[str(fault)] += 1
        return registers[self.result], tuple(faults[name] for name in FAULTS)

    def _instruction(self, fields: Sequence[int], index: int) -> Instruction:
        number, type_, reserved, *registers, guard, operand = fields
        if not 1 <= number <= len(_OPS) or reserved:
            raise CorruptProgramError("has an unknown instruction")
        name, kinds, result = _OPS[number - 1]
        if not BOOL <= type_ <= DATE or (result and result != type_):
            raise CorruptProgramError("mixes types")
        for position, argument in enumerate(registers):
            if argument >= index if position < len(kinds) else argument != _NONE:
                raise CorruptProgramError("reads a register that is not filled")
            if position < len(kinds) and not _fits(kinds[position], self.code[argument].type, type_):
                raise CorruptProgramError("mixes types")
        if guard != _NONE and guard >= index:
            raise CorruptProgramError("reads a register that is not filled")
        if guard != _NONE and self.code[guard].type != BOOL:
            raise CorruptProgramError("mixes types")
        arguments = tuple(registers[: len(kinds)])
        return Instruction(name, type_, arguments, guard, operand, self._constant(name, type_, arguments, operand))

    def _constant(self, name: str, type_: int, arguments: tuple[int, ...], operand: int) -> Any:
        wrong = CorruptProgramError("has a wrong operand")
        if name == "INPUT":
            if operand >= len(self.input_types):
                raise wrong
            if self.input_types[operand] != type_:
                raise CorruptProgramError("mixes types")
            return None
        if name in ("CONST", "LOCAL"):
            try:
                return _zone(self.heap, operand) if name == "LOCAL" else _constant(self.heap, operand, type_)
            except (ValueError, struct.error, OverflowError) as error:
                raise wrong from error
        bad = name == "RETYPE" and (self.code[arguments[0]].type, type_) not in _RETYPES
        bad = bad or (name in ("LEAST_I", "GREATEST_I") and type_ not in _INTS)
        if bad or (name in ("LEAST_F", "GREATEST_F") and type_ not in _FLOATS):
            raise CorruptProgramError("mixes types")
        if operand != 0:
            raise wrong
        return None


def _check_frame(source: bytes) -> None:
    if not 28 <= len(source) <= 1 << 20:
        raise CorruptProgramError("is too short or too long")
    magic, layout, first, length = struct.unpack_from("<IHHI", source)
    if magic != 0x50585248:
        raise CorruptProgramError("has another magic")
    if layout != 1 or first or struct.unpack_from("<H", source, 22)[0]:
        raise CorruptProgramError("has an unknown layout")
    if length != len(source):
        raise CorruptProgramError("has a wrong length")
    if crc32c(source[:-4]) != struct.unpack("<I", source[-4:])[0]:
        raise CorruptProgramError("fails its checksum")


def _fits(kind: str, type_: int, result: int) -> bool:
    return type_ == result if kind == "x" else kind == "*" or type_ in _KINDS[kind]


def _constant(heap: bytes, place: int, type_: int) -> Any:
    if type_ in _TEXTS:
        (length,) = struct.unpack_from("<I", heap, place)
        if length > min(len(heap) - place - 4, TEXT_BYTES_MAX):
            raise ValueError("long")
        text = heap[place + 4 : place + 4 + length]
        return text.decode() if type_ == STRING else text
    if type_ in _FLOATS:
        (number,) = struct.unpack_from("<d", heap, place)
        if math.isnan(number) and heap[place : place + 8] != struct.pack("<Q", 0x7FF8000000000000):
            raise ValueError("another NaN")
        if type_ == F32 and not math.isnan(number) and struct.unpack("<f", struct.pack("<f", number))[0] != number:
            raise ValueError("not f32")
        return number
    (whole,) = struct.unpack_from("<q", heap, place)
    if type_ in (I32, DATE) and not -(2**31) <= whole < 2**31:
        raise ValueError("not i32")
    if type_ == BOOL:
        if whole not in (0, 1):
            raise ValueError("no bool")
        return bool(whole)
    return whole


def _zone(heap: bytes, place: int) -> tuple[int, list[int], list[int]]:
    count, reserved, end = struct.unpack_from("<IIq", heap, place)
    if not 1 <= count <= 4096 or reserved:
        raise ValueError("count")
    starts = list(struct.unpack_from(f"<{count}q", heap, place + 16))
    offsets = list(struct.unpack_from(f"<{count}q", heap, place + 16 + 8 * count))
    if starts[0] != -(2**63) or starts != sorted(set(starts)) or max(map(abs, offsets)) > _DAY_US:
        raise ValueError("starts")
    return end, starts, offsets


def _value(at: Instruction, arguments: Sequence[Any], inputs: Sequence[Any]) -> Any:
    if at.name == "INPUT":
        value = inputs[at.operand]
        return _float(value) if isinstance(value, float) else value
    if at.name in ("CONST", "NULL"):
        return at.constant
    if at.name in _NULL_AWARE:
        return _NULL_AWARE[at.name](*arguments)
    if any(argument is None for argument in arguments):
        return None
    if at.name == "LOCAL":
        return _local(at.constant, arguments[0])
    if at.name == "RETYPE":
        return _retyped(arguments[0], at.type)
    return _FUNCTIONS[at.name](*arguments)


def _and(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def _or(a: bool | None, b: bool | None) -> bool | None:
    return True if a or b else None if a is None or b is None else False


_NULL_AWARE: Final[dict[str, Callable[..., Any]]] = {
    "SELECT": lambda test, yes, no: yes if test else no,
    "COALESCE": lambda a, b: b if a is None else a,
    "IS_NULL": lambda a: a is None,
    "IS_TRUE": lambda a: a is True,
    "AND": _and,
    "OR": _or,
}


def _retyped(value: Any, type_: int) -> Any:
    if type_ == BYTES and isinstance(value, str):
        return value.encode()
    return int(value) if type_ in _INTS else value


def _checked(value: int, fault: str = "overflow") -> int:
    if not -(2**63) <= value < 2**63:
        raise _Fault(fault)
    return value


def _divisor(value: Any) -> Any:
    if value == 0:
        raise _Fault("zero_division")
    return value


def _float(value: float) -> float:
    return math.nan if math.isnan(value) else value


def _float_mod(a: float, b: float) -> float:
    _divisor(b)
    return math.nan if math.isinf(a) else _float(a % b)


def _whole_or_same(step: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: math.copysign(step(value), value) if math.isfinite(value) else value


def _root(value: float) -> float:
    if value < 0:
        raise _Fault("domain")
    return math.sqrt(value)


def _log(value: float) -> float:
    if value <= 0:
        raise _Fault("domain")
    return math.nan if math.isnan(value) else numbers.log(value)


def _pow(x: float, y: float) -> float:
    if numbers.pow_fails(x, y):
        raise _Fault("domain")
    return numbers.power(x, y)


def _short(text: str) -> str:
    if len(text.encode()) > TEXT_BYTES_MAX:
        raise _Fault("too_long")
    return text


def _cased(text: str, first: str, last: str) -> str:
    return "".join(chr(ord(one) ^ 0x20) if first <= one <= last else one for one in _short(text))


def _part(text: str, start: int, count: int) -> str:
    end = min(start + count, 2**63 - 1)
    return text[max(start, 1) - 1 : max(end, 1) - 1]


def _replaced(text: str, old: str, new: str) -> str:
    _short(text)
    return _short(text.replace(old, new)) if old else text


def _local(zone: tuple[int, list[int], list[int]], utc: int) -> int:
    end, starts, offsets = zone
    if utc >= end:
        raise _Fault("time")
    index = max(i for i, start in enumerate(starts) if start <= utc)
    return _checked(utc + offsets[index], "time")


def _civil(local: int) -> tuple[int, int, int]:
    """Year, month, day by counting: eras of 400 years, then years, then months."""
    era, rest = divmod(local // _DAY_US + 719_528, 146_097)  # days since 0000-01-01
    year = 0
    while rest >= (366 if _is_leap(year) else 365):
        rest -= 366 if _is_leap(year) else 365
        year += 1
    for month, days in enumerate([31, 28 + _is_leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], start=1):
        if rest < days:
            return era * 400 + year, month, rest + 1
        rest -= days
    raise AssertionError("a day lies in a month")


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _to_i32(value: int) -> int:
    if not -(2**31) <= value < 2**31:
        raise _Fault("cast")
    return value


def _to_f32(value: float) -> float:
    try:
        return _float(float(struct.unpack("<f", struct.pack("<f", value))[0]))
    except OverflowError:
        raise _Fault("cast") from None


def _whole_to_f32(value: int) -> float:
    """Rounded once: the double nearest to it would round twice."""
    size = abs(value)
    shift = max(size.bit_length() - 24, 0)
    kept, rest, half = size >> shift, size & ((1 << shift) - 1), (1 << shift) >> 1
    kept += shift > 0 and (rest > half or (rest == half and kept & 1 == 1))
    return math.copysign(float(kept << shift), value)


def _float_to_whole(value: float) -> int:
    if not math.isfinite(value):
        raise _Fault("cast")
    return _checked(math.trunc(value), "cast")


def _text_to_whole(text: str) -> int:
    if len(text) > 400 or not _WHOLE.match(text):
        raise _Fault("cast")
    return _checked(int(text), "cast")


def _text_to_float(text: str) -> float:
    if len(text) > 400 or not _NUMBER.match(text) or math.isinf(float(text)):
        raise _Fault("cast")
    return float(text)


def _to_text(value: bytes | str) -> str:
    try:
        return value if isinstance(value, str) else value.decode()
    except UnicodeDecodeError:
        raise _Fault("cast") from None


_FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "NOT": lambda a: not a,
    "EQ_I": lambda a, b: a == b,
    "LT_I": lambda a, b: a < b,
    "LE_I": lambda a, b: a <= b,
    "EQ_F": numbers.equal,
    "LT_F": numbers.less,
    "LE_F": lambda a, b: not numbers.less(b, a),
    "EQ_T": lambda a, b: _raw(a) == _raw(b),
    "LT_T": lambda a, b: _raw(a) < _raw(b),
    "LE_T": lambda a, b: _raw(a) <= _raw(b),
    "LEAST_I": min,
    "GREATEST_I": max,
    "LEAST_F": lambda a, b: b if numbers.less(b, a) else a,
    "GREATEST_F": lambda a, b: b if numbers.less(a, b) else a,
    "ADD_I": lambda a, b: _checked(a + b),
    "SUB_I": lambda a, b: _checked(a - b),
    "MUL_I": lambda a, b: _checked(a * b),
    "FLOORDIV_I": lambda a, b: _checked(a // _divisor(b)),
    "MOD_I": lambda a, b: a % _divisor(b),
    "NEG_I": lambda a: _checked(-a),
    "ABS_I": lambda a: _checked(abs(a)),
    "ADD_F": lambda a, b: _float(a + b),
    "SUB_F": lambda a, b: _float(a - b),
    "MUL_F": lambda a, b: _float(a * b),
    "DIV_F": lambda a, b: _float(a / _divisor(b)),
    "MOD_F": _float_mod,
    "NEG_F": lambda a: _float(-a),
    "ABS_F": lambda a: _float(abs(a)),
    "FLOOR": _whole_or_same(math.floor),
    "CEIL": _whole_or_same(math.ceil),
    "ROUND": _whole_or_same(round),
    "SQRT": _root,
    "EXP": numbers.exp,
    "LOG": _log,
    "POW": _pow,
    "LOWER": lambda a: _cased(a, "A", "Z"),
    "UPPER": lambda a: _cased(a, "a", "z"),
    "TRIM": lambda a: a.strip(" \t\n\v\f\r"),
    "LENGTH": len,
    "SUBSTRING": _part,
    "CONCAT": lambda a, b: _short(a + b),
    "STARTS_WITH": lambda a, b: a.startswith(b),
    "ENDS_WITH": lambda a, b: a.endswith(b),
    "CONTAINS": lambda a, b: b in a,
    "REPLACE": _replaced,
    "DATE_US": lambda a: _checked(a * _DAY_US, "time"),
    "YEAR": lambda a: _civil(a)[0],
    "MONTH": lambda a: _civil(a)[1],
    "DAY": lambda a: _civil(a)[2],
    "HOUR": lambda a: a % _DAY_US // 3_600_000_000,
    "MINUTE": lambda a: a % _DAY_US // 60_000_000 % 60,
    "SECOND": lambda a: a % _DAY_US // 1_000_000 % 60,
    "DAY_OF_WEEK": lambda a: (a // _DAY_US + 3) % 7 + 1,
    "DAYS": lambda a: a // _DAY_US,
    "INT_TO_I32": _to_i32,
    "INT_TO_F64": float,
    "INT_TO_F32": _whole_to_f32,
    "FLOAT_TO_I64": _float_to_whole,
    "FLOAT_TO_F32": _to_f32,
    "TEXT_TO_I64": _text_to_whole,
    "TEXT_TO_F64": _text_to_float,
    "INT_TO_TEXT": str,
    "BOOL_TO_TEXT": lambda a: "true" if a else "false",
    "BYTES_TO_TEXT": _to_text,
}


def _raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
