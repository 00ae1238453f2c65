"""Column chunks of numbers and times as they lie in a result file, made without the general writer of Arrow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch.arrays import whole
from batch.historical.thrift import BINARY, I32, I64, LIST, STRUCT, TRUE, Items, Struct, folded, varint
from core_ext.page_encoder import in_runs, levels_of, numbered, present

COMPRESSION: Final = "snappy"
SAMPLE_BYTES: Final = 1 << 16  # snappy compresses blocks of this size, each on its own
KEPT_OF_SAMPLE: Final = 0.9  # pages that shrink by less are stored as they are: noise costs every reader its time
_INT32, _INT64, _FLOAT, _DOUBLE = 1, 2, 4, 5  # physical types of Parquet
_PLAIN, _RLE, _NUMBERS = 0, 3, 8  # encodings
_NO_CODEC, _SNAPPY = 0, 1
_PHYSICAL: Final = {pa.float32(): _FLOAT, pa.float64(): _DOUBLE, pa.int64(): _INT64, pa.uint8(): _INT32}
_TIME_UNITS: Final = {"ms", "us", "ns"}

Piece: TypeAlias = bytes | NDArray[np.uint8] | pa.Buffer


@dataclass(frozen=True, slots=True)
class Encoded:
    """One column chunk: the pieces of its pages, and its metadata, in which offsets count from its own start."""

    pieces: tuple[Piece, ...]
    metadata: Struct

    def named(self, name: str) -> "Encoded":
        """The chunk as that of one column, whose values are flat."""
        return replace(self, metadata=self.metadata | {3: (LIST, Items(BINARY, [name.encode()]))})


def is_number(field: pa.Field) -> bool:
    """Whether a column is encoded here: its values go into pages as they lie in memory, bytes by dictionary."""
    kind = field.type
    return kind in _PHYSICAL or (pa.types.is_timestamp(kind) and kind.unit in _TIME_UNITS)


def encode_numbers(field: pa.Field, column: pa.ChunkedArray) -> Encoded:
    """The chunk of one column of numbers or times, without a name: equal columns may share it."""
    array, levels = whole(column), None
    if array.null_count:
        levels = levels_of(np.frombuffer(array.buffers()[0], np.uint8), array.offset, len(array))
    if array.type == pa.uint8():
        return _by_dictionary(field, array, levels)
    return _plain(field, array, levels)


def _plain(field: pa.Field, array: pa.Array, levels: NDArray[np.uint8] | None) -> Encoded:
    physical = _PHYSICAL.get(array.type, _INT64)
    width = array.type.bit_width // 8
    values = _values(array, width)
    if levels is not None:
        values = present(values, levels, width)
    head = _level_runs(field, levels, len(array))
    size = len(head) + len(values)
    stored: tuple[Piece, ...] = (head, values)
    if _is_compressible(values):
        stored = (_compressed(head + values.tobytes()),)
    stored_size = sum(map(len, stored))
    page = _data_page(len(array), _PLAIN, size, stored_size)
    kind = np.dtype({_FLOAT: "f4", _DOUBLE: "f8", _INT64: "i8"}[physical])
    codec = _SNAPPY if len(stored) == 1 else _NO_CODEC
    sizes = (len(page) + size, len(page) + stored_size)
    metadata = _metadata(array, (physical, codec), (_PLAIN, _RLE), sizes)
    metadata[9] = (I64, 0)
    metadata[12] = (STRUCT, _statistics(array.null_count, *_range(values.view(kind))))
    return Encoded((page, *stored), metadata)


def _by_dictionary(field: pa.Field, array: pa.Array, levels: NDArray[np.uint8] | None) -> Encoded:
    values = _values(array, 1)
    if levels is not None:
        values = values[levels != 0]
    different, numbers = numbered(values)
    words = np.frombuffer(different, np.uint8).astype("<i4").tobytes()
    bits = max(1, (len(different) - 1).bit_length())
    body = _level_runs(field, levels, len(array)) + bytes([bits]) + in_runs(numbers, bits)
    dictionary = _dictionary_page(len(different), len(words))
    page = _data_page(len(array), _NUMBERS, len(body), len(body))
    size = len(dictionary) + len(words) + len(page) + len(body)
    metadata = _metadata(array, (_INT32, _NO_CODEC), (_PLAIN, _RLE, _NUMBERS), (size, size))
    metadata[9] = (I64, len(dictionary) + len(words))
    metadata[11] = (I64, 0)
    ends = (words[:4], words[-4:]) if words else (b"", b"")
    metadata[12] = (STRUCT, _statistics(array.null_count, *ends))
    return Encoded((dictionary, words, page, body), metadata)


def _values(array: pa.Array, width: int) -> NDArray[np.uint8]:
    data = array.buffers()[1]
    if data is None:  # of nulls only
        return np.zeros(len(array) * width, np.uint8)
    return np.frombuffer(data, np.uint8, len(array) * width, array.offset * width)


def _level_runs(field: pa.Field, levels: NDArray[np.uint8] | None, count: int) -> bytes:
    """Definition levels of a page, none where the column can hold no null."""
    if not field.nullable:
        if levels is not None:
            raise pa.ArrowInvalid(f"column {field.name!r} holds a null, and its type has none")
        return b""
    runs = varint(count << 1) + b"\1" if levels is None else in_runs(levels, 1)
    return len(runs).to_bytes(4, "little") + runs


def _is_compressible(values: NDArray[np.uint8]) -> bool:
    sample = values[:SAMPLE_BYTES]
    return len(sample) > 0 and len(_compressed(sample)) < KEPT_OF_SAMPLE * len(sample)


def _compressed(data: Piece) -> pa.Buffer:
    return pa.Codec(COMPRESSION).compress(data)


def _range(values: NDArray[Any]) -> tuple[bytes, bytes]:  # Any: of the type of the column
    """The least and the greatest value as they are stored, empty where there is none; NaN is neither."""
    if len(values) == 0:
        return b"", b""
    if values.dtype.kind == "i":
        return values.min().tobytes(), values.max().tobytes()
    low, high = np.fmin.reduce(values), np.fmax.reduce(values)
    if np.isnan(low):
        return b"", b""
    zero = values.dtype.type(0)  # of both zeros the range must hold the other
    return (low if low else -zero).tobytes(), (high if high else zero).tobytes()


def _statistics(null_count: int, low: bytes, high: bytes) -> Struct:
    out: Struct = {3: (I64, null_count)}
    if low:
        out |= {5: (BINARY, high), 6: (BINARY, low), 7: (TRUE, 1), 8: (TRUE, 1)}
    return out


def _metadata(array: pa.Array, kinds: tuple[int, int], encodings: Sequence[int], sizes: tuple[int, int]) -> Struct:
    """Metadata of a chunk as far as all have it, without a name.

    `kinds` are its physical type and codec, `sizes` its bytes before and after compression.
    """
    return {
        1: (I32, kinds[0]),
        2: (LIST, Items(I32, list(encodings))),
        3: (LIST, Items(BINARY, [])),
        4: (I32, kinds[1]),
        5: (I64, len(array)),
        6: (I64, sizes[0]),
        7: (I64, sizes[1]),
    }


def _data_page(value_count: int, encoding: int, size: int, stored_size: int) -> bytes:
    """Header of a data page of version 1 whose levels stand in runs."""
    sizes = b"\x15" + varint(folded(size)) + b"\x15" + varint(folded(stored_size))
    levels = (b"\x15" + varint(folded(_RLE))) * 2
    inner = b"\x15" + varint(folded(value_count)) + b"\x15" + varint(folded(encoding)) + levels + b"\0"
    return b"\x15\0" + sizes + b"\x2c" + inner + b"\0"


def _dictionary_page(value_count: int, size: int) -> bytes:
    """Header of a dictionary page that is not compressed."""
    sizes = (b"\x15" + varint(folded(size))) * 2
    inner = b"\x15" + varint(folded(value_count)) + b"\x15" + varint(folded(_PLAIN)) + b"\0"
    return b"\x15\x04" + sizes + b"\x4c" + inner + b"\0"
