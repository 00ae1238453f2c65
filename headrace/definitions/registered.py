"""Registered definitions: what the registry adds to them, and one state of the whole registry."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Final, TypeAlias, TypeVar

from headrace.definitions.entities import Entity
from headrace.definitions.models import Model
from headrace.definitions.on_demand import OnDemandView
from headrace.definitions.services import FeatureService
from headrace.definitions.sources import Source
from headrace.definitions.views import FeatureView
from headrace.names import VersionRef

HIGHEST_ID_MAX: Final = 2**32 - 1  # internal ids are u32 in keys and rows
REGISTRY_MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of the whole registry as one message: the limit that watchers set on their channel, kept by every apply."""


class State(IntEnum):
    """Lifecycle of a registered version; the numbers are those of the contracts."""

    ACTIVE = 1
    RETIRED = 2


@dataclass(frozen=True, slots=True)
class Stamp:
    """Times (aware, UTC) and etag of a name. The etag changes with each change of a mutable field."""

    create_time: datetime
    update_time: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class RegisteredSource:
    """A source; it has no versions."""

    definition: Source
    stamp: Stamp
    source_id: int

    @property
    def ref(self) -> VersionRef:
        """Its name."""
        return VersionRef(self.definition.name)


@dataclass(frozen=True, slots=True)
class RegisteredEntity:
    """An entity; it has no versions."""

    definition: Entity
    stamp: Stamp
    entity_id: int

    @property
    def ref(self) -> VersionRef:
        """Its name."""
        return VersionRef(self.definition.name)


@dataclass(frozen=True, slots=True)
class RegisteredView:
    """One version of a feature view."""

    definition: FeatureView
    stamp: Stamp
    version: int
    state: State
    view_id: int
    schema_id: int
    transform_digest: bytes

    @property
    def ref(self) -> VersionRef:
        """Its name and version."""
        return VersionRef(self.definition.name, self.version)


@dataclass(frozen=True, slots=True)
class RegisteredOnDemandView:
    """One version of an on-demand view, its sources resolved: every view pinned, every feature that is read named."""

    definition: OnDemandView
    stamp: Stamp
    version: int
    state: State
    transform_digest: bytes

    @property
    def ref(self) -> VersionRef:
        """Its name and version."""
        return VersionRef(self.definition.name, self.version)


@dataclass(frozen=True, slots=True)
class RegisteredService:
    """One version of a feature service, its entries resolved: every view pinned, every feature named."""

    definition: FeatureService
    stamp: Stamp
    version: int
    state: State

    @property
    def ref(self) -> VersionRef:
        """Its name and version."""
        return VersionRef(self.definition.name, self.version)


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One version of a model."""

    definition: Model
    stamp: Stamp
    version: int
    state: State

    @property
    def ref(self) -> VersionRef:
        """Its name and version."""
        return VersionRef(self.definition.name, self.version)


Versioned: TypeAlias = RegisteredView | RegisteredOnDemandView | RegisteredService | RegisteredModel
Registered: TypeAlias = RegisteredSource | RegisteredEntity | Versioned
_Version = TypeVar("_Version", RegisteredView, RegisteredOnDemandView, RegisteredService, RegisteredModel)
_Plain = TypeVar("_Plain", RegisteredSource, RegisteredEntity)


@dataclass(frozen=True, slots=True)
class RegistryState:
    """The whole registry at one revision, retired versions included. Built by `registry_state`."""

    revision: int = 0
    highest_id: int = 0
    sources: Mapping[str, RegisteredSource] = field(default_factory=dict)
    entities: Mapping[str, RegisteredEntity] = field(default_factory=dict)
    views: Mapping[str, Sequence[RegisteredView]] = field(default_factory=dict)
    services: Mapping[str, Sequence[RegisteredService]] = field(default_factory=dict)
    models: Mapping[str, Sequence[RegisteredModel]] = field(default_factory=dict)
    on_demand_views: Mapping[str, Sequence[RegisteredOnDemandView]] = field(default_factory=dict)

    def view(self, ref: VersionRef) -> RegisteredView | None:
        """The version asked for; without a version the newest that is not retired; None where there is none."""
        return select(self.views.get(ref.name, ()), ref.version)

    def on_demand_view(self, ref: VersionRef) -> RegisteredOnDemandView | None:
        """As `view`."""
        return select(self.on_demand_views.get(ref.name, ()), ref.version)

    def service(self, ref: VersionRef) -> RegisteredService | None:
        """As `view`."""
        return select(self.services.get(ref.name, ()), ref.version)

    def model(self, ref: VersionRef) -> RegisteredModel | None:
        """As `view`."""
        return select(self.models.get(ref.name, ()), ref.version)


def registry_state(revision: int, highest_id: int, records: Iterable[Registered]) -> RegistryState:
    """The state that holds these records, in the order of names and versions."""
    ordered = sorted(records, key=lambda record: record.ref)
    return RegistryState(
        revision=revision,
        highest_id=highest_id,
        sources=_by_name(ordered, RegisteredSource),
        entities=_by_name(ordered, RegisteredEntity),
        views=_by_versions(ordered, RegisteredView),
        services=_by_versions(ordered, RegisteredService),
        models=_by_versions(ordered, RegisteredModel),
        on_demand_views=_by_versions(ordered, RegisteredOnDemandView),
    )


def all_records(state: RegistryState) -> list[Registered]:
    """Every record, kind by kind, in the order of names and versions."""
    versions = (state.views, state.on_demand_views, state.services, state.models)
    return [
        *state.sources.values(),
        *state.entities.values(),
        *(record for kind in versions for records in kind.values() for record in records),
    ]


def named(state: RegistryState, name: str) -> Sequence[Registered]:
    """Every record of a name, in the order of its versions; none where the name is free."""
    if name in state.sources:
        return (state.sources[name],)
    if name in state.entities:
        return (state.entities[name],)
    kinds = (state.views, state.on_demand_views, state.services, state.models)
    return next((kind[name] for kind in kinds if name in kind), ())


def select(versions: Sequence[_Version], version: int) -> _Version | None:
    """One of a name's versions by number; for 0 the newest that is not retired."""
    if version:
        return next((record for record in versions if record.version == version), None)
    return next((record for record in reversed(versions) if record.state is State.ACTIVE), None)


def _by_name(records: Iterable[Registered], kind: type[_Plain]) -> dict[str, _Plain]:
    return {record.definition.name: record for record in records if isinstance(record, kind)}


def _by_versions(records: Iterable[Registered], kind: type[_Version]) -> dict[str, tuple[_Version, ...]]:
    found: dict[str, list[_Version]] = {}
    for record in records:
        if isinstance(record, kind):
            found.setdefault(record.definition.name, []).append(record)
    return {name: tuple(versions) for name, versions in found.items()}
