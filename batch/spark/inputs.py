"""Inputs of a job when it is planned: files and snapshots of tables as they are, cut into chunks."""

import pickle
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
from pyiceberg.io import FileIO
from pyiceberg.table import FileScanTask, Table

from batch.historical.checks import check_history, plain
from batch.historical.inputs import HistoryInput
from batch.historical.tables import ParquetRows
from batch.spark.columns import Types, history_types
from batch.spark.computed import CarriedView
from batch.spark.plan import Chunks, FileChunk, FileRows, History, ScanChunk, TableSnapshot
from batch.spark.sources import state_of
from headrace.errors import FailedPrecondition, NotFound

FIELD_ID: Final = b"PARQUET:field_id"
OBJECT_STORE: Final = "s3."  # settings that only pyiceberg's own reader knows


def file_rows(files: str | Sequence[str], what: str) -> FileRows:
    """Parquet files as they are now."""
    names = [files] if isinstance(files, str) else list(files)
    rows = ParquetRows(names, what)
    states = [state_of(name) for name in names]
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


def history_of_table(view: HistoryInput, table: Table, snapshot_id: int | None = None) -> History:
    """A view's history in one snapshot of an Iceberg table, by default the newest."""
    return History(CarriedView.of(view), table_snapshot(table, history_types(view), snapshot_id))


def table_snapshot(table: Table, types: Types, snapshot_id: int | None = None) -> TableSnapshot:
    """The data files of a snapshot, by name. Files without deletes whose columns are those of the table are read row
    group by row group; pyiceberg reads the others, a file at a time.
    """
    snapshot = table.current_snapshot() if snapshot_id is None else table.snapshot_by_id(snapshot_id)
    name = ".".join(table.name())
    if snapshot is None:
        message = f"table {name} has no snapshot {snapshot_id or ''}".rstrip() + "; name one that it keeps"
        raise NotFound(message, reason="UNKNOWN_SNAPSHOT", field="snapshot_id", metadata={"table": name})
    scan = table.scan(snapshot_id=snapshot.snapshot_id)
    schema = scan.projection()
    if missing := [column for column, _ in types if column not in schema.column_names]:
        message = f"snapshot {snapshot.snapshot_id} of table {name} has no column {missing[0]!r}"
        raise FailedPrecondition(message, reason="MISSING_COLUMN", metadata={"table": name, "column": missing[0]})
    ids = {column: (schema.find_field(column).field_id, kind) for column, kind in types}
    chunks: list[FileChunk | ScanChunk] = []
    rows = 0
    for task in sorted(scan.plan_files(), key=lambda task: task.file.file_path):
        found = _chunks_of(task, ids, table.io, rows)
        chunks += found
        rows += sum(chunk.row_count for chunk in found)
    known = table.metadata.model_copy(
        update={"snapshots": [], "snapshot_log": [], "metadata_log": [], "refs": {}, "current_snapshot_id": None}
    )
    carried = pickle.dumps((known, table.io, schema))
    return TableSnapshot(name, snapshot.snapshot_id, rows, tuple(chunks), carried)


def _chunks_of(task: FileScanTask, ids: dict[str, tuple[int, pa.DataType]], files: FileIO, first_row: int) -> Chunks:
    path = task.file.file_path
    if not task.delete_files and not any(key.startswith(OBJECT_STORE) for key in files.properties):
        rows = ParquetRows([path], "table")
        if all(_is_column(rows.schema, name, *wanted) for name, wanted in ids.items()):
            state = state_of(path)
            return tuple(
                FileChunk(path, *state, chunk.group, first_row + chunk.first_row, chunk.row_count)
                for chunk in rows.chunks
            )
    count = task.file.record_count
    return (ScanChunk(path, first_row, count, pickle.dumps(task)),) if count else ()


def _is_column(schema: pa.Schema, name: str, field_id: int, wanted: pa.DataType) -> bool:
    """Whether a file holds the column itself, under its name of today and in a type that is converted without loss."""
    at = schema.get_field_index(name)
    if at < 0 or (schema.field(at).metadata or {}).get(FIELD_ID) != str(field_id).encode():
        return False
    return bool(plain(schema.field(at).type) == plain(_stored(wanted)))


def _stored(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_type)
    return pa.int64() if kind == pa.uint32() else kind
