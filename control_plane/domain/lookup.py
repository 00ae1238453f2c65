"""Finds one definition, or says what is near."""

from collections.abc import Iterable

from headrace.definitions.changes import DefinitionKind
from headrace.definitions.checks import suggestion
from headrace.definitions.registered import (
    RegisteredEntity,
    RegisteredModel,
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredSource,
    RegisteredView,
    RegistryState,
)
from headrace.errors import NotFound
from headrace.names import VersionRef, parse_plain_name, parse_version_ref


def find_source(state: RegistryState, name: str) -> RegisteredSource:
    """The source of a name."""
    plain = parse_plain_name(name)
    record = state.sources.get(plain)
    if record is None:
        raise not_found(DefinitionKind.SOURCE, VersionRef(plain), state.sources)
    return record


def find_entity(state: RegistryState, name: str) -> RegisteredEntity:
    """The entity of a name."""
    plain = parse_plain_name(name)
    record = state.entities.get(plain)
    if record is None:
        raise not_found(DefinitionKind.ENTITY, VersionRef(plain), state.entities)
    return record


def find_view(state: RegistryState, name: str) -> RegisteredView:
    """The view version of a reference; without a version the newest that is not retired."""
    ref = parse_version_ref(name)
    record = state.view(ref)
    if record is None:
        raise not_found(DefinitionKind.FEATURE_VIEW, ref, state.views)
    return record


def find_on_demand_view(state: RegistryState, name: str) -> RegisteredOnDemandView:
    """As `find_view`."""
    ref = parse_version_ref(name)
    record = state.on_demand_view(ref)
    if record is None:
        raise not_found(DefinitionKind.ON_DEMAND_VIEW, ref, state.on_demand_views)
    return record


def find_service(state: RegistryState, name: str) -> RegisteredService:
    """As `find_view`."""
    ref = parse_version_ref(name)
    record = state.service(ref)
    if record is None:
        raise not_found(DefinitionKind.FEATURE_SERVICE, ref, state.services)
    return record


def find_model(state: RegistryState, name: str) -> RegisteredModel:
    """As `find_view`."""
    ref = parse_version_ref(name)
    record = state.model(ref)
    if record is None:
        raise not_found(DefinitionKind.MODEL, ref, state.models)
    return record


def not_found(kind: DefinitionKind, ref: VersionRef, known: Iterable[str]) -> NotFound:
    """NotFound with what is near, such as reason FEATURE_VIEW_NOT_FOUND."""
    names = set(known)
    if ref.name not in names:
        what = f"no {kind.label} {str(ref)!r} is registered{suggestion(ref.name, names)}"
    elif ref.version:
        what = f"{kind.label} {ref.name!r} has no version {ref.version}"
    else:
        what = f"every version of {kind.label} {ref.name!r} is retired; name a version to see it"
    return NotFound(what, reason=f"{kind.name}_NOT_FOUND", field="name", metadata={"name": str(ref)})
