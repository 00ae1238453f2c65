"""Data files of an Iceberg table as pyiceberg reads them: without deleted rows, in the schema of a snapshot."""

import pickle
from collections.abc import Iterator, Sequence

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask
from pyiceberg.table.metadata import TableMetadata

from batch.historical.failures import reading
from batch.spark.plan import ScanChunk


class TableScan:
    """Reads data files of an Iceberg table with their deletes, in the schema of a snapshot."""

    def __init__(self, carried: bytes) -> None:
        self._metadata: TableMetadata
        self._files: FileIO
        self._schema: Schema
        self._metadata, self._files, self._schema = pickle.loads(carried)  # noqa: S301 - from our own driver

    def read(self, chunk: ScanChunk, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Rows that are left, in the order of the file."""
        task: FileScanTask = pickle.loads(chunk.task)  # noqa: S301 - from our own driver
        scan = ArrowScan(self._metadata, self._files, self._schema.select(*columns), AlwaysTrue())
        with reading(chunk.file):
            yield from scan.to_record_batches([task])
