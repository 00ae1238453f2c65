"""Rows to stream, in chunks that threads read apart: Parquet files by row group, Arrow tables by slice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.historical.chunks import ChunkMap, ChunkReader
from batch.historical.failures import changed, reading, refused
from core_ext.pages import Places
from headrace.errors import DataLoss, NotFound

BATCH_ROWS: Final = 1 << 16  # ten f32 of them stay in the second cache
TABLE_CHUNK_ROWS: Final = 1 << 18
READ_BUFFER_BYTES: Final = 1 << 20  # of a column chunk, so that a row group of any size streams
WHOLE_GROUP_BYTES: Final = 24 << 20  # a row group up to here is decoded at once, which halves the cost of a value


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows [first_row, first_row + row_count) of the whole; `file` and `group` say where they lie."""

    first_row: int
    row_count: int
    file: int
    group: int


@dataclass(frozen=True, slots=True)
class Pick:
    """Values of a column at some places of its chunk, for the slots of `values` and `nulls`."""

    column: str
    places: Places
    values: NDArray[np.uint8]
    nulls: NDArray[np.uint8]


class Rows(Protocol):
    """What a join can stream more than once."""

    schema: pa.Schema
    chunks: list[Chunk]
    row_count: int

    def read(self, chunk: Chunk, columns: Sequence[str], reader: ChunkReader | None = None) -> Iterator[pa.RecordBatch]:
        """Batches of some columns of a chunk, in their order."""

    def take(self, chunk: Chunk, picks: Sequence["Pick"], reader: ChunkReader) -> list["Pick"]:
        """Takes what can be taken without decoding the chunk, and returns the others."""


def located(uri: str) -> tuple[pafs.FileSystem, str]:
    """File system and path of a path or URI."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise refused("BAD_URI", "uri", f"{uri!r} is no path or URI of a known file system") from error
    return filesystem, path


class ParquetRows:
    """Parquet files with one schema, read in the order given."""

    def __init__(self, files: Sequence[str], what: str) -> None:
        if not files:
            raise refused("NO_FILES", what, "names no file; give at least one")
        self._files = [located(name) for name in files]
        self._names = list(files)
        self._states = [self._state(i) for i in range(len(files))]
        self._metadata: dict[int, pq.FileMetaData] = {}  # parsed once, not for every row group
        self._maps: list[ChunkMap] = []
        self.chunks: list[Chunk] = []
        self.row_count = 0
        schemas = [self._plan(i) for i in range(len(files))]
        self.schema = schemas[0]
        for name, schema in zip(files, schemas, strict=True):
            for field in self.schema:
                at = schema.get_field_index(field.name)
                if at < 0 or schema.field(at).type != field.type:
                    found = "is missing" if at < 0 else f"is {schema.field(at).type}"
                    message = f"column {field.name!r} is {field.type} in {files[0]} and {found} in {name}"
                    raise refused("FILES_DIFFER", what, f"{message}; the files of one input have one schema")

    def _state(self, file: int) -> tuple[int, int]:
        filesystem, path = self._files[file]
        info = filesystem.get_file_info(path)
        if info.type != pafs.FileType.File:
            message = f"{self._names[file]} does not exist or is no file"
            raise NotFound(message, reason="FILE_NOT_FOUND", metadata={"file": self._names[file]})
        return info.size, info.mtime_ns

    def _open(self, file: int, buffer_bytes: int = 0) -> pq.ParquetFile:
        filesystem, path = self._files[file]
        source = filesystem.open_input_file(path)
        return pq.ParquetFile(source, metadata=self._metadata.get(file), buffer_size=buffer_bytes, pre_buffer=False)

    def _plan(self, file: int) -> pa.Schema:
        with reading(self._names[file]), self._open(file) as opened:
            self._metadata[file] = opened.metadata
            self._maps.append(ChunkMap(opened.metadata, opened.schema_arrow))
            for group in range(opened.metadata.num_row_groups):
                rows = opened.metadata.row_group(group).num_rows
                if rows:
                    self.chunks.append(Chunk(self.row_count, rows, file, group))
                    self.row_count += rows
            return opened.schema_arrow

    def read(self, chunk: Chunk, columns: Sequence[str], reader: ChunkReader | None = None) -> Iterator[pa.RecordBatch]:
        """Batches of some columns of a row group; raises FailedPrecondition when the file changed since.

        A reader decodes what it can of a row group of usual size, which then comes as one batch and stays until it
        reads the next.
        """
        with self._unchanged(chunk):
            native = {} if reader is None else self._native(chunk, columns, reader)
            others = [name for name in columns if name not in native]
            if not native:
                yield from self._batches(chunk, others)
                return
            if others:
                rest = self._whole(chunk, others)
                self._check_same(chunk)  # both readings are of one file
                native |= {name: rest[name].combine_chunks() for name in others}
            yield pa.RecordBatch.from_arrays([native[name] for name in columns], list(columns))

    def take(self, chunk: Chunk, picks: Sequence[Pick], reader: ChunkReader) -> list[Pick]:
        """Takes what the page reader can, and returns the others; raises FailedPrecondition as `read` does."""
        found = [(pick, self._maps[chunk.file].find(chunk.group, pick.column)) for pick in picks]
        left = [pick for pick, column in found if column is None]
        if len(left) == len(picks):
            return left
        with self._unchanged(chunk), self._source(chunk.file) as source:
            for pick, column in found:
                if column is not None and not reader.take(source, column, pick.places, (pick.values, pick.nulls)):
                    left.append(pick)
        return left

    @contextmanager
    def _unchanged(self, chunk: Chunk) -> Iterator[None]:
        """Around reads of a chunk; a file rewritten meanwhile looks damaged, and is told apart from one that is."""
        self._check_same(chunk)
        try:
            with reading(self._names[chunk.file]):
                yield
        except DataLoss:
            self._check_same(chunk)
            raise

    def _check_same(self, chunk: Chunk) -> None:
        name = self._names[chunk.file]
        try:
            same = self._state(chunk.file) == self._states[chunk.file]
        except NotFound as error:
            raise changed(name) from error
        if not same:
            raise changed(name)

    def _source(self, file: int) -> pa.NativeFile:
        filesystem, path = self._files[file]
        return filesystem.open_input_file(path)

    def _native(self, chunk: Chunk, columns: Sequence[str], reader: ChunkReader) -> dict[str, pa.Array]:
        """Columns that the reader decodes."""
        found = {name: self._maps[chunk.file].find(chunk.group, name) for name in columns}
        wanted = {name: column for name, column in found.items() if column is not None}
        group = self._metadata[chunk.file].row_group(chunk.group)
        if sum(column.kind.width for column in wanted.values()) * chunk.row_count > WHOLE_GROUP_BYTES:
            return {}
        if len(wanted) < len(found) and group.total_byte_size > WHOLE_GROUP_BYTES:
            return {}
        out = {}
        with self._source(chunk.file) as source:
            for name, column in wanted.items():
                values = reader.values(source, column, name)
                if values is not None:
                    kind = self.schema.field(name).type
                    out[name] = pa.Array.from_buffers(kind, chunk.row_count, [None, pa.py_buffer(values)], 0)
        return out if out and (len(out) == len(found) or group.total_byte_size <= WHOLE_GROUP_BYTES) else {}

    def _batches(self, chunk: Chunk, columns: list[str]) -> Iterator[pa.RecordBatch]:
        if self._metadata[chunk.file].row_group(chunk.group).total_byte_size <= WHOLE_GROUP_BYTES:
            yield from self._whole(chunk, columns).to_batches()
            return
        with self._open(chunk.file, READ_BUFFER_BYTES) as opened:
            yield from opened.iter_batches(
                batch_size=BATCH_ROWS, row_groups=[chunk.group], columns=columns, use_threads=False
            )

    def _whole(self, chunk: Chunk, columns: list[str]) -> pa.Table:
        with self._open(chunk.file) as opened:
            return opened.read_row_group(chunk.group, columns=columns, use_threads=False)


class TableRows:
    """An Arrow table in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.schema = table.schema
        self.row_count = table.num_rows
        starts = range(0, table.num_rows, TABLE_CHUNK_ROWS)
        self.chunks = [Chunk(at, min(TABLE_CHUNK_ROWS, table.num_rows - at), 0, 0) for at in starts]

    def read(self, chunk: Chunk, columns: Sequence[str], reader: ChunkReader | None = None) -> Iterator[pa.RecordBatch]:
        """Slices of the table without a copy."""
        part = self._table.select(list(columns)).slice(chunk.first_row, chunk.row_count)
        yield from part.to_batches(max_chunksize=BATCH_ROWS)

    def take(self, chunk: Chunk, picks: Sequence[Pick], reader: ChunkReader) -> list[Pick]:
        """Nothing is encoded here."""
        return list(picks)
