"""Canonical little-endian bytes of one value of the type table, as the served log keeps them."""

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from headrace.errors import DataLoss
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


def column_of(values: Sequence[bytes | None], value_type: ValueType) -> pa.Array:
    """An Arrow column of canonical bytes, null where there are none; raises DataLoss for what no value gives."""
    try:
        if value_type.slot_bytes and value_type.shape is Shape.SINGLE:
            return _fixed(values, value_type)
        made = [None if value is None else _parsed(value, value_type) for value in values]
        return pa.array(made, value_type.arrow)
    except (ValueError, struct.error, pa.ArrowException) as error:
        raise DataLoss(f"a logged value is no {value_type}: {error}", reason="SERVED_LOG_CORRUPT") from error


def _fixed(values: Sequence[bytes | None], value_type: ValueType) -> pa.Array:
    empty = bytes(value_type.slot_bytes)
    data = b"".join(empty if value is None else value for value in values)
    if len(data) != len(values) * value_type.slot_bytes:
        raise ValueError(f"{len(values)} values of {value_type.slot_bytes} bytes hold {len(data)}")
    mask = np.array([value is None for value in values], np.bool_)
    numbers = pa.array(np.frombuffer(data, value_type.numpy), mask=mask, from_pandas=False)
    return numbers.cast(value_type.arrow)


def _parsed(value: bytes, value_type: ValueType) -> Any:  # Any: as above
    if value_type.shape is Shape.SINGLE:
        return value.decode() if value_type.scalar is Scalar.STRING else value
    if value_type.element_bytes:
        elements = [value[at : at + value_type.element_bytes] for at in range(0, len(value), value_type.element_bytes)]
        return _fixed(elements, ValueType(value_type.scalar)).to_pylist()
    texts = list(_texts(value))
    return [text.decode() for text in texts] if value_type.scalar is Scalar.STRING else texts


def _texts(value: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(value):
        (length,) = struct.unpack_from("<I", value, at)
        at += 4
        if at + length > len(value):
            raise ValueError("a text is cut")
        yield value[at : at + length]
        at += length
