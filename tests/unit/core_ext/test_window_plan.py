"""Plans of windows: ladders that keep every fold short, states that are shared, and what no plan can serve."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_ext import window_plan
from core_ext.twin.windows import Row
from core_ext.window_plan import MERGES_MAX, PlanError, WindowPlan, expected_bytes, merges_max, plan_windows
from core_ext.windows import Windows
from headrace.definitions.transforms import AGGREGATES
from headrace.types import Scalar
from tests.unit.core_ext.window_samples import Feature, delta_of, feature, is_refused

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
USUAL = [(HOUR, 5 * MINUTE), (6 * HOUR, 15 * MINUTE), (DAY, HOUR), (7 * DAY, 6 * HOUR), (30 * DAY, DAY)]


def needed(plan: WindowPlan, at: int, read_us: int) -> int:
    """Tiles that a fold reads when every tile has events, counted by walking them."""
    span = plan.spans[at]
    ladder = plan.ladders[span.ladder]
    start, level, count = window_plan.window_start(read_us, span.window_us, span.hop_us), span.level, 0
    while start < read_us:
        above = ladder.sizes_us[min(level + 1, len(ladder.sizes_us) - 1)]
        if level + 1 < len(ladder.sizes_us) and start % above == 0 and start + above <= read_us:
            level += 1
            continue
        start += ladder.sizes_us[level]
        count += 1
    return count


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(1, 10**13), st.integers(1, 10**6)), min_size=1, max_size=6),
    st.integers(-(2**59), 2**59),
)
def test_no_fold_needs_more_merges_than_the_bound(spans: list[tuple[int, int]], read_us: int) -> None:
    wanted = [feature("sum", max(window // hop * hop, hop), hop) for window, hop in spans]
    refused = is_refused(wanted, [Scalar.I64])
    if refused is not None:
        assert wanted[refused.feature][3] // wanted[refused.feature][4] > 4**11
        return
    plan = plan_windows(wanted, [Scalar.I64])
    for at, span in enumerate(plan.spans):
        ladder = plan.ladders[span.ladder]
        assert needed(plan, at, read_us) <= merges_max(ladder, span) <= MERGES_MAX
        assert all(coarse % fine == 0 for fine, coarse in pairwise(ladder.sizes_us))
        assert span.hop_us % ladder.sizes_us[span.level] == 0
    assert [feature.aggregate for feature in plan.features] == [one[0] for one in wanted]


def test_usual_windows_share_one_ladder_and_one_state_a_column() -> None:
    names = ["count", "sum", "avg", "variance", "stddev", "min", "max"]
    plan = plan_windows([feature(name, *span) for name in names for span in USUAL], [Scalar.F64])
    assert len(plan.ladders) == 1
    assert [state.kind for state in plan.states] == [window_plan.MOMENTS, window_plan.MIN, window_plan.MAX]
    assert [size // MINUTE for size in plan.ladders[0].sizes_us] == [5, 15, 60, 360, 1440, 5760]
    assert max(merges_max(plan.ladders[0], span) for span in plan.spans) <= 16


def test_a_ladder_with_long_steps_is_split() -> None:
    together = plan_windows([feature("sum", 100, 1), feature("sum", 970, 97)], [Scalar.I64])
    assert [ladder.sizes_us[0] for ladder in together.ladders] == [1, 97]
    apart = plan_windows([feature("sum", 60, 1), feature("sum", 900, 90)], [Scalar.I64])
    assert len(apart.ladders) == 2, "the finer windows never reach the coarser hop"


@pytest.mark.parametrize(
    ("wanted", "scalars", "message"),
    [
        (feature("sum", 10 * 365 * DAY, 1), [Scalar.I64], "needs more than 48 merges a value: take a longer hop"),
        (feature("sum", 5, 6), [Scalar.I64], "1 <= hop <= window"),
        (feature("sum", 2**51, 2**50), [Scalar.I64], "1 <= hop <= window"),
        (feature("sum", 60, 5, 1), [Scalar.I64], "input 1 is none of the 1"),
        (feature("sum", 60, 5, -1), [Scalar.I64], "input -1 is none"),
        (feature("ratio", 60, 5, 0, -1), [Scalar.I64], "input -1 is none"),
        (feature("decayed_sum", 60, 5, parameter=0), [Scalar.I64], "more than 512 half lives"),
        ((16, 0, -1, 60, 5, 0), [Scalar.I64], "aggregate 16 is unknown"),
        ((0, 0, -1, 60, 5, 0), [Scalar.I64], "aggregate 0 is unknown"),
    ],
)
def test_what_no_plan_serves_is_refused_by_its_place(wanted: Feature, scalars: list[int], message: str) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        plan_windows([feature("count", 60, 5), wanted], scalars)
    assert caught.value.feature == 1


def test_too_many_features_are_refused() -> None:
    with pytest.raises(PlanError, match="at most 2000 windows"):
        plan_windows([feature("count", 60, 5)] * 2_001, [Scalar.I64])


@pytest.mark.parametrize(
    ("wanted", "scalar", "message"),
    [
        (feature("sum", 60, 5), Scalar.STRING, "state 0 is none that can be kept"),
        (feature("quantile", 60, 5, parameter=1_000_001), Scalar.I64, "takes no parameter 1000001"),
        (feature("top_k", 60, 5, parameter=0), Scalar.I64, "takes no parameter 0"),
        (feature("last_n", 60, 5, parameter=1_001), Scalar.I64, "none that can be kept"),
    ],
)
def test_the_kernel_refuses_what_its_states_cannot_answer(wanted: Feature, scalar: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Windows(plan_windows([wanted], [scalar]))


def test_the_kernel_refuses_plans_that_do_not_hold_together() -> None:
    plan = plan_windows([feature("sum", 60, 5)], [Scalar.I64])
    ladder, span, state = plan.ladders[0], plan.spans[0], plan.states[0]
    for wrong, message in [
        (plan._replace(ladders=(ladder._replace(sizes_us=(5, 6)),)), "do not divide"),
        (plan._replace(ladders=(ladder._replace(sizes_us=()),)), "do not divide"),
        (plan._replace(ladders=(ladder._replace(sizes_us=(0, 5)),)), "do not divide"),
        (plan._replace(ladders=(ladder._replace(keeps_us=(1,)),)), "do not fit"),
        (plan._replace(ladders=()), "the plan has 1"),
        (plan._replace(spans=(span._replace(level=9),)), "does not fit its ladder"),
        (plan._replace(spans=(span._replace(hop_us=4),)), "no tile of its level"),
        (plan._replace(states=(state._replace(column=3),)), "which the plan lacks"),
        (plan._replace(features=(plan.features[0]._replace(state=1),)), "that the plan lacks"),
        (plan._replace(features=(plan.features[0]._replace(aggregate=4),)), "no answer in its state"),
    ]:
        with pytest.raises(ValueError, match=message):
            Windows(wrong)


def test_the_check_number_follows_what_tiles_mean_alone() -> None:
    base = plan_windows([feature("quantile", 60, 5, parameter=1)], [Scalar.I64])
    assert plan_windows([feature("quantile", 60, 5, parameter=2)], [Scalar.I64]).check == base.check
    assert plan_windows([feature("quantile", 65, 5, parameter=1)], [Scalar.I64]).check != base.check
    assert plan_windows([feature("quantile", 60, 5, parameter=1)], [Scalar.F64]).check != base.check


def test_the_expected_size_is_near_that_of_a_busy_row() -> None:
    names = ["count", "sum", "avg", "min", "max", "last"]
    plan = plan_windows([feature(name, *span) for name in names for span in USUAL], [Scalar.F64])
    rows = [Row((at * 0.1,), at * 5 * MINUTE) for at in range(12 * 24 * 45)]
    busy = len(delta_of(Windows(plan), rows))
    assert busy / 1.5 <= expected_bytes(plan) <= 2 * busy


def test_aggregates_are_numbered_as_in_definitions() -> None:
    assert sorted(AGGREGATES.values()) == list(range(1, len(window_plan.KIND_OF)))
