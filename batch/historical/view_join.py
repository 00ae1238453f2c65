"""The join of one view with a spine that fits in memory: match keys and times first, then gather what matched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batch.historical.checks import match_keys, order_of, times_of
from batch.historical.chunks import ChunkReader
from batch.historical.gathered import Gathered, Looked
from batch.historical.inputs import HistoryInput
from batch.historical.parallel import WORKERS, Advance, in_parallel
from batch.historical.tables import Chunk, Rows
from core_ext.asof import Matches, Spine
from core_ext.keys import KeyBatch
from core_ext.sweeps import Queries, Resolution, Sweep, arranged

SWEEPS: Final = 2 * WORKERS  # parts of a history, 16 bytes an entity each: a worker that is late has less left
GATHERS: Final = 4 * WORKERS  # parts of a history; each looks at all indexes once
RESOLVED_ROWS: Final = 1 << 16


def join_view(
    spine: Spine, rows: Rows, view: HistoryInput, cutoff_us: int, advance: Advance, *, queries: Queries | None = None
) -> list[Looked]:
    """Every feature of the view for every spine row; `advance` is told the history rows read.

    `queries` are those of the spine, where the caller has them.
    """
    indexes, row_statuses = match(spine, rows, view, cutoff_us, advance, queries=queries)
    gathered = Gathered(view.columns, indexes >= 0)
    gather_rows(rows, indexes, gathered, advance)
    out: list[Looked | None] = [None] * len(view.columns)
    shared = gathered.settlement(row_statuses, view.fallback, view.include_expired)

    def settle_columns(places: Iterator[int]) -> None:
        for at in places:
            out[at] = gathered.settled(at, row_statuses, view.fallback, view.include_expired, shared=shared)

    in_parallel(range(len(view.columns)), settle_columns)
    return [one for one in out if one is not None]


def match(
    spine: Spine, rows: Rows, view: HistoryInput, cutoff_us: int, advance: Advance, *, queries: Queries | None = None
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """History index and row status of every spine row."""
    queries = queries or Queries(spine)
    swept: list[Sweep] = []
    fed: list[Matches] = []
    has_ties = any((view.write_time, view.source_id, view.partition, view.offset))

    def feed(parts: Iterator[Sequence[Chunk]]) -> None:
        matches, reader = None, ChunkReader()
        for part in parts:
            sweep = Sweep(queries, has_ties)
            swept.append(sweep)
            for batch in _batches(rows, part, view, reader, advance):
                if batch.into(sweep, cutoff_us):
                    continue
                if matches is None:
                    matches = Matches(spine, has_ties)
                    fed.append(matches)
                batch.into(matches, cutoff_us)

    in_parallel(_parts(rows.chunks, WORKERS if has_ties else SWEEPS), feed)
    for other in fed[1:]:
        fed[0].merge(other)
    return _resolved(Resolution(queries, swept, fed[0] if fed else None), len(spine), view)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Keys, times and order of some history rows."""

    keys: KeyBatch | NDArray[np.int64]
    event_us: NDArray[np.int64]
    first_index: int
    order: dict[str, Any]  # arrays of several types

    def into(self, to: Sweep | Matches, cutoff_us: int) -> bool:
        """Whether they were taken."""
        return to.feed(self.keys, self.event_us, self.first_index, cutoff_us, **self.order) is not False


def _batches(
    rows: Rows, chunks: Sequence[Chunk], view: HistoryInput, reader: ChunkReader, advance: Advance
) -> Iterator[_Batch]:
    names, what = view.match_columns(), f"history {view.name}"
    key_names = [key.history for key in view.keys]
    for chunk in chunks:
        at = chunk.first_row
        for batch in rows.read(chunk, names, reader):
            keys = match_keys(batch, key_names, view.keys, what)
            yield _Batch(keys, times_of(batch, view.event_time, what), at, order_of(batch, view))
            at += batch.num_rows
        advance(chunk.row_count)


def _parts(chunks: Sequence[Chunk], count: int) -> list[Sequence[Chunk]]:
    """Chunks that follow one another, in up to `count` parts."""
    bounds = [len(chunks) * i // count for i in range(count + 1)]
    return [chunks[start:end] for start, end in pairwise(bounds) if start < end]


def _resolved(
    resolution: Resolution, row_count: int, view: HistoryInput
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    indexes, statuses = np.empty(row_count, np.int64), np.empty(row_count, np.uint8)

    def resolve(starts: Iterator[int]) -> None:
        for start in starts:
            end = min(start + RESOLVED_ROWS, row_count)
            resolution.part(start, end, view.ttl_us, view.stale_us, indexes, statuses)

    in_parallel(range(0, row_count, RESOLVED_ROWS), resolve)
    return indexes, statuses


def gather_rows(rows: Rows, indexes: NDArray[np.int64], gathered: Gathered, advance: Advance) -> None:
    """Reads the chunks that hold matched rows, and puts their values where they belong."""

    def take(parts: Iterator[Sequence[Chunk]]) -> None:
        reader = ChunkReader()
        for part in parts:
            firsts = [chunk.first_row for chunk in part]
            end = firsts[-1] + part[-1].row_count
            wanted, matched = arranged(indexes, firsts[0], end)
            bounds = pairwise(np.searchsorted(wanted, [*firsts, end]).tolist())
            for chunk, (start, past) in zip(part, bounds, strict=True):
                if start < past:
                    asked = (wanted[start:past] - chunk.first_row, matched[start:past])
                    _gather_chunk(rows, chunk, reader, gathered, asked)
                    advance(chunk.row_count)

    in_parallel(_parts(rows.chunks, GATHERS), take)


def _gather_chunk(
    rows: Rows,
    chunk: Chunk,
    reader: ChunkReader,
    gathered: Gathered,
    asked: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    """Values at ascending sources of a chunk for their targets."""
    sources, targets = asked
    picks = gathered.picks(chunk.row_count, sources, targets)
    left = {id(pick) for pick in rows.take(chunk, list(picks.values()), reader)}
    places = [at for at in range(gathered.column_count) if at not in picks or id(picks[at]) in left]
    if not places:
        return
    at = 0
    for batch in rows.read(chunk, gathered.names(places)):
        low, high = np.searchsorted(sources, [at, at + batch.num_rows])
        gathered.take(batch, places, sources[low:high] - at, targets[low:high])
        at += batch.num_rows
