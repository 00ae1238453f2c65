"""Reads the protobuf wire format in plain Python, for the rare parts of a request and as oracle of native/hr_wire.h."""

from collections.abc import Iterator
from typing import Final

DEPTH_MAX: Final = 100  # nesting of messages and groups that protobuf parsers accept


class MalformedError(ValueError):
    """Bytes that are no protobuf message."""


def fields(data: bytes, level: int = 0) -> Iterator[tuple[int, int | bytes]]:
    """Fields in order: varints and fixed-width ones as unsigned integers, length-delimited ones as bytes.

    Groups are skipped. Fixed-width fields come with their little-endian value. `level` is the nesting of the
    message. Raises MalformedError.
    """
    for field, _, value in typed_fields(data, level):
        if value is not None:
            yield field, value


def typed_fields(data: bytes, level: int = 0) -> Iterator[tuple[int, int, int | bytes | None]]:
    """Field number, wire type and value of each field; the value of a group is None."""
    at = 0
    while at < len(data):
        field, kind, at = _tag(data, at)
        if field == 0:
            raise MalformedError("field 0 is none")
        if kind == 3:
            at = _skip_group(data, at, field, level)
            yield field, kind, None
        else:
            value, at = _scalar(data, at, kind)
            yield field, kind, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint of at most ten bytes, of which 64 bits count, and the position after it. Raises MalformedError."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise MalformedError("a varint ends early")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise MalformedError("a varint exceeds ten bytes")


def unsigned_to_signed(value: int) -> int:
    """Two's complement of a 64-bit varint."""
    return value - (1 << 64) if value >= 1 << 63 else value


def int32_of(value: int) -> int:
    """An int32 or enum field: protobuf keeps the low 32 bits of its varint."""
    value &= (1 << 32) - 1
    return value - (1 << 32) if value >= 1 << 31 else value


def _short_varint(data: bytes, at: int) -> tuple[int, int]:
    value, after = varint(data, at)
    if after - at > 5 or value >= 1 << 32:
        raise MalformedError("a tag or length exceeds 32 bits")
    return value, after


def _tag(data: bytes, at: int) -> tuple[int, int, int]:
    tag, at = _short_varint(data, at)
    return tag >> 3, tag & 7, at


def _scalar(data: bytes, at: int, kind: int) -> tuple[int | bytes, int]:
    if kind == 0:
        return varint(data, at)
    if kind == 2:
        length, at = _short_varint(data, at)
    elif kind in (1, 5):
        length = 8 if kind == 1 else 4
    else:
        raise MalformedError(f"wire type {kind} cannot stand here")
    if length > len(data) - at:
        raise MalformedError("a field ends after its message")
    value = data[at : at + length]
    return (value if kind == 2 else int.from_bytes(value, "little")), at + length


def _skip_group(data: bytes, at: int, number: int, level: int) -> int:
    open_groups = [number]
    if level >= DEPTH_MAX:
        raise MalformedError("messages nest too deep")
    while open_groups:
        field, kind, at = _tag(data, at)
        if kind == 3:
            if len(open_groups) + level == DEPTH_MAX:
                raise MalformedError("groups nest too deep")
            open_groups.append(field)
        elif kind == 4:
            if open_groups.pop() != field:
                raise MalformedError("a group ends that was not open")
        else:
            _, at = _scalar(data, at, kind)
    return at
