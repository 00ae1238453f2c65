"""Windows read from sums up to each event and from tables of extremes: the naive evaluator's values, to the bit."""

import random
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core_ext.arrow import arrow_column
from core_ext.twin.windows import Row
from core_ext.window_plan import WINDOW_MAX_US, plan_windows, window_start
from core_ext.windows import Windows
from headrace.types import Scalar, ValueType
from tests.unit.core_ext.state_samples import bits
from tests.unit.core_ext.test_windows_history import arrow_of, history_of, values_of
from tests.unit.core_ext.window_samples import feature, truth

Strategies = dict[str, st.SearchStrategy[Any]]

NAMES: Final = ("count", "sum", "avg", "min", "max")
SPLITS: Final = (NAMES, ("variance", "stddev", "avg", "count"), ("ratio", "sum"))
SPANS: Final = ((60, 5), (400, 20), (37, 12))
TABLE_MAX: Final = 1 << 17  # numbers of a table of extremes, as native/hr_window_plain.h
ROWS_BYTES_MAX: Final = 1 << 28  # of values held in rows, as native/hr_window_history.h

_TINY: Final = [2.0**-899, 2.0**-946, 2.0**-947, 2.0**-1000, 2.0**-1022, 5e-324, -5e-324]
_HUGE: Final = [1.7976931348623157e308, -1.7976931348623157e308, 2.0**1023, 2.0**1000]
FLOATS: Final[Strategies] = {
    "of few bits": st.integers(-400, 400).map(lambda quarters: quarters / 4),
    "zeros": st.sampled_from([0.0, -0.0]),
    "of many bits": st.floats(-1e4, 1e4).filter(lambda value: value == 0 or abs(value) > 1e-3),
    "apart": st.sampled_from([1e6, -1e6, 1e-6, -1e-6, 0.1, 1 / 3, 2.0**53, 1.0, 2.0**-40]),
    "far apart": st.sampled_from([1e30, -1e30, 1e-30, 1.0]),
    "tiny": st.sampled_from(_TINY),
    "huge": st.sampled_from(_HUGE),
    "not finite": st.sampled_from([float("nan"), float("inf"), float("-inf"), 1.0, -0.0]),
}
SINGLES: Final[Strategies] = {
    "of many bits": st.floats(-1e4, 1e4, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3),
    "any": st.floats(width=32),
}
WHOLES: Final[Strategies] = {
    "small": st.integers(-3, 3),
    "of 40 bits": st.integers(-(2**40), 2**40),
    "near 2^53": st.sampled_from([2**47, 2**48 - 1, -(2**47), 2**52, 2**53 - 1, -(2**53), 1]),
    "of 64 bits": st.sampled_from([2**63 - 1, -(2**63), 2**62, -(2**62), 0, 1]),
}
NARROW_WHOLES: Final[Strategies] = {"any": st.integers(-(2**31), 2**31 - 1)}


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Scalar, list[Any]]:
    """A type, and values of one kind, so that whole groups are summed in one way."""
    scalar = draw(st.sampled_from([Scalar.F64, Scalar.F64, Scalar.F32, Scalar.I64, Scalar.I32]))
    kinds = {Scalar.F64: FLOATS, Scalar.F32: SINGLES, Scalar.I64: WHOLES, Scalar.I32: NARROW_WHOLES}[scalar]
    values = draw(st.sampled_from(list(kinds.values())))
    drawn = values if draw(st.booleans()) else st.none() | values
    return scalar, draw(st.lists(drawn, min_size=1, max_size=40))


@settings(max_examples=600)
@given(inputs(), st.integers(0, 2**32), st.sampled_from([60, 90, 900]), st.sampled_from(SPLITS))
@example((Scalar.F64, [2.0**1023] * 4), 0, 90, NAMES)
@example((Scalar.F64, [2.0**-946] * 3 + [3.0 * 2.0**-946]), 0, 90, NAMES)
@example((Scalar.I64, [2**63 - 1, 1, None, 2**62, 2**62]), 0, 90, NAMES)
def test_ranges_have_the_values_of_the_naive_evaluator(
    given_inputs: tuple[Scalar, list[Any]], seed: int, reach: int, names: tuple[str, ...]
) -> None:
    scalar, values = given_inputs
    choose = random.Random(seed)
    divisors = [choose.choice([None, 0, 1, -2, 7]) for _ in values]
    rows = [Row(one, choose.randrange(reach), offset=at) for at, one in enumerate(zip(values, divisors, strict=True))]
    reads = [choose.randrange(-30, reach + 450) for _ in range(25)] + [row.event_us for row in rows]
    features = [feature(name, *span, 0, int(name == "ratio") or -1) for name in names for span in SPANS]
    windows = Windows(plan_windows([*features, feature("count", 60, 5, -1)], [scalar, Scalar.I64]))
    history = history_of(windows, [rows, []], [(read_us, 0) for read_us in reads] + [(7, 1)])
    expected = [truth(windows.plan, rows, read_us) for read_us in reads] + [truth(windows.plan, [], 7)]
    assert bits(values_of(windows, history)) == bits([values for values, _ in expected])
    for at, losses in enumerate(history.losses):
        lost = [found[at] for _, found in expected]
        assert losses == [0, *[lost.count(cause) for cause in range(1, len(losses))]]


@settings(max_examples=300)
@given(
    st.integers(1, WINDOW_MAX_US) | st.integers(1, 1_000),
    st.integers(0, 2**64),
    st.lists(st.integers(-(2**60), 2**60) | st.integers(-50, 50), min_size=1, max_size=20),
)
def test_windows_of_any_hop_start_where_the_plan_says(hop_us: int, seed: int, reads: list[int]) -> None:
    """Of the two events at the start and just after it, the window holds the later one."""
    window_us = random.Random(seed).randint(hop_us, min(8 * hop_us, WINDOW_MAX_US))
    windows = Windows(plan_windows([feature("count", window_us, hop_us, -1)], [Scalar.I64]))
    reads = [max(read_us, -(2**60) + window_us + hop_us) for read_us in reads]
    starts = [window_start(read_us, window_us, hop_us) for read_us in reads]
    groups = [[Row((1,), start), Row((1,), start + 1)] for start in starts]
    found = values_of(windows, history_of(windows, groups, [(read_us, at) for at, read_us in enumerate(reads)]))
    assert found == [[1]] * len(reads)


def test_a_group_beyond_the_tables_walks(seed: int) -> None:
    """Windows over most of 30,000 events would need more levels than a table may have; those over few do not."""
    count = 30_000
    random_of = np.random.default_rng(seed)
    times, values = random_of.integers(0, 50 * count, count), random_of.normal(0, 1, count)
    spans = ((50 * count, 1_000), (20_000, 1_000))
    assert count * 14 > TABLE_MAX >= count * 4
    features = [feature(name, *span) for name in ("min", "max", "sum") for span in spans]
    windows = Windows(plan_windows(features, [Scalar.F64]))
    reads = random_of.choice(times, 300)
    zeros = np.zeros(max(count, len(reads)), np.int64)
    history = windows.history([arrow_column(pa.array(values))], times, zeros[:count], reads, zeros[:300], 1)
    found = np.array([arrow_of(column, ValueType(Scalar.F64)).to_numpy() for column in history.columns])
    for at, read_us in enumerate(reads.tolist()):
        held = [values[(times > window_start(read_us, *span)) & (times <= read_us)] for span in spans]
        assert found[:4, at].tolist() == [held[0].min(), held[1].min(), held[0].max(), held[1].max()]
        assert found[4:, at] == pytest.approx([part.sum() for part in held], abs=1e-9)


def test_the_order_of_arrival_changes_nothing(seed: int) -> None:
    """In order, in reverse and at random; of events at one time the last is the one with the greatest offset."""
    count, groups = 20_000, 70
    random_of = np.random.default_rng(seed)
    times, numbers = random_of.integers(0, 5_000, count), random_of.integers(0, groups, count)
    values = np.arange(count)
    features = [feature(name, 500, 10) for name in ("first", "last", "sum", "min")]
    windows = Windows(plan_windows(features, [Scalar.I64]))
    reads, asked = random_of.integers(0, 5_600, 4_000), random_of.integers(0, groups, 4_000)
    ordered = np.lexsort((values, times))
    found = [
        windows.history(
            [arrow_column(pa.array(values[order]))],
            times[order],
            numbers[order],
            reads,
            asked,
            groups,
            offsets=values[order],
            threads=2,
        )
        for order in (ordered, ordered[::-1], random_of.permutation(count))
    ]
    assert (
        bits(values_of(windows, found[0])) == bits(values_of(windows, found[1])) == bits(values_of(windows, found[2]))
    )
    place = {}
    for at in ordered.tolist():
        place[int(numbers[at]), int(times[at])] = at
    newest = values_of(windows, found[0])
    for at in range(4_000):
        start = window_start(int(reads[at]), 500, 10)
        held = [
            place[int(asked[at]), time]
            for time in range(start + 1, int(reads[at]) + 1)
            if (int(asked[at]), time) in place
        ]
        assert newest[at][1] == (held[-1] if held else None)


def test_reads_too_wide_for_rows_are_placed_one_by_one(seed: int) -> None:
    """The same reads in two calls fit in rows; averages and extremes are NULL now and then."""
    random_of, count, groups = np.random.default_rng(seed), 20_000, 300
    times, numbers = random_of.integers(0, 100_000, count), random_of.integers(0, groups, count)
    values = random_of.normal(0, 1, count).astype(np.float32)
    features = [feature(name, 300 + at, 10) for at in range(350) for name in NAMES]
    row_bytes = 350 * (3 * 8 + 2 * 4)
    reads, asked = random_of.integers(0, 100_000, 24_000), random_of.integers(0, groups, 24_000)
    assert len(reads) * row_bytes > ROWS_BYTES_MAX > len(reads) * row_bytes / 2
    windows, columns = Windows(plan_windows(features, [Scalar.F32])), [arrow_column(pa.array(values))]
    whole = windows.history(columns, times, numbers, reads, asked, groups, threads=2)
    parts = [
        windows.history(columns, times, numbers, reads[chosen], asked[chosen], groups, threads=2)
        for chosen in (slice(0, 12_000), slice(12_000, None))
    ]
    for at, (scalar, _) in enumerate(windows.result_types):
        together, *pieces = (arrow_of(one.columns[at], ValueType(Scalar(scalar))) for one in (whole, *parts))
        assert together.equals(pa.concat_arrays(pieces))
        assert (together.null_count > 0) == (at % 5 >= 2)
