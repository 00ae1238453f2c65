"""Views of windows and expressions as a server computes them: programs over events, and what rows hold of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from core_ext.computed import ComputedView
from core_ext.row_codec import Schema
from core_ext.windows import Windows
from headrace.computed import EventProgram, computed_view, event_program
from headrace.definitions.enrichment import source_of
from headrace.definitions.lookups import Lookup
from headrace.definitions.plans import event_columns, plan_of
from headrace.definitions.registered import RegisteredView, RegistryState
from headrace.functions import LoadedFunction, loaded_functions
from headrace.types import ValueType


@dataclass(frozen=True, slots=True)
class ComputedLayout:
    """How events become stored rows, and stored rows answers.

    `given` are what events must carry besides keys and event time, `lookups` and `functions` what they get then, and
    `columns` what of both is computed from; `latest` are those whose newest value is kept, in the
    order of the stored columns. `inputs` are what the windows take, in the order of their plan. `events` is the layout
    of an event in the row log, with the columns `logged`.
    """

    view: ComputedView
    filter: EventProgram | None
    inputs: tuple[EventProgram, ...]
    latest: tuple[str, ...]
    columns: Mapping[str, ValueType]
    given: Mapping[str, ValueType]
    lookups: tuple[Lookup, ...]
    functions: tuple[LoadedFunction, ...]
    logged: tuple[str, ...]
    events: Schema

    @property
    def windows(self) -> Windows | None:
        """Kernel of the windows; None where there are only expressions."""
        return self.view.windows


def computed_layout(record: RegisteredView, state: RegistryState, modules: Collection[str] = ()) -> ComputedLayout:
    """Layout of a version; its functions may be imported from some modules.

    Raises FailedPrecondition where this installation would compute other values.
    """
    plan = plan_of(record, state)
    known = {column.name: column.type for column in source_of(record, state).columns}
    logged = event_columns(plan, state.entities[record.definition.entity].definition)
    return ComputedLayout(
        view=computed_view(record, plan),
        filter=None if plan.filter is None else event_program(plan.filter),
        inputs=tuple(map(event_program, plan.inputs)),
        latest=tuple(column for _, column in plan.latest),
        columns={name: known[name] for name in sorted(plan.columns)},
        given={name: known[name] for name in sorted(plan.given) if name in known},
        lookups=plan.lookups,
        functions=loaded_functions(plan.functions, known, modules),
        logged=logged,
        events=Schema(record.schema_id, [schema_column(known[name]) for name in logged]),
    )


def schema_column(value_type: ValueType) -> tuple[int, int, int]:
    """A type as schemas of rows take it."""
    return int(value_type.scalar), int(value_type.shape), value_type.list_size
