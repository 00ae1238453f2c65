"""Views of windows and expressions as a server computes them: programs over events, and what rows hold of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core_ext.computed import FROM_DERIVED, FROM_LATEST, FROM_WINDOW, ComputedView
from core_ext.expressions import Program
from core_ext.row_codec import Schema
from core_ext.window_plan import PlanError, plan_windows
from core_ext.windows import Windows
from headrace.definitions.plans import ViewPlan, event_columns, plan_of
from headrace.definitions.registered import RegisteredView, RegistryState
from headrace.errors import FailedPrecondition
from headrace.expressions import CompiledExpression
from headrace.types import ValueType


@dataclass(frozen=True, slots=True)
class EventProgram:
    """A program and the columns of an event that it reads."""

    program: Program
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ComputedLayout:
    """How events become stored rows, and stored rows answers.

    `columns` are what events must carry besides keys and event time; `latest` those whose newest value is kept, in the
    order of the stored columns. `inputs` are what the windows take, in the order of their plan. `events` is the layout
    of an event in the row log, with the columns `logged`.
    """

    view: ComputedView
    filter: EventProgram | None
    inputs: tuple[EventProgram, ...]
    latest: tuple[str, ...]
    columns: Mapping[str, ValueType]
    logged: tuple[str, ...]
    events: Schema

    @property
    def windows(self) -> Windows | None:
        """Kernel of the windows; None where there are only expressions."""
        return self.view.windows


def computed_layout(
    record: RegisteredView, state: RegistryState, types: Sequence[tuple[int, int, int]]
) -> ComputedLayout:
    """Layout of a version. Raises FailedPrecondition where this installation would compute other values."""
    plan = plan_of(record, state)
    source = state.sources[record.definition.source].definition
    known = {column.name: column.type for column in source.columns}
    logged = event_columns(plan, state.entities[record.definition.entity].definition)
    return ComputedLayout(
        view=_computed_view(record, plan, types),
        filter=None if plan.filter is None else _event_program(plan.filter),
        inputs=tuple(map(_event_program, plan.inputs)),
        latest=tuple(column for _, column in plan.latest),
        columns={name: known[name] for name in sorted(plan.columns)},
        logged=logged,
        events=Schema(record.schema_id, [schema_column(known[name]) for name in logged]),
    )


def schema_column(value_type: ValueType) -> tuple[int, int, int]:
    """A type as schemas of rows take it."""
    return int(value_type.scalar), int(value_type.shape), value_type.list_size


def _event_program(expression: CompiledExpression) -> EventProgram:
    return EventProgram(Program(expression.program), expression.columns)


def _computed_view(record: RegisteredView, plan: ViewPlan, types: Sequence[tuple[int, int, int]]) -> ComputedView:
    features = [feature.name for feature in record.definition.features]
    places = {name: (FROM_LATEST, place) for place, (name, _) in enumerate(plan.latest)}
    places |= {name: (FROM_WINDOW, place) for place, name in enumerate(plan.window_names)}
    places |= {name: (FROM_DERIVED, place) for place, (name, _) in enumerate(plan.derived)}
    programs = [(Program(one.program), [features.index(column) for column in one.columns]) for _, one in plan.derived]
    sources = [places[name] for name in features]
    return ComputedView(record.schema_id, types, sources, _windows(record, plan), programs)


def _windows(record: RegisteredView, plan: ViewPlan) -> Windows | None:
    if not plan.windows:
        return None
    try:
        return Windows(plan_windows(plan.windows, [int(one.type.scalar) for one in plan.inputs]))
    except PlanError as error:
        name = plan.window_names[error.feature] if error.feature < len(plan.window_names) else ""
        raise FailedPrecondition(
            f"{str(record.ref)!r} cannot be kept in tiles: {error}",
            reason="WINDOWS_NOT_PLANNED",
            field="features",
            metadata={"feature_view": str(record.ref), "feature": name},
        ) from error
