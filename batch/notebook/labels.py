"""Labels: what a view gives for (T, T + horizon] of each entity row, never anything of T or before."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical.checks import names_of, times_of
from batch.historical.failures import refused
from batch.historical.inputs import HistoryInput
from batch.notebook.computed_labels import computed_labels
from batch.notebook.tables import join_tables
from core_ext import rules

_LATER: Final = "__later"


def with_labels(
    entities: pa.Table, labels: HistoryInput, horizon: timedelta, *, time_column: str, known_us: int
) -> pa.Table:
    """The entity rows with the label columns and a status each.

    MISSING: nothing happened in (T, T + horizon]. UNAVAILABLE: T + horizon is after `known_us`, so nobody knows yet.
    """
    horizon_us = horizon // timedelta(microseconds=1)
    if horizon_us < 1:
        raise refused("OUT_OF_RANGE", "horizon", f"is {horizon}; give a time ahead")
    batch = _whole(entities, time_column)
    times = times_of(batch, time_column, "entities")
    later = times + horizon_us
    unknown = later > known_us
    ahead_of = pa.array(later, pa.timestamp("us", "UTC"))
    if labels.computation is not None:
        joined = computed_labels(entities, labels, ahead_of, horizon_us, later_column=_LATER)
        return _all_settled(joined, labels, unknown)
    spine = entities.append_column(_LATER, ahead_of)
    # What is at T or before has reached the age of the horizon: it comes out expired, which here is no label.
    ahead = replace(
        labels,
        columns=tuple(replace(column, default=None) for column in labels.columns),
        ttl_us=horizon_us,
        stale_us=0,
        fallback=rules.FALLBACK_NONE,
    )
    joined = join_tables(spine, [ahead], time_column=_LATER).drop_columns([_LATER])
    return _all_settled(joined, ahead, unknown)


def _all_settled(joined: pa.Table, labels: HistoryInput, unknown: NDArray[np.bool_]) -> pa.Table:
    for column in labels.columns:
        joined = _settled(joined, labels.output_of(column), unknown)
    return joined


def _settled(table: pa.Table, output: str, unknown: NDArray[np.bool_]) -> pa.Table:
    value, status = names_of(output)
    states = np.asarray(table[status]) & rules.STATE_MASK
    states = np.where(states == rules.EXPIRED, rules.MISSING, states)
    states = np.where(unknown, rules.UNAVAILABLE, states).astype(np.uint8)
    column = table[value].combine_chunks()
    places = pa.array(np.arange(len(column)), mask=states != rules.PRESENT)
    table = table.set_column(table.schema.get_field_index(value), table.schema.field(value), column.take(places))
    return table.set_column(table.schema.get_field_index(status), status, pa.array(states))


def _whole(table: pa.Table, time_column: str) -> pa.RecordBatch:
    if time_column not in table.column_names:
        raise refused("MISSING_COLUMN", "entities", f"have no column {time_column!r}; they have {table.column_names}")
    kind = table.schema.field(time_column).type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        raise refused("NAIVE_TIME", "entities", f"column {time_column!r} is {kind}; times are timestamps in UTC")
    column = table.select([time_column]).combine_chunks()
    return (
        column.to_batches()[0] if column.num_rows else pa.RecordBatch.from_arrays([pa.array([], kind)], [time_column])
    )
