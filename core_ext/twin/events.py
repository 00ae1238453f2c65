"""JSON events in plain Python: the oracle of core_ext.events, over the json module of the standard library."""

import base64
import binascii
import json
import math
import re
from collections.abc import Sequence
from datetime import date
from typing import Any, Final, NamedTuple

import numpy as np

DEPTH_MAX: Final = 32
NUMBER_LENGTH_MAX: Final = 1_100
BOOL, I32, I64, F32, F64, STRING, BYTES, TIMESTAMP_US, DATE = range(1, 10)
SINGLE, FIXED, VARIABLE = range(3)

_DATE: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?"
)
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_WHOLE_BITS: Final = {I32: 31, DATE: 31, I64: 63, TIMESTAMP_US: 63}


class EventFault(ValueError):
    """Why a message is no event; the message is the reason."""


class _Number(str):
    """Digits as they are written."""

    __slots__ = ()


class Event(NamedTuple):
    """Values by column of one message, or every reason why it is none; no reasons and no values: any reason will do."""

    values: Sequence[Any] | None  # of the types of the columns
    reasons: frozenset[str]


def decode_event(payload: bytes, columns: Sequence[tuple[str, tuple[int, int, int, int]]], bytes_max: int) -> Event:
    """One message."""
    if len(payload) > bytes_max:
        return Event(None, frozenset({"EVENT_TOO_LARGE"}))
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return Event(None, frozenset({"NOT_UTF8"}))
    try:
        members = json.loads(
            text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse, object_pairs_hook=_Members
        )
    except (ValueError, RecursionError):
        return Event(None, frozenset())
    reasons = set()
    if _depth(members) > DEPTH_MAX:
        reasons.add("TOO_DEEP")
    if not isinstance(members, _Members):
        return Event(None, frozenset(reasons | {"NOT_AN_OBJECT"}))
    values: list[Any] = []
    for name, kind in columns:
        found = [value for member, value in members if member == name]
        if len(found) > 1:
            reasons.add("DUPLICATE_FIELD")
        value = None
        for one in found:
            try:
                value = _value(one, kind)
            except EventFault as error:
                reasons.add(str(error))
        values.append(value)
    return Event(None, frozenset(reasons)) if reasons else Event(values, frozenset())


class _Members(list[tuple[str, Any]]):
    """Members of an object in their order."""


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _depth(value: object) -> int:
    if isinstance(value, _Members):
        return 1 + max((_depth(inner) for _, inner in value), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _value(value: Any, kind: tuple[int, int, int, int]) -> Any:  # of the type of the column
    scalar, shape, list_size, _ = kind
    if value is None:
        return None
    if shape == SINGLE:
        return _element(value, scalar)
    if not isinstance(value, list) or isinstance(value, _Members):
        raise EventFault("WRONG_TYPE")
    if any(one is None for one in value):
        first_null = value.index(None)
        for one in value[:first_null]:
            _element(one, scalar)
        raise EventFault("NULL_ELEMENT")
    made = [_element(one, scalar) for one in value]
    if shape == FIXED and len(made) != list_size:
        raise EventFault("LIST_SIZE")
    return made


def _element(value: Any, scalar: int) -> Any:  # of the scalar
    if isinstance(value, _Number):
        return _number(value, scalar)
    if isinstance(value, str):
        return _text(value, scalar)
    if isinstance(value, bool) and scalar == BOOL:
        return value
    raise EventFault("WRONG_TYPE")


def _number(text: str, scalar: int) -> int | float:
    if scalar in {F32, F64}:
        if len(text) > NUMBER_LENGTH_MAX:
            raise EventFault("OUT_OF_RANGE")
        real = float(text)
        if scalar == F32:
            with np.errstate(over="ignore"):
                real = float(np.float32(real))
        if math.isinf(real):
            raise EventFault("OUT_OF_RANGE")
        return real
    if scalar not in _WHOLE_BITS or not re.fullmatch(r"-?[0-9]+", text):
        raise EventFault("WRONG_TYPE")
    # Python refuses to read numbers of over 4,300 digits, which are out of range as well.
    if len(text) > NUMBER_LENGTH_MAX or not -(1 << _WHOLE_BITS[scalar]) <= int(text) < 1 << _WHOLE_BITS[scalar]:
        raise EventFault("OUT_OF_RANGE")
    return int(text)


def _text(text: str, scalar: int) -> str | bytes | int:
    if scalar == DATE:
        return _days(text)
    if scalar == TIMESTAMP_US:
        return _time_us(text)
    if scalar not in {STRING, BYTES}:
        raise EventFault("WRONG_TYPE")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise EventFault("BAD_TEXT")
    if scalar == STRING:
        return text
    if not _BASE64.fullmatch(text):
        raise EventFault("BAD_BASE64")
    try:
        return base64.b64decode(text)
    except binascii.Error as error:
        raise EventFault("BAD_BASE64") from error


def _days(text: str) -> int:
    found = _DATE.fullmatch(text)
    try:
        if found is not None:
            return date(*map(int, found.groups())).toordinal() - _EPOCH_DAY
    except ValueError:
        pass
    raise EventFault("BAD_TIME")


def _time_us(text: str) -> int:
    found = _TIME.fullmatch(text)
    if found is None:
        raise EventFault("BAD_TIME")
    day, hour, minute, second, fraction, utc, sign, zone_hour, zone_minute = found.groups()
    clock = int(hour), int(minute), int(second)
    if any(part > most for part, most in zip(clock, (23, 59, 59), strict=True)):
        raise EventFault("BAD_TIME")
    fraction = (fraction or "").ljust(9, "0")
    zone = (int(zone_hour or 0), int(zone_minute or 0))
    if fraction[6:] != "000" or zone > (23, 59) or zone[1] > 59:
        raise EventFault("BAD_TIME")
    us = _days(day) * 86_400_000_000 + ((clock[0] * 60 + clock[1]) * 60 + clock[2]) * 1_000_000 + int(fraction[:6])
    if not utc and not sign:
        raise EventFault("NAIVE_TIME")
    return us - (1 if sign == "+" else -1) * (zone[0] * 60 + zone[1]) * 60_000_000
