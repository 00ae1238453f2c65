"""Plain Python values of a type: checked without any cast, and carried as text where JSON has no form for them."""

import base64
import binascii
import math
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Final, TypeAlias

from headrace.definitions.checks import invalid
from headrace.errors import InvalidArgument
from headrace.types import LIST_SIZE_MAX, Scalar, Shape, ValueType

PlainScalar: TypeAlias = bool | int | float | str | bytes | datetime | date
PlainValue: TypeAlias = PlainScalar | tuple[PlainScalar, ...]
Document: TypeAlias = "bool | int | float | str | list[Document] | dict[str, Document] | None"

VALUE_BYTES_MAX: Final = 65_536  # of one STRING or BYTES default; defaults travel with every copy of the registry

_INT_BITS: Final = {Scalar.I32: 32, Scalar.I64: 64}
_FLOAT_TEXTS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def check_value(value: object, value_type: ValueType, field: str = "default") -> PlainValue:
    """The value in its one form (UTC times, tuples, one NaN); a value of another type is refused, never cast."""
    if value_type.shape is Shape.SINGLE:
        return _check_scalar(value, value_type.scalar, field)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise _wrong(value, str(value_type), field)
    if value_type.shape is Shape.FIXED and len(value) != value_type.list_size:
        raise invalid(
            f"{field} has {len(value)} elements; {value_type} holds exactly {value_type.list_size}",
            "WRONG_LENGTH",
            field,
            count=len(value),
        )
    if len(value) > LIST_SIZE_MAX:
        raise invalid(f"{field} has {len(value)} elements; at most {LIST_SIZE_MAX} are allowed", "TOO_MANY", field)
    return tuple(_check_scalar(element, value_type.scalar, f"{field}[{index}]") for index, element in enumerate(value))


def value_document(value: PlainValue) -> Document:
    """JSON form of a checked value: non-finite floats, bytes (base64), times and dates (ISO 8601) as text."""
    if isinstance(value, tuple):
        return [_scalar_document(element) for element in value]
    return _scalar_document(value)


def value_from_document(document: object, value_type: ValueType, field: str = "default") -> PlainValue:
    """The value of a JSON or YAML form; YAML's own floats, bytes, times and dates are taken as they are."""
    if value_type.shape is Shape.SINGLE:
        return check_value(_scalar_from_document(document, value_type.scalar, field), value_type, field)
    if not isinstance(document, list):
        raise _wrong(document, str(value_type), field)
    elements = [
        _scalar_from_document(element, value_type.scalar, f"{field}[{index}]")
        for index, element in enumerate(document[: LIST_SIZE_MAX + 1])
    ]
    return check_value(elements, value_type, field)


def _check_scalar(value: object, scalar: Scalar, field: str) -> PlainScalar:
    return _CHECKS[scalar](value, scalar, field)


def _check_bool(value: object, scalar: Scalar, field: str) -> PlainScalar:
    if not isinstance(value, bool):
        raise _wrong(value, "bool", field)
    return value


def _check_int(value: object, scalar: Scalar, field: str) -> PlainScalar:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(value, scalar.name.lower(), field)
    bound = 1 << (_INT_BITS[scalar] - 1)
    if not -bound <= value < bound:
        raise invalid(
            f"{field} is {value}; {scalar.name.lower()} holds {-bound} to {bound - 1}",
            "OUT_OF_RANGE",
            field,
            value=value,
        )
    return value


def _check_float(value: object, scalar: Scalar, field: str) -> PlainScalar:
    if not isinstance(value, float):
        hint = f"; write {value}.0" if isinstance(value, int) and not isinstance(value, bool) else ""
        raise _wrong(value, scalar.name.lower(), field, hint)
    if math.isnan(value):
        return math.nan
    if scalar is Scalar.F32 and math.isfinite(value):
        try:
            struct.pack("<f", value)
        except OverflowError as error:
            raise invalid(f"{field} is {value!r}, beyond f32", "OUT_OF_RANGE", field, value=value) from error
    return value


def _check_string(value: object, scalar: Scalar, field: str) -> PlainScalar:
    if not isinstance(value, str):
        raise _wrong(value, "string", field)
    try:
        encoded = value.encode()
    except UnicodeEncodeError as error:
        raise invalid(f"{field} holds half of a surrogate pair, which is not text", "INVALID_TEXT", field) from error
    _check_bytes(encoded, scalar, field)
    return value


def _check_bytes(value: object, scalar: Scalar, field: str) -> PlainScalar:
    if not isinstance(value, bytes):
        raise _wrong(value, "bytes", field)
    if len(value) > VALUE_BYTES_MAX:
        raise invalid(f"{field} has {len(value)} bytes; at most {VALUE_BYTES_MAX} are allowed", "TOO_LONG", field)
    return value


def _check_timestamp(value: object, scalar: Scalar, field: str) -> PlainScalar:
    if not isinstance(value, datetime):
        raise _wrong(value, "timestamp_us", field)
    if value.utcoffset() is None:
        raise invalid(
            f"{field} is {value.isoformat()} without a time zone; write it like '2013-01-01T00:00:00Z'",
            "NAIVE_TIME",
            field,
        )
    try:
        return value.astimezone(UTC).replace(fold=0)
    except OverflowError as error:
        raise invalid(f"{field} lies outside the years 1 to 9999 in UTC", "OUT_OF_RANGE", field) from error


def _check_date(value: object, scalar: Scalar, field: str) -> PlainScalar:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise _wrong(value, "date", field)
    return value


_CHECKS: Final[dict[Scalar, Callable[[object, Scalar, str], PlainScalar]]] = {
    Scalar.BOOL: _check_bool,
    Scalar.I32: _check_int,
    Scalar.I64: _check_int,
    Scalar.F32: _check_float,
    Scalar.F64: _check_float,
    Scalar.STRING: _check_string,
    Scalar.BYTES: _check_bytes,
    Scalar.TIMESTAMP_US: _check_timestamp,
    Scalar.DATE: _check_date,
}


def _scalar_document(value: PlainScalar) -> Document:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return value


def _scalar_from_document(document: object, scalar: Scalar, field: str) -> object:
    if not isinstance(document, str) or scalar is Scalar.STRING:
        return document
    try:
        if scalar in (Scalar.F32, Scalar.F64):
            return _FLOAT_TEXTS.get(document, document)
        if scalar is Scalar.BYTES:
            return base64.b64decode(document, validate=True)
        if scalar is Scalar.TIMESTAMP_US:
            return datetime.fromisoformat(document)
        if scalar is Scalar.DATE:
            return date.fromisoformat(document)
    except (ValueError, binascii.Error) as error:
        raise _wrong(document, scalar.name.lower(), field, f" ({error})") from error
    return document


def _wrong(value: object, wanted: str, field: str, hint: str = "") -> InvalidArgument:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}…"
    return invalid(
        f"{field} is {shown}, of type {type(value).__name__}, where {wanted} is declared{hint}",
        "WRONG_TYPE",
        field,
        type=wanted,
    )
