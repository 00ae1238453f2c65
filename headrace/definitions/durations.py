"""Text form of durations: `7d`, `1h30m`, `500ms`."""

import re
from datetime import timedelta
from typing import Final

from headrace.definitions.checks import invalid

_UNITS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}
_PART: Final = r"([0-9]{1,15})(d|h|ms|us|m|s)"
_WHOLE: Final = re.compile(f"(?:{_PART})+\\Z")


def format_duration(duration: timedelta) -> str:
    """Shortest text of a duration that is not negative; `0s` for none."""
    parts = []
    rest = duration
    for name, unit in _UNITS.items():
        count, rest = divmod(rest, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


def parse_duration(text: object, field: str) -> timedelta:
    """Duration of its text; raises INVALID_DURATION with an example."""
    if not isinstance(text, str) or not _WHOLE.match(text):
        raise invalid(f"{field} is {text!r}; write a duration like '7d', '1h30m' or '500ms'", "INVALID_DURATION", field)
    try:
        return sum((int(count) * _UNITS[unit] for count, unit in re.findall(_PART, text)), timedelta(0))
    except OverflowError as error:
        raise invalid(f"{field} is {text!r}, which is too long", "OUT_OF_RANGE", field) from error
