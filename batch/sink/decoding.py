"""Messages of a topic to rows of its table; what is no event is told apart, and stops nobody."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.offline.columns import EVENT_TIME, OFFSET, PARTITION, WRITE_TIME
from batch.offline.event_columns import ROW
from batch.sink.streams import EventStream, Format
from core_ext.events import REASONS, JsonDecoder
from headrace.arrays import array_of
from headrace.types import ValueType

EVENT_BYTES_MAX: Final = 1 << 20  # as the pipeline has it: docs/decisions/0037-streams.md
ROWS_PER_MESSAGE_MAX: Final = 1 << 20
PART_BYTES_MAX: Final = 256 << 20  # of the columns that are made at once
NO_TIME: Final = -1
# Years 1 to 9999, which is all that the libraries of Iceberg tables take: one other time would fail every commit.
TIME_OUT_OF_RANGE: Final = "TIME_OUT_OF_RANGE"
TIMES_US: Final = (-62_135_596_800_000_000, 253_402_300_800_000_000)
_US_A_DAY: Final = 86_400_000_000
_TIME: Final = pa.timestamp("us", tz="UTC")


class Message(NamedTuple):
    """One message of a topic. `write_us` is NO_TIME where nobody gave one of TIMES_US."""

    partition: int
    offset: int
    write_us: int
    value: bytes


class Rejected(NamedTuple):
    """A message that is no event of the source."""

    partition: int
    offset: int
    reason: str


class Decoded(NamedTuple):
    """Rows of the table, and what was passed over."""

    rows: pa.Table
    rejected: Sequence[Rejected]


class _Found(NamedTuple):
    """Columns of events, of each its message and its row there, and places with reasons of the others."""

    columns: Sequence[pa.Array | pa.ChunkedArray]
    messages: NDArray[np.int64]
    rows: NDArray[np.int64]
    faults: Sequence[tuple[int, str]]


class Decoding:
    """Of one source."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._schema = pa.schema([(name, kind.arrow) for name, kind in stream.types.items()])
        described = [
            (name, (int(kind.scalar), int(kind.shape), kind.list_size, kind.element_bytes))
            for name, kind in stream.types.items()
        ]
        self._json = JsonDecoder(described, EVENT_BYTES_MAX) if stream.format is Format.JSON else None
        self._part_rows = max(1, PART_BYTES_MAX // _row_bytes(stream.types))

    def decode(self, messages: Sequence[Message]) -> Decoded:
        """Rows in the order of the messages."""
        found = [self._part(part) for part in self._parts(messages)]
        return Decoded(
            pa.concat_tables([self._stream.columns.arrow.empty_table(), *(table for table, _ in found)]),
            [one for _, rejected in found for one in rejected],
        )

    def _parts(self, messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
        for start in range(0, len(messages), self._part_rows):
            yield messages[start : start + self._part_rows]

    def _part(self, messages: Sequence[Message]) -> tuple[pa.Table, list[Rejected]]:
        payloads = [message.value for message in messages]
        found = self._read_arrow(payloads) if self._json is None else self._read_json(self._json, payloads)
        names = self._schema.names
        chosen = found.messages
        written = _of(messages, "write_us", np.int64)[chosen]
        arrays = [
            *found.columns,
            found.columns[names.index(self._stream.event_time)],
            pa.array(written, pa.int64(), mask=written == NO_TIME).cast(_TIME),
            pa.array(_of(messages, "partition", np.int32)[chosen]),
            pa.array(_of(messages, "offset", np.int64)[chosen]),
            pa.array(found.rows.astype(np.int32)),
        ]
        table = pa.table(arrays, [*names, EVENT_TIME, WRITE_TIME, PARTITION, OFFSET, ROW])
        is_good = _are_storable(found.columns, len(table))
        faults = [*found.faults, *((at, TIME_OUT_OF_RANGE) for at in np.unique(chosen[~is_good]).tolist())]
        rejected = [Rejected(messages[at].partition, messages[at].offset, reason) for at, reason in sorted(faults)]
        if not is_good.all():
            table = table.filter(pa.array(is_good))
        return table.cast(self._stream.columns.arrow), rejected

    def _read_json(self, decoder: JsonDecoder, payloads: Sequence[bytes]) -> _Found:
        decoded = decoder.decode(payloads)
        arrays = [array_of(column, field.type) for column, field in zip(decoded.columns, self._schema, strict=True)]
        faults = [(place, REASONS[status]) for place, status, _ in decoded.faults]
        return _Found(arrays, decoded.messages, np.zeros(len(decoded.messages), np.int64), faults)

    def _read_arrow(self, payloads: Sequence[bytes]) -> _Found:
        tables: list[pa.Table] = []
        counts: list[int] = []
        faults = []
        for place, payload in enumerate(payloads):
            table = self._shaped(payload)
            if isinstance(table, str):
                faults.append((place, table))
            else:
                tables.append(table)
            counts.append(0 if isinstance(table, str) else len(table))
        whole = pa.concat_tables([self._schema.empty_table(), *tables])
        messages = np.repeat(np.arange(len(payloads), dtype=np.int64), counts)
        rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(count, dtype=np.int64) for count in counts)])
        return _Found(whole.columns, messages, rows, faults)

    def _shaped(self, payload: bytes) -> pa.Table | str:
        """Rows of a message with the columns of the source, or what is wrong with it."""
        try:
            with pa.ipc.open_stream(payload) as reader:
                table = reader.read_all()
            if len(table) > ROWS_PER_MESSAGE_MAX:
                return "TOO_MANY_EVENTS"
            places = [table.schema.get_all_field_indices(field.name) for field in self._schema]
            if any(len(found) != 1 for found in places):
                return "UNKNOWN_COLUMN"
            table = table.select([found[0] for found in places])
            if not all(_fits(have.type, want.type) for have, want in zip(table.schema, self._schema, strict=True)):
                return "WRONG_TYPE"
            table.validate(full=True)  # texts that are none must not reach a file
            return table.cast(self._schema)
        except (pa.ArrowException, OSError, ValueError):
            return "MALFORMED_ARROW"


def _fits(actual: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_timestamp(wanted):  # any zone will do: the instant does not depend on it
        return pa.types.is_timestamp(actual) and actual.unit == wanted.unit and actual.tz is not None
    if pa.types.is_list(wanted) or pa.types.is_fixed_size_list(wanted):
        is_same = type(actual) is type(wanted) and getattr(actual, "list_size", 0) == getattr(wanted, "list_size", 0)
        return is_same and _fits(actual.value_type, wanted.value_type)
    return bool(actual == wanted)


def _are_storable(columns: Sequence[pa.Array | pa.ChunkedArray], row_count: int) -> NDArray[np.bool_]:
    """Rows whose times and dates a table can hold, those in lists included."""
    good = np.ones(row_count, bool)
    for column in columns:
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            rows = pc.list_parent_indices(column).to_numpy()
            good[rows[_out_of_range(pc.list_flatten(column))]] = False
        else:
            good[_out_of_range(column)] = False
    return good


def _out_of_range(values: pa.Array | pa.ChunkedArray) -> NDArray[np.intp]:
    is_date = pa.types.is_date32(values.type)
    if not (is_date or pa.types.is_timestamp(values.type)):
        return np.zeros(0, np.intp)
    first, end = (bound // _US_A_DAY for bound in TIMES_US) if is_date else TIMES_US
    numbers = pc.fill_null(values.cast(pa.int32() if is_date else pa.int64()), 0).to_numpy()
    return np.flatnonzero((numbers < first) | (numbers >= end))


def _of(messages: Sequence[Message], name: str, kind: type[np.integer]) -> NDArray[np.int64]:
    return np.fromiter((getattr(message, name) for message in messages), kind, len(messages))


def _row_bytes(types: Mapping[str, ValueType]) -> int:
    return 1 + sum(kind.slot_bytes for kind in types.values())
