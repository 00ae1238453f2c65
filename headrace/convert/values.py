"""Converts types, values, times and durations from and to their messages."""

from datetime import UTC, date, datetime, timedelta
from typing import Final

from google.protobuf import duration_pb2, timestamp_pb2

from headrace.definitions.checks import invalid
from headrace.definitions.values import PlainScalar, PlainValue, check_value
from headrace.types import LIST_SIZE_MAX, Scalar, Shape, ValueType
from protos.common.v1 import value_pb2 as pb

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)
_SECONDS_MAX: Final = 315_576_000_000  # of google.protobuf.Duration, and beyond what Timestamp may hold
_NANOS_PER_US: Final = 1_000


def type_to_pb(value_type: ValueType) -> pb.ValueType:
    """Message of a type."""
    return pb.ValueType(
        scalar_type=pb.ScalarType.ValueType(value_type.scalar),
        list_shape=pb.ListShape.ValueType(value_type.shape),
        list_size=value_type.list_size,
    )


def type_from_pb(message: pb.ValueType, field: str = "value_type") -> ValueType:
    """Type of a message; an unset or unknown one is refused with UNKNOWN_TYPE."""
    try:
        return ValueType(Scalar(message.scalar_type), Shape(message.list_shape), message.list_size)
    except ValueError as error:
        what = "is not set" if not message.scalar_type else f"is unknown or impossible: {error}"
        raise invalid(f"{field} {what}", "UNKNOWN_TYPE", field, scalar_type=message.scalar_type) from error


def value_to_pb(value: PlainValue | None, value_type: ValueType) -> pb.Value:
    """Message of a checked value; None leaves the kind unset."""
    if value is None:
        return pb.Value()
    if isinstance(value, tuple):
        elements = [_scalar_to_pb(element, value_type.scalar) for element in value]
        return pb.Value(list_value=pb.ValueList(values=elements))
    return _scalar_to_pb(value, value_type.scalar)


def value_from_pb(message: pb.Value, value_type: ValueType, field: str = "value") -> PlainValue | None:
    """Checked value of a message, None where its kind is unset; another kind than the type's is refused."""
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    if value_type.shape is Shape.SINGLE:
        return check_value(_scalar_from_pb(message, value_type.scalar, field), value_type, field)
    if kind != "list_value":
        raise _wrong_kind(kind, str(value_type), field)
    elements = [
        _scalar_from_pb(element, value_type.scalar, f"{field}[{index}]")
        for index, element in enumerate(message.list_value.values[: LIST_SIZE_MAX + 1])
    ]
    return check_value(elements, value_type, field)


def timestamp_to_pb(time: datetime) -> timestamp_pb2.Timestamp:
    """Message of an aware time; exact to the microsecond."""
    microseconds = (time - _EPOCH) // _MICROSECOND
    seconds, rest = divmod(microseconds, 1_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest * _NANOS_PER_US)


def timestamp_from_pb(message: timestamp_pb2.Timestamp, field: str) -> datetime:
    """Aware UTC time of a message; digits below the microsecond and times outside years 1 to 9999 are refused."""
    span = _span(message, field)
    try:
        return _EPOCH + span
    except OverflowError as error:
        raise invalid(f"{field} lies outside the years 1 to 9999", "OUT_OF_RANGE", field) from error


def duration_to_pb(duration: timedelta) -> duration_pb2.Duration:
    """Message of a duration that is not negative."""
    seconds, rest = divmod(duration, timedelta(seconds=1))
    return duration_pb2.Duration(seconds=seconds, nanos=rest.microseconds * _NANOS_PER_US)


def duration_from_pb(message: duration_pb2.Duration, field: str) -> timedelta:
    """Duration of a message; digits below the microsecond are refused."""
    return _span(message, field)


def _span(message: timestamp_pb2.Timestamp | duration_pb2.Duration, field: str) -> timedelta:
    if message.nanos % _NANOS_PER_US:
        raise invalid(
            f"{field} has digits below the microsecond ({message.nanos} ns); round it first",
            "TOO_PRECISE",
            field,
            nanos=message.nanos,
        )
    if abs(message.seconds) > _SECONDS_MAX or abs(message.nanos) >= 1_000_000_000:
        raise invalid(f"{field} is out of range", "OUT_OF_RANGE", field, seconds=message.seconds)
    return timedelta(seconds=message.seconds, microseconds=message.nanos // _NANOS_PER_US)


def _scalar_to_pb(value: PlainScalar, scalar: Scalar) -> pb.Value:
    if isinstance(value, bool):
        return pb.Value(bool_value=value)
    if isinstance(value, int):
        return pb.Value(int_value=value)
    if isinstance(value, float):
        return pb.Value(float_value=value)
    if isinstance(value, str):
        return pb.Value(string_value=value)
    if isinstance(value, bytes):
        return pb.Value(bytes_value=value)
    if isinstance(value, datetime):
        return pb.Value(timestamp_value=timestamp_to_pb(value))
    return pb.Value(int_value=value.toordinal() - _EPOCH_DAY)


def _scalar_from_pb(message: pb.Value, scalar: Scalar, field: str) -> PlainScalar:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise invalid(f"{field} is null; elements of a list are not", "NULL_ELEMENT", field)
    if kind != _KINDS[scalar]:
        raise _wrong_kind(kind, scalar.name.lower(), field)
    if scalar is Scalar.TIMESTAMP_US:
        return timestamp_from_pb(message.timestamp_value, field)
    if scalar is Scalar.DATE:
        return _date(message.int_value, field)
    value: PlainScalar = getattr(message, kind)
    return value


def _date(days: int, field: str) -> date:
    try:
        return date.fromordinal(days + _EPOCH_DAY)
    except (ValueError, OverflowError) as error:
        raise invalid(
            f"{field} is day {days} since 1970, outside the years 1 to 9999", "OUT_OF_RANGE", field, days=days
        ) from error


def _wrong_kind(kind: str, wanted: str, field: str) -> Exception:
    return invalid(f"{field} is a {kind}, where {wanted} is declared", "WRONG_TYPE", field, kind=kind, type=wanted)


_KINDS: Final = {
    Scalar.BOOL: "bool_value",
    Scalar.I32: "int_value",
    Scalar.I64: "int_value",
    Scalar.F32: "float_value",
    Scalar.F64: "float_value",
    Scalar.STRING: "string_value",
    Scalar.BYTES: "bytes_value",
    Scalar.TIMESTAMP_US: "timestamp_value",
    Scalar.DATE: "int_value",
}
