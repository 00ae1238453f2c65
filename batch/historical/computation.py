"""Features that are computed from the events of a history: windows, latest columns, and expressions over both."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum

from core_ext.windows import Windows
from headrace.computed import EventProgram, event_program, plan_of_features, window_kernel
from headrace.definitions.entities import EVENT_TIME
from headrace.definitions.plans import ViewPlan
from headrace.definitions.sources import Source
from headrace.types import Scalar, Shape, ValueType


class From(IntEnum):
    """Where a feature comes from."""

    LATEST = 1
    WINDOW = 2
    DERIVED = 3


@dataclass(frozen=True, slots=True)
class Computation:
    """How features come from events that passed the filter of their view.

    `columns` are what a history holds for it, with their types. `inputs` are computed for each event, and `windows`
    aggregate them; `latest` are columns of the newest row; `programs` read features by name. `places` says of each
    feature where it comes from, and its place there. `has_windows`: the view has some, wanted here or not.
    """

    columns: Mapping[str, ValueType]
    inputs: tuple[EventProgram, ...]
    windows: Windows | None
    latest: tuple[tuple[str, ValueType], ...]
    programs: tuple[EventProgram, ...]
    places: Mapping[str, tuple[From, int]]
    has_windows: bool

    @property
    def window_types(self) -> list[ValueType]:
        """Types of the windows, in their order."""
        found = [] if self.windows is None else self.windows.result_types
        return [ValueType(Scalar(scalar), Shape.VARIABLE if is_list else Shape.SINGLE) for scalar, is_list in found]

    def is_computed(self, feature: str) -> bool:
        """Whether the feature has a value of its own where there is no row."""
        return self.has_windows and self.places[feature][0] is not From.LATEST


def computation_of(plan: ViewPlan, source: Source, features: Collection[str], ref: str, event_time: str) -> Computation:
    """The computation of some features of a plan; histories name the event time `event_time`."""
    wanted = plan_of_features(plan, features)
    types = {column.name: column.type for column in source.columns}

    def named(column: str) -> str:
        return event_time if column == EVENT_TIME else column

    def over_history(program: EventProgram) -> EventProgram:
        return EventProgram(program.program, tuple(map(named, program.columns)))

    read = {name for one in wanted.inputs for name in one.columns} | {column for _, column in wanted.latest}
    places = {name: (From.LATEST, place) for place, (name, _) in enumerate(wanted.latest)}
    places |= {name: (From.WINDOW, place) for place, name in enumerate(wanted.window_names)}
    places |= {name: (From.DERIVED, place) for place, (name, _) in enumerate(wanted.derived)}
    return Computation(
        columns={named(name): types[name] for name in sorted(read)},
        inputs=tuple(over_history(event_program(one)) for one in wanted.inputs),
        windows=window_kernel(wanted, ref),
        latest=tuple((named(column), types[column]) for _, column in wanted.latest),
        programs=tuple(event_program(one) for _, one in wanted.derived),
        places=places,
        has_windows=bool(plan.windows),
    )
