"""Reads inputs of a job: their shape when it is planned, their rows inside the workers."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from batch.historical.checks import check_history, keys_of, times_of
from batch.historical.failures import changed
from batch.historical.inputs import HistoryInput
from batch.historical.tables import Chunk, ParquetRows, located
from batch.spark.columns import history_types
from batch.spark.computed import CarriedView
from batch.spark.plan import FileChunk, FileRows, History, TableSnapshot
from core_ext.hashing import SLOT_COUNT
from core_ext.keys import KeyBatch

ORDINAL = "__row"
FILE = "__file"
AT = "__at_us"
GROUP = "__group"


def file_rows(files: str | Sequence[str], what: str) -> FileRows:
    """Parquet files as they are now."""
    names = [files] if isinstance(files, str) else list(files)
    rows = ParquetRows(names, what)
    states = [_state(name) for name in names]
    chunks = [
        FileChunk(names[chunk.file], *states[chunk.file], chunk.group, chunk.first_row, chunk.row_count)
        for chunk in rows.chunks
    ]
    return FileRows(tuple(chunks), tuple(names), rows.schema, rows.row_count)


def history_of_files(view: HistoryInput, files: str | Sequence[str]) -> History:
    """A view's history in Parquet files; refuses columns that do not fit."""
    rows = file_rows(files, f"history {view.name}")
    check_history(rows.schema, view)
    return History(CarriedView.of(view), rows)


def history_of_table(view: HistoryInput, snapshot: TableSnapshot) -> History:
    """A view's history in one snapshot of an Iceberg table."""
    return History(CarriedView.of(view), snapshot)


def read_chunk(chunk: FileChunk, columns: Sequence[str], what: str) -> Iterator[pa.RecordBatch]:
    """Batches of a row group. Raises FailedPrecondition when the file is not what it was."""
    if _state(chunk.file) != (chunk.size_bytes, chunk.mtime_ns):
        raise changed(chunk.file)
    yield from ParquetRows([chunk.file], what).read(Chunk(0, chunk.row_count, 0, chunk.group), columns)


def spine_batches(
    chunks: Iterable[FileChunk], time_column: str, views: Sequence[HistoryInput], groups: int
) -> Iterator[pa.RecordBatch]:
    """Ordinal, time, keys and one slot range per view of every spine row."""
    names = list(dict.fromkeys([*(key.spine for view in views for key in view.keys), time_column]))
    for chunk in chunks:
        first = chunk.first_row
        for batch in read_chunk(chunk, names, "spine"):
            keys = {key.spine: carried_key(batch, key.spine) for view in views for key in view.keys}
            columns = {
                ORDINAL: pa.array(np.arange(first, first + batch.num_rows)),
                AT: pa.array(times_of(batch, time_column, "spine")),
                **keys,
            }
            for i, view in enumerate(views):
                encoded = keys_of(batch, [key.spine for key in view.keys], view.keys, "spine")
                columns[f"{GROUP}_{i}"] = group_numbers(encoded, groups)
            yield pa.RecordBatch.from_pydict(columns)
            first += batch.num_rows


def history_batches(chunks: Iterable[FileChunk], view: HistoryInput, groups: int) -> Iterator[pa.RecordBatch]:
    """What the join needs of every history row, its place and its slot range."""
    what = f"history {view.name}"
    names = list(dict.fromkeys([*view.match_columns(), *view.value_columns()]))
    for chunk in chunks:
        first = chunk.first_row
        for batch in read_chunk(chunk, names, what):
            places = {FILE: pa.array([""] * batch.num_rows), ORDINAL: np.arange(first, first + batch.num_rows)}
            yield carried_history(batch, view, groups, places)
            first += batch.num_rows


def carried_history(
    batch: pa.RecordBatch, view: HistoryInput, groups: int, places: dict[str, object]
) -> pa.RecordBatch:
    """A batch of a history in the types that Spark carries, with its slot range."""
    what = f"history {view.name}"
    for name in view.times():
        times_of(batch, name, what)  # refuses nulls and what is no whole microsecond, while the column can be named
    keys = keys_of(batch, [key.history for key in view.keys], view.keys, what)
    columns: dict[str, object] = {
        name: batch.column(name).cast(carried) for name, (_, carried, _) in history_types(view).items()
    }
    return pa.RecordBatch.from_pydict({**columns, **places, GROUP: group_numbers(keys, groups)})


def carried_key(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A key column without dictionaries and wide offsets."""
    column = batch.column(name)
    if pa.types.is_integer(column.type):
        return column
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return column.cast(pa.string() if text else pa.binary()) if not pa.types.is_integer(kind) else column.cast(kind)


def group_numbers(keys: KeyBatch, groups: int) -> pa.Array:
    """Slot range of every key."""
    return pa.array(keys.slots.astype(np.int32) * groups // SLOT_COUNT, pa.int32())


def _state(file: str) -> tuple[int, int]:
    filesystem, path = located(file)
    info = filesystem.get_file_info(path)
    return info.size, info.mtime_ns
