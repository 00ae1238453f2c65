"""Plans of views as kernels: what servers and jobs run alike over the events of a view."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from core_ext.arrow import ArrowColumn, arrow_column
from core_ext.computed import FROM_DERIVED, FROM_LATEST, FROM_WINDOW, ComputedView
from core_ext.expressions import Program
from core_ext.window_plan import PlanError, plan_windows
from core_ext.windows import Windows
from headrace.definitions.plans import NO_COLUMN, ViewPlan
from headrace.definitions.registered import RegisteredView
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.expressions import CompiledExpression


@dataclass(frozen=True, slots=True)
class EventProgram:
    """A program and the columns that it reads."""

    program: Program
    columns: tuple[str, ...]


def event_program(expression: CompiledExpression) -> EventProgram:
    """The program of an expression, over the columns that the expression names."""
    return EventProgram(Program(expression.program), expression.columns)


def evaluated(one: EventProgram, columns: dict[str, pa.Array], row_count: int, field: str = "arrow_ipc") -> ArrowColumn:
    """Result of a program over columns of events. Raises InvalidArgument where its texts are too large."""
    try:
        return one.program.evaluate([arrow_column(columns[name]) for name in one.columns], row_count).column
    except OverflowError as error:
        raise InvalidArgument(f"{error}", reason="BATCH_TOO_LARGE", field=field) from error


def passed(
    one: EventProgram, columns: dict[str, pa.Array], row_count: int, field: str = "arrow_ipc"
) -> pa.BooleanArray:
    """Which events a filter lets through: those for which it is true, not null."""
    column = evaluated(one, columns, row_count, field)
    buffers = [None if buffer is None else pa.py_buffer(buffer) for buffer in (column.validity, column.values)]
    found = pa.Array.from_buffers(pa.bool_(), row_count, buffers, offset=column.offset)
    return found.fill_null(False)


def window_kernel(plan: ViewPlan, ref: str) -> Windows | None:
    """Kernel of the windows of a plan, None without any. Raises FailedPrecondition where tiles cannot hold them."""
    if not plan.windows:
        return None
    try:
        return Windows(plan_windows(plan.windows, [int(one.type.scalar) for one in plan.inputs]))
    except PlanError as error:
        name = plan.window_names[error.feature] if error.feature < len(plan.window_names) else ""
        raise FailedPrecondition(
            f"{ref!r} cannot be kept in tiles: {error}",
            reason="WINDOWS_NOT_PLANNED",
            field="features",
            metadata={"feature_view": ref, "feature": name},
        ) from error


def computed_view(record: RegisteredView, plan: ViewPlan) -> ComputedView:
    """What a version stores and answers, as servers and jobs have it."""
    features = [feature.name for feature in record.definition.features]
    types = [(int(one.type.scalar), int(one.type.shape), one.type.list_size) for one in record.definition.features]
    places = {name: (FROM_LATEST, place) for place, (name, _) in enumerate(plan.latest)}
    places |= {name: (FROM_WINDOW, place) for place, name in enumerate(plan.window_names)}
    places |= {name: (FROM_DERIVED, place) for place, (name, _) in enumerate(plan.derived)}
    programs = [(Program(one.program), [features.index(column) for column in one.columns]) for _, one in plan.derived]
    sources = [places[name] for name in features]
    return ComputedView(record.schema_id, types, sources, window_kernel(plan, str(record.ref)), programs)


def plan_of_features(plan: ViewPlan, names: Collection[str]) -> ViewPlan:
    """What of a plan computes some features: these, and those that their expressions read."""
    derived = tuple((name, one) for name, one in plan.derived if name in names)
    wanted = {*names, *(column for _, one in derived for column in one.columns)}
    kept = [place for place, name in enumerate(plan.window_names) if name in wanted]
    windows = [plan.windows[place] for place in kept]
    used = sorted({column for one in windows for column in (one.column, one.column2)} - {NO_COLUMN})
    places = {NO_COLUMN: NO_COLUMN} | {column: place for place, column in enumerate(used)}
    return replace(
        plan,
        inputs=tuple(plan.inputs[column] for column in used),
        windows=tuple(one._replace(column=places[one.column], column2=places[one.column2]) for one in windows),
        window_names=_chosen(plan.window_names, kept),
        lateness_us=tuple(plan.lateness_us[place] for place in kept),
        latest=tuple(one for one in plan.latest if one[0] in wanted),
        derived=derived,
    )


def _chosen(names: Sequence[str], places: Sequence[int]) -> tuple[str, ...]:
    return tuple(names[place] for place in places)
