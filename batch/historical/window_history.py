"""Values of a view for every entity of its history at given times, by the local engine."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from batch.historical.grid import checked_times, entity_grid
from batch.historical.inputs import Files, HistoryInput
from batch.historical.join import MEMORY_LIMIT_BYTES, JoinReport, Progress, join_to_parquet, rows_of

TIME_COLUMN = "event_time"


def window_history(
    view: HistoryInput,
    rows: Files | pa.Table,
    output: str,
    *,
    times_us: Sequence[int],
    cutoff_us: int,
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    progress: Progress = lambda stage, done, total: None,
) -> JoinReport:
    """Writes a row for every entity and every time from its first event on, by slot, key bytes and time.

    The entities and times themselves are held in memory; what they are joined with keeps the limit.
    """
    times = checked_times(times_us)
    spine = entity_grid(_batches(view, rows), view, times, cutoff_us, TIME_COLUMN)
    return join_to_parquet(
        spine,
        [replace(view, rows=rows)],
        output,
        time_column=TIME_COLUMN,
        cutoff_us=cutoff_us,
        memory_limit_bytes=memory_limit_bytes,
        progress=progress,
    )


def _batches(view: HistoryInput, rows: Files | pa.Table) -> Iterator[pa.RecordBatch]:
    read = rows_of(rows, f"history {view.name}")
    for chunk in read.chunks:
        yield from read.read(chunk, view.match_columns())
