"""Bytes of a plain value as the slot of an answer holds them."""

import struct
from datetime import UTC, date, datetime, timedelta
from typing import Final

from headrace.definitions.values import PlainScalar, PlainValue
from headrace.types import Scalar, Shape, ValueType

_FORMATS: Final = {
    Scalar.BOOL: "<?",
    Scalar.I32: "<i",
    Scalar.I64: "<q",
    Scalar.F32: "<f",
    Scalar.F64: "<d",
    Scalar.TIMESTAMP_US: "<q",
    Scalar.DATE: "<i",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_U32: Final = struct.Struct("<I")


def slot_bytes(value: PlainValue, value_type: ValueType) -> bytes:
    """Bytes of a value that is checked against its type. A list of STRING or BYTES is count, ends, bytes."""
    if not isinstance(value, tuple):
        return _scalar_bytes(value, value_type.scalar)
    elements = [_scalar_bytes(element, value_type.scalar) for element in value]
    data = b"".join(elements)
    if value_type.shape is Shape.FIXED or value_type.element_bytes:
        return data
    ends = [sum(map(len, elements[: index + 1])) for index in range(len(elements))]
    return b"".join(map(_U32.pack, [len(elements), *ends])) + data


def _scalar_bytes(value: PlainScalar, scalar: Scalar) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    if isinstance(value, datetime):
        value = (value - _EPOCH) // timedelta(microseconds=1)
    elif isinstance(value, date):
        value = value.toordinal() - _EPOCH_DAY
    return struct.pack(_FORMATS[scalar], value)
