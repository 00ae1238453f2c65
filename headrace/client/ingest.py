"""Tables as batches of a write stream that can go on after the last acknowledged batch."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Union

import pyarrow as pa

from headrace.client.wire import malformed
from headrace.errors import InvalidArgument
from protos.feature.v1 import online_feature_service_pb2 as pb

if TYPE_CHECKING:
    import pandas as pd

BATCH_ROWS_MAX: Final = 10_000  # the row limit of one request of the contract
BATCH_BYTES_TARGET: Final = 1 << 20  # well under gRPC's default message limit of 4 MiB
EVENT_TIME_COLUMN: Final = "event_time"

WritableTable = Union[pa.Table, pa.RecordBatch, "pd.DataFrame"]


@dataclass(frozen=True, slots=True)
class WriteToken:
    """Position in a shard's log; hand tokens to a read as `min_offsets` to read your own writes."""

    shard: int
    epoch: int
    offset: int


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write reached: the highest position per shard, and how many rows changed no online answer."""

    tokens: tuple[WriteToken, ...]
    row_count: int
    stale_count: int


class BatchedWrite:
    """One table on its way: builds batches on demand and keeps what was acknowledged."""

    def __init__(
        self,
        feature_view: str,
        table: WritableTable,
        durability: "pb.Durability.ValueType",
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self._feature_view = feature_view
        self._table = writable(table)
        self._durability = durability
        self._on_progress = on_progress
        row_bytes = max(1, self._table.nbytes // max(1, self._table.num_rows))
        self._batch_rows = max(1, min(BATCH_ROWS_MAX, BATCH_BYTES_TARGET // row_bytes))
        # A batch keeps its id when it is sent again, so that the server can tell a repetition.
        self._ids = [str(uuid.uuid4()) for _ in range(0, max(1, self._table.num_rows), self._batch_rows)]
        self._acknowledged = 0
        self._tokens: dict[int, WriteToken] = {}
        self._row_count = 0
        self._stale_count = 0

    def requests(self) -> Iterator[bytes]:
        """The batches that are not acknowledged yet."""
        for index in range(self._acknowledged, len(self._ids)):
            part = self._table.slice(index * self._batch_rows, self._batch_rows)
            write = pb.WriteFeaturesRequest(
                feature_view=self._feature_view,
                arrow_ipc=ipc_bytes(part),
                durability=self._durability,
                request_id=self._ids[index],
            )
            yield pb.IngestFeaturesRequest(write=write).SerializeToString()

    def acknowledge(self, answer: bytes) -> None:
        """Takes the answer to the oldest batch that had none."""
        write = pb.IngestFeaturesResponse.FromString(answer).write
        self._acknowledged += 1
        self._row_count += write.row_count
        self._stale_count += write.stale_count
        merge_tokens(self._tokens, write.tokens)
        if self._on_progress is not None:
            self._on_progress(self._row_count)

    def result(self) -> WriteResult:
        """The whole acknowledgement; raises InternalError while a batch has none."""
        if self._acknowledged < len(self._ids):
            raise malformed("a write stream ended before its last batch was acknowledged")
        return WriteResult(tuple(self._tokens.values()), self._row_count, self._stale_count)


def writable(table: WritableTable) -> pa.Table:
    """Table in the forms that servers read: plain strings and lists, event times in UTC microseconds."""
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    elif not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    fields = [field.with_type(_plain(field.name, field.type)) for field in table.schema]
    try:
        return table.cast(pa.schema(fields))
    except pa.ArrowInvalid as error:
        raise InvalidArgument(
            f"the table does not fit: {error}; times must be whole microseconds", reason="TABLE_VALUE", field="table"
        ) from error


def ipc_bytes(table: pa.Table) -> bytes:
    """One Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def merge_tokens(highest: dict[int, WriteToken], tokens: Iterable[pb.WriteToken]) -> None:
    """Keeps the highest position per shard."""
    for token in tokens:
        held = highest.get(token.shard)
        if held is None or (held.epoch, held.offset) < (token.epoch, token.offset):
            highest[token.shard] = WriteToken(token.shard, token.epoch, token.offset)


def _plain(name: str, kind: pa.DataType) -> pa.DataType:
    """The type without Arrow's alternative layouts; values never change."""
    if pa.types.is_dictionary(kind):
        return _plain(name, kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind):
        return _utc(name, kind)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(name, kind.value_type)), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(name, kind.value_type)))
    return kind


def _utc(name: str, kind: pa.TimestampType) -> pa.DataType:
    if kind.tz is None:
        raise InvalidArgument(
            f"column {name} holds times without a zone; say which zone they are in, for instance by tz_localize('UTC')",
            reason="NAIVE_TIME",
            field=f"table[{name}]",
            metadata={"column": name},
        )
    return pa.timestamp("us", tz="UTC")
