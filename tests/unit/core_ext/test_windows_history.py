"""Values at given instants: those of the naive evaluator and of folded tiles, to the bit."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core_ext.arrow import ArrowColumn
from core_ext.twin.windows import Row
from core_ext.window_plan import plan_windows
from core_ext.windows import CorruptMapError, History, Windows
from headrace.definitions.transforms import AGGREGATES
from headrace.types import Scalar, Shape, ValueType
from tests.unit.core_ext.state_samples import bits
from tests.unit.core_ext.window_samples import (
    Case,
    cases,
    columns_of,
    delta_of,
    deltas_of,
    feature,
    orders_of,
    plans,
    rows_of,
    truth,
)


def history_of(
    windows: Windows,
    groups: Sequence[Sequence[Row]],
    reads: Sequence[tuple[int, int]],
    threads: int = 1,
    delays: Sequence[int] = (),
) -> History:
    """Values for reads of (time, group)."""
    rows = [row for group in groups for row in group]
    return windows.history(
        columns_of(windows.plan, rows),
        np.array([row.event_us for row in rows], np.int64),
        np.repeat(np.arange(len(groups), dtype=np.int64), [len(group) for group in groups]),
        np.array([read_us for read_us, _ in reads], np.int64),
        np.array([group for _, group in reads], np.int64),
        len(groups),
        threads=threads,
        available_us=available_of(rows, delays) if delays else None,
        **orders_of(rows),
    )


def available_of(rows: Sequence[Row], delays: Sequence[int]) -> NDArray[np.int64]:
    """When each event was available, its delay taken in turn."""
    times = [row.event_us + delays[at % len(delays)] for at, row in enumerate(rows)]
    return np.array(times, np.int64)


def values_of(windows: Windows, history: History) -> list[list[Any]]:
    """Values of each read, in the order of the features."""
    found = []
    for (scalar, is_list), column in zip(windows.result_types, history.columns, strict=True):
        array = arrow_of(column, ValueType(Scalar(scalar), Shape.VARIABLE if is_list else Shape.SINGLE))
        array.validate(full=True)
        if scalar in (Scalar.TIMESTAMP_US, Scalar.DATE):
            whole = pa.int64() if scalar == Scalar.TIMESTAMP_US else pa.int32()
            array = array.cast(pa.list_(whole) if is_list else whole)
        found.append(array.to_pylist())
    return [list(read) for read in zip(*found, strict=True)]


def arrow_of(column: ArrowColumn, kind: ValueType) -> pa.Array:
    """The column as a pyarrow array."""
    held = [None if one is None else pa.py_buffer(one) for one in (column.validity, column.offsets, column.values)]
    if kind.shape == Shape.VARIABLE:
        assert column.child is not None
        child = arrow_of(column.child, ValueType(kind.scalar))
        return pa.Array.from_buffers(kind.arrow, column.length, held[:2], children=[child])
    return pa.Array.from_buffers(kind.arrow, column.length, held if column.offsets is not None else [held[0], held[2]])


@st.composite
def histories(draw: st.DrawFn) -> tuple[Windows, list[list[Row]], list[tuple[int, int]]]:
    """Events of some groups, one of them perhaps without any, and reads about them in any order."""
    plan = draw(plans())
    first = draw(rows_of(plan, 20))
    near = first[0].event_us
    again = draw(st.permutations(first))
    groups = draw(st.permutations([first, [], again[: draw(st.integers(0, len(again)))]]))
    times = st.integers(-900, 900).map(lambda distance: max(min(near + distance, 2**60), -(2**60)))
    reads = draw(st.lists(st.tuples(times, st.integers(0, 2)), max_size=12))
    return Windows(plan), groups, reads


@settings(max_examples=300)
@given(histories(), st.integers(1, 4))
def test_history_equals_the_naive_evaluator(
    case: tuple[Windows, list[list[Row]], list[tuple[int, int]]], threads: int
) -> None:
    windows, groups, reads = case
    history = history_of(windows, groups, reads, threads)
    expected = [truth(windows.plan, groups[group], read_us) for read_us, group in reads]
    assert bits(values_of(windows, history)) == bits([values for values, _ in expected])
    for at, losses in enumerate(history.losses):
        lost = [found[at] for _, found in expected]
        assert losses == [0, *[lost.count(cause) for cause in range(1, len(losses))]]


DELAYS = st.lists(st.integers(-5, 3) | st.integers(0, 400), min_size=1, max_size=7)


@settings(max_examples=300)
@given(histories(), st.integers(1, 2), DELAYS)
def test_no_read_sees_what_was_not_available(
    case: tuple[Windows, list[list[Row]], list[tuple[int, int]]], threads: int, delays: list[int]
) -> None:
    windows, groups, reads = case
    history = history_of(windows, groups, reads, threads, delays)
    available = available_of([row for group in groups for row in group], delays).tolist()
    seen: list[list[tuple[int, Row]]] = []
    for group in groups:
        seen.append(list(zip(available[: len(group)], group, strict=True)))
        available = available[len(group) :]
    expected = []
    for read_us, group_at in reads:
        known = [row for available_us, row in seen[group_at] if available_us <= read_us]
        expected.append(truth(windows.plan, known, read_us)[0])
    assert bits(values_of(windows, history)) == bits(expected)


@settings(max_examples=150)
@given(cases(), st.integers(0, 2**32), st.integers(0, 300))
def test_history_and_folded_tiles_are_one(case: Case, seed: int, later: int) -> None:
    plan, rows = case
    windows = Windows(plan)
    read_us = min(max(row.event_us for row in rows) + later, 2**60)
    shuffled = random.Random(seed).sample(rows, len(rows))
    history = values_of(windows, history_of(windows, [shuffled], [(read_us, 0)]))
    assert bits(history[0]) == bits(windows.fold(delta_of(windows, rows), read_us).values)


@settings(max_examples=100)
@given(histories())
def test_many_folds_are_those_of_single_maps(case: tuple[Windows, list[list[Row]], list[tuple[int, int]]]) -> None:
    windows, groups, reads = case
    maps = deltas_of(windows, groups)[0]
    single = [windows.fold(maps[group], read_us) for read_us, group in reads]
    times = np.array([read_us for read_us, _ in reads], np.int64)
    found, exact = windows.fold_many([maps[group] for _, group in reads], times)
    assert bits(values_of(windows, found)) == bits([folded.values for folded in single])
    assert [one == 1 for one in exact] == [folded.is_exact for folded in single]
    for at, losses in enumerate(found.losses):
        assert sum(losses) == sum(folded.losses[at] != 0 for folded in single)


def test_many_events_slide_as_they_are_read_alone(seed: int) -> None:
    """Long groups: runs are merged, values are taken back, queues empty and fill."""
    choose = random.Random(seed)
    every = [("top_k", 3), ("last_n", 5), ("quantile", 250_000), ("decayed_sum", 1_000)]
    every += [(name, 0) for name in AGGREGATES if name not in dict(every) and name != "ratio"]
    features = [feature(name, *span, 0, -1, parameter) for name, parameter in every for span in ((300, 20), (4_000, 1))]
    windows = Windows(plan_windows(features, [Scalar.I64]))
    clusters = [choose.randrange(30_000) for _ in range(12)]
    rows = [
        Row((choose.choice([None, 1, 2, 3, 2**40, -7]),), choose.choice(clusters) + choose.randrange(700), offset=at)
        for at in range(900)
    ]
    reads = [(choose.randrange(-100, 36_000), 0) for _ in range(150)]
    together = values_of(windows, history_of(windows, [rows], reads))
    for read, values in choose.sample(list(zip(reads, together, strict=True)), 25):
        assert bits(values) == bits(truth(windows.plan, rows, read[0])[0])
    alone = [values_of(windows, history_of(windows, [rows], [read]))[0] for read in reads]
    assert bits(together) == bits(alone)
    delays = [choose.choice([0, 0, 30, 400, 9_000]) for _ in range(97)]
    available = available_of(rows, delays).tolist()
    later = values_of(windows, history_of(windows, [rows], reads, 1, delays))
    for read, values in choose.sample(list(zip(reads, later, strict=True)), 25):
        known = [row for row, available_us in zip(rows, available, strict=True) if available_us <= read[0]]
        assert bits(values) == bits(truth(windows.plan, known, read[0])[0])


def test_states_beyond_their_cap_come_back(seed: int) -> None:
    """5,000 different values are more than top_k counts: NULL and counted while they are in the window."""
    windows = Windows(plan_windows([feature("top_k", 10_000, 1_000, 0, -1, 1)], [Scalar.I64]))
    rows = [Row((at,), at) for at in range(1, 5_001)] + [Row((5,), 16_000), Row((5,), 20_000)]
    random.Random(seed).shuffle(rows)
    reads = [(1_000, 0), (5_000, 0), (6_000, 0), (15_000, 0), (16_500, 0), (20_000, 0)]
    history = history_of(windows, [rows], reads)
    assert values_of(windows, history) == [[[1]], [None], [None], [None], [[5]], [[5]]]
    assert history.losses == [[0, 0, 0, 0, 2]]


def test_no_reads_and_no_events_are_no_values() -> None:
    windows = Windows(plan_windows([feature("sum", 60, 5), feature("max", 60, 5)], [Scalar.I64]))
    assert values_of(windows, history_of(windows, [], [])) == []
    assert values_of(windows, history_of(windows, [[]], [(5, 0), (-9, 0)])) == [[0, None], [0, None]]
    assert values_of(windows, history_of(windows, [[Row((3,), 5)]], [])) == []


def test_what_does_not_fit_is_refused() -> None:
    windows = Windows(plan_windows([feature("sum", 60, 5)], [Scalar.I64]))
    one = np.ones(1, np.int64)
    columns = columns_of(windows.plan, [Row((1,), 1)])
    with pytest.raises(ValueError, match="is of group 1, and there are 1"):
        windows.history(columns, one, one - 1, one, one, 1)
    with pytest.raises(ValueError, match="beyond 2\\^60"):
        windows.history(columns, one, one - 1, one * 2**61, one - 1, 1)
    for threads in (0, 65):
        with pytest.raises(ValueError, match="write 1 to 64"):
            windows.history(columns, one, one - 1, one, one - 1, 1, threads=threads)
    with pytest.raises(ValueError, match="available_us holds 2 rows"):
        windows.history(columns, one, one - 1, one, one - 1, 1, available_us=np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="2 read times are given for 1 maps"):
        windows.fold_many([None], np.zeros(2, np.int64))
    with pytest.raises(CorruptMapError, match="map 1 or its read time"):
        windows.fold_many([None, b"no map"], np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="groups holds 2 rows"):
        windows.history(columns, one, one - 1, one, np.zeros(2, np.int64), 1)
