"""Summaries: every type, chunks and merges, stored bytes, and what is refused."""

import datetime
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from batch.skew.columns import Kind, observe, parts_of
from batch.skew.summary import (
    FINE_BINS,
    NAMES_MAX,
    PLAN_ROWS_MAX,
    from_bytes,
    plan_bins,
    summarise,
    summarise_reference,
    to_bytes,
)
from headrace.errors import DataLoss, InvalidArgument
from headrace.types import parse_type

DAY = datetime.date(2013, 1, 1)
NOON = datetime.datetime(2013, 1, 1, 12, tzinfo=datetime.UTC)
COLUMNS: dict[str, list[Any]] = {
    "bool": [True, False, True, None],
    "i32": [1, -5, 7, None],
    "i64": [2**62, -(2**63), 7, None],
    "f32": [1.5, float("nan"), float("inf"), None],
    "f64": [1e300, -0.0, float("-inf"), None],
    "string": ["a", "", "é" * 100, None],
    "bytes": [b"", b"\x00\xff", b"x" * 100, None],
    "timestamp_us": [NOON, NOON, NOON, None],
    "date": [DAY, DAY, DAY, None],
    "list<f32,3>": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [0.0, 0.0, 0.0], None],
    "list<i64>": [[1, 2], [], [3], None],
    "list<string>": [["a"], [], ["a", "b"], None],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_is_counted_and_comes_back_from_bytes(name: str) -> None:
    value_type = parse_type(name)
    column = pa.array(COLUMNS[name], type=value_type.arrow)
    summary = summarise_reference([column], value_type)
    assert (summary.row_count, summary.null_count) == (4, 1)
    assert [one.part for one in summary.bins] == list(parts_of(value_type))
    assert sum(summary.counts[0]) == 3
    assert from_bytes(to_bytes(summary)) == summary
    assert to_bytes(from_bytes(to_bytes(summary))) == to_bytes(summary)


def test_lists_are_watched_by_length_and_one_element_a_row() -> None:
    value_type = parse_type("list<i64>")
    length, element = observe(pa.array([[1, 1, 1], [], None, [2]], type=value_type.arrow), value_type)
    assert length.numbers is not None and length.numbers.tolist() == [3, 0, 1]
    assert element.numbers is not None and element.numbers.tolist() == [1, 2]
    assert [part.kind for part in parts_of(parse_type("list<string>"))] == [Kind.ORDERED, Kind.NAMED]


@pytest.mark.parametrize("name", ["f64", "list<i64>", "string"])
def test_chunks_and_merges_change_nothing(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    value_type = parse_type(name)
    makers: dict[str, Callable[[], list[Any]]] = {
        "f64": lambda: random.normal(size=500).tolist(),
        "string": lambda: [f"c{number}" for number in random.integers(0, 99, 500)],
        "list<i64>": lambda: [list(range(length)) for length in random.integers(0, 9, 500)],
    }
    column = pa.array(makers[name](), type=value_type.arrow)
    chunked = pa.chunked_array([column[:123], column[123:123], column[123:]])
    assert plan_bins([column], value_type) == plan_bins([chunked], value_type)
    bins = plan_bins([column], value_type)
    whole = summarise([column], bins, value_type)
    assert whole == summarise([column[:77], column[77:]], bins, value_type)
    if name != "list<i64>":  # which element a row gives depends on its number in its own sample
        assert whole == summarise([column[:77]], bins, value_type).merged(summarise([column[77:]], bins, value_type))


def test_memory_is_bounded_whatever_the_rows() -> None:
    numbers = np.random.default_rng(0).normal(size=2 * PLAN_ROWS_MAX)
    bins = plan_bins([numbers[:100], numbers[100:]], parse_type("f64"))
    assert bins == plan_bins([numbers], parse_type("f64"))
    assert len(bins[0].edges) <= FINE_BINS + 2 * FINE_BINS // 2 + 2
    names = plan_bins([np.array([str(n) for n in range(5_000)], dtype=object)], parse_type("string"))
    assert len(names[0].names) == NAMES_MAX
    share = np.array(summarise([numbers], bins, parse_type("f64")).counts[0]) / len(numbers)
    assert share.max() < 4 / FINE_BINS


def test_a_constant_has_a_bin_of_its_own() -> None:
    summary = summarise_reference([np.full(50, 3.0)], parse_type("f64"))
    live = summarise([np.array([2.9, 3.0, 3.1])], summary.bins, parse_type("f64"))
    assert [count for count in live.counts[0] if count] == [1, 1, 1]


def test_numbers_beyond_a_double_keep_their_bins() -> None:
    big = np.array([2**60, 2**60 + 1, 2**60 + 2] * 20)
    summary = summarise_reference([big], parse_type("i64"))
    assert sorted(summary.counts[0])[-3:] == [20, 20, 20]


def test_other_bins_do_not_merge() -> None:
    first, second = (summarise_reference([np.arange(10.0) + shift], parse_type("f64")) for shift in (0, 1))
    with pytest.raises(InvalidArgument, match="other bins"):
        first.merged(second)


def test_a_reference_without_rows_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no rows"):
        plan_bins([np.zeros(0)], parse_type("f64"), "dep_delay")


@pytest.mark.parametrize(
    "column",
    [np.zeros(3, dtype=np.float32), np.zeros((3, 3)), pa.array([1, 2]), np.array(["a"], dtype=object)],
    ids=["float32", "matrix", "ints", "text"],
)
def test_another_type_is_refused_and_never_cast(column: Any) -> None:
    with pytest.raises(InvalidArgument, match="f64 is declared") as caught:
        plan_bins([column], parse_type("f64"), "dep_delay")
    assert (caught.value.reason, caught.value.field) == ("WRONG_TYPE", "dep_delay")


def test_bins_of_another_type_are_refused() -> None:
    bins = plan_bins([np.zeros(3)], parse_type("f64"))
    with pytest.raises(InvalidArgument, match="other parts"):
        summarise([], bins, parse_type("list<i64>"))


def test_damaged_foreign_and_newer_bytes_are_refused() -> None:
    data = to_bytes(summarise_reference([np.arange(9.0)], parse_type("f64")))
    with pytest.raises(DataLoss, match="checksum"):
        from_bytes(data.replace(b'"nulls":0', b'"nulls":1'))
    for damaged in (data[:-5], b"", b"[]", b"{}"):
        with pytest.raises(DataLoss, match="no summary"):
            from_bytes(damaged)
    with pytest.raises(InvalidArgument, match="version 2"):
        from_bytes(json.dumps(json.loads(data) | {"version": 2}).encode())
    with pytest.raises(InvalidArgument, match="at most"):
        from_bytes(b" " * (1 << 20) + data)
