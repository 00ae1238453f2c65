"""Plans of views: what the stream, batch and history all compute, compiled from one registered version."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from headrace.definitions.checks import invalid, located
from headrace.definitions.enrichment import source_of
from headrace.definitions.entities import EVENT_TIME, Entity
from headrace.definitions.functions import Function
from headrace.definitions.lookups import Lookup, added_columns, lookups_of
from headrace.definitions.registered import RegisteredView, RegistryState
from headrace.definitions.sources import Source
from headrace.definitions.transform import view_digest
from headrace.definitions.transforms import AGGREGATES, Derived, Latest, Window
from headrace.definitions.views import Feature, FeatureView
from headrace.errors import FailedPrecondition
from headrace.expressions import CompiledExpression, compile_expression
from headrace.types import Scalar, Shape, ValueType

NO_COLUMN: Final = -1

_MICROSECOND: Final = timedelta(microseconds=1)
_BOOL: Final = ValueType(Scalar.BOOL)
_I64: Final = ValueType(Scalar.I64)
_F64: Final = ValueType(Scalar.F64)
_WHOLE: Final = frozenset({Scalar.I32, Scalar.I64})
_NUMBERS: Final = _WHOLE | {Scalar.F32, Scalar.F64}
_ORDERED: Final = _NUMBERS | {Scalar.TIMESTAMP_US, Scalar.DATE}
_DISCRETE: Final = frozenset(Scalar) - {Scalar.F32, Scalar.F64}

# Types of the input that an aggregate takes.
_TAKES: Final[Mapping[str, frozenset[Scalar]]] = {
    **dict.fromkeys(("sum", "avg", "stddev", "variance", "quantile", "ratio", "decayed_sum"), _NUMBERS),
    **dict.fromkeys(("min", "max"), _ORDERED),
    "top_k": _DISCRETE,
}


class WindowFeature(NamedTuple):
    """One aggregate as the window kernel takes it.

    `column` and `column2` are places among the inputs of the plan, NO_COLUMN where there is none. `parameter` is the
    quantile in millionths, the count of top_k and last_n, the half life in microseconds, else 0. `gap_us` is that of a
    session, else 0.
    """

    aggregate: int
    column: int
    column2: int
    window_us: int
    hop_us: int
    parameter: int
    gap_us: int = 0


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """One kernel plan. `inputs` are computed for each event that passes `filter`, and `windows` aggregate them.

    `windows` and `lateness_us` stand in the order of `window_names`; `derived` are computed last, over the others.
    """

    filter: CompiledExpression | None
    inputs: tuple[CompiledExpression, ...]
    windows: tuple[WindowFeature, ...]
    window_names: tuple[str, ...]
    lateness_us: tuple[int, ...]
    latest: tuple[tuple[str, str], ...]
    derived: tuple[tuple[str, CompiledExpression], ...]
    digest: bytes
    lookups: tuple[Lookup, ...] = ()
    functions: tuple[Function, ...] = ()

    @property
    def given(self) -> frozenset[str]:
        """Source columns that an event must carry besides its keys and times."""
        read = self.columns.union(*(one.columns for one in self.functions))
        return (read - added_columns(self.lookups, self.functions).keys()).union(*(one.keys for one in self.lookups))

    @property
    def columns(self) -> frozenset[str]:
        """Columns that filter, inputs and latest features read, of the source and of what is looked up."""
        read = {name for one in (self.filter, *self.inputs) if one is not None for name in one.columns}
        return frozenset(read | {column for _, column in self.latest})


def compile_plan(view: FeatureView, entity: Entity, source: Source) -> ViewPlan:
    """Plan of a view; where anything is added to its events, its source is the enriched one.

    Raises InvalidArgument with the path of the field that does not fit the source.
    """
    lookups = lookups_of(source)
    assert len(lookups) == len(view.lookups), "a view is compiled over the source that its lookups enrich"
    columns = {column.name: column.type for column in source.columns}
    inputs: dict[str, CompiledExpression] = {}
    windows, names, lateness = [], [], []
    for index, feature in enumerate(view.features):
        if isinstance(feature.transform, Window):
            with located(f"features[{index}]"):
                windows.append(_window_feature(feature, feature.transform, columns, inputs))
            names.append(feature.name)
            lateness.append(feature.transform.lateness // _MICROSECOND)
    return ViewPlan(
        filter=_filter(view, columns),
        inputs=tuple(inputs.values()),
        windows=tuple(windows),
        window_names=tuple(names),
        lateness_us=tuple(lateness),
        latest=tuple(
            (feature.name, _latest_column(feature, feature.transform, columns, source, index))
            for index, feature in enumerate(view.features)
            if isinstance(feature.transform, Latest)
        ),
        derived=_derived(view),
        digest=view_digest(view, entity, source),
        lookups=lookups,
        functions=tuple(view.functions),
    )


def plan_of(record: RegisteredView, state: RegistryState) -> ViewPlan:
    """Plan of a registered version. Raises FailedPrecondition where this installation would compute other values."""
    view = record.definition
    plan = compile_plan(view, state.entities[view.entity].definition, source_of(record, state))
    check_digest(plan, str(record.ref), record.transform_digest)
    return plan


def check_digest(plan: ViewPlan, ref: str, registered: bytes) -> None:
    """Raises FailedPrecondition where the plan of a version is not the one that was registered."""
    if plan.digest != registered:
        raise FailedPrecondition(
            f"{ref!r} was registered with another kernel or other time-zone data than are installed here: "
            "install those, or apply the definition again for a new version",
            reason="TRANSFORM_CHANGED",
            field="feature_view",
            metadata={"feature_view": ref, "registered": registered.hex()},
        )


def event_columns(plan: ViewPlan, entity: Entity) -> tuple[str, ...]:
    """Columns of an event as logs and tables keep it, in their order; keys and event time stand beside them."""
    beside = {EVENT_TIME, *(key.name for key in entity.join_keys)}
    known = {one.known_time for one in plan.lookups}
    inputs = {column for one in plan.functions for column in one.columns}
    return tuple(sorted((plan.columns | plan.given | inputs | known) - beside))


def output_type(window: Window, given: ValueType) -> ValueType:
    """Type of an aggregate over an input type."""
    match window.aggregate:
        case "count" | "approx_distinct":
            return _I64
        case "sum":
            return _I64 if given.scalar in _WHOLE else _F64
        case "min" | "max" | "first" | "last":
            return given
        case "top_k" | "last_n":
            return ValueType(given.scalar, Shape.VARIABLE)
    return _F64


def expression_of_type(feature: Feature, text: str, columns: Mapping[str, ValueType]) -> CompiledExpression:
    """The compiled expression of a feature, where it is of the feature's type."""
    with located("transform.expression"):
        compiled = compile_expression(text, columns)
    if compiled.type != feature.type:
        raise invalid(
            f"feature {feature.name!r} is {feature.type}, and its expression is {compiled.type}: "
            f"declare {compiled.type}, or write cast(… as {feature.type})",
            "WRONG_TYPE",
            "type",
            feature=feature.name,
            type=compiled.type,
        )
    return compiled


def _window_feature(
    feature: Feature, window: Window, columns: Mapping[str, ValueType], inputs: dict[str, CompiledExpression]
) -> WindowFeature:
    place, given = NO_COLUMN, _I64
    if window.expression:
        place, given = _input(window, "expression", columns, inputs)
    second = _input(window, "denominator", columns, inputs)[0] if window.denominator else NO_COLUMN
    found = output_type(window, given)
    if found != feature.type:
        raise invalid(
            f"feature {feature.name!r} is {feature.type}, and {window.aggregate} of {given} is {found}: "
            f"declare {found}, or derive the other type with cast(…) in a derived feature",
            "WRONG_TYPE",
            "type",
            feature=feature.name,
            type=found,
        )
    parameter = window.item_count or 0
    if window.quantile is not None:
        parameter = round(window.quantile * 1_000_000)
    if window.half_life is not None:
        parameter = window.half_life // _MICROSECOND
    spans = (window.over // _MICROSECOND, window.hop // _MICROSECOND)
    gap_us = 0 if window.session_gap is None else window.session_gap // _MICROSECOND
    return WindowFeature(AGGREGATES[window.aggregate], place, second, *spans, parameter, gap_us)


def _input(
    window: Window, field: str, columns: Mapping[str, ValueType], inputs: dict[str, CompiledExpression]
) -> tuple[int, ValueType]:
    """Place and type of an input; equal expressions share one."""
    path = f"transform.{field}"
    with located(path):
        compiled = compile_expression(getattr(window, field), columns)
    takes = _TAKES.get(window.aggregate)
    if takes is not None and compiled.type.scalar not in takes:
        known = ", ".join(scalar.name.lower() for scalar in sorted(takes))
        message = f"{window.aggregate} takes {known}, and {compiled.canonical} is {compiled.type}"
        raise invalid(f"{message}; write cast(… as …)", "WRONG_TYPE", path, type=compiled.type)
    inputs.setdefault(compiled.canonical, compiled)
    return list(inputs).index(compiled.canonical), compiled.type


def _filter(view: FeatureView, columns: Mapping[str, ValueType]) -> CompiledExpression | None:
    if not view.filter:
        return None
    with located("filter"):
        compiled = compile_expression(view.filter, columns)
    if compiled.type != _BOOL:
        raise invalid(f"filter is {compiled.type}; it must be bool, such as a comparison", "WRONG_TYPE", "filter")
    return compiled


def _latest_column(
    feature: Feature, transform: Latest, columns: Mapping[str, ValueType], source: Source, index: int
) -> str:
    found = columns.get(transform.column)
    if found != feature.type:
        raise invalid(
            f"feature {feature.name!r} is {feature.type}, and source {source.name!r} has "
            f"{'no such column' if found is None else f'{found} there'}",
            "UNKNOWN_COLUMN" if found is None else "WRONG_TYPE",
            f"features[{index}].transform",
            column=transform.column,
        )
    return transform.column


def _derived(view: FeatureView) -> tuple[tuple[str, CompiledExpression], ...]:
    computed = {one.name: one.type for one in view.features if not isinstance(one.transform, Derived)}
    made = []
    for index, feature in enumerate(view.features):
        if not isinstance(feature.transform, Derived):
            continue
        with located(f"features[{index}]"):
            made.append((feature.name, expression_of_type(feature, feature.transform.expression, computed)))
    return tuple(made)
