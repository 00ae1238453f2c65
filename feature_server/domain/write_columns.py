"""Checks the columns of a write and encodes them as keys and rows; nothing is cast in silence."""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext.arrow import arrow_column
from core_ext.keys import KeyBatch, encode_keys
from core_ext.row_codec import RowBatch, encode_rows
from feature_server.domain.layouts import ViewLayout
from headrace.definitions.entities import EVENT_TIME
from headrace.errors import InvalidArgument
from headrace.types import ValueType

FUTURE_MAX_US: Final = 5 * 60 * 1_000_000  # clocks of senders may run ahead by this much
ENCODE_ROWS: Final = 8_192  # a thousand rows for each of 8 shards, so that one commit is worth its cost
TABLE_BYTES_MAX: Final = 256 << 20  # of the columns of one request, in memory

_MESSAGE_HEADER: Final = 2
_BATCH_COMPRESSION: Final = 3
_VTABLE_FIELDS: Final = 4
_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_I32: Final = struct.Struct("<i")
_COLUMN: Final = re.compile(r"column (\d+)")


@dataclass(frozen=True, slots=True)
class EncodedRows:
    """Keys and rows of one slice of a write."""

    keys: KeyBatch
    rows: RowBatch

    @property
    def row_count(self) -> int:
        """Rows of the write."""
        return len(self.keys)


def read_ipc(data: bytes) -> list[pa.RecordBatch]:
    """Batches of one Arrow IPC stream; raises MALFORMED_ARROW where the bytes are none."""
    try:
        if any(map(_is_compressed, pa.ipc.MessageReader.open_stream(data))):
            # A few bytes could stand for more than the memory of the machine.
            raise InvalidArgument(
                "arrow_ipc is compressed; send it without compression", reason="COMPRESSED_ARROW", field="arrow_ipc"
            )
        with pa.ipc.open_stream(data) as reader:
            batches, byte_count = [], 0
            for batch in reader:
                batch.validate()
                byte_count += batch.nbytes
                _check_bytes(byte_count)
                batches.append(batch)
            return batches
    except (pa.ArrowException, OSError, ValueError, EOFError, struct.error) as error:
        raise InvalidArgument(
            f"arrow_ipc is no Arrow IPC stream: {str(error)[:200]}", reason="MALFORMED_ARROW", field="arrow_ipc"
        ) from error


def _is_compressed(message: pa.Message) -> bool:
    # A flatbuffer: a table starts with the distance back to its vtable, u16 places of its fields from its fourth byte
    # on. Field 2 of a message is its header; field 3 of a record batch says how its body is compressed.
    data = message.metadata.to_pybytes()
    if message.type != "record batch":
        return False
    table = _U32.unpack_from(data, 0)[0]
    header = table + _field(data, table, _MESSAGE_HEADER)
    return _field(data, header + _U32.unpack_from(data, header)[0], _BATCH_COMPRESSION) != 0


def _field(data: bytes, table: int, number: int) -> int:
    vtable = table - _I32.unpack_from(data, table)[0]
    at = _VTABLE_FIELDS + _U16.size * number
    return _U16.unpack_from(data, vtable + at)[0] if at < _U16.unpack_from(data, vtable)[0] else 0


def encode_batch(batch: pa.RecordBatch, target: ViewLayout, now_us: int) -> Iterator[EncodedRows]:
    """Slices of a batch, encoded. Raises InvalidArgument naming the column and, where one is wrong, the row."""
    columns, event_times_us = checked_columns(
        batch, target, dict(zip(target.feature_names, target.value_types, strict=True)), now_us
    )
    keys = [columns[name] for name in target.entity.key_names]
    values = [columns[name] for name in target.feature_names]
    for start in range(0, batch.num_rows, ENCODE_ROWS):
        times = event_times_us[start : start + ENCODE_ROWS]
        yield _encode(target, keys, values, times, start)


def checked_columns(
    batch: pa.RecordBatch, target: ViewLayout, wanted: Mapping[str, ValueType], now_us: int
) -> tuple[dict[str, pa.Array], NDArray[np.int64]]:
    """Columns by name and event times in us, after every check of names, types, keys and times."""
    _check_text(batch.schema)
    columns = _named_columns(batch)
    entity = target.entity
    _check_names(columns, [*entity.key_names, EVENT_TIME, *wanted], target)
    for name, scalar in zip(entity.key_names, entity.key_scalars, strict=True):
        _check_key(columns[name], name, ValueType(scalar))
    for name, value_type in wanted.items():
        _check_type(columns[name].type, name, value_type)
    return columns, _event_times(columns[EVENT_TIME], now_us)


def _encode(
    target: ViewLayout,
    keys: Sequence[pa.Array],
    values: Sequence[pa.Array],
    event_times_us: NDArray[np.int64],
    start: int,
) -> EncodedRows:
    count = len(event_times_us)
    encoded = encoded_keys(target, [column.slice(start, count) for column in keys], start)
    columns = [arrow_column(column.slice(start, count)) for column in values]
    try:
        rows = encode_rows(target.schema, columns, event_times_us)
    except ValueError as error:
        raise bad_value(error, target.feature_names, start, "BAD_VALUE") from error
    return EncodedRows(encoded, rows)


def encoded_keys(target: ViewLayout, keys: Sequence[pa.Array], start: int) -> KeyBatch:
    """Entity keys; `start` is the row of the first one in the request, for messages."""
    try:
        return encode_keys(target.entity.key_types, [arrow_column(column) for column in keys])
    except ValueError as error:
        raise bad_value(error, target.entity.key_names, start, "BAD_ENTITY_KEY") from error


def _check_text(schema: pa.Schema) -> None:
    # Arrow hands these out as text only when asked, and they need not be any.
    try:
        for field in schema:
            inner = getattr(field.type, "value_type", field.type)
            _ = field.name, getattr(field.type, "tz", None), getattr(inner, "tz", None)
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            "a column name or a time zone is no UTF-8 text", reason="MALFORMED_ARROW", field="arrow_ipc"
        ) from error


def _named_columns(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    columns: dict[str, pa.Array] = dict(zip(batch.schema.names, batch.columns, strict=True))
    if len(columns) < batch.num_columns:
        names = batch.schema.names
        twice = next(name for name in names if names.count(name) > 1)
        raise _invalid(f"column {twice!r} stands twice; send it once", "DUPLICATE_COLUMN", twice)
    return columns


def _check_names(columns: Mapping[str, pa.Array], wanted: Sequence[str], target: ViewLayout) -> None:
    unknown = sorted(set(columns) - set(wanted))
    if unknown:
        raise _invalid(
            f"column {unknown[0]!r} is no join key and no {_what(target)} of {target.ref}; leave it out",
            "UNKNOWN_COLUMN",
            unknown[0],
        )
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise _invalid(
            f"column {missing[0]!r} of {target.ref} is missing; a {_what(target)} without values is sent as nulls",
            "MISSING_COLUMN",
            missing[0],
        )


def _what(target: ViewLayout) -> str:
    return "feature" if target.computed is None else "source column that its features read"


def _check_key(column: pa.Array, name: str, wanted: ValueType) -> None:
    _check_type(column.type, name, wanted)
    if column.null_count:
        row = column.is_null().to_numpy(zero_copy_only=False).argmax()
        raise _invalid(
            f"entity key {name!r} is null at row {row}; every row needs its key", "NULL_ENTITY_KEY", name, row
        )


def _check_type(actual: pa.DataType, name: str, wanted: ValueType) -> None:
    if not _is_same(actual, wanted.arrow):
        raise _invalid(
            f"column {name!r} is {actual}, where {wanted.arrow} is declared; cast it before sending", "WRONG_TYPE", name
        )


def _is_same(actual: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_fixed_size_list(wanted):
        return (
            pa.types.is_fixed_size_list(actual)
            and actual.list_size == wanted.list_size
            and _is_same(actual.value_type, wanted.value_type)
        )
    if pa.types.is_list(wanted):
        return pa.types.is_list(actual) and _is_same(actual.value_type, wanted.value_type)
    if pa.types.is_timestamp(wanted):
        # Any zone will do: the stored instant does not depend on it.
        return pa.types.is_timestamp(actual) and actual.unit == wanted.unit and actual.tz is not None
    return bool(actual == wanted)


def _event_times(column: pa.Array, now_us: int) -> NDArray[np.int64]:
    if not pa.types.is_timestamp(column.type):
        raise _invalid(f"{EVENT_TIME} is {column.type}; send a timestamp with a zone", "WRONG_TYPE", EVENT_TIME)
    if column.type.tz is None:
        raise _invalid(
            f"{EVENT_TIME} has no time zone; say which one its times are in, as in timestamp('us', 'UTC')",
            "NAIVE_TIME",
            EVENT_TIME,
        )
    if column.null_count:
        row = int(column.is_null().to_numpy(zero_copy_only=False).argmax())
        raise _invalid(f"{EVENT_TIME} is null at row {row}; every row needs it", "EVENT_TIME_REQUIRED", EVENT_TIME, row)
    try:
        exact = column.cast(pa.timestamp("us", column.type.tz))  # refuses digits that would be lost
    except pa.ArrowInvalid as error:
        raise _invalid(f"{EVENT_TIME} is no whole microsecond: {error}", "TOO_PRECISE", EVENT_TIME) from error
    times: NDArray[np.int64] = exact.view(pa.int64()).to_numpy()
    if len(times) and int(times.max()) > now_us + FUTURE_MAX_US:
        row = int(times.argmax())
        raise _invalid(
            f"{EVENT_TIME} at row {row} lies more than {FUTURE_MAX_US // 60_000_000} minutes in the future; "
            "check the sender's clock and unit",
            "EVENT_TIME_IN_FUTURE",
            EVENT_TIME,
            row,
        )
    return times


def _check_bytes(byte_count: int) -> None:
    if byte_count > TABLE_BYTES_MAX:
        raise InvalidArgument(
            f"the batch holds over {TABLE_BYTES_MAX} bytes; split it", reason="BATCH_TOO_LARGE", field="arrow_ipc"
        )


def bad_value(error: ValueError, names: Sequence[str], start: int, reason: str) -> InvalidArgument:
    """The refusal of a value by a core, with the name of the column."""
    # The core counts columns; a person knows them by name.
    text = str(error)
    match = _COLUMN.match(text)
    name = names[int(match[1])] if match and int(match[1]) < len(names) else ""
    text = _COLUMN.sub(f"column {name!r}", text, count=1) if name else text
    where = f" (rows counted from {start})" if start else ""
    return _invalid(text + where, reason, name)


def _invalid(message: str, reason: str, name: str, row: int | None = None) -> InvalidArgument:
    field = name if row is None else f"{name}[{row}]"
    return InvalidArgument(message, reason=reason, field=field, metadata={"column": name})
