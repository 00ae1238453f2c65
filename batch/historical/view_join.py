"""The join of one view with a spine that fits in memory: match keys and times first, then gather what matched."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from batch.historical.checks import match_keys, order_of, times_of
from batch.historical.chunks import ChunkReader
from batch.historical.gathered import Gathered, Looked
from batch.historical.inputs import HistoryInput
from batch.historical.parallel import WORKERS, Advance, in_parallel
from batch.historical.tables import Chunk, Rows
from core_ext.asof import Matches, Spine


def join_view(spine: Spine, rows: Rows, view: HistoryInput, cutoff_us: int, advance: Advance) -> list[Looked]:
    """Every feature of the view for every spine row; `advance` is told the history rows read."""
    indexes, row_statuses = match(spine, rows, view, cutoff_us, advance)
    gathered = Gathered(view.columns, indexes >= 0)
    gather_rows(rows, indexes, gathered, advance)
    out: list[Looked | None] = [None] * len(view.columns)
    places = deque(range(len(view.columns)))

    def settle_columns() -> None:
        while places:
            try:
                at = places.popleft()
            except IndexError:
                return
            out[at] = gathered.settled(at, row_statuses, view.fallback, view.include_expired)

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
        reader = ChunkReader()
        for chunk in chunks:
            at = chunk.first_row
            for batch in rows.read(chunk, names, reader):
                keys = match_keys(batch, key_names, view.keys, what)
                event_us = times_of(batch, view.event_time, what)
                matches.feed(keys, event_us, at, cutoff_us, **order_of(batch, view))
                at += batch.num_rows
            advance(chunk.row_count)

    in_parallel(rows.chunks, feed)
    for other in found[1:]:
        found[0].merge(other)
    return found[0].resolve(view.ttl_us, view.stale_us)


def gather_rows(rows: Rows, indexes: NDArray[np.int64], gathered: Gathered, advance: Advance) -> None:
    """Reads the chunks that hold matched rows, and puts their values where they belong."""
    matched = np.flatnonzero(indexes >= 0)
    matched = matched[np.argsort(indexes[matched])]
    wanted = indexes[matched]
    bounds = np.searchsorted(wanted, [chunk.first_row for chunk in rows.chunks] + [rows.row_count])
    ranges = {chunk: (bounds[i], bounds[i + 1]) for i, chunk in enumerate(rows.chunks)}

    def take(chunks: Iterator[Chunk]) -> None:
        reader = ChunkReader()
        for chunk in chunks:
            start, end = ranges[chunk]
            _gather_chunk(rows, chunk, reader, gathered, (wanted[start:end] - chunk.first_row, matched[start:end]))
            advance(chunk.row_count)

    in_parallel([chunk for chunk in rows.chunks if ranges[chunk][0] < ranges[chunk][1]], take)


def _gather_chunk(
    rows: Rows,
    chunk: Chunk,
    reader: ChunkReader,
    gathered: Gathered,
    asked: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    """Values at ascending sources of a chunk for their targets."""
    sources, targets = asked
    picks = gathered.picks(sources, targets)
    left = {id(pick) for pick in rows.take(chunk, list(picks.values()), reader)}
    places = [at for at in range(gathered.column_count) if at not in picks or id(picks[at]) in left]
    if not places:
        return
    at = 0
    for batch in rows.read(chunk, gathered.names(places)):
        low, high = np.searchsorted(sources, [at, at + batch.num_rows])
        gathered.take(batch, places, sources[low:high] - at, targets[low:high])
        at += batch.num_rows
