"""Rows of files as Arrow tables of the types that a view has."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pa_parquet

from headrace.errors import InvalidArgument

BATCH_ROWS: Final = 65_536  # of one read of a file; a few MiB of memory
_SUFFIXES: Final = ".parquet, .arrow, .feather, .csv, .jsonl, .ndjson"


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows of one file, in batches; the count is None where only reading would tell."""

    batches: Iterator[pa.Table]
    row_count: int | None


def read_rows(path: Path, schema: pa.Schema) -> FileRows:
    """Rows of a file as the columns of a schema, in its types; raises InvalidArgument naming file and column."""
    if not path.is_file():
        raise _bad(path, "is no file that can be read", "FILE_NOT_READABLE")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise _bad(path, f"has no known form; use one of {_SUFFIXES}", "FILE_FORM")
    try:
        rows = reader(path, schema)
    except (pa.ArrowException, OSError) as error:
        raise _bad(path, f"cannot be read: {error}", "FILE_NOT_READABLE") from error
    return FileRows(_conformed(path, rows.batches, schema), rows.row_count)


def named_rows(name: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> FileRows:
    """Rows that come from elsewhere as the columns of a schema; messages give them a name."""
    return FileRows(_conformed(Path(name), (pa.Table.from_batches([batch]) for batch in batches), schema), None)


def select(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """The named columns under new names: new name to old."""
    return pa.table({new: table.column(old) for new, old in columns.items()})


def _conformed(path: Path, batches: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    try:
        for table in batches:
            yield pa.table({field.name: _column(path, table, field) for field in schema})
    except pa.ArrowException as error:
        raise _bad(path, f"cannot be read: {error}", "FILE_NOT_READABLE") from error


def _column(path: Path, table: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    """The column in its type: text is parsed, integers change width when they fit; nothing else is cast."""
    position = table.schema.get_field_index(field.name)
    if position < 0:
        raise _bad(path, f"has no column {field.name}; it has {', '.join(table.column_names)}", "COLUMN_MISSING")
    column = table.column(position)
    found = column.type
    if found == field.type:
        return column
    is_text = pa.types.is_string(found) or pa.types.is_large_string(found)
    if pa.types.is_timestamp(field.type) and pa.types.is_timestamp(found) and found.tz is None:
        raise _bad(
            path, f"column {field.name} holds times without a zone; write them with one, such as Z", "NAIVE_TIME"
        )
    same_kind = (
        is_text
        or pa.types.is_null(found)
        or (pa.types.is_integer(found) and pa.types.is_integer(field.type))
        or (pa.types.is_timestamp(found) and pa.types.is_timestamp(field.type))
        or (pa.types.is_list(found) and pa.types.is_list(field.type))
        or (pa.types.is_list(found) and pa.types.is_fixed_size_list(field.type))
        or (pa.types.is_large_binary(found) and pa.types.is_binary(field.type))
    )
    if not same_kind:
        raise _bad(path, f"column {field.name} is {found}, and the view needs {field.type}", "COLUMN_TYPE")
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        reason = "NAIVE_TIME" if "zone offset" in str(error) else "COLUMN_VALUE"
        raise _bad(path, f"column {field.name} does not hold {field.type}: {error}", reason) from error


def _parquet(path: Path, schema: pa.Schema) -> FileRows:
    file = pa_parquet.ParquetFile(path)
    wanted = [name for name in file.schema_arrow.names if name in schema.names]
    batches = (pa.Table.from_batches([batch]) for batch in file.iter_batches(BATCH_ROWS, columns=wanted))
    return FileRows(batches, file.metadata.num_rows)


def _arrow(path: Path, schema: pa.Schema) -> FileRows:
    with pa.memory_map(str(path)) as source:
        try:
            table = pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:  # the stream form has no footer
            source.seek(0)
            table = pa.ipc.open_stream(source).read_all()
    return FileRows(_slices(table), table.num_rows)


def _csv(path: Path, schema: pa.Schema) -> FileRows:
    """Values are read as the view's types; an empty field without quotes is null."""
    options = pa_csv.ConvertOptions(
        column_types={field.name: _parsed(field.type) for field in schema},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    reader = pa_csv.open_csv(path, convert_options=options)
    return FileRows((pa.Table.from_batches([batch]) for batch in reader), None)


def _json(path: Path, schema: pa.Schema) -> FileRows:
    fields = pa.schema([pa.field(field.name, _parsed(field.type)) for field in schema])
    table = pa_json.read_json(path, parse_options=pa_json.ParseOptions(explicit_schema=fields))
    return FileRows(_slices(table), table.num_rows)


def _parsed(kind: pa.DataType) -> pa.DataType:
    """Times are read as text, so that one without a zone is refused and not taken for UTC."""
    return pa.string() if pa.types.is_timestamp(kind) else kind


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, max(1, table.num_rows), BATCH_ROWS):
        yield table.slice(start, BATCH_ROWS)


_READERS: Final = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".csv": _csv,
    ".jsonl": _json,
    ".ndjson": _json,
}


def _bad(path: Path, problem: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"{path} {problem}", reason=reason, field="file", metadata={"file": str(path)})
