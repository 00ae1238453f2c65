"""Amounts and times as people type them: 512MiB, 3d, 2026-01-31T00:00Z."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from headrace.errors import InvalidArgument

_UNITS: Final = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_SPANS: Final = {"m": 60, "h": 3_600, "d": 86_400}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_bytes(text: str, option: str) -> int:
    """Bytes of "2GiB", "512 MiB" or a plain number."""
    match = re.fullmatch(r"([0-9]+)\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise _bad(option, text, "a size like 512MiB, 2GiB or a number of bytes", "SIZE")
    return int(match[1]) * unit


def parse_time_us(text: str, option: str) -> int:
    """UTC microseconds of an ISO 8601 time with a zone; one without is refused."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        if re.fullmatch(r"\d{4}-\d{2}-\d{2}Z", text):
            return parse_time_us(f"{text[:-1]}T00:00Z", option)
        raise _bad(option, text, "a time like 2026-01-31T00:00Z", "TIME") from error
    if time.tzinfo is None:
        raise _bad(option, text, "a time with its zone; write Z for UTC, as in 2026-01-31T00:00Z", "NAIVE_TIME")
    return (time - _EPOCH) // timedelta(microseconds=1)


def parse_age_s(text: str, option: str) -> int:
    """Seconds of "90m", "12h" or "3d"."""
    match = re.fullmatch(r"([0-9]+)([mhd])", text.strip())
    if match is None:
        raise _bad(option, text, "an age like 90m, 12h or 3d", "AGE")
    return int(match[1]) * _SPANS[match[2]]


def time_text(time_us: int) -> str:
    """RFC 3339 of UTC microseconds."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")


def _bad(option: str, text: str, wanted: str, reason: str) -> InvalidArgument:
    return InvalidArgument(
        f"{option} {text!r} is not {wanted}", reason=reason, field=option, metadata={"value": text[:100]}
    )
