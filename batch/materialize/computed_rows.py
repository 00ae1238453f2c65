"""Stored rows of a computed view, made from all events of their entities as the stream would have left them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.arrays import whole
from batch.historical.checks import cast
from batch.offline import columns as system
from core_ext.arrow import arrow_column
from core_ext.asof import Spine
from core_ext.computed import ComputedView
from core_ext.hashing import SLOT_COUNT
from core_ext.keys import KeyBatch, encode_keys
from core_ext.row_codec import encode_rows, encode_tombstone
from core_ext.window_plan import TIME_MAX_US
from headrace.computed import EventProgram, computed_view, evaluated, event_program
from headrace.definitions.entities import EVENT_TIME
from headrace.definitions.plans import check_digest, compile_plan
from headrace.definitions.registered import RegisteredEntity, RegisteredSource, RegisteredView
from headrace.errors import ResourceExhausted
from headrace.types import Scalar, ValueType

ROW: Final = "_row"
_ORDER: Final = (system.OFFSET, system.PARTITION, system.SOURCE_ID, system.WRITE_TIME, system.EVENT_TIME)


@dataclass(frozen=True, slots=True)
class RowMaker:
    """What makes rows of events. `columns` are what it reads of the view's table beside keys and order."""

    ref: str
    schema_id: int
    keys: tuple[tuple[str, Scalar], ...]
    view: ComputedView
    inputs: tuple[EventProgram, ...]
    latest: tuple[str, ...]
    columns: Mapping[str, ValueType]

    def keys_of(self, batch: pa.RecordBatch | pa.Table) -> KeyBatch:
        """Canonical keys of rows of the table."""
        columns = [cast(whole(batch.column(name)), ValueType(kind)) for name, kind in self.keys]
        return encode_keys([int(kind) for _, kind in self.keys], [arrow_column(column) for column in columns])

    def rows(self, events: pa.Table, covered: Sequence[int]) -> pa.Table:
        """Join keys and row of every entity that has an event; `covered` is the offset seen of each shard's log.

        Events before the newest erasure are gone, as it comes after them in the total order.
        """
        events = events.combine_chunks()
        if events.num_rows == 0:
            return events.select([name for name, _ in self.keys]).append_column(ROW, pa.array([], pa.binary()))
        keys = self.keys_of(events)
        order = {name: _numbers(events, name) for name in (*_ORDER, system.AVAILABLE_TIME)}
        entities, _ = Spine(keys, order[system.EVENT_TIME]).entities()
        erased = whole(events.column(system.TOMBSTONE)).to_numpy(zero_copy_only=False)
        places = np.lexsort([*(order[name] for name in _ORDER), entities])
        ends = np.flatnonzero(np.diff(entities[places], append=-1))
        newest = places[ends]
        offsets = np.asarray(covered, np.int64)[keys.slots[newest].astype(np.int64) * len(covered) // SLOT_COUNT]
        made = self._live(events, order, (places, ends, erased), newest, offsets)
        gone = np.flatnonzero(erased[newest])
        rows: list[bytes | None] = [None] * len(newest)
        for place in gone.tolist():
            at = int(newest[place])
            times = [int(order[name][at]) for name in (system.EVENT_TIME, system.WRITE_TIME)]
            rest = [int(order[name][at]) for name in (system.SOURCE_ID, system.PARTITION, system.OFFSET)]
            rows[place] = encode_tombstone(self.schema_id, *times, *rest)
        for place, row in zip(np.flatnonzero(~erased[newest]).tolist(), made, strict=True):
            rows[place] = row
        named = events.select([name for name, _ in self.keys]).take(pa.array(newest))
        return named.append_column(ROW, pa.array(rows, pa.binary())).combine_chunks()

    def _live(
        self,
        events: pa.Table,
        order: Mapping[str, NDArray[Any]],
        sorted_events: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]],
        newest: NDArray[np.int64],
        offsets: NDArray[np.int64],
    ) -> list[bytes]:
        """Rows of the entities whose newest event is none that erases."""
        places, ends, erased = sorted_events
        is_live = ~erased[newest]
        lengths = np.diff(ends, prepend=-1)
        groups = np.repeat(np.arange(len(ends)), lengths)
        # The place behind the newest erasure of each entity, in the sorted events.
        marks = np.maximum.reduceat(np.where(erased[places], np.arange(len(places)) + 1, 0), ends - lengths + 1)
        kept = (np.arange(len(places)) >= marks[groups]) & is_live[groups]
        chosen, live = places[kept], newest[is_live]
        heads = self._latest(events, order, live)
        windows = self.view.windows
        if windows is None:
            return heads
        dense = np.cumsum(is_live) - 1
        columns = {name: cast(whole(events.column(name)), kind) for name, kind in self.columns.items()}
        taken = {name: column.take(pa.array(chosen)) for name, column in columns.items()}
        event_us = order[system.EVENT_TIME]
        deltas = windows.update(
            [evaluated(one, taken, len(chosen), self.ref) for one in self.inputs],
            event_us[chosen],
            dense[groups[kept]],
            len(live),
            write_us=order[system.WRITE_TIME][chosen],
            source_ids=order[system.SOURCE_ID][chosen].astype(np.uint32),
            partitions=order[system.PARTITION][chosen].astype(np.int32),
            offsets=order[system.OFFSET][chosen],
        )
        edge = _edge(self.view)
        rows = []
        for row, delta, at, offset in zip(heads, deltas.maps, live.tolist(), offsets[is_live].tolist(), strict=True):
            assert delta is not None, "every group has its newest event"
            cut_us = min(-(-int(event_us[at]) // edge) * edge, TIME_MAX_US)
            rows.append(self._tiled(row, windows.stamp(delta, cut_us, offset)))
        return rows

    def _latest(self, events: pa.Table, order: Mapping[str, NDArray[Any]], live: NDArray[np.int64]) -> list[bytes]:
        taken = events.take(pa.array(live)).combine_chunks()
        columns = [arrow_column(cast(whole(taken.column(name)), self.columns[name])) for name in self.latest]
        rows = encode_rows(self.view.stored, columns, order[system.EVENT_TIME][live])
        return rows.stamp_each(
            np.arange(len(live)),
            order[system.WRITE_TIME][live],
            order[system.AVAILABLE_TIME][live],
            order[system.SOURCE_ID][live].astype(np.uint32),
            order[system.PARTITION][live].astype(np.int32),
            order[system.OFFSET][live],
        )

    def _tiled(self, row: bytes, tile_map: bytes) -> bytes:
        try:
            return self.view.with_tiles(row, tile_map)
        except ValueError as error:
            raise ResourceExhausted(
                f"an entity's windows of {self.ref} have outgrown its row: {error}; keep fewer or shorter windows",
                reason="ROW_TOO_LARGE",
                field="feature_view",
            ) from error


def row_maker(record: RegisteredView, entity: RegisteredEntity, source: RegisteredSource) -> RowMaker:
    """Maker of a version; `source` has what its lookups add.

    Raises FailedPrecondition where this installation would compute other values.
    """
    plan = compile_plan(record.definition, entity.definition, source.definition)
    check_digest(plan, str(record.ref), record.transform_digest)
    types = {column.name: column.type for column in source.definition.columns}
    inputs = tuple(map(event_program, plan.inputs))
    latest = tuple(_named(column) for _, column in plan.latest)
    read = {column for one in plan.inputs for column in one.columns} | {column for _, column in plan.latest}
    return RowMaker(
        ref=str(record.ref),
        schema_id=record.schema_id,
        keys=tuple((key.name, key.type.scalar) for key in entity.definition.join_keys),
        view=computed_view(record, plan),
        inputs=tuple(EventProgram(one.program, tuple(map(_named, one.columns))) for one in inputs),
        latest=latest,
        columns={_named(name): types[name] for name in sorted(read)},
    )


def _named(column: str) -> str:
    """A column of the source as the table of the view has it."""
    return system.EVENT_TIME if column == EVENT_TIME else column


def _edge(view: ComputedView) -> int:
    """A time at whose multiples tiles of every size end, so that a cut there goes through none."""
    assert view.windows is not None, "the caller has looked"
    edge = lcm(*(ladder.sizes_us[-1] for ladder in view.windows.plan.ladders))
    return edge if edge < TIME_MAX_US else 1


def _numbers(events: pa.Table, name: str) -> NDArray[Any]:
    column = whole(events.column(name))
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return np.asarray(column).astype(np.int64)
