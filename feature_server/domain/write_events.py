"""Events of a view that computes: filtered, put into deltas of tile maps, and merged into stored rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext.arrow import arrow_column
from core_ext.computed import MergedRow
from core_ext.keys import KeyBatch
from core_ext.row_codec import RowBatch, Schema, encode_rows
from feature_server.domain.computed_layouts import ComputedLayout
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.write_columns import (
    ENCODE_ROWS,
    bad_value,
    checked_columns,
    encoded_keys,
)
from headrace.computed import evaluated, passed
from headrace.definitions.lookups import Lookup
from headrace.errors import InvalidArgument

LookUp = Callable[[Lookup, Mapping[str, pa.Array], NDArray[np.int64], int], Mapping[str, pa.Array]]
"""Columns of a lookup for events by their columns and times; the first one is a row of the request."""


@dataclass(frozen=True, slots=True)
class EncodedEvents:
    """Events of one slice of a write that passed the filter: rows of their latest columns, and of what logs keep.

    `places` are those of the events in the whole write.
    """

    layout: ComputedLayout
    row_count: int  # those that the filter left out as well
    keys: KeyBatch
    places: NDArray[np.int64]
    event_us: NDArray[np.int64]
    columns: dict[str, pa.Array]
    latest: RowBatch
    events: RowBatch


class DeltaRows:
    """Events of one shard as one row per entity, whose tile map is what they add to the stored one.

    `write_us` are the write times that events of a stream bring along, one per event of the part.
    """

    def __init__(
        self,
        part: EncodedEvents,
        indexes: NDArray[np.int64],
        keys: Sequence[bytes],
        write_us: NDArray[np.int64] | None = None,
    ) -> None:
        places: dict[bytes, int] = {}
        self._groups = np.fromiter((places.setdefault(key, len(places)) for key in keys), np.int64, len(keys))
        self.keys = list(places)
        self.event_count = len(keys)
        self._part = part
        self._indexes = indexes
        self._event_keys = keys
        self._layout = part.layout
        self._event_us = part.event_us[indexes]
        self._write_us = write_us
        written = np.zeros(len(keys), np.int64) if write_us is None else write_us[indexes]
        self._newest = indexes[_newest(self._groups, self._event_us, written)]
        chosen = pa.array(indexes)
        columns = {name: column.take(chosen) for name, column in part.columns.items()}
        self._inputs = [evaluated(one, columns, len(keys)) for one in part.layout.inputs]

    def stamped(self, write_time_us: int, source_id: int, shard: int, first_offset: int) -> list[bytes]:
        """Rows of the entities, in the order of `keys`; every event has an offset of its own."""
        count, windows = self.event_count, self._layout.windows
        rows = self._rows(self._part.latest, self._newest, (write_time_us, source_id, shard, first_offset))
        if windows is None:
            return rows
        written = np.full(count, write_time_us, np.int64)
        deltas = windows.update(
            self._inputs,
            self._event_us,
            self._groups,
            len(self.keys),
            write_us=written if self._write_us is None else self._write_us[self._indexes],
            source_ids=np.full(count, source_id, np.uint32),
            partitions=np.full(count, shard, np.int32),
            offsets=np.arange(first_offset, first_offset + count, dtype=np.int64),
        )
        try:
            return [
                self._layout.view.with_tiles(row, delta)
                for row, delta in zip(rows, deltas.maps, strict=True)
                if delta is not None  # every group has an event
            ]
        except ValueError as error:
            raise InvalidArgument(
                f"the events of one entity are too large for its row: {error}; send fewer or shorter values at once",
                reason="ROW_TOO_LARGE",
                field="arrow_ipc",
            ) from error

    def logged(
        self, write_time_us: int, source_id: int, shard: int, first_offset: int
    ) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """Key and row of every event, as the offline store keeps them."""
        order = write_time_us, source_id, shard, first_offset
        return self._event_keys, self._rows(self._part.events, self._indexes, order)

    def merge(self, stored: bytes | None, delta: bytes, offset: int) -> MergedRow:
        """Stored row with a delta written at an offset."""
        return self._layout.view.merge(stored, delta, offset)

    def _rows(self, batch: RowBatch, chosen: NDArray[np.int64], order: tuple[int, int, int, int]) -> list[bytes]:
        write_time_us, source_id, shard, first_offset = order
        if self._write_us is None:
            return batch.stamp(chosen, write_time_us, None, source_id, shard, first_offset)
        offsets = np.zeros(len(batch), np.int64)
        offsets[self._indexes] = np.arange(first_offset, first_offset + self.event_count)
        return stamped_rows(batch, chosen, self._write_us, source_id, shard, offsets)


def stamped_rows(  # noqa: PLR0917 - every one is a different part of the order
    batch: RowBatch,
    chosen: NDArray[np.int64],
    write_us: NDArray[np.int64],
    source_id: int,
    shard: int,
    offsets: NDArray[np.int64],
) -> list[bytes]:
    """Rows with the write times that their events bring along; write times and offsets of every row of the batch."""
    count = len(batch)
    source_ids, partitions = np.full(count, source_id, np.uint32), np.full(count, shard, np.int32)
    return batch.stamp_each(chosen, write_us, write_us, source_ids, partitions, offsets)


def encode_events(
    batch: pa.RecordBatch, target: ViewLayout, layout: ComputedLayout, now_us: int, look_up: LookUp
) -> Iterator[EncodedEvents]:
    """Slices of a batch of events. Raises InvalidArgument naming the column."""
    columns, event_us = checked_columns(batch, target, layout.given, now_us)
    for start in range(0, batch.num_rows, ENCODE_ROWS):
        part = {name: column.slice(start, ENCODE_ROWS) for name, column in columns.items()}
        keys = encoded_keys(target, [part[name] for name in target.entity.key_names], start)
        times = event_us[start : start + ENCODE_ROWS]
        row_count = len(times)
        places = np.arange(start, start + row_count)
        for lookup in layout.lookups:
            part |= look_up(lookup, part, times, start)
        part |= {one.definition.name: one.column(part, row_count) for one in layout.functions}
        if layout.filter is not None:
            kept = passed(layout.filter, part, len(times))
            if kept.false_count:
                part = {name: column.filter(kept) for name, column in part.items()}
                is_kept = kept.to_numpy(zero_copy_only=False)
                times, places = times[is_kept], places[is_kept]
                keys = encoded_keys(target, [part[name] for name in target.entity.key_names], start)
        latest = _rows(layout.view.stored, layout.latest, part, times, start)
        events = _rows(layout.events, layout.logged, part, times, start)
        columns_of = {name: part[name] for name in layout.columns}
        yield EncodedEvents(layout, row_count, keys, places, times, columns_of, latest, events)


def _rows(
    schema: Schema, names: Sequence[str], columns: dict[str, pa.Array], event_us: NDArray[np.int64], start: int
) -> RowBatch:
    try:
        return encode_rows(schema, [arrow_column(columns[name]) for name in names], event_us)
    except ValueError as error:
        raise bad_value(error, names, start, "BAD_VALUE") from error


def _newest(groups: NDArray[np.int64], event_us: NDArray[np.int64], write_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """Place of the newest event of each group by event time, then write time; of equal ones the later one."""
    order = np.lexsort((write_us, event_us, groups))
    ends = np.flatnonzero(np.diff(groups[order], append=-1))
    newest: NDArray[np.int64] = order[ends]
    return newest
