"""Pages of Parquet column chunks against the twin and against pyarrow: encodings, nulls, damage and refusals."""

import io
from typing import Any, Final

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from core_ext.pages import CODECS, PLACES_MAX, ChunkKind, PageReader, Places
from core_ext.twin import pages as twin


def inflate(block: memoryview, size: int) -> bytes:
    """Bytes of a zstd block."""
    return bytes(pa.Codec("zstd").decompress(block, size, asbytes=True))


WIDTHS: Final = {pa.int32(): 4, pa.float32(): 4, pa.int64(): 8, pa.float64(): 8, pa.timestamp("us", "UTC"): 8}
ROWS: Final = 5_000


def file_of(array: pa.Array, *, nullable: bool = True, **options: Any) -> tuple[ChunkKind, bytes, slice]:
    """A file with one column, and where its only chunk is."""
    sink = io.BytesIO()
    pq.write_table(pa.table([array], pa.schema([pa.field("x", array.type, nullable)])), sink, **options)
    chunk = pq.ParquetFile(io.BytesIO(sink.getvalue())).metadata.row_group(0).column(0)
    start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    kind = ChunkKind(WIDTHS[array.type], CODECS[chunk.compression], nullable, len(array))
    return kind, sink.getvalue(), slice(start, start + chunk.total_compressed_size)


def written(array: pa.Array, *, nullable: bool = True, **options: Any) -> tuple[ChunkKind, bytes]:
    """The only column chunk of a file with one column."""
    kind, data, place = file_of(array, nullable=nullable, **options)
    return kind, data[place]


def taken(kind: ChunkKind, chunk: bytes, sources: list[int]) -> list[bytes | None] | None:
    """Values at some rows, brought to places in the reverse order."""
    values, nulls = np.zeros(len(sources) * kind.width, np.uint8), np.zeros(len(sources), np.uint8)
    places = np.arange(len(sources))[::-1].copy()
    wanted = Places(np.array(sources, np.int64), places, kind.row_count, len(sources))
    if not PageReader(inflate).take(kind, chunk, wanted, values, nulls):
        return None
    cells = values.reshape(-1, kind.width)[places]
    return [None if null else cell.tobytes() for cell, null in zip(cells, nulls[places], strict=True)]


def read(kind: ChunkKind, chunk: bytes) -> list[bytes | None] | None:
    """All values of a chunk without nulls."""
    values = np.zeros(kind.row_count * kind.width, np.uint8)
    if not PageReader(inflate).read(kind, chunk, values):
        return None
    return [cell.tobytes() for cell in values.reshape(-1, kind.width)]


def cells_of(array: pa.Array) -> list[bytes | None]:
    """Bytes of every value as pyarrow holds them."""
    width = WIDTHS[array.type]
    data = np.frombuffer(array.buffers()[1], np.uint8)[: len(array) * width].reshape(-1, width)
    return [cell.tobytes() if valid else None for cell, valid in zip(data, array.is_valid().to_pylist(), strict=True)]


@st.composite
def arrays(draw: st.DrawFn) -> pa.Array:
    """Columns with few or many different values, with and without nulls."""
    kind = draw(st.sampled_from(list(WIDTHS)))
    count, different = draw(st.integers(1, 300)), draw(st.sampled_from([1, 2, 9, 1_000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    numbers = random.integers(0, different, count)
    mask = random.random(count) < draw(st.sampled_from([0.0, 0.1, 0.9, 1.0]))
    if draw(st.booleans()):
        numbers = np.sort(numbers)
    return pa.array(numbers, mask=mask).cast(kind)


OPTIONS: Final = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["none", "snappy", "zstd"]),
        "use_dictionary": st.booleans(),
        "data_page_size": st.sampled_from([64, 1 << 20]),
        "write_batch_size": st.sampled_from([16, 1024]),
        "dictionary_pagesize_limit": st.sampled_from([128, 1 << 20]),
    }
)


@given(arrays(), OPTIONS, st.data())
def test_every_row_equals_the_twin_and_pyarrow(array: pa.Array, options: dict[str, Any], data: st.DataObject) -> None:
    kind, chunk = written(array, nullable=bool(array.null_count) or data.draw(st.booleans()), **options)
    expected = cells_of(array)
    assert twin.chunk_values(kind, chunk, len(array)) == expected
    sources = sorted(data.draw(st.lists(st.integers(0, len(array) - 1), max_size=40)))
    assert taken(kind, chunk, sources) == [expected[source] for source in sources]
    assert taken(kind, chunk, list(range(len(array)))) == expected
    assert read(kind, chunk) == (None if array.null_count else expected)


@given(arrays(), OPTIONS, st.data())
def test_damage_is_read_as_the_twin_reads_it(array: pa.Array, options: dict[str, Any], data: st.DataObject) -> None:
    kind, chunk = written(array, **options)
    broken = bytearray(chunk[: data.draw(st.integers(1, len(chunk)))])
    for _ in range(data.draw(st.integers(0, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    rows = list(range(len(array)))
    assert taken(kind, bytes(broken), rows) == twin.chunk_values(kind, bytes(broken), len(array))
    assert read(kind, bytes(broken)) in (None, twin.chunk_values(kind, bytes(broken), len(array)))


@given(arrays(), OPTIONS, st.data())
def test_damage_that_is_taken_is_what_pyarrow_reads(
    array: pa.Array, options: dict[str, Any], data: st.DataObject
) -> None:
    nullable = bool(array.null_count) or data.draw(st.booleans())
    kind, whole, place = file_of(array, nullable=nullable, write_statistics=False, **options)
    broken = bytearray(whole)
    at = data.draw(st.integers(place.start, place.stop - 1))
    broken[at] = data.draw(st.sampled_from([0, 1, 2, 3, 4, 0x15, 0xFF]) | st.integers(0, 255))
    found = taken(kind, bytes(broken[place]), list(range(len(array))))
    if found is not None:
        read_back = pq.read_table(io.BytesIO(bytes(broken)), use_threads=False).column(0).combine_chunks()
        assert found == cells_of(read_back)


def changed(chunk: bytes, old: bytes, new: bytes) -> bytes:
    assert chunk.count(old) == 1, "the place is known by its bytes"
    return chunk.replace(old, new)


PLAIN: Final[dict[str, Any]] = {"use_dictionary": False, "compression": "none", "write_statistics": False}
LEVELS: Final = b"\3\0\0\0\xc8\1"  # three bytes: 100 times the level that follows
RLE_TWICE: Final = b"\x15\6\x15\6"  # encodings of both kinds of levels, fields 3 and 4 of a data page header


def left_to_arrow(kind: ChunkKind, chunk: bytes) -> bool:
    """Whether neither the core nor its twin takes a chunk."""
    rows = list(range(kind.row_count))
    return taken(kind, chunk, rows) is None and twin.chunk_values(kind, chunk, kind.row_count) is None


@pytest.mark.parametrize("level", [2, 3, 255])
def test_levels_over_one_are_left_to_arrow(level: int) -> None:
    kind, chunk = written(pa.array(np.arange(100)), **PLAIN)
    assert not left_to_arrow(kind, changed(chunk, LEVELS + b"\1", LEVELS + b"\0"))
    assert left_to_arrow(kind, changed(chunk, LEVELS + b"\1", LEVELS + bytes([level])))


def test_level_over_one_in_a_later_run_is_left_to_arrow() -> None:
    array = pa.array(np.arange(100), mask=np.arange(100) >= 60)
    kind, chunk = written(array, **PLAIN)
    runs = b"\x78\1\x50\0"  # 60 that are there, 40 that are not
    assert taken(kind, chunk, list(range(100))) == cells_of(array)
    assert left_to_arrow(kind, changed(chunk, runs, b"\x78\1\x50\2"))


def test_packed_run_longer_than_its_bytes_is_left_to_arrow() -> None:
    kind, chunk = written(pa.array(np.arange(16)), nullable=False, compression="none", write_statistics=False)
    packed = bytes([0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE])  # 16 numbers of 4 bits
    assert not left_to_arrow(kind, chunk)
    assert left_to_arrow(kind, changed(chunk, b"\4\5" + packed, b"\4\7" + packed))


def test_packed_levels_longer_than_their_bytes_are_left_to_arrow() -> None:
    kind, chunk = written(pa.array(np.arange(16), mask=np.arange(16) % 2 > 0), **PLAIN)
    levels = b"\3\0\0\0\5\x55\x55"  # three bytes: two groups of eight, packed
    assert not left_to_arrow(kind, chunk)
    assert left_to_arrow(kind, changed(chunk, levels, b"\3\0\0\0\7\x55\x55"))


@pytest.mark.parametrize("nullable", [False, True])
@pytest.mark.parametrize("kept", [b"\x25\6", b"\x15\6"], ids=["without field 3", "without field 4"])
def test_data_page_header_without_an_encoding_of_levels_is_left_to_arrow(kept: bytes, *, nullable: bool) -> None:
    kind, chunk = written(pa.array(np.arange(100)), nullable=nullable, **PLAIN)
    assert not left_to_arrow(kind, chunk)
    assert left_to_arrow(kind, changed(chunk, RLE_TWICE, kept))


def test_a_dictionary_that_grew_too_great_goes_on_plain() -> None:
    array = pa.array(np.random.default_rng(7).integers(0, 2**62, ROWS))
    kind, chunk = written(array, dictionary_pagesize_limit=8 * 1024, data_page_size=4096)
    assert read(kind, chunk) == cells_of(array)


def test_pages_without_wanted_rows_are_passed_by() -> None:
    kind, chunk = written(pa.array(np.arange(ROWS)), use_dictionary=False, compression="none", data_page_size=4096)
    broken = bytearray(chunk)
    broken[-8:] = bytes(8)
    assert taken(kind, bytes(broken), [3, 3]) == [np.int64(3).tobytes()] * 2
    assert read(kind, bytes(broken)) != read(kind, chunk)


STRETCH: Final = 1 << 16  # bytes that snappy compresses on their own


@pytest.mark.parametrize("kind_of_values", [np.float32, np.int64])
@pytest.mark.parametrize("more", [0, 8, 256, 264, 30_000])
def test_a_dictionary_that_does_not_shrink_is_read_where_it_stands(kind_of_values: type, more: int, seed: int) -> None:
    count = (2 * STRETCH + more) // np.dtype(kind_of_values).itemsize
    random = np.random.default_rng(seed)
    floats = random.permutation(2**22)[:count] / 2**22
    integers = random.integers(2**40, 2**62, count)
    array = pa.array(integers if kind_of_values is np.int64 else floats.astype(np.float32))
    kind, chunk = written(array, nullable=False, compression="snappy", write_statistics=False)
    assert chunk.count(b"\xf4\xff\xff") >= 2, "the dictionary stands as literals of 64 KiB"
    expected = cells_of(array)
    assert read(kind, chunk) == expected
    assert taken(kind, chunk, list(range(0, count, 3))) == expected[::3]
    broken = bytearray(chunk)
    broken[chunk.index(b"\xf4\xff\xff") + 1] = 0xFE
    assert read(kind, bytes(broken)) == twin.chunk_values(kind, bytes(broken), count)


@pytest.mark.parametrize(
    "options",
    [
        {"data_page_version": "2.0"},
        {"use_dictionary": False, "column_encoding": "DELTA_BINARY_PACKED"},
        {"use_dictionary": False, "column_encoding": "BYTE_STREAM_SPLIT"},
    ],
)
def test_other_pages_are_left_to_a_general_reader(options: dict[str, Any]) -> None:
    kind, chunk = written(pa.array(np.arange(ROWS)), **options)
    assert read(kind, chunk) is None
    assert taken(kind, chunk, [0]) is None


def test_what_does_not_fit_is_refused() -> None:
    kind, chunk = written(pa.array([1, 2, 3]))
    reader, values, nulls = PageReader(), np.zeros(24, np.uint8), np.zeros(3, np.uint8)
    for sources, targets in (([1, 0], [0, 1]), ([3], [0]), ([-1], [0]), ([0], [3]), ([0], [-1])):
        with pytest.raises(ValueError, match="out of range or order"):
            Places(np.array(sources), np.array(targets), 3, 3)
    with pytest.raises(ValueError, match="do not fit together"):
        Places(np.array([0]), np.array([0, 1]), 3, 3)
    for rows, slots in ((-1, 3), (3, -1), (PLACES_MAX + 1, 3), (3, PLACES_MAX + 1)):
        with pytest.raises(ValueError, match="are none of 0 to"):
            Places(np.array([0]), np.array([0]), rows, slots)
    for rows, slots, room in ((4, 3, values), (3, 2, values), (3, 3, values[:16])):
        with pytest.raises(ValueError, match=r"are given for 3 rows|are no 3 slots"):
            reader.take(kind, chunk, Places(np.array([0]), np.array([0]), rows, slots), room, nulls)
    with pytest.raises(ValueError, match="no room for"):
        reader.read(kind, chunk, values[:16])
    for wrong in (kind._replace(width=2), kind._replace(codec=9)):
        with pytest.raises(ValueError, match=r"no room|no kind"):
            reader.read(wrong, chunk, values)
    assert not reader.read(kind, b"", values)


def test_zstd_without_a_decompressor_is_left_to_arrow() -> None:
    kind, chunk = written(pa.array(np.arange(100)), nullable=False, compression="zstd")
    values = np.zeros(800, np.uint8)
    assert not PageReader().read(kind, chunk, values)
    assert PageReader(inflate).read(kind, chunk, values)


@pytest.mark.parametrize("answer", [b"", b"too short", None], ids=["empty", "short", "no bytes"])
def test_a_decompressor_that_gives_something_else_is_damage(answer: Any) -> None:
    kind, chunk = written(pa.array(np.arange(100)), nullable=False, compression="zstd")
    assert not PageReader(lambda block, size: answer).read(kind, chunk, np.zeros(800, np.uint8))
