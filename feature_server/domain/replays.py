"""Brings rows of the offline store online again, each in the place of the total order that it was first given."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext.row_codec import encode_tombstone
from feature_server.domain.batch_rows import BatchWrite
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.logged_rows import ANY_TIME_US, MadeRows
from feature_server.domain.shard import Position
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.shard_writes import Durability
from feature_server.domain.write_columns import ENCODE_ROWS, EncodedRows, encode_batch
from feature_server.domain.writes import WRITE_ROWS_MAX, highest_positions, rows_by_shard
from feature_server.ring.held_ring import check_no_ring
from headrace.definitions.entities import EVENT_TIME
from headrace.errors import InvalidArgument
from headrace.serving.principal import Principal

_TIME: Final = pa.timestamp("us", tz="UTC")
ORDER_COLUMNS: Final = {
    "_write_time": _TIME,
    "_available_time": _TIME,
    "_source_id": pa.uint32(),
    "_log_partition": pa.int32(),
    "_offset": pa.int64(),
    "_tombstone": pa.bool_(),
}

Order = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class ReplayAck:
    """What a replay reached. `deferred` are rows, counted from 0, that were left for events which no batch has seen."""

    positions: Sequence[Position]
    row_count: int
    stale_count: int
    deferred: Sequence[int]


def check_no_epoch(shards: Collection[int], ring_epoch: int) -> None:
    """Of a server without a ring, which owns every shard."""
    check_no_ring(ring_epoch)


class Replays:
    """Writes rows that were committed once before. The value rules decide what of them is served."""

    def __init__(
        self,
        catalogue: Catalogue,
        shards: ShardSet,
        clock_us: Callable[[], int],
        check_owned: Callable[[Collection[int], int], None] = check_no_epoch,
    ) -> None:
        self._check_owned = check_owned
        self._catalogue = catalogue
        self._shards = shards
        self._clock_us = clock_us

    def write(
        self,
        feature_view: str,
        batches: Callable[[], Iterable[pa.RecordBatch]],
        durability: Durability,
        covered: Sequence[Position],
        principal: Principal,
        *,
        ring_epoch: int = 0,
    ) -> ReplayAck:
        """Rows with the columns of a write and ORDER_COLUMNS, or of computed views join keys and rows of a batch.

        They are not logged for the offline store again. `covered` are the positions up to which a batch has seen logs.
        """
        principal.require("PEER")
        target = self._catalogue.view(feature_view)
        if target.computed is not None:
            self._check_owned(range(len(self._shards)), ring_epoch)
            made = BatchWrite(self._shards, target, covered, durability)
            made.write(batches())
            return ReplayAck(highest_positions(made.positions), made.row_count, made.stale_count, made.deferred)
        positions: list[Position] = []
        row_count = stale_count = 0
        for batch in batches():
            plain, order = split_order(batch)
            parts = list(encode_batch(plain, target, self._clock_us()))  # checks the columns
            order[EVENT_TIME] = event_times(plain)
            for number, part in enumerate(parts):
                start = number * ENCODE_ROWS
                own = {name: column[start : start + len(part.keys)] for name, column in order.items()}
                row_count += len(part.keys)
                groups = rows_by_shard(part, len(self._shards))
                self._check_owned([shard for shard, _ in groups], ring_epoch)
                for shard, indexes in groups:
                    stale_count += self._append(part, own, (shard, indexes), target, durability, positions)
        return ReplayAck(highest_positions(positions), row_count, stale_count, ())

    def _append(  # noqa: PLR0917 - every one is a different thing
        self,
        part: EncodedRows,
        order: Order,
        group: tuple[int, NDArray[np.int64]],
        target: ViewLayout,
        durability: Durability,
        positions: list[Position],
    ) -> int:
        shard, indexes = group
        stale_count = 0
        for start in range(0, len(indexes), WRITE_ROWS_MAX):
            chosen = indexes[start : start + WRITE_ROWS_MAX]
            keys = part.keys.storage_keys(target.entity.entity_id, target.view_id, chosen)
            rows = ordered_rows(part, order, chosen, target)
            position, stale = self._shards[shard].append(keys, lambda *_, made=rows: made, durability, is_logged=False)
            positions.append(position)
            stale_count += stale
        return stale_count


def split_order(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Order]:
    """Columns as a write has them, and the order of every row. Raises InvalidArgument naming the column."""
    order: Order = {}
    for name, kind in ORDER_COLUMNS.items():
        index = batch.schema.get_field_index(name)
        if index < 0 or batch.schema.field(index).type != kind or batch.column(index).null_count:
            raise InvalidArgument(
                f"column {name!r} is missing, has nulls or is not {kind}; send rows as the offline store holds them",
                reason="BAD_ORDER_COLUMN",
                field=name,
                metadata={"column": name},
            )
        column = batch.column(index)
        order[name] = _numbers(column)
    return batch.select([name for name in batch.schema.names if name not in ORDER_COLUMNS]), order


def event_times(plain: pa.RecordBatch) -> NDArray[np.generic]:
    """Event times of checked columns in us."""
    return _numbers(plain.column(plain.schema.get_field_index(EVENT_TIME)).cast(_TIME))


def replayed_rows(target: ViewLayout, batch: pa.RecordBatch) -> MadeRows:
    """Keys and rows of a batch with an order, as a copy takes them from a log."""
    plain, order = split_order(batch)
    (part,) = encode_batch(plain, target, ANY_TIME_US)
    every = np.arange(len(part.keys))
    order[EVENT_TIME] = event_times(plain)
    keys = part.keys.storage_keys(target.entity.entity_id, target.view_id, every)
    return MadeRows(keys, ordered_rows(part, order, every, target))


def _numbers(column: pa.Array) -> NDArray[np.generic]:
    found: NDArray[np.generic] = (column.view(pa.int64()) if column.type == _TIME else column).to_numpy(
        zero_copy_only=False
    )
    return found


def ordered_rows(part: EncodedRows, order: Order, chosen: NDArray[np.int64], target: ViewLayout) -> list[bytes]:
    """Finished rows, tombstones among them, each with the order that it was given before."""
    fields = [order[name] for name in list(ORDER_COLUMNS)[:-1]]
    rows = part.rows.stamp_each(chosen, *map(np.ascontiguousarray, fields))  # type: ignore[arg-type]
    erased: Sequence[int] = np.flatnonzero(order["_tombstone"][chosen]).tolist()
    for at in erased:
        row = int(chosen[at])
        write_time, _, source_id, partition, offset = (int(field[row]) for field in fields)
        event_time = int(order[EVENT_TIME][row])
        rows[at] = encode_tombstone(target.schema.schema_id, event_time, write_time, source_id, partition, offset)
    return rows
