"""Window kernel against its twin: the same tiles to the byte, the same values to the bit, whatever the order."""

import gc
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core_ext import windows as core
from core_ext.twin import windows as twin
from core_ext.twin.windows import FULL, TIME_NONE, Row, TileMap
from core_ext.window_plan import WindowPlan, plan_windows
from core_ext.windows import Windows
from headrace.types import Scalar
from tests.unit.core_ext.state_samples import bits
from tests.unit.core_ext.window_samples import (
    Case,
    Feature,
    cases,
    columns_of,
    delta_of,
    deltas_of,
    feature,
    truth,
)

SEEDS = st.integers(0, 2**32)
HOUR_US = 3_600_000_000


def chunks_of(rows: list[Row], choose: random.Random) -> list[list[Row]]:
    """The rows in up to five parts, none of them empty."""
    cuts = sorted(choose.sample(range(1, len(rows)), min(len(rows) - 1, choose.randrange(5))))
    return [rows[start:end] for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]


def stored(windows: Windows, chunks: list[list[Row]]) -> bytes:
    """The map of a row that takes one chunk after the other."""
    stored_map = None
    for offset, chunk in enumerate(chunks):
        stored_map = windows.apply(stored_map, delta_of(windows, chunk), offset).map
    assert stored_map is not None
    return stored_map


@settings(max_examples=250)
@given(cases(), SEEDS)
def test_maps_and_values_equal_those_of_the_twin(case: Case, seed: int) -> None:
    plan, rows = case
    choose = random.Random(seed)
    windows = Windows(plan)
    stored_map, expected = None, TileMap()
    for chunk in chunks_of(rows, choose):
        offset = choose.randrange(3)  # a smaller one is a replay for the tiles that have seen a greater one
        (delta,), late = deltas_of(windows, [chunk])
        twin_delta, twin_late = twin.delta(plan, chunk)
        assert delta is not None
        assert (delta, late) == (twin.encode(plan, twin_delta), twin_late)
        found = windows.apply(stored_map, delta, offset)
        expected, left = twin.apply(plan, expected, twin_delta, offset)
        assert found.map == twin.encode(plan, expected)
        assert found[1:] == left
        windows.check_map(delta)
        header = windows.check_map(found.map)
        assert header[:3] == (expected.newest, TIME_NONE, TIME_NONE)
        assert header.tile_counts == [len(section) for section in expected.sections]
        stored_map = found.map


@settings(max_examples=250)
@given(cases(), SEEDS, st.integers(0, 500))
def test_values_are_those_of_the_naive_evaluator_in_any_order_and_chunks(case: Case, seed: int, later: int) -> None:
    plan, rows = case
    choose = random.Random(seed)
    windows = Windows(plan)
    newest = max(row.event_us for row in rows)
    read_us = min(newest + later, 2**60)
    folded = windows.fold(stored(windows, chunks_of(choose.sample(rows, len(rows)), choose)), read_us)
    assert bits(folded[:2]) == bits(truth(plan, rows, read_us))
    assert folded.is_exact


@settings(max_examples=250)
@given(cases(), SEEDS, st.integers(-900, 0))
def test_an_older_read_is_exact_or_says_that_it_may_not_be(case: Case, seed: int, earlier: int) -> None:
    plan, rows = case
    windows = Windows(plan)
    read_us = max(max(row.event_us for row in rows) + earlier, -(2**60))
    folded = windows.fold(stored(windows, chunks_of(rows, random.Random(seed))), read_us)
    if folded.is_exact:
        assert bits(folded[:2]) == bits(truth(plan, rows, read_us))


@settings(max_examples=250)
@given(cases(), SEEDS)
def test_order_and_duplicates_that_were_removed_leave_the_same_bytes(case: Case, seed: int) -> None:
    plan, rows = case
    windows = Windows(plan)
    choose = random.Random(seed)
    doubled = choose.sample([*rows, *rows], 2 * len(rows))
    once: list[Row] = []
    for row in doubled:
        if sum(one is row for one in once) < sum(one is row for one in rows):
            once.append(row)
    assert delta_of(windows, once) == delta_of(windows, rows)


@settings(max_examples=250)
@given(cases(), SEEDS)
def test_a_replay_changes_nothing(case: Case, seed: int) -> None:
    plan, rows = case
    choose = random.Random(seed)
    windows = Windows(plan)
    chunks = chunks_of(choose.sample(rows, len(rows)), choose)
    expected = stored(windows, chunks)
    again = expected
    for offset, chunk in enumerate(chunks[choose.randrange(len(chunks)) :]):
        again = windows.apply(again, delta_of(windows, chunk), offset).map
    assert again == expected


@settings(max_examples=250)
@given(cases(), SEEDS, st.integers(-450, 450))
def test_full_maps_merge_like_those_of_the_twin(case: Case, seed: int, cut_distance: int) -> None:
    plan, rows = case
    choose = random.Random(seed)
    windows = Windows(plan)
    cut = max(min(max(row.event_us for row in rows) + cut_distance, 2**60), -(2**60))
    early = [row for row in rows if row.event_us <= cut]
    assume(early)
    covered = choose.randrange(4)
    stream, expected_stream = None, TileMap()
    for offset, chunk in enumerate(chunks_of(rows, choose)):
        stream = windows.apply(stream, delta_of(windows, chunk), offset).map
        expected_stream, _ = twin.apply(plan, expected_stream, twin.delta(plan, chunk)[0], offset)
    batch = windows.stamp(delta_of(windows, early), cut, covered)
    expected_batch = twin.stamp(twin.delta(plan, early)[0], cut, covered)
    assert batch == twin.encode(plan, expected_batch)
    for ours, theirs, mine, yours in (
        (stream, batch, expected_stream, expected_batch),
        (batch, stream, expected_batch, expected_stream),
    ):
        assert ours is not None and theirs is not None
        found = windows.merge(ours, theirs)
        merged, left = twin.merge(plan, mine, yours)
        assert found.map == twin.encode(plan, merged)
        assert found[1:] == left
        late = choose.sample(rows, choose.randrange(len(rows)) + 1)
        after = windows.apply(found.map, delta_of(windows, late), 2)
        after_twin, left = twin.apply(plan, merged, twin.delta(plan, late)[0], 2)
        assert after.map == twin.encode(plan, after_twin)
        assert after[1:] == left
        windows.check_map(after.map)


@settings(max_examples=250)
@given(cases(), SEEDS)
def test_a_batch_under_a_stream_gives_the_values_of_all_events(case: Case, seed: int) -> None:
    """The batch alone knows the older half; the stream knows what came after it, some of it late."""
    plan, rows = case
    choose = random.Random(seed)
    windows = Windows(plan)
    newest = max(row.event_us for row in rows)
    cut = min(row.event_us for row in rows) + choose.randrange(800)
    offset_of = {index: choose.randrange(6) for index in range(len(rows))}
    seen = [row for index, row in enumerate(rows) if row.event_us <= cut and offset_of[index] <= 2]
    assume(seen)
    row_map = windows.stamp(delta_of(windows, seen), min(cut, 2**60), 2)
    for offset in range(3, 6):
        chunk = [row for index, row in enumerate(rows) if offset_of[index] == offset]
        if chunk:
            row_map = windows.apply(row_map, delta_of(windows, chunk), offset).map
    known = seen + [row for index, row in enumerate(rows) if offset_of[index] > 2]
    assert bits(windows.fold(row_map, newest)[:2]) == bits(truth(plan, known, newest))


def plan_of(*features: Feature, scalars: tuple[int, ...] = (Scalar.I64,)) -> WindowPlan:
    return plan_windows(features, scalars)


def row(event_us: int, *inputs: Any) -> Row:
    return Row(inputs, event_us)


@pytest.mark.parametrize(
    ("read_us", "times"),
    [
        (100, [100, 96, 95, 91]),  # T is in its window, the start is not
        (104, [100, 96, 95, 91]),  # the start moves by whole hops
        (105, [105, 100, 96]),
        (0, [0, -1, -5, -9]),
        (-1, [-1, -5, -9, -10, -14]),
        (-5, [-5, -9, -10, -14]),
        (50, []),
    ],
)
def test_windows_are_half_open_and_start_at_hops(read_us: int, times: list[int]) -> None:
    plan = plan_of(feature("count", 10, 5), feature("last_n", 10, 5, parameter=100))
    every = [105, 100, 96, 95, 91, 90, 0, -1, -5, -9, -10, -14, -15, -20]
    rows = [row(at, at) for at in every if at <= read_us]
    assert Windows(plan).fold(delta_of(Windows(plan), rows), read_us).values == [len(times), times or None]
    assert truth(plan, [row(at, at) for at in every], read_us)[0] == [len(times), times or None]


@pytest.mark.parametrize(("read_us", "is_exact"), [(21, False), (20, True), (19, True), (22, True)])
def test_an_older_read_is_exact_at_edges_and_in_empty_tiles(read_us: int, is_exact: bool) -> None:
    plan = plan_of(feature("last_n", 10, 5, parameter=9))
    rows = [row(at, at) for at in (1, 2, 6, 8, 10, 11, 14, 22)]
    folded = Windows(plan).fold(delta_of(Windows(plan), rows), read_us)
    assert folded.is_exact == is_exact
    if is_exact:
        assert folded.values == truth(plan, rows, read_us)[0]


def test_no_event_is_a_count_and_sum_of_zero_and_else_null() -> None:
    names = ["count", "sum", "avg", "min", "max", "first", "last", "stddev", "variance", "approx_distinct"]
    plan = plan_of(
        *[feature(name, 60, 5) for name in names],
        feature("count", 60, 5, column=-1),
        feature("quantile", 60, 5, parameter=500_000),
        feature("top_k", 60, 5, parameter=2),
        feature("last_n", 60, 5, parameter=2),
        feature("ratio", 60, 5, column2=0),
        feature("decayed_sum", 60, 5, parameter=30),
    )
    windows = Windows(plan)
    nothing = windows.fold(None, 1_000)
    old = windows.fold(stored(windows, [[row(5, 1)]]), 1_000)
    nulls = windows.fold(stored(windows, [[row(1_000, None)]]), 1_000)
    assert nothing.values[:2] == [0, 0]
    assert nothing.values[10] == 0
    assert [value for at, value in enumerate(nothing.values) if at not in (0, 1, 10)] == [None] * 13
    assert old == nothing
    assert nulls.values == [*nothing.values[:10], 1, *nothing.values[11:]]
    assert nothing.is_exact


def test_late_events_count_while_a_window_can_hold_them() -> None:
    plan = plan_of(feature("sum", 60, 5), feature("sum", 600, 60))
    windows = Windows(plan)
    first = windows.apply(None, delta_of(windows, [row(1_000, 1)]), 0)
    late = windows.apply(first.map, delta_of(windows, [row(500, 10)]), 1)
    too_late = windows.apply(late.map, delta_of(windows, [row(100, 100), row(101, 7)]), 2)
    assert (late.late_events, too_late.late_events) == (0, 2)
    assert windows.fold(too_late.map, 1_000).values == [1, 11]
    assert deltas_of(windows, [[row(100, 100), row(1_000, 5)]])[1] == 1


def test_groups_get_deltas_of_their_own() -> None:
    windows = Windows(plan_of(feature("sum", 60, 5)))
    found, late = deltas_of(windows, [[row(1, 1)], [], [row(2, 5), row(1, 7)]])
    assert found[1] is None
    assert late == 0
    assert [windows.fold(one, 10).values for one in found] == [[1], [0], [12]]
    empty = windows.update(columns_of(windows.plan, []), np.empty(0, np.int64), np.empty(0, np.int64), 0)
    assert empty == ([], 0)


def test_a_plan_without_windows_has_empty_maps() -> None:
    windows = Windows(plan_windows([], []))
    delta = delta_of(windows, [Row((), 5)])
    assert windows.check_map(windows.apply(None, delta, 1).map) == (5, TIME_NONE, TIME_NONE, [])
    assert windows.fold(delta, 5) == ([], [], True)


def test_a_batch_that_saw_fewer_events_is_counted() -> None:
    windows = Windows(plan_of(feature("sum", 60, 5)))
    stream = stored(windows, [[row(1, 1)], [row(2, 2)], [row(30, 4)]])
    batch = windows.stamp(delta_of(windows, [row(1, 1)]), 10, 0)
    found = windows.merge(stream, batch)
    assert found.overtaken_tiles == 1
    assert windows.fold(found.map, 31).values == [5]
    assert windows.check_map(found.map)[1:3] == (10, 0)
    assert windows.merge(found.map, batch).map == found.map
    older = windows.stamp(delta_of(windows, [row(1, 100)]), 5, 9)
    assert windows.merge(found.map, older).map == found.map


def test_what_does_not_fit_is_refused() -> None:
    windows = Windows(plan_of(feature("sum", 60, 5)))
    other = Windows(plan_of(feature("sum", 60, 6)))
    delta = delta_of(windows, [row(1, 1)])
    full = windows.apply(None, delta, 0).map
    with pytest.raises(core.CorruptMapError, match="another plan"):
        other.apply(None, delta, 0)
    with pytest.raises(core.CorruptMapError, match="unknown kind"):
        windows.apply(full, full, 0)
    with pytest.raises(core.CorruptMapError, match="unknown kind"):
        windows.merge(full, delta)
    with pytest.raises(core.CorruptMapError, match="unknown kind"):
        windows.stamp(full, 5, 0)
    with pytest.raises(ValueError, match="after the cut"):
        windows.stamp(delta, 0, 0)
    for read_us in (-(2**60) - 1, 2**60 + 1):
        with pytest.raises(ValueError, match="beyond 2\\^60"):
            windows.fold(full, read_us)
        with pytest.raises(ValueError, match="beyond 2\\^60"):
            delta_of(windows, [row(read_us, 1)])
    columns, one = columns_of(windows.plan, [row(1, 1)]), np.ones(1, np.int64)
    with pytest.raises(ValueError, match="0 columns are given for the 1 inputs"):
        windows.update([], one, one, 2)
    with pytest.raises(ValueError, match="groups holds 2 rows"):
        windows.update(columns, one, np.ones(2, np.int64), 2)
    with pytest.raises(ValueError, match="is of group 1"):
        windows.update(columns, one, one, 1)
    with pytest.raises(ValueError, match="too many"):
        windows.update(columns, one, one, -1)
    with pytest.raises(ValueError, match="write_us holds 2 rows"):
        windows.update(columns, one, one, 2, write_us=np.ones(2, np.int64))
    with pytest.raises(ValueError, match="column 0"):
        windows.update([columns[0]._replace(values=b"1234567")], one, one, 2)


def test_a_fold_may_run_inside_another() -> None:
    """Making the values of one may start a collection, and that anything at all."""
    windows = Windows(plan_of(*[feature("last_n", 60, 5, parameter=count) for count in range(1, 30)]))
    one, other = (delta_of(windows, [row(at, at * sign) for at in range(40)]) for sign in (1, -1))
    expected = [windows.fold(delta, 40) for delta in (one, other)]
    inner: list[core.Folded] = []

    def nested(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            inner.append(windows.fold(other, 40))

    thresholds = gc.get_threshold()
    gc.callbacks.append(nested)
    gc.set_threshold(1)
    try:
        outer = [windows.fold(one, 40) for _ in range(20)]
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(nested)
    assert outer == [expected[0]] * 20
    assert inner == [expected[1]] * len(inner) != []


def test_full_and_delta_differ_in_their_kind_alone() -> None:
    windows = Windows(plan_of(feature("sum", 60, 5)))
    delta = delta_of(windows, [row(1, 1)])
    assert delta[2] != windows.apply(None, delta, 0).map[2] == FULL
