"""Messages that are one protobuf message each, by the descriptor set that their source names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from feature_server.pipeline.record_events import RecordFault, bad_schema
from headrace.types import Scalar, Shape, ValueType

TIMESTAMP: Final = "google.protobuf.Timestamp"
_KINDS: Final = {
    FieldDescriptor.TYPE_BOOL: Scalar.BOOL,
    FieldDescriptor.TYPE_INT32: Scalar.I32,
    FieldDescriptor.TYPE_SINT32: Scalar.I32,
    FieldDescriptor.TYPE_SFIXED32: Scalar.I32,
    FieldDescriptor.TYPE_INT64: Scalar.I64,
    FieldDescriptor.TYPE_SINT64: Scalar.I64,
    FieldDescriptor.TYPE_SFIXED64: Scalar.I64,
    FieldDescriptor.TYPE_UINT32: Scalar.I64,
    FieldDescriptor.TYPE_FLOAT: Scalar.F32,
    FieldDescriptor.TYPE_DOUBLE: Scalar.F64,
    FieldDescriptor.TYPE_STRING: Scalar.STRING,
    FieldDescriptor.TYPE_BYTES: Scalar.BYTES,
}
_MICROSECONDS: Final = 1_000_000
_NANOSECONDS: Final = 1_000


def protobuf_reader(
    data: bytes, message: str, columns: Mapping[str, ValueType], source: str, name: str
) -> Callable[[bytes], Sequence[Any]]:
    """Reads the columns out of messages. Raises InvalidArgument where the descriptors lack one of them.

    A field that knows whether it is set is null where it is not; any other has the default of its type.
    """
    pool = descriptor_pool.DescriptorPool()
    try:
        for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
            pool.Add(file)
        descriptor = pool.FindMessageTypeByName(message)
        made = message_factory.GetMessageClass(descriptor)
    except (DecodeError, KeyError, TypeError, ValueError) as error:
        raise bad_schema(source, name, f"it does not describe {message!r}: {error}") from error
    getters = []
    for column, kind in columns.items():
        field = descriptor.fields_by_name.get(column)
        getter = None if field is None else _getter(field, kind)
        if getter is None:
            raise bad_schema(source, name, f"{message!r} has no field {column!r} of a type that makes {kind}")
        getters.append(getter)

    def read(payload: bytes) -> Sequence[Any]:
        try:
            parsed = made.FromString(payload)
        except DecodeError as error:
            raise RecordFault("MALFORMED_PROTOBUF", f"no {message}: {error}") from error
        return [getter(parsed) for getter in getters]

    return read


def _getter(field: FieldDescriptor, kind: ValueType) -> Callable[[Any], Any] | None:  # of a generated class
    name, has_presence = field.name, field.has_presence
    if kind.scalar is Scalar.TIMESTAMP_US and field.message_type is not None:
        is_time = field.message_type.full_name == TIMESTAMP and not field.is_repeated and kind.shape is Shape.SINGLE
        return (lambda parsed: _time_us(getattr(parsed, name)) if parsed.HasField(name) else None) if is_time else None
    is_whole_time = kind.scalar is Scalar.TIMESTAMP_US and _KINDS.get(field.type) is Scalar.I64
    if not is_whole_time and _KINDS.get(field.type) is not kind.scalar:
        return None
    if field.is_repeated:
        return (lambda parsed: list(getattr(parsed, name))) if kind.shape is not Shape.SINGLE else None
    if kind.shape is not Shape.SINGLE:
        return None
    if has_presence:
        return lambda parsed: getattr(parsed, name) if parsed.HasField(name) else None
    return lambda parsed: getattr(parsed, name)


def _time_us(stamp: Any) -> int:  # of a generated class
    if stamp.nanos % _NANOSECONDS:
        raise RecordFault("BAD_TIME", f"{stamp.nanos} nanoseconds are no whole microsecond")
    return int(stamp.seconds * _MICROSECONDS + stamp.nanos // _NANOSECONDS)
