"""A Parquet file of column chunks that were encoded apart, by several threads at once."""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from batch.historical.encoded import COMPRESSION, Encoded
from batch.historical.thrift import I64, LIST, STRUCT, Items, Struct, Value, read_struct, struct_bytes

MAGIC: Final = b"PAR1"
TAIL_BYTES: Final = 8  # of a file: the size of its footer and the magic
_OFFSETS: Final = (9, 11)  # of the first data page and of the dictionary page
_PLACES_OF_OTHERS: Final = (10, 14, 15)  # of an index and a Bloom filter, which are not written


class EncodedFile:
    """A file under way, in the order in which its row groups are written."""

    def __init__(self, sink: pa.NativeFile, schema: pa.Schema) -> None:
        self._sink = sink
        self._footer = _footer_of(_by_arrow(schema, None, [], 1))
        self._groups: list[Value] = []
        self._row_count = 0
        self._end = 0
        self._put(MAGIC)

    def write(self, columns: Sequence[Encoded], row_count: int) -> None:
        """Adds a row group of chunks in the order of the schema's leaves."""
        chunks: list[Value] = []
        sizes = [0, 0]
        for column in columns:
            chunks.append({2: (I64, 0), 3: (STRUCT, _shifted(column.metadata, self._end))})
            for piece in column.pieces:
                self._put(piece)
            for i, field in enumerate((6, 7)):
                sizes[i] += _number(column.metadata, field)
        group: Struct = {
            1: (LIST, Items(STRUCT, chunks)),
            2: (I64, sizes[0]),
            3: (I64, row_count),
            6: (I64, sizes[1]),
        }
        self._groups.append(struct_bytes(group))  # now, while other threads encode the next
        self._row_count += row_count

    def close(self) -> None:
        """Writes the footer; the sink stays open."""
        footer = self._footer | {3: (I64, self._row_count), 4: (LIST, Items(STRUCT, self._groups))}
        data = struct_bytes(footer)
        self._put(data + len(data).to_bytes(4, "little") + MAGIC)

    def _put(self, piece: object) -> None:
        self._end += self._sink.write(piece)


def encode_others(table: pa.Table, dictionaries: Sequence[str], batch_rows: int) -> list[list[Encoded]]:
    """The chunks of every column of a table as Arrow writes them: more than one where it is nested."""
    data = _by_arrow(table.schema, table, dictionaries, batch_rows)
    group = _structs(_footer_of(data)[4])[0]
    out: list[list[Encoded]] = [[] for _ in table.column_names]
    at = 0
    for chunk in _structs(group[1]):
        metadata = _struct(chunk[3])
        top = _items(metadata[3]).values[0]
        if table.column_names[at].encode() != top:
            at += 1
        out[at].append(_cut_out(data, metadata))
    return out


def _by_arrow(schema: pa.Schema, table: pa.Table | None, dictionaries: Sequence[str], batch_rows: int) -> pa.Buffer:
    """A file of one row group, or of none."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression=COMPRESSION,
        use_dictionary=list(dictionaries) or False,
        write_batch_size=batch_rows,
    ) as writer:
        if table is not None:
            writer.write_table(table, row_group_size=table.num_rows)
    return sink.getvalue()


def _footer_of(data: pa.Buffer) -> Struct:
    size = int.from_bytes(data[-TAIL_BYTES:-4], "little")
    return read_struct(data[-TAIL_BYTES - size : -TAIL_BYTES].to_pybytes())


def _cut_out(data: pa.Buffer, metadata: Struct) -> Encoded:
    start = min(_number(metadata, field) for field in _OFFSETS if field in metadata)
    kept = {field: value for field, value in metadata.items() if field not in _PLACES_OF_OTHERS}
    return Encoded((data.slice(start, _number(metadata, 7)),), _shifted(kept, -start))


def _shifted(metadata: Struct, distance: int) -> Struct:
    """Metadata whose offsets have moved."""
    moved = {field: (I64, _number(metadata, field) + distance) for field in _OFFSETS if field in metadata}
    return metadata | moved


def _number(struct: Struct, field: int) -> int:
    value = struct[field][1]
    assert isinstance(value, int), "sizes and offsets are numbers"
    return value


def _struct(field: tuple[int, Value]) -> Struct:
    assert isinstance(field[1], dict), "the field is a struct"
    return field[1]


def _items(field: tuple[int, Value]) -> Items:
    assert isinstance(field[1], Items), "the field is a list"
    return field[1]


def _structs(field: tuple[int, Value]) -> list[Struct]:
    return [_struct((STRUCT, value)) for value in _items(field).values]
