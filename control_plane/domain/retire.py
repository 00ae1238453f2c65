"""Retires versions, where nothing that is served pins them."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Final

from control_plane.domain.draft import Draft
from control_plane.domain.lookup import not_found
from control_plane.domain.plan import Plan
from headrace.definitions.changes import Change, ChangeKind, DefinitionKind
from headrace.definitions.registered import (
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredView,
    RegistryState,
    State,
    Versioned,
)
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.names import VersionRef, parse_pinned_ref

_LISTED_MAX: Final = 100  # pinning names that one message lists


def retire(current: RegistryState, kind: DefinitionKind, name: str, now: datetime) -> Plan:
    """The state in which a version is retired; the same state where it already is.

    Raises InvalidArgument for a kind or name that has no versions, NotFound, and FailedPrecondition with every name
    that pins the version.
    """
    record = _find(current, kind, parse_pinned_ref(name))
    if record.state is State.RETIRED:
        change = Change(kind, record.definition.name, record.version, ChangeKind.UNCHANGED, ("already retired",))
        return Plan((change,), (), (), current)
    _require_unpinned(record, list(_pins(current, kind, record.ref)))
    draft = Draft(current, now)
    draft.put(replace(record, state=State.RETIRED))
    change = Change(kind, record.definition.name, record.version, ChangeKind.UPDATE, ("retired",))
    return Plan((change,), (), draft.changed, draft.state())


def _find(current: RegistryState, kind: DefinitionKind, ref: VersionRef) -> Versioned:
    record: Versioned | None
    if kind is DefinitionKind.FEATURE_VIEW:
        record, known = current.view(ref), list(current.views)
    elif kind is DefinitionKind.ON_DEMAND_VIEW:
        record, known = current.on_demand_view(ref), list(current.on_demand_views)
    elif kind is DefinitionKind.FEATURE_SERVICE:
        record, known = current.service(ref), list(current.services)
    elif kind is DefinitionKind.MODEL:
        record, known = current.model(ref), list(current.models)
    else:
        raise InvalidArgument(
            f"a {kind.label} has no versions and is never retired",
            reason="UNKNOWN_VALUE",
            field="definition_kind",
            metadata={"definition_kind": kind.name},
        )
    if record is None:
        raise not_found(kind, ref, known)
    return record


def _pins(current: RegistryState, kind: DefinitionKind, ref: VersionRef) -> Iterator[str]:
    if kind in (DefinitionKind.FEATURE_VIEW, DefinitionKind.ON_DEMAND_VIEW):
        for view in _active_on_demand_views(current):
            if any(entry.view == ref for entry in view.definition.entries):
                yield f"on-demand view {view.ref}"
        for reader in _active_views(current):
            if any(entry.view == ref for entry in reader.definition.lookups):
                yield f"feature view {reader.ref}"
        for service in _active_services(current):
            if any(entry.view == ref for entry in service.definition.entries):
                yield f"feature service {service.ref}"
                yield from _models(current, service.ref)
    elif kind is DefinitionKind.FEATURE_SERVICE:
        yield from _models(current, ref)


def _active_on_demand_views(current: RegistryState) -> Iterator[RegisteredOnDemandView]:
    for versions in current.on_demand_views.values():
        yield from (view for view in versions if view.state is State.ACTIVE)


def _active_views(current: RegistryState) -> Iterator[RegisteredView]:
    for versions in current.views.values():
        yield from (view for view in versions if view.state is State.ACTIVE)


def _active_services(current: RegistryState) -> Iterator[RegisteredService]:
    for versions in current.services.values():
        yield from (service for service in versions if service.state is State.ACTIVE)


def _models(current: RegistryState, service: VersionRef) -> Iterator[str]:
    for versions in current.models.values():
        for model in versions:
            if model.state is State.ACTIVE and model.definition.service == service:
                yield f"model {model.ref}"


def _require_unpinned(record: Versioned, pins: list[str]) -> None:
    if not pins:
        return
    listed = ", ".join(pins[:_LISTED_MAX]) + (f" and {len(pins) - _LISTED_MAX} more" if pins[_LISTED_MAX:] else "")
    raise FailedPrecondition(
        f"{record.ref} is pinned by {listed}; retire them first",
        reason="PINNED",
        field="name",
        metadata={"name": str(record.ref), "pinned_by": listed},
    )
