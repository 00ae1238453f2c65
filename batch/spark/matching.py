"""The second stage of a join: each task matches some slot ranges of the spine with those of one view."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical.checks import keys_of, times_of
from batch.historical.computed_join import join_computed
from batch.historical.inputs import HistoryInput
from batch.historical.output import feature_schema
from batch.historical.view_join import match
from batch.spark.computed import CarriedView
from batch.spark.pieces import Piece, PieceRows, Pieces, PieceWriter, flush_rows_of
from batch.spark.plan import feature_bytes, rows_at_once
from batch.spark.salt import salted, with_salt
from batch.spark.spread import ROW
from core_ext.asof import Spine
from headrace.types import Scalar

ORDINAL: Final = "__ordinal"  # of the whole spine
STATUS: Final = "__status"
STATUSES: Final = pa.schema([pa.field(ORDINAL, pa.int64()), pa.field(STATUS, pa.uint8())])
HITS: Final = pa.schema([pa.field(ROW, pa.uint32()), pa.field(ORDINAL, pa.int64())])


@dataclass(frozen=True, slots=True)
class Matching:
    """What the tasks of one view share; pieces of the spine and of the history lie by slot range."""

    carried: CarriedView
    spine: tuple[Piece, ...]
    spine_schema: pa.Schema
    history: tuple[Piece, ...]
    history_schema: pa.Schema
    time_column: str
    cutoff_us: int
    part_rows: int
    part_count: int
    folder: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Matched:
    """What a task found: row statuses by part of the result, and hits by bundle of the history; of a computed view
    whole features by part of the result.
    """

    by_part: Piece
    hits: Piece | None


def matched(way: Matching, groups: Sequence[int]) -> Matched:
    """Matches slot ranges, one after the other."""
    view = way.carried.open()
    if [key.scalar for key in view.keys] != [Scalar.I64]:  # these have groups of their own
        view = salted(view)
    spine, history = Pieces(way.spine, way.spine_schema), Pieces(way.history, way.history_schema)
    pairs = ((left, history.rows(group)) for group in groups for left in _spines(way, view, spine.rows(group)))
    if view.computation is not None:
        return Matched(_computed(way, view, pairs), None)
    return _matched(way, view, pairs)


@dataclass(frozen=True, slots=True)
class Left:
    """Rows of the spine that are joined at once."""

    spine: Spine
    ordinals: NDArray[np.int64]


def computed_schema(view: HistoryInput) -> pa.Schema:
    """Of the pieces of a computed view."""
    return pa.schema([pa.field(ORDINAL, pa.int64()), *feature_schema([view])])


def _matched(way: Matching, view: HistoryInput, pairs: "Iterator[tuple[Left, PieceRows]]") -> Matched:
    flush_rows = flush_rows_of(max(way.part_count, len(way.history)), 16, way.memory_bytes // 4)
    by_part = PieceWriter(way.folder, "statuses", STATUSES, way.part_count, flush_rows)
    by_bundle = PieceWriter(way.folder, "hits", HITS, max(1, len(way.history)), flush_rows)
    with by_part, by_bundle:
        for left, rows in pairs:
            indexes, statuses = match(left.spine, rows, view, way.cutoff_us, silent)
            arrays = [pa.array(left.ordinals), pa.array(statuses)]
            by_part.add(pa.RecordBatch.from_arrays(arrays, schema=STATUSES), part_of(left.ordinals, way.part_rows))
            numbers, bundles, targets = _places(rows, indexes)
            arrays = [pa.array(numbers), pa.array(left.ordinals[targets])]
            by_bundle.add(pa.RecordBatch.from_arrays(arrays, schema=HITS), bundles)
    return Matched(Piece(by_part.uri), Piece(by_bundle.uri))


def _computed(way: Matching, view: HistoryInput, pairs: "Iterator[tuple[Left, PieceRows]]") -> Piece:
    schema = computed_schema(view)
    flush_rows = flush_rows_of(way.part_count, feature_bytes(view), way.memory_bytes // 4)
    with PieceWriter(way.folder, "features", schema, way.part_count, flush_rows) as writer:
        for left, rows in pairs:
            looked = join_computed(left.spine, rows, view, way.cutoff_us, silent, event_bytes_max=way.memory_bytes // 4)
            arrays = [pa.array(left.ordinals)]
            for one in looked:
                arrays += [one.values, pa.array(one.statuses)]
            writer.add(pa.RecordBatch.from_arrays(arrays, schema=schema), part_of(left.ordinals, way.part_rows))
    return Piece(writer.uri)


def part_of(ordinals: NDArray[np.int64], part_rows: int) -> NDArray[np.uint32]:
    """Part of the result of every spine row."""
    return (ordinals // part_rows).astype(np.uint32)


def silent(_rows: int) -> None:
    """Spark shows the progress of its tasks itself."""


def _spines(way: Matching, view: HistoryInput, rows: PieceRows) -> Iterator[Left]:
    """A slot range of the spine, as many rows at once as the memory lets."""
    limit = rows_at_once(view, way.memory_bytes)
    held: list[pa.RecordBatch] = []
    firsts: list[NDArray[np.int64]] = []
    count = 0
    for chunk in rows.chunks:
        batch, first = rows.batch(chunk), rows.first_row_of(chunk)
        ordinals = np.asarray(batch.column(ROW)).astype(np.int64) + first
        for start in range(0, batch.num_rows, limit):
            part = batch.slice(start, limit)
            if held and count + part.num_rows > limit:
                yield _left(way, view, held, firsts)
                held, firsts, count = [], [], 0
            held.append(part)
            firsts.append(ordinals[start : start + limit])
            count += part.num_rows
    if held:
        yield _left(way, view, held, firsts)


def _left(way: Matching, view: HistoryInput, held: list[pa.RecordBatch], ordinals: list[NDArray[np.int64]]) -> Left:
    batch = with_salt(pa.concat_batches(held))
    keys = keys_of(batch, [key.spine for key in view.keys], view.keys, "spine")
    return Left(Spine(keys, times_of(batch, way.time_column, "spine")), np.concatenate(ordinals))


def _places(
    rows: PieceRows, indexes: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.int64]]:
    """Row and bundle of what matched, and the places of the spine rows that it matched, by bundle and row."""
    targets = np.flatnonzero(indexes >= 0)
    targets = targets[np.argsort(indexes[targets])]
    wanted = indexes[targets]
    bounds = np.searchsorted(wanted, [chunk.first_row for chunk in rows.chunks] + [rows.row_count])
    numbers = np.empty(len(wanted), np.uint32)
    bundles = np.empty(len(wanted), np.uint32)
    for place, chunk in enumerate(rows.chunks):
        low, high = bounds[place], bounds[place + 1]
        if low < high:
            numbers[low:high] = np.asarray(rows.batch(chunk).column(ROW))[wanted[low:high] - chunk.first_row]
            bundles[low:high] = chunk.file
    return numbers, bundles, targets
