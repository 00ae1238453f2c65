"""Pieces of pages against their twin, and against the page reader."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from core_ext.page_encoder import RUN_BITS_MAX, in_runs, levels_of, numbered, present
from core_ext.twin import page_encoder as twin
from core_ext.twin import pages


@st.composite
def numbers(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Bits, and numbers in long and in short runs."""
    bits = draw(st.integers(1, RUN_BITS_MAX))
    lengths = st.sampled_from([1, 2, 7, 8, 9, 16, 500])
    runs = draw(st.lists(st.tuples(st.integers(0, 2**bits - 1), lengths), max_size=40))
    return bits, [number for number, count in runs for _ in range(count)]


@given(numbers())
def test_runs_equal_the_twin_and_are_read_back(drawn: tuple[int, list[int]]) -> None:
    bits, given_numbers = drawn
    written = in_runs(np.array(given_numbers, np.uint8), bits)
    assert written == twin.in_runs(given_numbers, bits)
    read = pages._first(pages._runs(pages.Bytes(written), bits), len(given_numbers))
    assert read == given_numbers


def test_more_groups_than_a_head_counts_equal_the_twin(seed: int) -> None:
    given_numbers = np.random.default_rng(seed).integers(0, 5, 5_000).astype(np.uint8)
    written = in_runs(given_numbers, 3)
    assert written == twin.in_runs(given_numbers.tolist(), 3)
    assert pages._first(pages._runs(pages.Bytes(written), 3), 5_000) == given_numbers.tolist()


@given(st.lists(st.booleans(), max_size=200), st.integers(0, 20))
def test_levels_are_the_bits_of_arrow(valid: list[bool], offset: int) -> None:
    array = pa.array([1 if one else None for one in valid], pa.int64())[offset:]
    bitmap = bytes(array.buffers()[0] or b"\xff" * 26)
    levels = levels_of(bitmap, array.offset, len(array))
    assert levels.tolist() == twin.levels_of(bitmap, array.offset, len(array))
    assert levels.tolist() == [int(one) for one in valid[offset:]]


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 1)), max_size=80), st.sampled_from([4, 8]))
def test_values_that_are_there_equal_the_twin(rows: list[tuple[int, int]], width: int) -> None:
    values = [value.to_bytes(width, "little") for value, _ in rows]
    levels = [level for _, level in rows]
    kept = present(np.frombuffer(b"".join(values), np.uint8), np.array(levels, np.uint8), width)
    assert kept.tobytes() == twin.present(values, levels)


@given(st.binary(max_size=300))
def test_bytes_are_numbered_as_by_the_twin(values: bytes) -> None:
    different, places = numbered(np.frombuffer(values, np.uint8))
    assert (different, places.tolist()) == twin.numbered(values)


def test_what_does_not_fit_is_refused() -> None:
    ones = np.ones(8, np.uint8)
    for bits in (0, RUN_BITS_MAX + 1):
        with pytest.raises(ValueError, match="1 to 8 bits"):
            in_runs(ones, bits)
    with pytest.raises(ValueError, match="more than 2 bits"):
        in_runs(np.array([4], np.uint8), 2)
    for offset, count in ((-1, 1), (0, -1), (60, 5)):
        with pytest.raises(ValueError, match="do not hold"):
            levels_of(ones, offset, count)
    for values, width in ((ones, 4), (ones, 2), (np.ones(63, np.uint8), 8)):
        with pytest.raises(ValueError, match="are no 8 values"):
            present(values, ones, width)
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        present(np.ones(4, np.uint8), np.array([2], np.uint8), 4)
