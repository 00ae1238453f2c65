"""The join of one view with a spine that fits in memory: match keys and times first, then gather what matched."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from batch.historical.checks import keys_of, order_of, times_of
from batch.historical.gathered import Gathered, Looked
from batch.historical.inputs import HistoryInput
from batch.historical.parallel import WORKERS, Advance, in_parallel
from batch.historical.tables import Chunk, Rows
from core_ext.asof import Matches, Spine


def join_view(spine: Spine, rows: Rows, view: HistoryInput, cutoff_us: int, advance: Advance) -> list[Looked]:
    """Every feature of the view for every spine row; `advance` is told the history rows read."""
    indexes, row_statuses = match(spine, rows, view, cutoff_us, advance)
    gathered = Gathered(view.columns, len(spine))
    gather_rows(rows, list(view.value_columns()), indexes, gathered, advance)
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


def gather_rows(
    rows: Rows, names: Sequence[str], indexes: NDArray[np.int64], gathered: Gathered, advance: Advance
) -> None:
    """Reads the chunks that hold matched rows, and puts their values where they belong."""
    matched = np.flatnonzero(indexes >= 0)
    firsts = np.array([chunk.first_row for chunk in rows.chunks], np.int64)
    of_chunk = (np.searchsorted(firsts, indexes[matched], side="right") - 1).astype(np.uint32)
    order = np.argsort(of_chunk, kind="stable")
    matched, bounds = matched[order], np.searchsorted(of_chunk[order], np.arange(len(firsts) + 1))
    ranges = {chunk: (bounds[i], bounds[i + 1]) for i, chunk in enumerate(rows.chunks)}

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
