"""Results of window states against other definitions of them: fractions, statistics, sorting, exact counts."""

import math
import random
import statistics
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext import states
from core_ext.states import NotRetractableError, State, StateSpec
from core_ext.twin import state_numbers
from core_ext.twin.states import Event, Kind, Spec
from headrace.definitions.transforms import AGGREGATES
from headrace.types import Scalar
from tests.unit.core_ext.state_samples import HOUR_US, bits, state_of

F32, F64, I64, STRING, BYTES = Scalar.F32, Scalar.F64, Scalar.I64, Scalar.STRING, Scalar.BYTES
FINITE = st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=50)
HASHED = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=300)
DISTINCT_ERROR_MAX = 0.08  # 3.5 standard errors of 2,048 registers: 1.04 / sqrt(2,048) = 2.3 %
DECAY_ERROR_MAX = 2.0**-50


def value_of(state: State, aggregate: str, parameter: int = 0, read_us: int = 0) -> object:
    return state.result(AGGREGATES[aggregate], parameter, read_us).value


def of_values(kind: Kind, scalar: int, values: Sequence[object]) -> State:
    return state_of(Spec(kind, scalar), [Event(value) for value in values])


@given(FINITE)
def test_sums_are_those_of_fsum(values: list[float]) -> None:
    state = of_values(Kind.SUM, F64, values)
    assert bits(value_of(state, "sum")) == bits(math.fsum(values))
    assert bits(value_of(state, "avg")) == bits(float(sum(map(Fraction, values)) / len(values)))


@given(st.lists(st.floats(-1e100, 1e100) | st.sampled_from([1e16, 1e16 + 2]), min_size=2, max_size=30))
def test_variances_are_those_of_fractions(values: list[float]) -> None:
    state = of_values(Kind.MOMENTS, F64, values)
    expected = float(statistics.variance(map(Fraction, values)))
    assert bits(value_of(state, "variance")) == bits(expected)
    assert bits(value_of(state, "stddev")) == bits(math.sqrt(expected))


def test_sums_of_special_values() -> None:
    for values, expected in [
        ([1e308, 1e308], math.inf),
        ([1e308, 1e308, -1e308], 1e308),
        ([-1e308, -1e308], -math.inf),
        ([math.inf, 1.0], math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, 1.0], math.nan),
        ([-0.0, -0.0], 0.0),
        ([1e16, 1.0, -1e16], 1.0),
        ([5e-324] * 3, 1.5e-323),
        ([0.1] * 10, 1.0),
    ]:
        assert bits(value_of(of_values(Kind.SUM, F64, values), "sum")) == bits(expected), values


def test_a_sum_of_whole_numbers_that_does_not_fit_is_lost_and_found_again() -> None:
    state = of_values(Kind.SUM, I64, [2**63 - 1, 1])
    assert state.result(AGGREGATES["sum"]) == (None, states.LOST_OVERFLOW)
    assert value_of(state, "avg") == 2.0**62
    state.add(-1)
    assert state.result(AGGREGATES["sum"]) == (2**63 - 1, states.LOST_NOTHING)


def test_ratios_without_and_with_a_denominator() -> None:
    spec = Spec(Kind.RATIO, I64, F64)
    for events, expected in [
        ([Event(1, None)], (None, states.LOST_NOTHING)),
        ([Event(1, 0.0)], (None, states.LOST_DIVISION)),
        ([Event(1, 1.0), Event(1, -1.0)], (None, states.LOST_DIVISION)),
        ([Event(None, 4.0)], (0.0, states.LOST_NOTHING)),
        ([Event(1, None), Event(None, 3.0)], (1 / 3, states.LOST_NOTHING)),
    ]:
        assert state_of(spec, events).result(AGGREGATES["ratio"]) == expected


def test_extremes_order_nan_last_and_minus_zero_first() -> None:
    values = [0.0, -0.0, math.nan, 1.0, math.inf]
    assert bits(value_of(of_values(Kind.MIN, F64, values), "min")) == bits(-0.0)
    assert bits(value_of(of_values(Kind.MAX, F64, values), "max")) == bits(math.nan)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False), min_size=1, max_size=60))
def test_quantiles_are_within_a_64th_of_the_value_of_their_place(values: list[float]) -> None:
    state = of_values(Kind.QUANTILE, F64, values)
    ordered = sorted(values)
    for millionths in (0, 100_000, 500_000, 999_999, 1_000_000):
        place = max(math.ceil(Fraction(millionths, 1_000_000) * len(values)), 1) - 1
        found, exact = value_of(state, "quantile", millionths), ordered[place]
        assert isinstance(found, float)
        assert abs(Fraction(found) - Fraction(exact)) <= abs(Fraction(exact)) / 64


def test_more_buckets_than_the_cap_are_lost_and_stay_lost() -> None:
    values = [math.ldexp(1 + part / 32, power) for power in range(128) for part in range(32)]
    assert len(values) == states.BUCKETS_MAX
    state = of_values(Kind.QUANTILE, F64, values)
    assert state.result(AGGREGATES["quantile"], 0) == (1 + 1 / 64, states.LOST_NOTHING)
    halves = [of_values(Kind.QUANTILE, F64, [*part, -1.0]) for part in (values[::2], values[1::2])]
    assert [half.result(AGGREGATES["quantile"], 0).lost for half in halves] == [states.LOST_NOTHING] * 2
    state.add(-1.0)
    halves[0].merge_bytes(halves[1].encode())
    for over in (state, halves[0]):
        assert over.encode() == b"\0"
        assert over.result(AGGREGATES["quantile"], 0) == (None, states.LOST_BUCKETS)
        with pytest.raises(NotRetractableError):
            over.retract(-1.0)
        with pytest.raises(NotRetractableError):
            over.retract_bytes(halves[1].encode())


def test_more_values_than_the_cap_are_lost_and_stay_lost() -> None:
    values = list(range(states.TOP_VALUES_MAX))
    state = of_values(Kind.TOP, I64, [*values, 5, 9, 9])
    assert value_of(state, "top_k", 3) == [9, 5, 0]
    state.retract(9)
    state.retract(9)
    assert value_of(state, "top_k", 2) == [5, 0]
    other = of_values(Kind.TOP, I64, [-1])
    state.merge(other)
    assert state.encode() == b"\0"
    assert state.result(AGGREGATES["top_k"], 3) == (None, states.LOST_VALUES)
    other.merge_bytes(state.encode())
    assert other.encode() == b"\0"
    with pytest.raises(NotRetractableError):
        other.retract(-1)


def test_texts_beyond_the_cap_are_lost_in_any_order() -> None:
    texts = [bytes([number]) * 1_024 for number in range(64)]
    whole = of_values(Kind.TOP, BYTES, texts)
    assert value_of(whole, "top_k", 1) == [texts[0]]
    for extra in (b"a", b"b" * (states.TOP_BYTES_MAX + 1)):
        assert of_values(Kind.TOP, BYTES, [*texts, extra]).encode() == b"\0"
        assert of_values(Kind.TOP, BYTES, [extra, *texts]).encode() == b"\0"


def test_a_top_that_moves_through_many_values_keeps_to_what_is_in_it(seed: int) -> None:
    choose = random.Random(seed)
    state, held = of_values(Kind.TOP, STRING, []), []
    for step in range(20_000):
        held.append(f"{choose.randrange(5_000)}" * choose.randrange(1, 9))
        state.add(held[-1])
        if len(held) > 500:
            state.retract(held.pop(choose.randrange(len(held))))
        if step % 4_000 == 3_999:
            assert state.encode() == of_values(Kind.TOP, STRING, held).encode()


def test_the_last_n_of_many_texts_in_any_order(seed: int) -> None:
    choose = random.Random(seed)
    events = [Event("x" * choose.randrange(40) + str(i), event_us=i // 2, offset=i) for i in range(5_000)]
    state = state_of(Spec(Kind.LAST_N, STRING, 0, 100), choose.sample(events, len(events)))
    assert value_of(state, "last_n", 100) == [event.value for event in events[:-101:-1]]
    assert value_of(state, "last_n", 2) == [events[-1].value, events[-2].value]
    assert state.encode() == state_of(Spec(Kind.LAST_N, STRING, 0, 100), events).encode()


@pytest.mark.parametrize("count", [1, 10, 500, 513, 3_000, 20_000, 100_000])
def test_distinct_counts_are_near(count: int) -> None:
    state = of_values(Kind.DISTINCT, I64, [*range(count), *range(count // 2)])
    found = value_of(state, "approx_distinct")
    assert isinstance(found, int)
    assert abs(found - count) <= max(DISTINCT_ERROR_MAX * count, 1)


@given(HASHED)
def test_distinct_counts_of_texts_and_numbers_need_no_order(values: list[int]) -> None:
    one = of_values(Kind.DISTINCT, I64, values)
    assert of_values(Kind.DISTINCT, I64, sorted(values) * 2).encode() == one.encode()
    assert of_values(Kind.DISTINCT, Scalar.TIMESTAMP_US, values).encode() == one.encode()


def test_zeros_are_one_value_to_a_distinct_count() -> None:
    state = of_values(Kind.DISTINCT, F64, [0.0, -0.0, math.nan, -math.nan])
    assert value_of(state, "approx_distinct") == 2


@given(st.lists(st.tuples(st.floats(0.001, 1e6), st.integers(0, 100 * HOUR_US)), min_size=1, max_size=20))
def test_decayed_sums_are_near_their_definition(points: list[tuple[float, int]]) -> None:
    state = state_of(Spec(Kind.DECAYED, F64, 0, HOUR_US), [Event(v, event_us=t) for v, t in points])
    read_us = 100 * HOUR_US + 1_234_567
    expected = math.fsum(v * 2.0 ** -((read_us - t) / HOUR_US) for v, t in points)
    found = value_of(state, "decayed_sum", HOUR_US, read_us)
    assert isinstance(found, float)
    assert abs(found - expected) <= expected * 1e-13


def test_whole_half_lives_are_exact() -> None:
    state = state_of(Spec(Kind.DECAYED, F64, 0, 1_000), [Event(3.0, event_us=0), Event(-1.0, event_us=512_000)])
    assert value_of(state, "decayed_sum", 1_000, 512_000) == 3 * 2.0**-512 - 1
    assert value_of(state, "decayed_sum", 1_000, 513_000) == (3 * 2.0**-512 - 1) / 2
    tiny = state_of(Spec(Kind.DECAYED, F64, 0, 1_000), [Event(-1e-300, event_us=-1_000_000)])
    assert bits(value_of(tiny, "decayed_sum", 1_000, 0)) == bits(-0.0)


@given(st.integers(0, 2**62), st.integers(1, 2**62))
def test_powers_of_two_are_right_to_the_last_bits(rest: int, whole: int) -> None:
    rest %= whole
    found = state_numbers.exp2(rest, whole) / 2**63
    assert abs(found / 2.0 ** (rest / whole) - 1) <= DECAY_ERROR_MAX


def test_floats_of_4_bytes_are_held_as_they_are() -> None:
    state = State(StateSpec(Kind.MAX, F32))
    state.add(0.1)
    assert state.result(AGGREGATES["max"]).value == 0.10000000149011612
    assert len(state.encode()) == 4
