"""Entity rows that nobody brings: every entity of a history at given times, in an order that is always the same."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from batch.historical.checks import keys_of, order_of, times_of
from batch.historical.failures import refused
from batch.historical.inputs import HistoryInput
from core_ext.keys import KeyBatch
from headrace.types import ValueType

TIMES_MAX: Final = 100_000  # hours of eleven years
_FIRST: Final = "__first_us"
_UTC: Final = pa.timestamp("us", "UTC")


def checked_times(times_us: Sequence[int]) -> tuple[int, ...]:
    """Times in rising order; refuses none, too many, and one that stands there twice."""
    found = tuple(sorted(times_us))
    if not 1 <= len(found) <= TIMES_MAX:
        raise refused("OUT_OF_RANGE", "times", f"are {len(found)}; name 1 to {TIMES_MAX}")
    if len(set(found)) < len(found):
        raise refused("TIME_TWICE", "times", "name a moment twice; name each once")
    return found


def entity_grid(
    batches: Iterable[pa.RecordBatch], view: HistoryInput, times_us: Sequence[int], cutoff_us: int, time_column: str
) -> pa.Table:
    """A row for every entity and every time from its first event on, by slot, key bytes and time.

    Events written after the cut-off are not seen. Holds 16 bytes and the keys of each entity, and the rows.
    """
    names = [key.spine for key in view.keys]
    found = pa.schema([*((key.spine, ValueType(key.scalar).arrow) for key in view.keys), (_FIRST, pa.int64())])
    held = pa.table({field.name: pa.array([], field.type) for field in found})
    for batch in batches:
        held = _earliest(pa.concat_tables([held, _firsts(batch, view, cutoff_us, found)]), names)
    if held.num_rows == 0:
        return held.drop_columns([_FIRST]).append_column(time_column, pa.array([], _UTC))
    batch = held.combine_chunks().to_batches()[0]
    keys = keys_of(batch, names, view.keys, "entities")
    held = held.take(pa.array(_ordered(keys)))
    times = np.asarray(times_us, np.int64)
    starts = np.searchsorted(times, np.asarray(held[_FIRST].combine_chunks()), side="left")
    counts = len(times) - starts
    rows = np.repeat(np.arange(held.num_rows), counts)
    ends = np.cumsum(counts)
    places = np.arange(len(rows)) - np.repeat(ends - counts, counts) + np.repeat(starts, counts)
    spine = held.drop_columns([_FIRST]).take(pa.array(rows))
    return spine.append_column(time_column, pa.array(times[places], _UTC))


def _firsts(batch: pa.RecordBatch, view: HistoryInput, cutoff_us: int, schema: pa.Schema) -> pa.Table:
    what = f"history {view.name}"
    event_us = times_of(batch, view.event_time, what)
    write_us = order_of(batch, view).get("write_us", event_us)
    columns = [batch.column(key.history).cast(ValueType(key.scalar).arrow) for key in view.keys]
    table = pa.Table.from_arrays([*columns, pa.array(event_us)], schema=schema)
    return _earliest(table.filter(pa.array(write_us <= cutoff_us)), [key.spine for key in view.keys])


def _earliest(table: pa.Table, names: Sequence[str]) -> pa.Table:
    found = table.group_by(list(names), use_threads=False).aggregate([(_FIRST, "min")])
    return found.rename_columns([_FIRST if name == f"{_FIRST}_min" else name for name in found.column_names]).select(
        [*names, _FIRST]
    )


def _ordered(keys: KeyBatch) -> list[int]:
    slots = keys.slots.tolist()
    return sorted(range(len(keys)), key=lambda row: (slots[row], keys.key(row)))
