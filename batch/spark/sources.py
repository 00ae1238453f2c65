"""Chunks of an input as a worker reads them: row groups by the local engine's reader, other files by pyiceberg."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from batch.historical.chunks import ChunkReader
from batch.historical.failures import changed
from batch.historical.tables import Chunk, ParquetRows, Pick, located
from batch.spark.columns import Types, converted
from batch.spark.plan import Bundle, FileChunk, FileRows, ScanChunk, TableSnapshot

if TYPE_CHECKING:
    from batch.spark.table_scan import TableScan


class BundleRows:
    """Rows of a bundle, numbered from its first. Columns come in the types that are given, where they are."""

    def __init__(self, bundle: Bundle, scan: bytes, types: Types, what: str) -> None:
        self._sources = bundle.chunks
        self._types = dict(types)
        self._scan = _scan_of(scan) if any(isinstance(source, ScanChunk) for source in bundle.chunks) else None
        self._files = {
            source.file: _unchanged(source, what) for source in bundle.chunks if isinstance(source, FileChunk)
        }
        self.schema = pa.schema(types)
        self.chunks = [
            Chunk(source.first_row - bundle.first_row, source.row_count, number, 0)
            for number, source in enumerate(bundle.chunks)
        ]
        self.row_count = sum(chunk.row_count for chunk in self.chunks)

    def read(self, chunk: Chunk, columns: Sequence[str], reader: ChunkReader | None = None) -> Iterator[pa.RecordBatch]:
        """Batches of some columns; a file with deletes gives fewer rows than its chunk counts."""
        source, names = self._sources[chunk.file], list(columns)
        if isinstance(source, FileChunk):
            found = self._files[source.file].read(_group(source), names, reader)
        else:
            assert self._scan is not None, "there is one wherever there are such chunks"
            found = self._scan.read(source, names)
        for batch in found:
            arrays = [self._converted(batch.column(name), name) for name in names]
            yield pa.RecordBatch.from_arrays(arrays, names=names)

    def take(self, chunk: Chunk, picks: Sequence[Pick], reader: ChunkReader) -> list[Pick]:
        """Takes what the page reader can, and returns the others."""
        source = self._sources[chunk.file]
        if isinstance(source, ScanChunk):
            return list(picks)
        return self._files[source.file].take(_group(source), picks, reader)

    def _converted(self, column: pa.Array, name: str) -> pa.Array:
        return converted(column, self._types[name]) if name in self._types else column


def scan_of(rows: FileRows | TableSnapshot) -> bytes:
    """What workers need beside the chunks."""
    return rows.scan if isinstance(rows, TableSnapshot) else b""


def state_of(file: str) -> tuple[int, int]:
    """Size and time of a file, by which it is known to be the same."""
    filesystem, path = located(file)
    info = filesystem.get_file_info(path)
    return info.size, info.mtime_ns


def _scan_of(carried: bytes) -> "TableScan":
    from batch.spark.table_scan import TableScan  # lazy: pyiceberg takes half of the start of a worker

    return TableScan(carried)


def _group(source: FileChunk) -> Chunk:
    return Chunk(0, source.row_count, 0, source.group)


def _unchanged(source: FileChunk, what: str) -> ParquetRows:
    """The file of a chunk. Raises FailedPrecondition when it is not what it was."""
    if state_of(source.file) != (source.size_bytes, source.mtime_ns):
        raise changed(source.file)
    return ParquetRows([source.file], what)
