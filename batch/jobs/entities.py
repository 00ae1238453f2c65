"""Entity rows as a job takes them: Parquet files that stream, Arrow files, and the digest of what they hold."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import pyarrow as pa

from batch.historical.failures import reading, refused
from batch.historical.inputs import kind_of
from batch.historical.join import rows_of
from batch.historical.tables import located
from core_ext.arrow import arrow_column
from core_ext.digest import RowDigest
from headrace.errors import NotFound
from headrace.types import Scalar, ValueType

Entities: TypeAlias = "list[str] | pa.Table"

FILES_MAX: Final = 10_000
ARROW_SUFFIXES: Final = (".arrow", ".feather")
_OTHER_FORMS: Final = (".csv", ".jsonl", ".ndjson", ".json", ".xlsx")
_INTEGERS: Final = ValueType(Scalar.I64)


def read_entities(files: Sequence[str]) -> Entities:
    """Parquet files by name, or the table of one Arrow file."""
    if not files:
        raise refused("NO_FILES", "entities", "name no file; give at least one")
    if len(files) > FILES_MAX:
        raise refused("TOO_MANY", "entities", f"name {len(files)} files; at most {FILES_MAX} are read, so join them")
    for name in files:
        if name.lower().endswith(_OTHER_FORMS):
            raise refused("FILE_FORM", "entities", f"{name} is no Parquet or Arrow file; convert it to .parquet first")
    if not any(name.lower().endswith(ARROW_SUFFIXES) for name in files):
        return list(files)
    if len(files) > 1:
        raise refused("FILE_FORM", "entities", "name an Arrow file and others; one Arrow file is read, or many Parquet")
    return _arrow(files[0])


def entity_digest(entities: Entities) -> str:
    """SHA-256 over every column of the entity rows in their order, whatever their file and chunks.

    Whole numbers are taken as i64, dictionaries by their values. A column of a type outside the type table is refused.
    """
    rows = rows_of(entities, "entities")
    plans = [_digested(field) for field in rows.schema]
    digest = RowDigest([(field.name, kind_of(kind)) for field, kind in zip(rows.schema, plans, strict=True)])
    for chunk in rows.chunks:
        for batch in rows.read(chunk, rows.schema.names):
            columns = [_cast(batch.column(field.name), kind) for field, kind in zip(rows.schema, plans, strict=True)]
            zeros = np.zeros(batch.num_rows, np.uint8)
            digest.update([arrow_column(column) for column in columns], [zeros] * len(columns))
    names = json.dumps([[field.name, str(kind)] for field, kind in zip(rows.schema, plans, strict=True)])
    return hashlib.sha256(f"{names}\n{digest.hexdigest()}".encode()).hexdigest()


def entity_batches(entities: Entities) -> Iterator[pa.RecordBatch]:
    """Every row, batch by batch."""
    rows = rows_of(entities, "entities")
    for chunk in rows.chunks:
        for batch in rows.read(chunk, rows.schema.names):
            yield batch.select(rows.schema.names)


def _arrow(name: str) -> pa.Table:
    filesystem, path = located(name)
    try:
        with filesystem.open_input_file(path) as file:
            held = file.read_buffer()
    except FileNotFoundError as error:
        raise NotFound(f"{name} does not exist", reason="FILE_NOT_FOUND", metadata={"file": name}) from error
    with reading(name, "Arrow"):
        try:
            return pa.ipc.open_file(held).read_all()
        except pa.ArrowInvalid:  # the stream form has no footer
            return pa.ipc.open_stream(held).read_all()


def _digested(field: pa.Field) -> ValueType:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return _INTEGERS
    if pa.types.is_timestamp(kind):
        return _INTEGERS
    for scalar in Scalar:
        wanted = ValueType(scalar)
        if kind == wanted.arrow or (kind, wanted.arrow) in _WIDE:
            return wanted
    message = f"column {field.name!r} is {field.type}, which a training set cannot prove; cast it, or leave it out"
    raise refused("WRONG_TYPE", "entities", message)


_WIDE: Final = {(pa.large_string(), pa.string()), (pa.large_binary(), pa.binary())}


def _cast(column: pa.Array, kind: ValueType) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type):
        return column.view(pa.int64())
    return column if column.type == kind.arrow else column.cast(kind.arrow)
