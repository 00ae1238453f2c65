"""The join of one view with a spine that fits in memory: match keys and times first, then gather what matched."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical.checks import cast, keys_of, order_of, times_of
from batch.historical.inputs import FeatureColumn, HistoryInput, kind_of
from batch.historical.tables import Chunk, Rows
from core_ext import rules
from core_ext.arrow import arrow_column
from core_ext.asof import Matches, Spine, gather, settle
from headrace.types import Scalar, Shape, ValueType

WORKERS: Final = 2  # threads that decode and feed; each keeps its own matches, 40 bytes a spine row
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Looked:
    """One feature for every spine row."""

    values: pa.Array
    statuses: NDArray[np.uint8]


def in_parallel(chunks: Sequence[Chunk], work: Callable[[Iterator[Chunk]], None]) -> None:
    """Runs `work` in every worker over chunks that they share; the first error stops all and is raised."""
    left = deque(chunks)

    def take() -> Iterator[Chunk]:
        while left:
            try:
                yield left.popleft()
            except IndexError:
                return

    def run() -> None:
        try:
            work(take())
        except BaseException:
            left.clear()
            raise

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="as-of") as pool:
        try:
            for done in [pool.submit(run) for _ in range(WORKERS)]:
                done.result()
        except BaseException:  # an interrupt comes to this thread: the workers end with the chunk that they have
            left.clear()
            raise


def join_view(spine: Spine, rows: Rows, view: HistoryInput, cutoff_us: int, advance: Advance) -> list[Looked]:
    """Every feature of the view for every spine row; `advance` is told the history rows read."""
    indexes, row_statuses = match(spine, rows, view, cutoff_us, advance)
    gathered = _Gathered(view, len(spine))
    _gather(rows, view, indexes, gathered, advance)
    out: list[Looked | None] = [None] * len(view.columns)
    places = deque(range(len(view.columns)))

    def settle_columns() -> None:
        while places:
            try:
                at = places.popleft()
            except IndexError:
                return
            out[at] = gathered.settled(at, row_statuses)

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="as-of") as pool:
        for done in [pool.submit(settle_columns) for _ in range(WORKERS)]:
            done.result()
    return [one for one in out if one is not None]


def match(
    spine: Spine, rows: Rows, view: HistoryInput, cutoff_us: int, advance: Advance
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """History index and row status of every spine row."""
    found: list[Matches] = []
    names, what = view.match_columns(), f"history {view.name}"
    key_names = [key.history for key in view.keys]
    has_ties = any((view.write_time, view.source_id, view.partition, view.offset))

    def feed(chunks: Iterator[Chunk]) -> None:
        matches = Matches(spine, has_ties)
        found.append(matches)
        for chunk in chunks:
            at = chunk.first_row
            for batch in rows.read(chunk, names):
                keys = keys_of(batch, key_names, view.keys, what)
                event_us = times_of(batch, view.event_time, what)
                matches.feed(keys, event_us, at, cutoff_us, **order_of(batch, view))
                at += batch.num_rows
            advance(chunk.row_count)

    in_parallel(rows.chunks, feed)
    for other in found[1:]:
        found[0].merge(other)
    return found[0].resolve(view.ttl_us, view.stale_us)


def _gather(
    rows: Rows, view: HistoryInput, indexes: NDArray[np.int64], gathered: "_Gathered", advance: Advance
) -> None:
    """Reads the chunks that hold matched rows, and puts their values where they belong."""
    matched = np.flatnonzero(indexes >= 0)
    firsts = np.array([chunk.first_row for chunk in rows.chunks], np.int64)
    of_chunk = (np.searchsorted(firsts, indexes[matched], side="right") - 1).astype(np.uint32)
    order = np.argsort(of_chunk, kind="stable")
    matched, bounds = matched[order], np.searchsorted(of_chunk[order], np.arange(len(firsts) + 1))
    ranges = {chunk: (bounds[i], bounds[i + 1]) for i, chunk in enumerate(rows.chunks)}
    names = view.value_columns()

    def take(chunks: Iterator[Chunk]) -> None:
        for chunk in chunks:
            start, end = ranges[chunk]
            targets = matched[start:end]
            sources = indexes[targets]
            by_source = np.argsort(sources)
            targets, sources = targets[by_source], sources[by_source]
            at = chunk.first_row
            for batch in rows.read(chunk, names):
                low, high = np.searchsorted(sources, [at, at + batch.num_rows])
                gathered.take(batch, sources[low:high] - at, targets[low:high])
                at += batch.num_rows
            advance(chunk.row_count)

    in_parallel([chunk for chunk in rows.chunks if ranges[chunk][0] < ranges[chunk][1]], take)


class _Gathered:
    """Values of a view's columns under way, one slot a spine row; threads write to different slots."""

    def __init__(self, view: HistoryInput, row_count: int) -> None:
        self._view = view
        self._row_count = row_count
        self._nulls = [np.ones(row_count, np.uint8) for _ in view.columns]
        self._fixed = [np.zeros(row_count * column.type.slot_bytes, np.uint8) for column in view.columns]
        self._parts: list[list[tuple[NDArray[np.int64], pa.Array]]] = [[] for _ in view.columns]

    def take(self, batch: pa.RecordBatch, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
        """Values at `sources` of a batch for the spine rows `targets`."""
        for i, column in enumerate(self._view.columns):
            values = cast(batch.column(column.name), column.type)
            if column.type.is_variable:
                part = values.take(pa.array(sources))
                self._nulls[i][targets] = np.asarray(part.is_null())
                self._parts[i].append((targets, part))
            else:
                gather(kind_of(column.type), arrow_column(values), sources, targets, self._fixed[i], self._nulls[i])

    def settled(self, at: int, row_statuses: NDArray[np.uint8]) -> Looked:
        """The column with its statuses, by the value rules."""
        column, view = self._view.columns[at], self._view
        default = None if column.default is None else pa.array([column.default], column.type.arrow)
        nulls = self._nulls[at]
        if column.type.is_variable:
            mark = None if default is None else b""
            statuses, slots = settle(row_statuses, nulls, view.fallback, mark, view.include_expired)
            return Looked(self._variable(at, column, default, slots), statuses)
        mark = None if default is None else _slot_of(default, column.type)
        values = self._fixed[at]
        statuses, slots = settle(row_statuses, nulls, view.fallback, mark, view.include_expired, values)
        return Looked(_fixed_array(column.type, values, slots != rules.SLOT_EMPTY), statuses)

    def _variable(self, at: int, column: FeatureColumn, default: pa.Array | None, slots: NDArray[np.uint8]) -> pa.Array:
        parts = self._parts[at]
        places = np.zeros(self._row_count, np.int64)
        if parts:
            targets = np.concatenate([part[0] for part in parts])
            places[targets] = np.arange(len(targets))
        arrays = [part[1] for part in parts] + ([] if default is None else [default])
        stored = pa.concat_arrays(arrays or [pa.array([], column.type.arrow)])
        places[slots == rules.SLOT_DEFAULT] = len(stored) - 1
        return stored.take(pa.array(places, mask=slots == rules.SLOT_EMPTY))


def _slot_of(default: pa.Array, kind: ValueType) -> bytes:
    """Bytes of a default of fixed width."""
    values, nulls = np.zeros(kind.slot_bytes, np.uint8), np.zeros(1, np.uint8)
    gather(kind_of(kind), arrow_column(default), np.zeros(1, np.int64), np.zeros(1, np.int64), values, nulls)
    return values.tobytes()


def _fixed_array(kind: ValueType, values: NDArray[np.uint8], filled: NDArray[np.bool_]) -> pa.Array:
    """Arrow array over the slots, without a copy unless they are booleans."""
    count = len(filled)
    empty_count = count - int(np.count_nonzero(filled))
    validity = pa.py_buffer(np.packbits(filled, bitorder="little")) if empty_count else None
    if kind.scalar is Scalar.BOOL:
        values = np.packbits(values, bitorder="little")
    data = pa.py_buffer(values)
    if kind.shape is not Shape.FIXED:
        return pa.Array.from_buffers(kind.arrow, count, [validity, data], empty_count)
    child = pa.Array.from_buffers(ValueType(kind.scalar).arrow, count * kind.list_size, [None, data], 0)
    return pa.Array.from_buffers(kind.arrow, count, [validity], empty_count, children=[child])
