"""Canonical little-endian bytes of one value of the type table, as the served log keeps them."""

import math
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from headrace.types import Scalar, Shape, ValueType

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_NAN: Final = {Scalar.F32: b"\x00\x00\xc0\x7f", Scalar.F64: b"\x00\x00\x00\x00\x00\x00\xf8\x7f"}


def value_bytes(value: Any, value_type: ValueType) -> bytes:  # Any: a Python value of the type
    """Bytes of a value: one NaN, both zeros; lists are their elements, those of variable size after a u32 length."""
    if value_type.shape is Shape.SINGLE:
        return _scalar_bytes(value, value_type.scalar)
    elements = [_scalar_bytes(element, value_type.scalar) for element in value]
    if value_type.element_bytes:
        return b"".join(elements)
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def _scalar_bytes(value: Any, scalar: Scalar) -> bytes:  # Any: as above
    return _BYTES[scalar](value)


def _float(scalar: Scalar, form: str) -> Callable[[float], bytes]:
    return lambda value: _NAN[scalar] if math.isnan(value) else struct.pack(form, value)


def _time(value: datetime) -> bytes:
    return struct.pack("<q", (value - _EPOCH) // _MICROSECOND)


_BYTES: Final[Mapping[Scalar, Callable[[Any], bytes]]] = {
    Scalar.BOOL: lambda value: b"\x01" if value else b"\x00",
    Scalar.I32: lambda value: struct.pack("<i", value),
    Scalar.I64: lambda value: struct.pack("<q", value),
    Scalar.F32: _float(Scalar.F32, "<f"),
    Scalar.F64: _float(Scalar.F64, "<d"),
    Scalar.STRING: lambda value: value.encode(),
    Scalar.BYTES: bytes,
    Scalar.TIMESTAMP_US: _time,
    Scalar.DATE: lambda value: struct.pack("<i", value.toordinal() - _EPOCH_DAY),
}
