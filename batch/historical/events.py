"""Events of some entities of a spine in memory, and which of them each read counts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical.checks import cast, keys_of, order_of, times_of
from batch.historical.computation import Computation
from batch.historical.inputs import HistoryInput
from batch.historical.parallel import in_parallel
from batch.historical.tables import Chunk, Rows
from core_ext.asof import Matches, Spine
from headrace.arrays import array_of
from headrace.computed import evaluated
from headrace.errors import ResourceExhausted
from headrace.types import Scalar, ValueType

Advance = Callable[[int], None]
ORDER: Final = (
    ("write_us", np.int64),
    ("source_ids", np.uint32),
    ("partitions", np.int32),
    ("offsets", np.int64),
    ("available_us", np.int64),
    ("tombstones", np.uint8),
)
_TOTAL_ORDER: Final = ("offsets", "partitions", "source_ids", "write_us")  # after the event time, the last first


class Wanted(NamedTuple):
    """Entities [first, end) of a spine."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Events:
    """Events as columns, in no order; `order` has the columns of ORDER, and `inputs` those of the computation."""

    entities: NDArray[np.int64]
    event_us: NDArray[np.int64]
    order: dict[str, NDArray[Any]]  # of several types
    inputs: list[pa.Array]

    def __len__(self) -> int:
        return len(self.entities)

    def taken(self, rows: NDArray[np.int64], groups: NDArray[np.int64]) -> "Events":
        """Some events, each in the group of the same place."""
        order = {name: column[rows] for name, column in self.order.items()}
        places = pa.array(rows)
        return Events(groups, self.event_us[rows], order, [column.take(places) for column in self.inputs])


class EventReader:
    """Reads the events of one history for the entities of one spine."""

    def __init__(self, spine: Spine, rows: Rows, view: HistoryInput, cutoff_us: int, advance: Advance) -> None:
        assert view.computation is not None, "only computed views count events"
        self._spine = spine
        self._rows = rows
        self._view = view
        self._computation: Computation = view.computation
        self._cutoff_us = cutoff_us
        self._advance = advance
        self._what = f"history {view.name}"
        self._keys = [key.history for key in view.keys]

    def parts(self, event_count_max: int) -> list[Wanted]:
        """Ranges of entities with at most so many events each, as far as is known before they are read."""
        if self._rows.row_count <= event_count_max:
            return [Wanted(0, self._spine.entity_count)]
        ends = np.cumsum(self._counts())
        found, first, before = [], 0, 0
        while first < len(ends):
            end = int(np.searchsorted(ends, before + event_count_max, side="right"))
            if end == first:
                raise self._too_many(int(ends[first]) - before, event_count_max)
            found.append(Wanted(first, end))
            first, before = end, int(ends[end - 1])
        return found

    def read(self, wanted: Wanted) -> tuple[Events, "Erasures | None"]:
        """Events of some entities, and their tombstones where there are any."""
        found: list[tuple[Events, pa.RecordBatch]] = []

        def take(chunks: Iterator[Chunk]) -> None:
            for chunk in chunks:
                for batch in self._rows.read(chunk, self._names()):
                    part = self._part(batch, wanted)
                    if part is not None:
                        found.append(part)
                self._advance(chunk.row_count)

        in_parallel(self._rows.chunks, take)
        return self._joined([part for part, _ in found]), self._erasures(found)

    def _names(self) -> list[str]:
        return list(dict.fromkeys([*self._view.match_columns(), *self._computation.columns]))

    def _part(self, batch: pa.RecordBatch, wanted: Wanted) -> tuple[Events, pa.RecordBatch] | None:
        entities = self._spine.find(keys_of(batch, self._keys, self._view.keys, self._what))
        event_us = times_of(batch, self._view.event_time, self._what)
        order = self._order(batch, event_us)
        kept = (entities >= wanted.first) & (entities < wanted.end) & (order["write_us"] <= self._cutoff_us)
        rows = np.flatnonzero(kept)
        if len(rows) == 0:
            return None
        chosen = batch.take(pa.array(rows))
        held = {name: column[rows] for name, column in order.items()}
        return Events(entities[rows], event_us[rows], held, self._inputs(chosen)), chosen

    def _order(self, batch: pa.RecordBatch, event_us: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        given = order_of(batch, self._view)
        write_us = given.get("write_us", event_us)
        usual = {"write_us": write_us, "available_us": write_us}
        return {
            name: given[name] if name in given else usual.get(name, np.zeros(len(event_us), kind))
            for name, kind in ORDER
        }

    def _inputs(self, batch: pa.RecordBatch) -> list[pa.Array]:
        columns = {name: cast(batch.column(name), kind) for name, kind in self._computation.columns.items()}
        return [
            array_of(evaluated(one, columns, batch.num_rows, self._what), _arrow(one.program.result_type))
            for one in self._computation.inputs
        ]

    def _joined(self, parts: list[Events]) -> Events:
        empty = Events(
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            {name: np.empty(0, kind) for name, kind in ORDER},
            [pa.array([], _arrow(one.program.result_type)) for one in self._computation.inputs],
        )
        parts = [empty, *parts]
        return Events(
            np.concatenate([part.entities for part in parts]),
            np.concatenate([part.event_us for part in parts]),
            {name: np.concatenate([part.order[name] for part in parts]) for name, _ in ORDER},
            [pa.concat_arrays([part.inputs[i] for part in parts]) for i in range(len(empty.inputs))],
        )

    def _erasures(self, parts: list[tuple[Events, pa.RecordBatch]]) -> "Erasures | None":
        """The newest tombstone that each spine row sees, found as any other row of a history is."""
        matches, rows, at, count = Matches(self._spine, has_ties=True), [], 0, 0
        for events, batch in parts:
            erased = np.flatnonzero(events.order["tombstones"])
            if len(erased):
                chosen = batch.take(pa.array(erased))
                order = {name: events.order[name][erased] for name, _ in ORDER}
                keys = keys_of(chosen, self._keys, self._view.keys, self._what)
                matches.feed(keys, events.event_us[erased], count, self._cutoff_us, **order)
                rows.append(at + erased)
                count += len(erased)
            at += len(events)
        if not rows:
            return None
        return Erasures(np.concatenate(rows), matches.newest())

    def _counts(self) -> NDArray[np.int64]:
        names = list(dict.fromkeys([*self._keys, *self._view.times()]))
        found: list[NDArray[np.int64]] = []

        def count(chunks: Iterator[Chunk]) -> None:
            counts = np.zeros(self._spine.entity_count, np.int64)
            found.append(counts)
            for chunk in chunks:
                for batch in self._rows.read(chunk, names):
                    entities = self._spine.find(keys_of(batch, self._keys, self._view.keys, self._what))
                    np.add.at(counts, entities[entities >= 0], 1)

        in_parallel(self._rows.chunks, count)
        total: NDArray[np.int64] = np.sum(found, axis=0)
        return total

    def _too_many(self, count: int, count_max: int) -> ResourceExhausted:
        return ResourceExhausted(
            f"one entity of {self._what} has {count} events, and the memory limit has room for {count_max}: raise it",
            reason="MEMORY_LIMIT_TOO_SMALL",
            metadata={"event_count": str(count), "event_count_max": str(count_max)},
        )


@dataclass(frozen=True, slots=True)
class Erasures:
    """Tombstones as rows of the events, and per spine row the tombstone that it sees, -1 for none."""

    rows: NDArray[np.int64]
    seen: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Groups:
    """Events in groups, and the group of every read; an event may be in several."""

    events: Events
    read_groups: NDArray[np.int64]
    count: int


def groups_of(
    events: Events, erasures: Erasures | None, wanted: Wanted, reads: NDArray[np.int64], entities: NDArray[np.int64]
) -> Groups:
    """One group per entity and, of erased ones, one more for each tombstone that a read sees: what came after it.

    `reads` are rows of the spine, and `entities` their entities.
    """
    if erasures is None:
        count = wanted.end - wanted.first
        given = Events(events.entities - wanted.first, events.event_us, events.order, events.inputs)
        return Groups(given, entities - wanted.first, count)
    order, ends = _sorted(events)
    width = len(erasures.rows) + 1
    found, read_groups = np.unique(entities * width + erasures.seen[reads] + 1, return_inverse=True)
    group_entities, tombstones = found // width, found % width - 1
    sorted_entities = events.entities[order]
    firsts = np.searchsorted(sorted_entities, group_entities, side="left")
    erased = tombstones >= 0
    firsts[erased] = ends[erasures.rows[tombstones[erased]]]
    lengths = np.searchsorted(sorted_entities, group_entities, side="right") - firsts
    starts = np.cumsum(lengths) - lengths
    groups = np.repeat(np.arange(len(found)), lengths)
    rows = order[np.arange(len(groups)) - starts[groups] + firsts[groups]]
    live = events.order["tombstones"][rows] == 0
    return Groups(events.taken(rows[live], groups[live]), read_groups.astype(np.int64), len(found))


def _sorted(events: Events) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by entity and total order, and for each row the place after all that equal it."""
    keys = [*(events.order[name] for name in _TOTAL_ORDER), events.event_us, events.entities]
    order = np.lexsort(keys)
    differs = np.zeros(len(order) + 1, np.bool_)
    differs[-1] = True
    for key in keys:
        differs[1:-1] |= np.diff(key[order]) != 0
    edges = np.flatnonzero(differs)
    ends = np.empty(len(order), np.int64)
    ends[order] = edges[np.searchsorted(edges, np.arange(len(order)), side="right")]
    return order.astype(np.int64), ends


def _arrow(scalar: int) -> pa.DataType:
    return ValueType(Scalar(scalar)).arrow
