"""Arrow tables of the records of a row log, view by view, without a Python value per row."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.drain.views import LoggedView
from core_ext.row_codec import CorruptRowError
from core_ext.row_columns import decode_keys, decode_rows
from core_ext.row_log import CorruptRecordError, LoggedRows, split_records
from headrace.arrays import array_of
from headrace.errors import DataLoss
from headrace.types import ValueType


def tables_of(records: bytes, view_of: Callable[[int], LoggedView]) -> Iterator[tuple[LoggedView, pa.Table]]:
    """Rows of each view in the records, in the order of the log, with the columns of its table."""
    try:
        rows = split_records(records)
    except CorruptRecordError as error:
        raise _damaged(str(error)) from error
    for view_id in np.unique(rows.view_ids).tolist():
        view = view_of(view_id)
        yield view, _table(records, rows, np.flatnonzero(rows.view_ids == view_id), view)


def _table(records: bytes, rows: LoggedRows, chosen: NDArray[np.intp], view: LoggedView) -> pa.Table:
    columns = view.columns
    starts, ends = rows.row_starts[chosen], rows.row_ends[chosen]
    try:
        decoded = decode_rows(view.schema, records, starts, ends)
        keys = decode_keys([int(scalar) for _, scalar in columns.keys], records, rows.key_starts[chosen], starts)
    except (CorruptRowError, ValueError) as error:
        raise _damaged(f"{columns.ref}: {error}") from error
    arrays = [array_of(part, ValueType(scalar).arrow) for part, (_, scalar) in zip(keys, columns.keys, strict=True)]
    schema = columns.arrow
    arrays += [array_of(part, schema.field(len(arrays) + at).type) for at, part in enumerate(decoded.columns)]
    system = (
        decoded.event_times_us,
        decoded.write_times_us,
        decoded.available_times_us,
        decoded.source_ids,
        decoded.partitions,
        decoded.offsets,
        decoded.tombstones,
    )
    arrays += [pa.array(values).cast(schema.field(len(arrays) + at).type) for at, values in enumerate(system)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _damaged(what: str) -> DataLoss:
    return DataLoss(f"a row log arrived damaged: {what}", reason="ROW_LOG_CORRUPT")
