"""Runs the SELECT of a source over Parquet files and tables of the lake, and gives its rows in their declared types."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads

from batch.offline import columns as system
from headrace.definitions.checks import invalid
from headrace.definitions.sources import LAKE_SCHEME, Source
from headrace.errors import FailedPrecondition, ResourceExhausted
from headrace.names import VersionRef, parse_pinned_ref
from headrace.sql_select import CLOSED, check_select, has_engine
from headrace.types import ValueType

BATCH_ROWS: Final = 65_536
MEMORY_BYTES: Final = 1 << 30
THREADS: Final = 2

LakeTable = Callable[[VersionRef], pa.Table]
"""Rows of a view version in the lake, tombstones included."""


@contextmanager
def selected(
    source: Source, folder: Path, lake_table: LakeTable, *, memory_bytes: int = MEMORY_BYTES, threads: int = THREADS
) -> Iterator[pa.RecordBatchReader]:
    """Rows of a source of kind SQL, whose files are looked for from a folder on; valid inside the block.

    Raises InvalidArgument naming the field of the source, or FailedPrecondition where DuckDB is not installed.
    """
    if not has_engine():
        raise FailedPrecondition(
            f"source {source.name} is a SELECT, and DuckDB, which runs it, is not installed; install headrace[sql]",
            reason="SQL_ENGINE_MISSING",
            field="query",
        )
    import duckdb  # optional

    check_select(source.query, source.inputs)
    with tempfile.TemporaryDirectory(prefix="headrace-sql-") as spill:
        settings: dict[str, Any] = dict(CLOSED) | {  # Any: as the engine has it
            "memory_limit": f"{memory_bytes}B",
            "threads": str(threads),
            "temp_directory": spill,
            "lock_configuration": "true",
        }
        with duckdb.connect(":memory:", config=settings) as connection:
            for name, place in source.inputs.items():
                _register(connection, name, place, folder, lake_table)
            with _failures(source, memory_bytes):
                reader = connection.sql(source.query).to_arrow_reader(BATCH_ROWS)
            columns = _checked(reader.schema, source)
            yield pa.RecordBatchReader.from_batches(_schema(source), _conformed(reader, columns, source, memory_bytes))


@contextmanager
def _failures(source: Source, memory_bytes: int) -> Iterator[None]:
    """What DuckDB says while it runs, itself or through Arrow, as errors of ours."""
    import duckdb  # optional

    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        told = " ".join(str(error).split())[:300]
        if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in told:
            message = f"the SELECT of {source.name} needs more than {memory_bytes} bytes: {told}"
            raise ResourceExhausted(message, reason="SQL_OUT_OF_MEMORY", field="query") from error
        raise invalid(f"the SELECT of {source.name} failed: {told}", "SQL_FAILED", "query") from error


def _register(connection: Any, name: str, place: str, folder: Path, lake_table: LakeTable) -> None:  # Any: no types
    if place.startswith(LAKE_SCHEME):
        table = lake_table(parse_pinned_ref(place.removeprefix(LAKE_SCHEME), f"inputs.{name}"))
        connection.register(name, without_erased(table))
        return
    pattern = place.removeprefix("file://")
    files = sorted(map(str, folder.glob(pattern) if not Path(pattern).is_absolute() else _absolute(pattern)))
    if not files:
        message = f"input {name!r}: no file fits {place!r} from {folder} on; correct the path"
        raise invalid(message, "FILE_NOT_READABLE", f"inputs.{name}")
    try:
        connection.register(name, pads.dataset(files, format="parquet"))
    except (pa.ArrowException, OSError) as error:
        message = f"input {name!r} cannot be read as Parquet: {error}"
        raise invalid(message, "FILE_NOT_READABLE", f"inputs.{name}") from error


def _absolute(pattern: str) -> Iterator[Path]:
    path = Path(pattern)
    return Path(path.anchor).glob(str(path.relative_to(path.anchor)))


def without_erased(table: pa.Table) -> pa.Table:
    """Rows of a view's table without those that an erasure hides, and without the erasures."""
    gone = table.column(system.TOMBSTONE).combine_chunks()
    if gone.true_count == 0:
        return table
    added = {name for name, *_ in system.SYSTEM_COLUMNS}
    keys = [field.name for field in table.schema if field.name not in added and not field.nullable]
    ids = table.select(keys).append_column(_PLACE, pa.array(np.arange(table.num_rows)))
    places = ids.join(table.filter(gone).select(keys), keys, join_type="left semi").column(_PLACE)
    of_erased = table.select([*keys, *_ORDER, system.TOMBSTONE]).take(places)
    erased: dict[tuple[Any, ...], tuple[int, ...]] = {}
    orders = list(zip(*(_numbers(of_erased, name) for name in _ORDER), strict=True))
    names = list(zip(*(of_erased.column(name).to_pylist() for name in keys), strict=True))
    for name, order, is_gone in zip(names, orders, of_erased.column(system.TOMBSTONE).to_pylist(), strict=True):
        if is_gone:
            erased[name] = max(order, erased.get(name, order))
    is_kept = np.ones(table.num_rows, np.bool_)
    is_kept[places.to_numpy()] = [order > erased[name] for name, order in zip(names, orders, strict=True)]
    return table.filter(pa.array(is_kept))


_PLACE: Final = "place\trow"  # no column of a view has a tab
_ORDER: Final = (system.EVENT_TIME, system.WRITE_TIME, system.SOURCE_ID, system.PARTITION, system.OFFSET)


def _numbers(table: pa.Table, name: str) -> list[int]:
    column = table.column(name)
    numbers: list[int] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return numbers


def _schema(source: Source) -> pa.Schema:
    return pa.schema([pa.field(column.name, column.type.arrow) for column in source.columns])


def _checked(found: pa.Schema, source: Source) -> Mapping[str, int]:
    """Place of every declared column in the result; raises where one is missing or of another type."""
    places: dict[str, int] = {}
    for at, column in enumerate(source.columns):
        place = found.get_field_index(column.name)
        if place < 0:
            message = f"the SELECT of {source.name} gives no column {column.name!r}; it gives {', '.join(found.names)}"
            raise invalid(message, "UNKNOWN_COLUMN", f"columns[{at}]", column=column.name)
        given = found.field(place).type
        if not _fits(given, column.type):
            raise invalid(
                f"column {column.name!r} of the SELECT of {source.name} is {given}, and {column.type} is declared; "
                "cast it in the SELECT",
                "WRONG_TYPE",
                f"columns[{at}].type",
                column=column.name,
            )
        places[column.name] = place
    return places


def _fits(given: pa.DataType, wanted: ValueType) -> bool:
    target = wanted.arrow
    if pa.types.is_timestamp(target):
        return bool(pa.types.is_timestamp(given) and given.tz is not None)
    if pa.types.is_integer(target):
        return bool(pa.types.is_integer(given))
    if pa.types.is_list(target) or pa.types.is_fixed_size_list(target):
        is_list = pa.types.is_list(given) or pa.types.is_fixed_size_list(given)
        return is_list and _fits(given.value_type, ValueType(wanted.scalar))
    return bool(given == target)


def _conformed(
    reader: pa.RecordBatchReader, places: Mapping[str, int], source: Source, memory_bytes: int
) -> Iterator[pa.RecordBatch]:
    schema = _schema(source)
    while True:
        try:
            with _failures(source, memory_bytes):
                batch = reader.read_next_batch()
        except StopIteration:
            return
        columns = []
        for at, field in enumerate(schema):
            try:
                columns.append(batch.column(places[field.name]).cast(field.type))
            except pa.ArrowException as error:
                message = f"column {field.name!r} of the SELECT of {source.name} does not hold {field.type}: {error}"
                raise invalid(message, "WRONG_TYPE", f"columns[{at}].type", column=field.name) from error
        yield pa.RecordBatch.from_arrays(columns, schema=schema)
