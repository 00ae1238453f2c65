"""Rows on disk in a temporary folder: written once in row groups of bounded size, then read as Parquet."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.historical.failures import writing
from batch.historical.tables import ParquetRows, Rows
from core_ext.keys import KeyBatch

GROUP_BYTES_MIN: Final = 1 << 16  # smaller row groups cost more than they hold
ORDINAL: Final = "__row"


class Spill:
    """One file under way; a context manager that closes it."""

    def __init__(self, path: Path, schema: pa.Schema, group_bytes: int) -> None:
        self.path = path
        self._schema = schema
        self._group_bytes = max(group_bytes, GROUP_BYTES_MIN)
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        with writing(str(path)):
            self._writer = pq.ParquetWriter(
                str(path), schema, compression="none", use_dictionary=False, write_statistics=False
            )

    def write(self, batch: pa.RecordBatch) -> None:
        """Adds rows; they reach the disk when a row group is full."""
        if batch.num_rows == 0:
            return
        self._held.append(batch)
        self._held_bytes += batch.nbytes
        if self._held_bytes >= self._group_bytes:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            with writing(str(self.path)):
                self._writer.write_table(pa.Table.from_batches(self._held, self._schema))
        self._held, self._held_bytes = [], 0

    def close(self) -> int:
        """Ends the file and returns its bytes."""
        self._flush()
        with writing(str(self.path)):
            self._writer.close()
        return self.path.stat().st_size

    def rows(self) -> Rows:
        """What was written."""
        return ParquetRows([str(self.path)], "temporary file")


def spool(reader: pa.RecordBatchReader, path: Path, group_bytes: int) -> tuple[Rows, int]:
    """Rows of a reader, which can be read only once, on disk."""
    spilled = Spill(path, reader.schema, group_bytes)
    for batch in reader:
        spilled.write(batch)
    byte_count = spilled.close()
    return spilled.rows(), byte_count


def partition(
    rows: Rows,
    columns: Sequence[str],
    keys: Callable[[pa.RecordBatch], KeyBatch],
    files: Sequence[Path],
    group_bytes: int,
    *,
    with_ordinal: bool = False,
) -> tuple[list[Rows], int]:
    """Rows split by the slot of their key, each part in the order of the whole; and the bytes written."""
    fields = [rows.schema.field(name) for name in columns]
    schema = pa.schema([*fields, pa.field(ORDINAL, pa.int64())] if with_ordinal else fields)
    spills = [Spill(file, schema, group_bytes) for file in files]
    for chunk in rows.chunks:
        at = chunk.first_row
        for read in rows.read(chunk, columns):
            batch = pa.RecordBatch.from_arrays([read.column(name) for name in columns], schema=pa.schema(fields))
            ordinals = np.arange(at, at + batch.num_rows)
            if with_ordinal:
                batch = pa.RecordBatch.from_arrays([*batch.columns, pa.array(ordinals)], schema=schema)
            _spread(batch, keys(batch).slots, spills)
            at += batch.num_rows
    byte_count = sum(spill.close() for spill in spills)
    return [spill.rows() for spill in spills], byte_count


def _spread(batch: pa.RecordBatch, slots: NDArray[np.uint16], spills: Sequence[Spill]) -> None:
    parts = (slots.astype(np.uint32) * len(spills) >> 10).astype(np.uint16)
    order = np.argsort(parts, kind="stable")
    bounds = np.searchsorted(parts[order], np.arange(len(spills) + 1))
    sorted_rows = batch.take(pa.array(order))
    for i, spill in enumerate(spills):
        spill.write(sorted_rows.slice(bounds[i], bounds[i + 1] - bounds[i]))
