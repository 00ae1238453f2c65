"""Rows between stages come back by destination, in their order, whatever the size of a flush."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from batch.spark import pieces
from batch.spark.pieces import Piece, Pieces, PieceWriter, flush_rows_of
from batch.spark.salt import SALT
from headrace.errors import DataLoss, FailedPrecondition

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string()), ("pair", pa.list_(pa.float32(), 2))])


def rows(first: int, count: int) -> pa.RecordBatch:
    numbers = range(first, first + count)
    columns = [list(numbers), [None if n % 5 == 0 else "é" * (n % 4) for n in numbers], [[n, None] for n in numbers]]
    return pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def written(folder: Path, places: NDArray[Any], sizes: list[int], flush_rows: int, count: int) -> Piece:
    at = 0
    with PieceWriter(str(folder), "x", SCHEMA, count, flush_rows) as writer:
        for size in sizes:
            writer.add(rows(at, size), places[at : at + size].astype(np.uint32))
            at += size
    return Piece(writer.uri, 1_000)


@pytest.mark.parametrize(("count", "flush_rows"), [(1, 1), (1, 1_000), (3, 1), (3, 7), (3, 1_000), (70_000, 1_000)])
def test_every_row_comes_back_once_and_in_order(tmp_path: Path, seed: int, count: int, flush_rows: int) -> None:
    random = np.random.default_rng(seed)
    sizes = [0, 13, 1, 40, 6]
    places = random.integers(0, count, sum(sizes))
    found = [written(tmp_path, places, sizes, flush_rows, count) for _ in range(2)]
    held = Pieces(found, SCHEMA)
    whole = pa.Table.from_batches([rows(0, sum(sizes))])
    for place in np.unique(places).tolist():
        expected = whole.take(pa.array(np.flatnonzero(places == place)))
        one = held.rows(place)
        assert one.table().equals(pa.concat_tables([expected, expected]))
        assert one.row_count == 2 * expected.num_rows
        assert [chunk.first_row for chunk in one.chunks] == [
            sum(chunk.row_count for chunk in one.chunks[:at]) for at in range(len(one.chunks))
        ]
        assert {one.first_row_of(chunk) for chunk in one.chunks} == {1_000}
        read = [batch for chunk in one.chunks for batch in one.read(chunk, ["n", SALT])]
        assert [n for batch in read for n in batch.column("n").to_pylist()] == one.table()["n"].to_pylist()
        assert {n for batch in read for n in batch.column(SALT).to_pylist()} == {0}


def test_piece_without_rows_has_none_for_anyone(tmp_path: Path) -> None:
    held = Pieces([written(tmp_path, np.empty(0), [], 10, 3)], SCHEMA)
    assert [held.rows(place).row_count for place in range(3)] == [0, 0, 0]
    assert held.rows(0).table().equals(SCHEMA.empty_table())


def test_attempts_have_names_of_their_own_and_a_failed_one_is_not_whole(tmp_path: Path) -> None:
    writer = PieceWriter(str(tmp_path), "x", SCHEMA, 2, 5)
    with suppress(ZeroDivisionError), writer:
        writer.add(rows(0, 10), np.zeros(10, np.uint32))
        raise ZeroDivisionError
    assert not Path(writer.uri + pieces.COUNTS).exists()
    with pytest.raises(FailedPrecondition, match="vanished"):
        Pieces([Piece(writer.uri)], SCHEMA)
    assert written(tmp_path, np.zeros(3), [3], 5, 2).uri != written(tmp_path, np.zeros(3), [3], 5, 2).uri


def test_damaged_piece_is_told(tmp_path: Path) -> None:
    piece = written(tmp_path, np.zeros(30), [30], 100, 1)
    held = Pieces([piece], SCHEMA).rows(0)
    path = Path(piece.uri + pieces.ROWS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataLoss, match="cannot be read as rows between stages"):
        held.table()


def test_flush_grows_with_the_destinations_within_the_memory() -> None:
    assert flush_rows_of(4, 32, 1 << 30) == pieces.FLUSH_ROWS_MIN
    assert flush_rows_of(1_024, 32, 1 << 30) == 1_024 * pieces.BATCH_ROWS
    assert flush_rows_of(1_024, 32, 1 << 26) == (1 << 25) // 32


def test_rows_wider_than_reckoned_are_flushed_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "FLUSH_BYTES_MAX", 1 << 16)
    schema = pa.schema([("text", pa.string())])
    texts = [f"{n:04d}" * 1_024 for n in range(100)]
    places = np.arange(100, dtype=np.uint32) % 2
    with PieceWriter(str(tmp_path), "x", schema, 2, 1_000) as writer:
        for at in range(0, 100, 4):
            writer.add(pa.record_batch([texts[at : at + 4]], schema=schema), places[at : at + 4])
    held = Pieces([Piece(writer.uri)], schema)
    assert [len(held.rows(place).chunks) for place in range(2)] == [7, 7]  # of 16 rows, and the rest
    assert [held.rows(place).table()["text"].to_pylist() for place in range(2)] == [texts[::2], texts[1::2]]


def test_wide_rows_are_flushed_within_the_memory() -> None:
    for row_bytes in (4_096, 1 << 20, 1 << 40):
        assert flush_rows_of(4, row_bytes, 1 << 26) == max(1, (1 << 25) // row_bytes)
