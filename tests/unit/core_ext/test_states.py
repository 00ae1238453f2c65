"""Window states: core against twin, and the same bytes whatever the order, chunks and merges."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core_ext import states
from core_ext.states import CorruptStateError, NotRetractableError, State, StateSpec, StateTooLargeError
from core_ext.twin import states as twin
from core_ext.twin.states import Event, Kind, Spec
from headrace.definitions.transforms import AGGREGATES
from headrace.types import Scalar
from tests.unit.core_ext.state_samples import (
    ANSWERS,
    HOUR_US,
    RETRACTABLE,
    SPECS,
    cases,
    results,
    results_of_twin,
    state_of,
    take,
)

SEEDS = st.integers(0, 2**32)
F64, I64, STRING = Scalar.F64, Scalar.I64, Scalar.STRING


def tree(spec: Spec, events: Sequence[Event], choose: random.Random) -> State:
    """The events merged as a random tree, by states or by bytes."""
    if len(events) < 2 or choose.random() < 0.2:
        return state_of(spec, events)
    middle = choose.randrange(len(events) + 1)
    one, other = tree(spec, events[:middle], choose), tree(spec, events[middle:], choose)
    if choose.random() < 0.5:
        one.merge(other)
    else:
        one.merge_bytes(other.encode())
    return one


@settings(max_examples=600)
@given(cases())
@example((Spec(Kind.SUM, F64), [Event(-1.7976931348623157e308)] * 3))
@example((Spec(Kind.MOMENTS, F64), [Event(1e308), Event(-1e308)]))
@example((Spec(Kind.DECAYED, F64, 0, HOUR_US), [Event(1.7976931348623157e308, event_us=HOUR_US - 1)] * 9))
def test_core_and_twin_agree_to_the_byte(case: tuple[Spec, list[Event]]) -> None:
    spec, events = case
    state = state_of(spec, events)
    encoded = state.encode()
    assert encoded == twin.encode(spec, events)
    assert state.is_empty == (encoded == b"")
    states.check(StateSpec(*spec), encoded)
    read_us = max((event.event_us for event in events), default=0) + 12_345
    assert results(state, spec, read_us) == results_of_twin(spec, events, read_us)
    assert state.encode() == encoded, "results change nothing"


@settings(max_examples=400)
@given(cases(), SEEDS)
def test_order_chunks_and_merges_leave_the_same_bytes(case: tuple[Spec, list[Event]], seed: int) -> None:
    spec, events = case
    choose = random.Random(seed)
    expected = state_of(spec, events)
    shuffled = choose.sample(events, len(events))
    found = tree(spec, shuffled, choose)
    assert found.encode() == expected.encode()
    assert results(found, spec, HOUR_US) == results(expected, spec, HOUR_US)
    decoded = State(StateSpec(*spec))
    decoded.merge_bytes(expected.encode())
    assert decoded.encode() == expected.encode()


@settings(max_examples=300)
@given(cases(sorted(RETRACTABLE)), SEEDS)
def test_what_was_added_is_taken_back_without_a_trace(case: tuple[Spec, list[Event]], seed: int) -> None:
    spec, events = case
    choose = random.Random(seed)
    order = choose.sample(events, len(events))
    gone, kept = order[: len(order) // 2], order[len(order) // 2 :]
    state = state_of(spec, events)
    for event in choose.sample(gone, len(gone)):
        state.retract(event.value, event.second, event_us=event.event_us)
    assert state.encode() == twin.encode(spec, kept)
    state = state_of(spec, events)
    state.retract_bytes(state_of(spec, gone).encode())
    assert state.encode() == twin.encode(spec, kept)
    state.retract_bytes(state.encode())
    assert state.is_empty and state.encode() == b""


@given(cases(), SEEDS)
def test_a_reset_state_is_new(case: tuple[Spec, list[Event]], seed: int) -> None:
    spec, events = case
    state = state_of(spec, random.Random(seed).choices(events, k=len(events)))
    state.encode()
    state.reset()
    assert state.is_empty and state.encode() == b""
    assert results(state, spec) == results_of_twin(spec, [])
    assert take(state, events).encode() == twin.encode(spec, events)


@given(cases())
def test_bytes_max_bounds_every_encoding(case: tuple[Spec, list[Event]]) -> None:
    spec, events = case
    assert len(state_of(spec, events).encode()) <= states.bytes_max(StateSpec(*spec), 24)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_more_than_the_kind_can_is_refused(spec: Spec) -> None:
    state = State(StateSpec(*spec))
    assert states.can_retract(state.spec) == (spec.kind in RETRACTABLE)
    with pytest.raises(NotRetractableError):
        state.retract(
            None if spec.scalar == 0 else "a" if spec.scalar == STRING else b"a" if spec.scalar == 7 else 1, 1
        )
    for name, number in AGGREGATES.items():
        if name not in ANSWERS[Kind(spec.kind)]:
            assert not states.answers(state.spec, number, 1)
            with pytest.raises(ValueError, match="does not fit"):
                state.result(number, 1)


def test_specifications_that_do_not_fit_are_refused() -> None:
    for kind, scalar, scalar2, parameter in [
        (0, I64, 0, 0),
        (14, I64, 0, 0),
        (Kind.SUM, STRING, 0, 0),
        (Kind.SUM, 0, 0, 0),
        (Kind.SUM, I64, 0, 1),
        (Kind.TOP, F64, 0, 0),
        (Kind.MIN, 10, 0, 0),
        (Kind.RATIO, I64, 0, 0),
        (Kind.LAST_N, I64, 0, 0),
        (Kind.LAST_N, I64, 0, 1_001),
        (Kind.DECAYED, I64, 0, 0),
        (Kind.MAX, I64, I64, 0),
    ]:
        with pytest.raises(ValueError, match="is no state"):
            State(StateSpec(kind, scalar, scalar2, parameter))
    for bad in [(1, 0, 0, 1), (11, F64, 0, 1_000_001), (12, STRING, 0, 0), (2, STRING, 0, 0), (16, I64, 0, 0)]:
        with pytest.raises(ValueError, match="does not fit types"):
            states.spec_of(*bad)


def test_every_aggregate_has_its_state() -> None:
    wanted = {"quantile": 500_000, "top_k": 3, "last_n": 3, "decayed_sum": HOUR_US}
    for name, number in AGGREGATES.items():
        parameter = wanted.get(name, 0)
        spec = states.spec_of(number, I64, I64 if name == "ratio" else 0, parameter)
        assert states.answers(spec, number, parameter)
        assert name in ANSWERS[Kind(spec.kind)]
    for kind in Kind:
        assert getattr(states, f"KIND_{kind.name}") == kind


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_window_over_no_events(spec: Spec) -> None:
    state = State(StateSpec(*spec))
    for name in ANSWERS[Kind(spec.kind)]:
        parameter = {"quantile": 1, "top_k": 1}.get(name, spec.parameter)
        expected: Any = None
        if name in ("count", "sum"):
            expected = 0 if name == "count" or spec.scalar in (Scalar.I32, I64) else 0.0
        value, lost = state.result(AGGREGATES[name], parameter)
        assert (value, lost) == (expected, states.LOST_NOTHING) and type(value) is type(expected)


def test_a_plain_value_takes_few_bytes() -> None:
    for value in (1.0, 12.5, -0.1, 1e6, 3.14159):
        assert len(state_of(Spec(Kind.SUM, F64), [Event(value)]).encode()) <= 12
        assert len(state_of(Spec(Kind.MOMENTS, F64), [Event(value)]).encode()) <= 32
    assert len(state_of(Spec(Kind.SUM, I64), [Event(1_000_000)]).encode()) <= 4
    assert len(state_of(Spec(Kind.QUANTILE, F64), [Event(12.5)]).encode()) <= 5
    assert len(state_of(Spec(Kind.DISTINCT, I64), [Event(7)]).encode()) == 2


def test_an_encoding_keeps_to_its_capacity() -> None:
    state = state_of(Spec(Kind.TOP, STRING), [Event("ab"), Event("cd")])
    length = len(state.encode())
    for capacity in range(length):
        with pytest.raises(StateTooLargeError):
            state.encode(capacity)
    assert len(state.encode(length)) == length


@pytest.mark.parametrize(
    "kind", [Kind.SUM, Kind.MOMENTS, Kind.COUNT, Kind.QUANTILE, Kind.TOP], ids=lambda kind: kind.name
)
def test_counts_beyond_i64_are_refused(kind: Kind) -> None:
    state = state_of(Spec(kind, I64), [Event(3)])
    for _ in range(62):
        state.merge_bytes(state.encode())
    encoded = state.encode()
    with pytest.raises(StateTooLargeError):
        state.merge_bytes(encoded)
    assert state.is_empty


@pytest.mark.parametrize("value", [0.1, -0.1, 1.7976931348623157e308, 5e-324])
def test_carries_of_many_values_stay_exact(value: float) -> None:
    state = state_of(Spec(Kind.MOMENTS, F64), [Event(value)])
    for _ in range(60):
        state.merge_bytes(state.encode())
    assert state.result(AGGREGATES["sum"]).value == value * 2.0**60
    assert state.result(AGGREGATES["avg"]).value == value
    assert state.result(AGGREGATES["variance"]).value == 0.0
    state.retract_bytes(state.encode())
    assert state.encode() == b""


def test_an_event_far_from_the_others_is_refused_by_a_decayed_sum() -> None:
    state = state_of(Spec(Kind.DECAYED, F64, 0, 1_000), [Event(1.0, event_us=0)])
    with pytest.raises(StateTooLargeError):
        state.add(1.0, event_us=10_000_000)
    with pytest.raises(ValueError, match="does not fit"):
        state.add(1.0, event_us=2**62)


def test_states_of_two_kinds_do_not_merge() -> None:
    one, other = state_of(Spec(Kind.SUM, I64), [Event(1)]), state_of(Spec(Kind.SUM, F64), [Event(1.0)])
    for wrong in (other, one):
        with pytest.raises(ValueError, match="does not fit"):
            one.merge(wrong)
    with pytest.raises(CorruptStateError):
        one.merge_bytes(b"\1\1\1")


def test_a_number_too_wide_for_a_decayed_sum_is_not_encoded() -> None:
    spec = Spec(Kind.DECAYED, F64, 0, 1_000)
    state = state_of(spec, [Event(1.0, event_us=0)])
    state.merge_bytes(state_of(spec, [Event(1.0, event_us=4_000_000)]).encode())
    with pytest.raises(StateTooLargeError):
        state.encode()
    state.reset()
    assert state.encode() == b""
