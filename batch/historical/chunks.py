"""Column chunks of Parquet files that the page reader of the cores takes: which they are, and where their bytes lie."""

import json
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core_ext.pages import CODECS, ChunkKind, PageReader, Places

# Types whose values lie in a file as they lie in memory.
_PHYSICAL: Final = {
    pa.int32(): ("INT32", 4),
    pa.uint32(): ("INT32", 4),
    pa.date32(): ("INT32", 4),
    pa.float32(): ("FLOAT", 4),
    pa.int64(): ("INT64", 8),
    pa.timestamp("us", "UTC"): ("INT64", 8),
    pa.float64(): ("DOUBLE", 8),
}
_ENCODINGS: Final = {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY", "BIT_PACKED"}


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """One column of a row group: bytes [start, start + size) of its file."""

    kind: ChunkKind
    start: int
    size: int


class ChunkMap:
    """Column chunks of one file by name and row group."""

    def __init__(self, metadata: pq.FileMetaData, schema: pa.Schema) -> None:
        self._metadata = metadata
        self._leaves: dict[str, tuple[int, str, int, bool]] = {}  # column, physical type, width, may be null
        for at in range(metadata.num_columns):
            leaf = metadata.schema.column(at)
            found = schema.get_all_field_indices(leaf.path)
            kind = schema.field(found[0]).type if len(found) == 1 else None
            if kind not in _PHYSICAL or leaf.max_repetition_level or leaf.max_definition_level > 1:
                continue
            physical, width = _PHYSICAL[kind]
            if leaf.physical_type == physical and _is_plain(leaf, kind):
                self._leaves[leaf.path] = (at, physical, width, leaf.max_definition_level == 1)

    def find(self, group: int, name: str) -> ColumnChunk | None:
        """The chunk of a column, or None where it needs a general reader."""
        if name not in self._leaves:
            return None
        at, _, width, is_nullable = self._leaves[name]
        chunk = self._metadata.row_group(group).column(at)
        rows = self._metadata.row_group(group).num_rows
        if chunk.compression not in CODECS or not set(chunk.encodings) <= _ENCODINGS or chunk.num_values != rows:
            return None
        kind = ChunkKind(width, CODECS[chunk.compression], is_nullable, rows)
        starts = [chunk.data_page_offset] + ([chunk.dictionary_page_offset] if chunk.has_dictionary_page else [])
        return ColumnChunk(kind, min(starts), chunk.total_compressed_size)


class ChunkReader:
    """Reads one column chunk after another; for one thread, which keeps the memory it needs for that."""

    def __init__(self, *, reuses_memory: bool = True) -> None:
        self._reuses_memory = reuses_memory
        self._pages = PageReader(_inflate)
        self._bytes = np.empty(0, np.uint8)
        self._values: dict[str, NDArray[np.uint8]] = {}  # fresh memory would cost as much as the decoding

    def values(self, source: pa.NativeFile, chunk: ColumnChunk, name: str) -> NDArray[np.uint8] | None:
        """All values of a chunk, or None where it has nulls or needs a general reader.

        They stay until the next chunk of the column `name` is read, for good where memory is not used again.
        """
        size = chunk.kind.row_count * chunk.kind.width
        if not self._reuses_memory or name not in self._values or len(self._values[name]) < size:
            self._values[name] = np.empty(size, np.uint8)
        values = self._values[name][:size]
        held = self._load(source, chunk)
        return values if held is not None and self._pages.read(chunk.kind, held, values) else None

    def take(
        self,
        source: pa.NativeFile,
        chunk: ColumnChunk,
        places: Places,
        slots: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    ) -> bool:
        """Takes values at some places into (values, nulls), where the page reader can."""
        held = self._load(source, chunk)
        return held is not None and self._pages.take(chunk.kind, held, places, *slots)

    def _load(self, source: pa.NativeFile, chunk: ColumnChunk) -> NDArray[np.uint8] | None:
        if len(self._bytes) < chunk.size:
            self._bytes = np.empty(chunk.size, np.uint8)
        held = self._bytes[: chunk.size]
        source.seek(chunk.start)
        return held if source.readinto(held) == chunk.size else None


def _inflate(block: memoryview, size: int) -> bytes:
    """Bytes of a zstd block; raises OSError where it is damaged."""
    return bytes(pa.Codec("zstd").decompress(block, size, asbytes=True))


def _is_plain(leaf: pq.ColumnSchema, kind: pa.DataType) -> bool:
    """Whether the unit of a time is that of its type: files may hold it in another."""
    if not pa.types.is_timestamp(kind):
        return True
    logical = json.loads(leaf.logical_type.to_json())
    return bool(logical.get("timeUnit") == "microseconds" and logical.get("isAdjustedToUTC"))
