"""Spans of the fields of a protobuf message, found without copying its bytes."""

from collections.abc import Iterator
from typing import Final

from headrace.errors import InternalError

VARINT: Final = 0
FIXED64: Final = 1
LENGTH_DELIMITED: Final = 2
FIXED32: Final = 5
_VARINT_BITS_MAX: Final = 63  # ten bytes of seven bits: the longest varint of the protobuf wire format


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Per field its number, then start and end of its bytes; for a varint its value and -1."""
    at = start
    while at < end:
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == LENGTH_DELIMITED:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise malformed("a field runs past the end")
            yield number, at, at + size
            at += size
        elif kind == VARINT:
            value, at = _varint(data, at, end)
            yield number, value, -1
        elif kind in (FIXED64, FIXED32):
            at += 8 if kind == FIXED64 else 4
            if at > end:
                raise malformed("a field runs past the end")
        else:
            raise malformed(f"wire type {kind}")


def varint_bytes(value: int) -> bytes:
    """Varint form of a number that is not negative."""
    assert value >= 0, "lengths and tags are never negative"
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(number: int, payload: bytes) -> bytes:
    """One length-delimited field."""
    return varint_bytes(number << 3 | LENGTH_DELIMITED) + varint_bytes(len(payload)) + payload


def malformed(what: str) -> InternalError:
    """The error of an answer that breaks its contract."""
    return InternalError(
        f"the server's answer is malformed ({what}); client and server may be of different releases",
        reason="RESPONSE_MALFORMED",
        metadata={"what": what},
    )


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at < end and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    while at < end and shift <= _VARINT_BITS_MAX:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise malformed("a varint does not end")
