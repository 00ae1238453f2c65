"""The last stage of a join: each task writes one file of the result, spine rows beside their features."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical.gathered import Gathered, Looked
from batch.historical.inputs import HistoryInput
from batch.historical.output import ResultFile, feature_schema
from batch.spark.computed import CarriedView
from batch.spark.matching import ORDINAL, STATUS, STATUSES, computed_schema
from batch.spark.pieces import Piece, Pieces
from batch.spark.plan import Bundle, HistoricalPlan, Part, feature_bytes
from batch.spark.sources import BundleRows
from batch.spark.values import values_schema
from headrace.errors import InternalError

WRITE_ROWS_MAX: Final = 1 << 17  # of one row group, as the local engine has it
WRITE_ROWS_MIN: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class Found:
    """What earlier stages left of one view: row statuses and values, or whole features of a computed view."""

    carried: CarriedView
    by_part: tuple[Piece, ...]
    values: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Writing:
    """What the tasks share."""

    plan: HistoricalPlan
    found: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class PartTask:
    """One file, and the chunks of the spine that it begins and ends in."""

    number: int
    part: Part
    bundles: tuple[Bundle, ...]


def part_tasks(plan: HistoricalPlan) -> list[PartTask]:
    """A task for each file; an empty spine has one too."""
    return [PartTask(number, part, _bundles(plan, part)) for number, part in enumerate(plan.parts)]


def write_part(way: Writing, task: PartTask) -> None:
    """Writes a file under its name once it is complete; a second attempt writes the same bytes of values."""
    plan, part = way.plan, task.part
    views = [found.carried.open() for found in way.found]
    on_demand = None if plan.on_demand is None else plan.on_demand.open()
    width = sum(map(feature_bytes, views))
    limit = max(WRITE_ROWS_MIN, min(WRITE_ROWS_MAX, plan.memory_bytes // 4 // max(1, width)))
    attempt = uuid4()  # a name of its own until it is complete
    with ResultFile(f"{plan.folder}/{part.name}", plan.spine.schema, plan.features(), attempt) as file:
        sides = [_Side(view, found, task) for view, found in zip(views, way.found, strict=True)]
        schema = feature_schema(views)
        for low, spine in _spine_rows(plan, task, limit):
            arrays = [array for side in sides for array in side.features(low, low + spine.num_rows)]
            features = pa.Table.from_arrays(arrays, schema=schema)
            file.write(spine, features if on_demand is None else on_demand.computed(spine, features))


class _Side:
    """Features of one view for the rows of one part; holds them all, in the files' own form."""

    def __init__(self, view: HistoryInput, found: Found, task: PartTask) -> None:
        self._view = view
        self._name = task.part.name
        first = task.part.first_row
        schema = STATUSES if view.computation is None else computed_schema(view)
        self._by_part = _ordered(Pieces(found.by_part, schema).rows(task.number).table())
        values = Pieces(found.values, values_schema(view)).rows(task.number).table() if found.values else None
        self._values = None if values is None else _ordered(values)
        ordinals = _ordinals(self._by_part)
        if not np.array_equal(ordinals, np.arange(first, first + task.part.row_count)):
            raise InternalError(
                f"{self._name} got {len(ordinals)} rows of {view.name} that are not its {task.part.row_count}",
                reason="ROWS_LOST",
                metadata={"part": self._name},
            )
        self._first = first

    def features(self, low: int, high: int) -> list[pa.Array | pa.ChunkedArray]:
        """Value and status of every feature for some spine rows."""
        found = self._by_part.slice(low - self._first, high - low)
        if self._view.computation is not None:
            return list(found.columns[1:])
        statuses = np.asarray(found.column(STATUS).combine_chunks())
        return [
            one for looked in self._settled(statuses, low, high) for one in (looked.values, pa.array(looked.statuses))
        ]

    def _settled(self, statuses: NDArray[np.uint8], low: int, high: int) -> list[Looked]:
        view = self._view
        targets, batch = self._taken(low, high)
        is_found = np.zeros(high - low, np.bool_)
        is_found[targets] = True
        gathered, sources = Gathered(view.columns, is_found), np.arange(len(targets))
        for at in range(len(view.columns)):
            if batch is not None:
                gathered.put(at, batch.column(at + 1), sources, targets)
        return [gathered.settled(at, statuses, view.fallback, view.include_expired) for at in range(len(view.columns))]

    def _taken(self, low: int, high: int) -> tuple[NDArray[np.int64], pa.RecordBatch | None]:
        """Places of the values between two ordinals, and these."""
        if self._values is None or self._values.num_rows == 0:
            return np.empty(0, np.int64), None
        ordinals = _ordinals(self._values)
        start, end = np.searchsorted(ordinals, [low, high])
        if start == end:
            return np.empty(0, np.int64), None
        held = self._values.slice(start, end - start).combine_chunks().to_batches()[0]
        return ordinals[start:end] - low, held


def _ordinals(table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(table.column(ORDINAL))


def _ordered(table: pa.Table) -> pa.Table:
    return table.take(pa.array(np.argsort(_ordinals(table), kind="stable"))).combine_chunks()


def _bundles(plan: HistoricalPlan, part: Part) -> tuple[Bundle, ...]:
    end = part.first_row + part.row_count
    return tuple(
        Bundle(chunk.first_row, (chunk,))
        for chunk in plan.spine.chunks
        if chunk.first_row < end and chunk.first_row + chunk.row_count > part.first_row
    )


def _spine_rows(plan: HistoricalPlan, task: PartTask, limit: int) -> Iterator[tuple[int, pa.Table]]:
    """The spine's own columns, at most so many rows at once, with the ordinal of the first."""
    low, end = task.part.first_row, task.part.first_row + task.part.row_count
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in _spine_batches(plan, task, low, end):
        at = 0
        while at < batch.num_rows:
            part = batch.slice(at, limit - count)
            held.append(part)
            at += part.num_rows
            count += part.num_rows
            if count == limit:
                yield low, _table(plan, held)
                low, held, count = low + count, [], 0
    if held:
        yield low, _table(plan, held)


def _spine_batches(plan: HistoricalPlan, task: PartTask, low: int, end: int) -> Iterator[pa.RecordBatch]:
    names = plan.spine.schema.names
    for bundle in task.bundles:
        rows, at = BundleRows(bundle, b"", (), "spine"), bundle.first_row
        for chunk in rows.chunks:
            for batch in rows.read(chunk, names):
                first, last = max(low, at), min(end, at + batch.num_rows)
                if first < last:
                    yield batch.slice(first - at, last - first)
                at += batch.num_rows


def _table(plan: HistoricalPlan, batches: list[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(batches).cast(plan.spine.schema)
