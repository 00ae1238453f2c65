"""On-demand columns of a selection: what they read besides the answer, and the programs that compute them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core_ext.expressions import Program
from core_ext.on_demand import OnDemand
from feature_server.domain.layouts import OnDemandLayout, ViewLayout
from feature_server.domain.selected import AnyColumn, AnyLayout, SelectedColumn, SelectedOnDemand
from feature_server.domain.slot_bytes import slot_bytes
from headrace.definitions.on_demand_plans import OnDemandPlan
from headrace.errors import FailedPrecondition
from headrace.names import VersionRef
from headrace.on_demand import Selection
from headrace.types import ValueType


@dataclass(frozen=True, slots=True)
class OnDemandColumns:
    """`inputs` are gathered and not answered; `programs` gives the program of each reference and its key columns."""

    inputs: tuple[SelectedColumn, ...]
    programs: Mapping[tuple[str, tuple[str, ...]], int]
    request_fields: Mapping[str, ValueType]
    compiled: OnDemand | None


def on_demand_columns(columns: Sequence[AnyColumn], views: Mapping[str, AnyLayout]) -> OnDemandColumns:
    """Takes the on-demand columns apart. Raises FailedPrecondition where something they read is not served."""
    selection = Selection(lambda ref: _plan(views, ref), lambda ref: _layout(views, ref).key_names)
    programs = {
        (column.reference, column.key_columns): selection.add(column.ref, column.feature, column.key_columns)[1]
        for column in columns
        if isinstance(column, SelectedOnDemand)
    }
    inputs = tuple(SelectedColumn("", _stored(views, ref), feature, keys) for ref, feature, keys in selection.features)
    return OnDemandColumns(inputs, programs, selection.request_fields, _compiled(selection) if programs else None)


def _compiled(selection: Selection) -> OnDemand:
    fields = [(name, int(kind.scalar)) for name, kind in selection.request_fields.items()]
    programs = []
    for one in selection.programs:
        default = None if one.feature.default is None else slot_bytes(one.feature.default, one.feature.type)
        sources = [(int(where), place) for where, place in one.sources]
        programs.append((Program(one.expression.program), sources, default, one.fallback))
    return OnDemand(fields, programs)


def _layout(views: Mapping[str, AnyLayout], ref: VersionRef) -> AnyLayout:
    view = views[str(ref)]
    if view.refusal is not None:
        raise FailedPrecondition(
            f"{view.ref!r} is not served: {view.refusal.message}",
            reason=view.refusal.reason,
            field="feature_service",
            metadata={"feature_view": view.ref},
        )
    return view


def _plan(views: Mapping[str, AnyLayout], ref: VersionRef) -> OnDemandPlan | None:
    view = _layout(views, ref)
    return view.plan if isinstance(view, OnDemandLayout) else None


def _stored(views: Mapping[str, AnyLayout], ref: VersionRef) -> ViewLayout:
    view = _layout(views, ref)
    assert isinstance(view, ViewLayout), "on-demand views are programs"
    return view
