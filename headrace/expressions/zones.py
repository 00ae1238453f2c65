"""Tables of time zones, compiled into programs from the installed IANA data."""

import importlib.resources
import struct
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from io import BytesIO
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import tzdata  # type: ignore[import-untyped]

TIME_ZONE_DATA_VERSION: Final[str] = tzdata.IANA_VERSION
ZONE_END: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""Zones that still change their clocks are tabled up to here; a later time gives NULL and counts as a fault."""

_STEP: Final = timedelta(days=7)  # rules without an end change clocks further apart than this
_I64: Final = (-(2**63), 2**63 - 1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)


class UnknownZoneError(ValueError):
    """No zone has this name; the message suggests a near one."""


@lru_cache(maxsize=64)
def zone_table(name: str) -> bytes:
    """Table of an IANA zone as programs hold it. Raises UnknownZoneError."""
    if name not in zone_names():
        near = get_close_matches(name, zone_names(), n=1)
        raise UnknownZoneError(f"time zone {name!r} is unknown" + (f"; did you mean {near[0]!r}?" if near else ""))
    data = importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()
    zone = ZoneInfo.from_file(BytesIO(data), key=name)
    starts = [_EPOCH + timedelta(seconds=at) for at in _listed_starts(data)]
    tail = _tail_starts(zone, starts[-1] if starts else datetime(1900, 1, 1, tzinfo=UTC))
    first = zone.utcoffset(datetime.min) or timedelta(0)  # local mean time
    rows = [(_I64[0], first // _MICROSECOND), *((_us(at), _offset_us(zone, at)) for at in sorted({*starts, *tail}))]
    kept = [rows[0], *(row for before, row in pairwise(rows) if row[1] != before[1])]
    end = _us(ZONE_END) if tail else _I64[1]
    columns = [row[0] for row in kept] + [row[1] for row in kept]
    return struct.pack(f"<IIq{len(columns)}q", len(kept), 0, end, *columns)


@lru_cache(maxsize=1)
def zone_names() -> tuple[str, ...]:
    """Every zone of the installed data."""
    text = importlib.resources.files("tzdata").joinpath("zones").read_text(encoding="ascii")
    return tuple(text.split())


def _listed_starts(data: bytes) -> list[int]:
    """Starts in seconds from the 64-bit block of a TZif file (RFC 8536)."""
    position = 0
    for width in (4, 8):
        counts = struct.unpack_from(">6I", data, position + 20)
        utc_count, std_count, leap_count, time_count, type_count, character_count = counts
        position += 44
        if width == 8:
            earliest = -(62_135_596_800 - 86_400)  # year 1, which some files name for "always"
            return [at for at in struct.unpack_from(f">{time_count}q", data, position) if at > earliest]
        position += time_count * 5 + type_count * 6 + character_count + leap_count * 8 + std_count + utc_count
    raise AssertionError("two widths")


def _tail_starts(zone: ZoneInfo, after: datetime) -> list[datetime]:
    """Starts by the rule at the end of the file, from its last listed one up to ZONE_END."""
    found, before = [], after
    while before < ZONE_END:
        at = min(before + _STEP, ZONE_END)
        if _offset_us(zone, before) != _offset_us(zone, at):
            found.append(_start_between(zone, before, at))
        before = at
    return found


def _start_between(zone: ZoneInfo, before: datetime, at: datetime) -> datetime:
    offset = _offset_us(zone, before)
    while at - before > _SECOND:
        middle = before + (at - before) // 2 // _SECOND * _SECOND
        before, at = (middle, at) if _offset_us(zone, middle) == offset else (before, middle)
    return at


def _offset_us(zone: ZoneInfo, at: datetime) -> int:
    return (at.astimezone(zone).utcoffset() or timedelta(0)) // _MICROSECOND


def _us(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND
