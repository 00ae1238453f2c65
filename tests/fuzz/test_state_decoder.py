"""Damaged window states: refused, or read as the state that encodes to exactly these bytes."""

import random
from contextlib import suppress

import pytest

from core_ext import states
from core_ext.states import CorruptStateError, NotRetractableError, State, StateSpec, StateTooLargeError
from core_ext.twin.states import Kind
from headrace.definitions.transforms import AGGREGATES
from tests.fuzz.mutations import mutations
from tests.unit.core_ext.golden import described, spec_of_case
from tests.unit.core_ext.state_samples import ANSWERS

STATES = described("states")
COUNTS = pytest.mark.parametrize("count", [40_000, pytest.param(2_000_000, marks=pytest.mark.slow)])
PASSED_MIN = 0.02  # share of inputs that must pass the checks, else the fuzz no longer reaches what reads behind them


@COUNTS
def test_damaged_states_are_refused_or_canonical(seed: int, count: int) -> None:
    specs = [StateSpec(*spec_of_case(case)) for case in STATES]
    made = [State(spec) for spec in specs]
    corpus = [bytes.fromhex(case["bytes"]) for case in STATES]
    choose = random.Random(seed)
    passed = 0
    for index, data in mutations(corpus, seed, count):
        spec, state = specs[index], made[index]
        state.reset()
        try:
            states.check(spec, data)
        except CorruptStateError:
            with pytest.raises(CorruptStateError):
                state.merge_bytes(data)
            continue
        passed += 1
        state.merge_bytes(data)
        assert state.encode() == data
        for name in ANSWERS[Kind(spec.kind)]:
            parameter = {"quantile": 900_000, "top_k": 3}.get(name, spec.parameter)
            with suppress(CorruptStateError):  # a sum of squares below what the sum allows
                state.result(AGGREGATES[name], parameter, 1)
        other = choose.choice(corpus)
        with suppress(CorruptStateError, StateTooLargeError):
            state.merge_bytes(other)
        with suppress(CorruptStateError, StateTooLargeError, NotRetractableError):
            state.retract_bytes(data)
    assert passed > PASSED_MIN * count
