"""Sessions: histories and rows against an evaluator that cuts the sorted events of an entity from the first one on."""

import random
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core_ext.arrow import ArrowColumn, arrow_column
from core_ext.twin.hashing import with_checksum
from core_ext.twin.windows import Row
from core_ext.window_plan import EVENT_TIME, MAX, MIN, PlanError, WindowPlan, expected_bytes, merges_max, plan_windows
from core_ext.windows import CorruptMapError, Windows
from headrace.definitions.transforms import AGGREGATES
from headrace.types import Scalar
from tests.unit.core_ext.state_samples import bits
from tests.unit.core_ext.test_windows_history import available_of, history_of, values_of
from tests.unit.core_ext.window_samples import GAPS, delta_of, feature, truth

WINDOW, HOP, GAP = 60, 5, 8
NAMES: Final = ["count", "sum", "min", "max", "first", "last", "last_n"]
MINUTE, DAY = 60_000_000, 86_400_000_000


def plan_of(window_us: int = WINDOW, hop_us: int = HOP, gap_us: int = GAP) -> WindowPlan:
    """Aggregates whose values a list of numbers gives at once."""
    return plan_windows(
        [feature(name, window_us, hop_us, parameter=1_000 * (name == "last_n"), gap_us=gap_us) for name in NAMES],
        [Scalar.I64],
    )


def row(event_us: int, number: int | None = None, **order: int) -> Row:
    return Row((event_us if number is None else number,), event_us, **order)


def sessions(times: list[int], gap_us: int) -> list[list[int]]:
    """The times in runs, each a session."""
    found: list[list[int]] = []
    for at in sorted(times):
        if found and at - found[-1][-1] <= gap_us:
            found[-1].append(at)
        else:
            found.append([at])
    return found


def expected(
    times: list[int], read_us: int, window_us: int = WINDOW, hop_us: int = HOP, gap_us: int = GAP
) -> list[Any]:
    """Values of `plan_of` where each event holds its own time."""
    open_ones = [run for run in sessions([at for at in times if at <= read_us], gap_us) if read_us - run[-1] <= gap_us]
    start = (read_us - window_us) // hop_us * hop_us
    held = [at for run in open_ones for at in run if at > start]
    if not held:
        return [0, 0, None, None, None, None, None]
    return [len(held), sum(held), held[0], held[-1], held[0], held[-1], held[::-1]]


def stored(windows: Windows, chunks: list[list[Row]]) -> bytes:
    """The map of a row that takes one chunk after the other, each twice, as replays are."""
    stored_map = None
    for offset, chunk in enumerate(chunks):
        for _ in range(2):
            stored_map = windows.apply(stored_map, delta_of(windows, chunk), offset).map
    assert stored_map is not None
    return stored_map


TIMES = st.lists(st.integers(1, 30), min_size=1, max_size=30).map(lambda steps: np.cumsum(steps).tolist())


@settings(max_examples=300)
@given(TIMES, st.sampled_from(GAPS), st.integers(0, 60), st.integers(0, 2**32))
def test_rows_in_any_order_and_histories_are_the_sessions_of_the_sorted_events(
    times: list[int], span: tuple[int, int, int], later: int, seed: int
) -> None:
    windows, choose = Windows(plan_of(*span)), random.Random(seed)
    rows = choose.sample([row(at) for at in times], len(times))
    cuts = sorted(choose.sample(range(1, len(rows)), min(len(rows) - 1, 4)))
    chunks = [rows[start:end] for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    read_us = times[-1] + later
    folded = windows.fold(stored(windows, chunks), read_us)
    assert folded.values == expected(times, read_us, *span)
    assert folded.is_exact
    reads = [choose.randrange(-5, times[-1] + 90) for _ in range(20)]
    history = values_of(windows, history_of(windows, [rows], [(at, 0) for at in reads]))
    assert history == [expected(times, at, *span) for at in reads]


@settings(max_examples=300)
@given(TIMES, st.sampled_from(GAPS), st.integers(0, 2**32))
def test_an_older_read_of_a_row_is_exact_or_says_that_it_may_not_be(
    times: list[int], span: tuple[int, int, int], seed: int
) -> None:
    windows, choose = Windows(plan_of(*span)), random.Random(seed)
    stored_map = stored(windows, [[row(at) for at in times]])
    for read_us in [choose.randrange(-5, times[-1] + 1) for _ in range(10)]:
        folded = windows.fold(stored_map, read_us)
        if folded.is_exact:
            assert folded.values == expected(times, read_us, *span)


@settings(max_examples=300)
@given(TIMES, st.sampled_from(GAPS), st.lists(st.integers(0, 90), min_size=1, max_size=5), st.integers(0, 2**32))
def test_late_events_join_sessions_only_once_they_are_available(
    times: list[int], span: tuple[int, int, int], delays: list[int], seed: int
) -> None:
    windows, choose = Windows(plan_of(*span)), random.Random(seed)
    rows = [row(at) for at in times]
    available = available_of(rows, delays).tolist()
    reads = [choose.randrange(-5, times[-1] + 90) for _ in range(20)]
    history = values_of(windows, history_of(windows, [rows], [(at, 0) for at in reads], 1, delays))
    known = [[at for at, seen_us in zip(times, available, strict=True) if seen_us <= read_us] for read_us in reads]
    assert history == [expected(seen, read_us, *span) for seen, read_us in zip(known, reads, strict=True)]


@pytest.mark.parametrize(
    ("times", "read_us", "held"),
    [
        ([100, 108], 108, [100, 108]),  # a pause of exactly the gap parts nothing
        ([100, 109], 109, [109]),
        ([100], 108, [100]),  # open until the gap has passed
        ([100], 109, []),
        ([], 109, []),
        ([100, 116], 116, [116]),
        ([100, 108, 116], 116, [100, 108, 116]),  # one late event joins both
        ([100, 105, 110], 109, [100, 105]),  # nothing after T
        ([0, -8, -16], 0, [-16, -8, 0]),
        ([*range(0, 100, 5)], 95, [*range(40, 100, 5)]),  # cut: 35 is the start of the window, which is left out
        ([*range(0, 100, 5)], 99, [*range(40, 100, 5)]),  # whose start moves by whole hops
    ],
)
def test_edges_of_sessions(times: list[int], read_us: int, held: list[int]) -> None:
    windows, newest_first = Windows(plan_of()), held[::-1] or None
    rows = [row(at) for at in times]
    assert expected(times, read_us)[-1] == newest_first
    assert values_of(windows, history_of(windows, [rows], [(read_us, 0)]))[0][-1] == newest_first
    assert truth(windows.plan, rows, read_us)[0][-1] == newest_first
    seen = [one for one in rows if one.event_us <= read_us]
    assert windows.fold(stored(windows, [seen]) if seen else None, read_us).values[-1] == newest_first


def test_a_late_event_joins_two_sessions_of_a_row() -> None:
    windows = Windows(plan_of())
    apart = stored(windows, [[row(100), row(102)], [row(114), row(115)]])
    assert windows.fold(apart, 115).values[-1] == [115, 114]
    joined = windows.apply(apart, delta_of(windows, [row(108)]), 2)
    assert windows.fold(joined.map, 115).values[-1] == [115, 114, 108, 102, 100]


def test_what_is_no_longer_kept_makes_an_older_read_inexact_where_it_could_matter() -> None:
    windows = Windows(plan_of(window_us=20, hop_us=5, gap_us=8))
    stored_map = stored(windows, [[row(at) for at in (40, 60, 68, 100)]])
    assert windows.check_map(stored_map).tile_counts[0] == 1, "what is before 80 or so is gone"
    assert windows.fold(stored_map, 100) == (expected([40, 60, 68, 100], 100, 20, 5, 8), [0] * 7, True)
    assert not windows.fold(stored_map, 70).is_exact
    assert windows.fold(stored_map, 95).is_exact


def test_every_aggregate_over_many_sessions(seed: int) -> None:
    """Long runs, values taken back, queues that begin anew where a late event joins a session to the one before."""
    choose = random.Random(seed)
    parameters = {"top_k": 3, "last_n": 5, "quantile": 250_000, "decayed_sum": 1_000}
    features = [
        feature(name, window_us, hop_us, 0, 0 if name == "ratio" else -1, parameters.get(name, 0), gap_us)
        for name in AGGREGATES
        for window_us, hop_us, gap_us in ((4_000, 20, 20), (400, 20, 60), (4_000, 7, 150))
    ]
    windows = Windows(plan_windows(features, [Scalar.I64]))
    clusters = [choose.randrange(20_000) for _ in range(40)]
    rows = [
        row(choose.choice(clusters) + choose.randrange(400), choose.choice([1, 2, 3, 2**40, -7]), offset=at)
        for at in range(900)
    ]
    reads = [(choose.randrange(-100, 21_000), 0) for _ in range(200)]
    delays = [choose.choice([0, 0, 0, 30, 400, 3_000]) for _ in range(97)]
    available = available_of(rows, delays).tolist()
    later = values_of(windows, history_of(windows, [rows], reads, 1, delays))
    for read, values in choose.sample(list(zip(reads, later, strict=True)), 60):
        known = [one for one, available_us in zip(rows, available, strict=True) if available_us <= read[0]]
        assert bits(values) == bits(truth(windows.plan, known, read[0])[0])
    newest = max(one.event_us for one in rows)
    shuffled = choose.sample(rows, len(rows))
    chunks = [shuffled[at::7] for at in range(7)]
    for read_us in (newest, newest + 15, newest + 100, newest + 151):
        found = windows.fold(stored(windows, chunks), read_us)
        assert bits(found[:2]) == bits(truth(windows.plan, rows, read_us))


def test_rows_and_histories_of_many_entities_are_one(seed: int) -> None:
    """Floats of very different sizes: a sum in another order would have other bits."""
    random_of = np.random.default_rng(seed)
    count, entities = 40_000, 500
    parameters = {"top_k": 3, "last_n": 5, "quantile": 250_000, "decayed_sum": 60_000}
    features = [
        feature(name, 40_000, 250, int(name == "top_k"), 1 if name == "ratio" else -1, parameters.get(name, 0), gap_us)
        for name in AGGREGATES
        for gap_us in (250, 400)
    ]
    windows = Windows(plan_windows(features, [Scalar.F64, Scalar.I64]))
    groups, times = random_of.integers(0, entities, count), random_of.integers(0, 20_000, count)
    floats = random_of.normal(0, 1, count) * 10.0 ** random_of.integers(-12, 13, count)
    columns = [pa.array(floats), pa.array(random_of.integers(-3, 4, count))]
    offsets = np.arange(count)

    def inputs(chosen: NDArray[np.int64]) -> list[ArrowColumn]:
        return [arrow_column(column.take(pa.array(chosen))) for column in columns]

    maps: list[bytes | None] = [None] * entities
    for offset, chosen in enumerate(np.array_split(random_of.permutation(count), 8)):
        found = windows.update(inputs(chosen), times[chosen], groups[chosen], entities, offsets=offsets[chosen])
        for group, delta in enumerate(found.maps):
            if delta is not None:
                maps[group] = windows.apply(maps[group], delta, offset).map
                maps[group] = windows.apply(maps[group], delta, offset).map
    newest = np.zeros(entities, np.int64)
    np.maximum.at(newest, groups, times)
    reads = newest + random_of.integers(0, 500, entities)
    shuffled = random_of.permutation(count)
    history = windows.history(
        inputs(shuffled), times[shuffled], groups[shuffled], reads, np.arange(entities), entities,
        offsets=offsets[shuffled], threads=2,
    )  # fmt: skip
    folded, exact = windows.fold_many(maps, reads)
    assert bits(values_of(windows, folded)) == bits(values_of(windows, history))
    assert set(exact) == {1}
    counts = [values[0] for values in values_of(windows, history)]
    assert counts == [
        expected(sorted(times[groups == at].tolist()), int(reads[at]), 40_000, 250, 250)[0] for at in range(entities)
    ]
    assert 0 in counts
    assert max(counts) > 3


def test_a_batch_under_a_stream_joins_sessions_across_its_cut() -> None:
    windows = Windows(plan_of())
    batch = windows.stamp(delta_of(windows, [row(at) for at in (90, 97, 100)]), 100, 4)
    live = windows.apply(batch, delta_of(windows, [row(106), row(111)]), 5).map
    assert windows.fold(live, 112).values[-1] == [111, 106, 100, 97, 90]
    stream = stored(windows, [[row(at)] for at in (90, 97, 100, 106, 111)])
    assert windows.fold(windows.merge(stream, batch).map, 112).values[-1] == [111, 106, 100, 97, 90]


def test_sessions_of_one_hop_share_a_ladder_whatever_their_gaps() -> None:
    names = ["count", "sum", "avg", "max"]
    spans = [(DAY, 30 * MINUTE, 30 * MINUTE), (DAY, 30 * MINUTE, 45 * MINUTE), (DAY // 2, 30 * MINUTE, 60 * MINUTE)]
    plan = plan_windows(
        [feature(name, over, hop, gap_us=gap) for name in names for over, hop, gap in spans]
        + [feature("sum", DAY, 30 * MINUTE)],
        [Scalar.F64],
    )
    kept = [plan.states[one.first_state :][: one.state_count] for one in plan.ladders]
    (sessioned,) = [at for at, states in enumerate(kept) if states[-1].column == EVENT_TIME]
    assert [state.kind for state in kept[sessioned][-2:]] == [MIN, MAX]
    assert len(plan.ladders) == 2
    assert {plan.spans[one.span].ladder for one in plan.features[:-1]} == {sessioned}
    assert max(merges_max(plan.ladders[span.ladder], span) for span in plan.spans) <= 48
    assert plan.ladders[sessioned].sizes_us[0] == 30 * MINUTE
    other = plan_windows([feature("count", DAY, 30 * MINUTE, gap_us=40 * MINUTE)], [Scalar.F64])
    same = plan_windows([feature("count", DAY, 30 * MINUTE, gap_us=30 * MINUTE)], [Scalar.F64])
    plain = plan_windows([feature("count", DAY, 30 * MINUTE)], [Scalar.F64])
    assert other.check == same.check != plain.check


def test_the_expected_size_is_near_that_of_a_busy_row() -> None:
    plan = plan_windows([feature(name, DAY, MINUTE, gap_us=MINUTE) for name in NAMES[:-1]], [Scalar.I64])
    busy = len(delta_of(Windows(plan), [row(at * MINUTE) for at in range(3 * 24 * 60)]))
    assert busy / 2 <= expected_bytes(plan) <= 2 * busy


@pytest.mark.parametrize(("window_us", "hop_us", "gap_us"), [(60, 5, 4), (60, 5, 61), (60, 5, -5)])
def test_a_gap_lies_between_hop_and_window(window_us: int, hop_us: int, gap_us: int) -> None:
    with pytest.raises(PlanError, match="write hop <= gap <= window") as caught:
        plan_windows([feature("sum", 60, 5), feature("count", window_us, hop_us, gap_us=gap_us)], [Scalar.I64])
    assert caught.value.feature == 1


def test_the_kernel_refuses_sessions_that_their_ladder_does_not_keep() -> None:
    plan = plan_of()
    (span,), (ladder,) = plan.spans, plan.ladders
    edge = next(at for at, state in enumerate(plan.states) if state.column == EVENT_TIME)
    swapped = (*plan.states[:edge], plan.states[edge + 1], plan.states[edge])
    for wrong, message in [
        (plan._replace(spans=(span._replace(gap_us=4),)), "a session that its ladder does not keep"),
        (plan._replace(spans=(span._replace(gap_us=-8),)), "a session that its ladder does not keep"),
        (plan._replace(spans=(span._replace(gap_us=61),)), "a session that its ladder does not keep"),
        (plan._replace(states=swapped), "a session that its ladder does not keep"),
        (plan._replace(ladders=(ladder._replace(state_count=ladder.state_count - 1),)), "the plan has"),
        (plan._replace(features=(plan.features[2]._replace(state=edge),)), "event times, which answers none"),
        (plan._replace(states=(*plan.states[:edge], plan.states[edge]._replace(scalar=2))), "which the plan lacks"),
    ]:
        with pytest.raises(ValueError, match=message):
            Windows(wrong)


def test_event_times_outside_of_their_tile_are_refused() -> None:
    """The last bytes of the only tile are the times of its first and last event, one byte each."""
    windows = Windows(plan_windows([feature("count", 5, 5, -1, gap_us=5)], [Scalar.I64]))
    delta = delta_of(windows, [row(1), row(5)])
    (at,) = [at for at in range(len(delta) - 1) if delta[at : at + 2] == bytes([2, 10])]  # zigzag
    for first, last in ((2, 12), (0, 10), (10, 2), (2, 0x8A)):
        damaged = with_checksum(delta[:at] + bytes([first, last]) + delta[at + 2 : -4])
        with pytest.raises(CorruptMapError, match="that no events lead to"):
            windows.fold(damaged, 6)
    assert windows.fold(delta, 6).values == [2]
