"""Tables of a notebook as Arrow: pandas, polars, and Arrow itself."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch.historical import HistoryInput, join_to_parquet
from batch.historical.failures import refused

FOREVER_US: Final = 2**62


def to_arrow(table: Any, what: str) -> pa.Table:  # Any: pandas and polars are optional
    """The rows of a pandas or polars frame, an Arrow table, batch or reader."""
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    if isinstance(table, pa.RecordBatchReader):
        return table.read_all()
    kind = type(table)
    if kind.__module__.partition(".")[0] == "polars":
        return table.to_arrow()
    if kind.__module__.partition(".")[0] == "pandas":
        try:
            return pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
        except pa.ArrowException as error:
            raise refused("WRONG_TYPE", what, f"cannot be read: {error}; give each column one type") from error
    raise refused("WRONG_TYPE", what, f"is a {kind.__name__}; give pandas, polars or Arrow rows")


def join_tables(
    entities: pa.Table, views: Sequence[HistoryInput], *, time_column: str, cutoff_us: int = FOREVER_US
) -> pa.Table:
    """The entity rows with every feature and status, by the engine of the big joins."""
    with tempfile.TemporaryDirectory(prefix="headrace-notebook-") as folder:
        output = str(Path(folder) / "result.parquet")
        join_to_parquet(entities, views, output, time_column=time_column, cutoff_us=cutoff_us, temp_folder=folder)
        return pq.read_table(output)
