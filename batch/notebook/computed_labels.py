"""Labels that are computed: a view's windows and expressions over the events in (T, T + horizon] of each row alone."""

from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.historical.checks import check_history, keys_of, times_of
from batch.historical.failures import refused
from batch.historical.inputs import HistoryInput, KeyColumn
from batch.notebook.tables import join_tables
from core_ext import rules
from headrace.types import Scalar

PAIRS_MAX: Final = 50_000_000  # events that are copied, once for each row whose horizon they are in
ROW: Final = "label\trow"  # no column of a source has a tab


def computed_labels(
    entities: pa.Table, labels: HistoryInput, later: pa.Array, horizon_us: int, *, later_column: str
) -> pa.Table:
    """The entity rows with the features at `later` of the events since the row's time, which are all that is seen.

    So no label has seen what its features saw, however long its windows are. Each row is an entity of its own here.
    """
    rows = labels.rows
    assert isinstance(rows, pa.Table), "made by history_of"
    check_history(rows.schema, labels)
    spine = entities.append_column(later_column, later)
    row, event = _pairs(spine, rows, labels, np.asarray(later.view(pa.int64())), horizon_us)
    ahead = replace(
        labels,
        rows=rows.take(pa.array(event)).append_column(ROW, pa.array(row, pa.int64())),
        keys=(KeyColumn(ROW, ROW, Scalar.I64),),
        columns=tuple(replace(column, default=None) for column in labels.columns),
        ttl_us=0,
        stale_us=0,
        fallback=rules.FALLBACK_NONE,
    )
    numbered = spine.append_column(ROW, pa.array(np.arange(spine.num_rows), pa.int64()))
    return join_tables(numbered, [ahead], time_column=later_column).drop_columns([ROW, later_column])


def _pairs(
    spine: pa.Table, rows: pa.Table, labels: HistoryInput, later_us: NDArray[np.int64], horizon_us: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every spine row with every event of its entity in (later - horizon, later], in the order of the events."""
    wanted = _keys(spine, [key.spine for key in labels.keys], labels, "entities")
    held = _keys(rows, [key.history for key in labels.keys], labels, "events")
    codes = {key: code for code, key in enumerate(dict.fromkeys(held))}
    event_codes = np.array([codes[key] for key in held], np.int64)
    row_codes = np.array([codes.get(key, -1) for key in wanted], np.int64)
    event_us = times_of(_batch(rows.select([labels.event_time])), labels.event_time, "events")
    order = np.lexsort((event_us, event_codes))
    starts = np.searchsorted(event_codes[order], np.arange(len(codes) + 1))
    sorted_us = event_us[order]
    first, last = np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
    by_code = np.argsort(row_codes, kind="stable")
    bounds = np.searchsorted(row_codes[by_code], np.arange(len(codes) + 1))
    for code in range(len(codes)):
        mine = by_code[bounds[code] : bounds[code + 1]]
        times = sorted_us[starts[code] : starts[code + 1]]
        first[mine] = starts[code] + np.searchsorted(times, later_us[mine] - horizon_us, side="right")
        last[mine] = starts[code] + np.searchsorted(times, later_us[mine], side="right")
    counts = np.maximum(last - first, 0)
    if counts.sum() > PAIRS_MAX:
        raise refused(
            "TOO_MANY_EVENTS",
            "entities",
            f"have {counts.sum()} events in their horizons, over {PAIRS_MAX}; take fewer rows at once, or a shorter "
            "horizon",
        )
    row = np.repeat(np.arange(len(wanted)), counts)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = order[np.repeat(first, counts) + within] if len(row) else np.empty(0, np.int64)
    # In the order of the events of the table, by which the kernel decides between equal ones.
    place = np.argsort(chosen, kind="stable")
    return row[place].astype(np.int64), chosen[place].astype(np.int64)


def _keys(table: pa.Table, names: list[str], labels: HistoryInput, what: str) -> list[bytes]:
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise refused("MISSING_COLUMN", what, f"have no column {missing[0]!r}; they have {table.column_names}")
    encoded = keys_of(_batch(table.select(names)), names, labels.keys, what)
    return [encoded.key(at) for at in range(table.num_rows)]


def _batch(table: pa.Table) -> pa.RecordBatch:
    columns = [
        pa.concat_arrays([pa.array([], column.type), *column.chunks]) for column in table.combine_chunks().columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)
