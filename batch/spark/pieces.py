"""Rows on their way from one stage to the next: files of record batches by destination, and the row counts of each."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from numpy.typing import NDArray

from batch.historical.chunks import ChunkReader
from batch.historical.failures import reading, writing
from batch.historical.tables import Chunk, Pick, located
from batch.spark.salt import SALT, with_salt

ROWS: Final = ".arrow"
COUNTS: Final = ".npy"
FLUSH_ROWS_MIN: Final = 1 << 18
FLUSH_BYTES_MAX: Final = 1 << 27  # texts and lists may be longer than rows were reckoned with
BATCH_ROWS: Final = 1 << 12  # of one destination in one flush: smaller batches cost more than they hold
FORM: Final = "rows between stages"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one task left for the tasks of a later stage; `first_row` is what its row numbers count from."""

    uri: str
    first_row: int = 0


class PieceWriter:
    """One piece under way, under a name that no other attempt has; it counts once its task has told the driver.

    Rows of a flush are ordered by destination, and keep their order within one. Holds the rows of one flush, twice.
    """

    def __init__(self, folder: str, stage: str, schema: pa.Schema, place_count: int, flush_rows: int) -> None:
        self.uri = f"{folder}/{stage}-{uuid4().hex}"
        self._schema = schema
        self._place_count = place_count
        self._flush_rows = flush_rows
        self._held: list[pa.RecordBatch] = []
        self._places: list[NDArray[np.uint32]] = []
        self._held_rows = self._held_bytes = 0
        self._counts: list[NDArray[np.int32]] = []
        self._filesystem, self._path = located(self.uri)

    def __enter__(self) -> Self:
        with writing(self.uri):
            self._sink = self._filesystem.open_output_stream(self._path + ROWS)
            self._writer = pa.ipc.new_file(self._sink, self._schema)
        return self

    def add(self, batch: pa.RecordBatch, places: NDArray[np.uint32]) -> None:
        """Rows and the destination of each."""
        if batch.num_rows == 0:
            return
        self._held.append(batch)
        self._places.append(places)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_rows >= self._flush_rows or self._held_bytes >= FLUSH_BYTES_MAX:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        rows = self._held[0] if len(self._held) == 1 else pa.concat_batches(self._held)
        places = np.concatenate(self._places)
        self._held, self._places, self._held_rows, self._held_bytes = [], [], 0, 0
        # Numbers of 16 bits are sorted by their digits.
        order = np.argsort(places.astype(np.uint16) if self._place_count <= 1 << 16 else places, kind="stable")
        counts = np.bincount(places, minlength=self._place_count)
        rows, at = rows.take(pa.array(order)), 0
        with writing(self.uri):
            for count in counts.tolist():
                self._writer.write_batch(rows.slice(at, count))
                at += count
        self._counts.append(counts.astype(np.int32))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._sink.close()  # what is there stays until the job's folder goes: nobody knows its name
            return
        self._flush()
        counts = np.asarray(self._counts, np.int32).reshape(-1, self._place_count)
        with writing(self.uri):
            self._writer.close()
            self._sink.close()
            buffer = io.BytesIO()
            np.save(buffer, counts, allow_pickle=False)
            with self._filesystem.open_output_stream(self._path + COUNTS) as stream:
                stream.write(buffer.getvalue())


def flush_rows_of(place_count: int, row_bytes: int, memory_bytes: int) -> int:
    """Rows of one flush: enough for batches worth their cost, and twice of them within the memory."""
    wanted = max(FLUSH_ROWS_MIN, BATCH_ROWS * place_count)
    return max(1, min(wanted, memory_bytes // 2 // max(1, row_bytes)))


class Pieces:
    """Pieces of one stage, of which a task reads some destinations; row counts are read once."""

    def __init__(self, pieces: Sequence[Piece], schema: pa.Schema) -> None:
        self._pieces = pieces
        self._schema = schema
        self._counts = [_counts(piece) for piece in pieces]

    def rows(self, place: int) -> "PieceRows":
        """Rows for one destination."""
        chunks, first = [], 0
        for number, counts in enumerate(self._counts):
            for flush in np.flatnonzero(counts[:, place]).tolist():
                count = int(counts[flush, place])
                chunks.append(Chunk(first, count, number, flush * counts.shape[1] + place))
                first += count
        return PieceRows(self._pieces, self._schema, chunks, first)


class PieceRows:
    """Rows for one destination, piece after piece, as a join streams them."""

    def __init__(self, pieces: Sequence[Piece], schema: pa.Schema, chunks: list[Chunk], row_count: int) -> None:
        self._pieces = pieces
        self.schema = schema
        self.chunks = chunks
        self.row_count = row_count

    def read(self, chunk: Chunk, columns: Sequence[str], reader: ChunkReader | None = None) -> Iterator[pa.RecordBatch]:
        """The batch of a chunk; local files are mapped, not copied."""
        batch = self.batch(chunk)
        yield (with_salt(batch) if SALT in columns else batch).select(list(columns))

    def take(self, chunk: Chunk, picks: Sequence[Pick], reader: ChunkReader) -> list[Pick]:
        """Nothing is encoded here."""
        return list(picks)

    def batch(self, chunk: Chunk) -> pa.RecordBatch:
        """All columns of a chunk."""
        piece = self._pieces[chunk.file]
        with reading(piece.uri, FORM), _opened(piece.uri + ROWS) as source:
            return pa.ipc.open_file(source).get_batch(chunk.group)

    def first_row_of(self, chunk: Chunk) -> int:
        """What the row numbers of a chunk count from."""
        return self._pieces[chunk.file].first_row

    def table(self) -> pa.Table:
        """All rows."""
        return pa.Table.from_batches([self.batch(chunk) for chunk in self.chunks], self.schema)


def _opened(uri: str) -> pa.NativeFile:
    filesystem, path = located(uri)
    if isinstance(filesystem, pafs.LocalFileSystem):
        return pa.memory_map(path)
    return filesystem.open_input_file(path)


def _counts(piece: Piece) -> NDArray[np.int32]:
    filesystem, path = located(piece.uri)
    with reading(piece.uri, FORM), filesystem.open_input_stream(path + COUNTS) as stream:
        found: NDArray[np.int32] = np.load(io.BytesIO(stream.readall()), allow_pickle=False)
    return found
