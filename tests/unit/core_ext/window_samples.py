"""Plans and events of windows, drawn by Hypothesis."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from core_ext.arrow import ArrowColumn, arrow_column
from core_ext.twin import windows as twin
from core_ext.twin.windows import Row
from core_ext.window_plan import KIND_OF, NO_COLUMN, PlanError, WindowPlan, plan_windows
from core_ext.windows import Windows
from headrace.definitions.transforms import AGGREGATES
from headrace.types import Scalar, ValueType
from tests.unit.core_ext.state_samples import NUMBERS, SPECS, VALUES

REACH_US: Final = 400
SPANS: Final = [(1, 1), (5, 5), (10, 3), (12, 4), (60, 5), (61, 7), (90, 30), (200, 20), (200, 1), (300, 60), (37, 12)]
GAPS: Final = [(5, 5, 5), (60, 5, 5), (60, 5, 17), (61, 7, 30), (200, 1, 3), (300, 60, 60), (300, 12, 90), (37, 12, 37)]
"""Of sessions: window, hop and gap."""

PARAMETERS: Final = {"quantile": [0, 500_000, 1_000_000], "top_k": [1, 3], "last_n": [1, 4], "decayed_sum": [50, 1_000]}

SPANS_AND_GAPS: Final = [*((window_us, hop_us, 0) for window_us, hop_us in SPANS), *GAPS]

_FITS: Final = {
    name: sorted({spec.scalar for spec in SPECS if spec.kind == KIND_OF[number]} - {0})
    for name, number in AGGREGATES.items()
}

Feature = tuple[int, ...]


class Case(NamedTuple):
    """A plan, and events of one group."""

    plan: WindowPlan
    rows: list[Row]


def feature(
    name: str,
    window_us: int,
    hop_us: int,
    column: int = 0,
    column2: int = NO_COLUMN,
    parameter: int = 0,
    gap_us: int = 0,
) -> Feature:
    """A feature by the name of its aggregate; with a gap of a session."""
    return AGGREGATES[name], column, column2, window_us, hop_us, parameter, gap_us


@st.composite
def plans(draw: st.DrawFn) -> WindowPlan:
    """Any plan of up to six features over up to three inputs."""
    scalars = draw(st.lists(st.sampled_from(list(Scalar)), min_size=1, max_size=3))
    numbers = [at for at, scalar in enumerate(scalars) if scalar in NUMBERS]
    features = []
    for _ in range(draw(st.integers(1, 6))):
        column = draw(st.integers(0, len(scalars) - 1))
        names = [name for name, fits in _FITS.items() if scalars[column] in fits and (name != "ratio" or numbers)]
        name = draw(st.sampled_from(sorted(names)))
        column2 = draw(st.sampled_from(numbers)) if name == "ratio" else NO_COLUMN
        if name == "count" and draw(st.booleans()):
            column = NO_COLUMN
        parameter = draw(st.sampled_from(PARAMETERS[name])) if name in PARAMETERS else 0
        window_us, hop_us, gap_us = draw(st.sampled_from(SPANS_AND_GAPS))
        features.append(feature(name, window_us, hop_us, column, column2, parameter, gap_us))
    return plan_windows(features, scalars)


@st.composite
def rows_of(draw: st.DrawFn, plan: WindowPlan, max_size: int = 25) -> list[Row]:
    """Events of one group, in any order, with NULLs, ties and edges of tiles."""
    start = draw(st.sampled_from([0, -1_000, 1_700_000_000_000_000, -(2**60) + REACH_US, 2**60 - REACH_US]))
    edges = st.sampled_from([0, 1, 5, 12, 20, 60, 100, 200])
    times = (st.integers(-REACH_US, REACH_US) | edges).map(lambda distance: start + distance)
    values = st.tuples(*[st.none() | VALUES[scalar] for scalar in plan.input_scalars])
    small = st.integers(0, 2)
    made = st.builds(
        Row, inputs=values, event_us=times, write_us=times, source_id=small, partition=small, offset=st.integers(-5, 5)
    )
    return draw(st.lists(made, min_size=1, max_size=max_size))


@st.composite
def cases(draw: st.DrawFn, max_size: int = 25) -> Case:
    """A plan and its events."""
    plan = draw(plans())
    return Case(plan, draw(rows_of(plan, max_size)))


def columns_of(plan: WindowPlan, rows: Sequence[Row]) -> list[ArrowColumn]:
    """Inputs of the events as the kernel takes them."""
    return [
        arrow_column(pa.array([row.inputs[at] for row in rows], ValueType(Scalar(scalar)).arrow))
        for at, scalar in enumerate(plan.input_scalars)
    ]


def orders_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Order columns of the events, as keywords."""
    return {
        "write_us": np.array([row.write_us for row in rows], np.int64),
        "source_ids": np.array([row.source_id for row in rows], np.uint32),
        "partitions": np.array([row.partition for row in rows], np.int32),
        "offsets": np.array([row.offset for row in rows], np.int64),
    }


def deltas_of(windows: Windows, groups: Sequence[Sequence[Row]]) -> tuple[list[bytes | None], int]:
    """Deltas of the core for several groups of events."""
    rows = [row for group in groups for row in group]
    numbers = np.repeat(np.arange(len(groups), dtype=np.int64), [len(group) for group in groups])
    times = np.array([row.event_us for row in rows], np.int64)
    found = windows.update(columns_of(windows.plan, rows), times, numbers, len(groups), **orders_of(rows))
    return found.maps, found.late_events


def delta_of(windows: Windows, rows: Sequence[Row]) -> bytes:
    """Delta of the core for one group."""
    (delta,), _ = deltas_of(windows, [rows])
    assert delta is not None
    return delta


def truth(plan: WindowPlan, rows: Sequence[Row], read_us: int) -> tuple[list[Any], list[int]]:
    """Values and losses of the naive evaluator."""
    found = twin.evaluate(plan, rows, read_us)
    return [value for value, _ in found], [lost for _, lost in found]


def is_refused(features: Sequence[Feature], scalars: Sequence[int]) -> PlanError | None:
    """The refusal of a plan."""
    try:
        plan_windows(features, scalars)
    except PlanError as error:
        return error
    return None
