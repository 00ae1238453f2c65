"""Specifications and events of window states, drawn by Hypothesis."""

import struct
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import strategies as st

from core_ext.states import State, StateSpec
from core_ext.twin import states as twin
from core_ext.twin.states import Event, Kind, Spec
from headrace.definitions.transforms import AGGREGATES
from headrace.types import Scalar

NUMBERS: Final = (Scalar.I32, Scalar.I64, Scalar.F32, Scalar.F64)
HOUR_US: Final = 3_600_000_000
TIME_LIMIT_US: Final = 2**61
FREE: Final = frozenset({Kind.COUNT, Kind.MIN, Kind.MAX, Kind.FIRST, Kind.LAST, Kind.DISTINCT, Kind.LAST_N})
RETRACTABLE: Final = frozenset({Kind.COUNT, Kind.SUM, Kind.MOMENTS, Kind.RATIO, Kind.DECAYED, Kind.QUANTILE, Kind.TOP})
ANSWERS: Final = {
    Kind.COUNT: ("count",),
    Kind.SUM: ("sum", "avg", "count"),
    Kind.MOMENTS: ("sum", "avg", "count", "variance", "stddev"),
    Kind.MIN: ("min",),
    Kind.MAX: ("max",),
    Kind.FIRST: ("first",),
    Kind.LAST: ("last",),
    Kind.DISTINCT: ("approx_distinct",),
    Kind.QUANTILE: ("quantile",),
    Kind.TOP: ("top_k",),
    Kind.LAST_N: ("last_n",),
    Kind.RATIO: ("ratio",),
    Kind.DECAYED: ("decayed_sum",),
}

_PLAIN = st.sampled_from([0.0, -0.0, 1.0, 1.5, -2.25, 0.1, 1e9, 1e-300, 5e-324, 1.7976931348623157e308, 2.0**-1022])
_I32 = st.integers(-(2**31), 2**31 - 1) | st.integers(-3, 3)
_I64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
VALUES: Final[dict[int, st.SearchStrategy[Any]]] = {
    0: st.none(),
    Scalar.BOOL: st.booleans(),
    Scalar.I32: _I32,
    Scalar.I64: _I64,
    Scalar.F32: st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.5, 0.5]),
    Scalar.F64: st.floats() | _PLAIN,
    Scalar.STRING: st.text(max_size=6),
    Scalar.BYTES: st.binary(max_size=6),
    Scalar.TIMESTAMP_US: _I64,
    Scalar.DATE: _I32,
}


def _specs() -> list[Spec]:
    found = [Spec(Kind.COUNT, 0)]
    found += [Spec(kind, scalar) for kind in FREE - {Kind.LAST_N} for scalar in Scalar]
    found += [Spec(kind, scalar) for kind in (Kind.SUM, Kind.MOMENTS, Kind.QUANTILE) for scalar in NUMBERS]
    found += [Spec(Kind.TOP, scalar) for scalar in Scalar if scalar not in (Scalar.F32, Scalar.F64)]
    found += [Spec(Kind.LAST_N, scalar, 0, count) for scalar in Scalar for count in (1, 3, 1_000)]
    found += [Spec(Kind.RATIO, above, below) for above in NUMBERS for below in NUMBERS]
    found += [Spec(Kind.DECAYED, scalar, 0, life) for scalar in NUMBERS for life in (1, 777_777, HOUR_US)]
    return found


SPECS: Final = _specs()
PARAMETERS: Final = {"quantile": (0, 1, 250_000, 500_000, 950_000, 1_000_000), "top_k": (1, 2, 1_000)}


@st.composite
def events_of(draw: st.DrawFn, spec: Spec, max_size: int = 30) -> list[Event]:
    """Events that a state may take: NULLs, ties of the order and equal values among them."""
    life = spec.parameter if spec.kind == Kind.DECAYED else HOUR_US
    limit = min(100 * life, TIME_LIMIT_US)
    start = draw(st.sampled_from([0, 1_700_000_000_000_000, -5_000]))
    times = st.integers(-limit, limit).map(lambda distance: start + distance) | st.integers(start, start + 3)
    small = st.integers(0, 2)
    made = st.builds(
        Event,
        value=st.none() | VALUES[spec.scalar],
        second=st.none() | VALUES[spec.scalar2] if spec.kind == Kind.RATIO else st.none(),
        event_us=times,
        write_us=times | _I64,
        source_id=small | st.integers(0, 2**32 - 1),
        partition=small | _I32,
        offset=small | _I64,
    )
    return draw(st.lists(made, max_size=max_size))


@st.composite
def cases(draw: st.DrawFn, kinds: Sequence[Kind] = tuple(Kind), max_size: int = 30) -> tuple[Spec, list[Event]]:
    """A specification and its events."""
    spec = draw(st.sampled_from([spec for spec in SPECS if spec.kind in kinds]))
    return spec, draw(events_of(spec, max_size))


def take(state: State, events: Sequence[Event]) -> State:
    """Adds the events."""
    for event in events:
        state.add(event.value, event.second, **named(event))
    return state


def named(event: Event) -> dict[str, int]:
    """What an event is ordered by, as keywords."""
    names = ("event_us", "write_us", "source_id", "partition", "offset")
    return dict(zip(names, event.order, strict=True))


def state_of(spec: Spec, events: Sequence[Event] = ()) -> State:
    """A state of the core that has taken the events."""
    return take(State(StateSpec(*spec)), events)


def results(state: State, spec: Spec, read_us: int = 0) -> list[Any]:
    """Everything that a state answers, to the bit."""
    return [
        bits(state.result(AGGREGATES[name], parameter, read_us))
        for name in ANSWERS[Kind(spec.kind)]
        for parameter in parameters(spec, name)
    ]


def results_of_twin(spec: Spec, events: Sequence[Event], read_us: int = 0) -> list[Any]:
    """The same by the twin."""
    return [
        bits(twin.result(spec, events, name, parameter, read_us))
        for name in ANSWERS[Kind(spec.kind)]
        for parameter in parameters(spec, name)
    ]


def parameters(spec: Spec, name: str) -> tuple[int, ...]:
    """Parameters to ask an aggregate with."""
    return PARAMETERS.get(name, (spec.parameter,))


def bits(value: Any) -> Any:
    """The value with its exact bits; every NaN is one."""
    if isinstance(value, (tuple, list)):
        return [bits(one) for one in value]
    if isinstance(value, float):
        return struct.pack("<d", value if value == value else float("nan"))
    return value
