"""Working copy of the registry while a plan is made: the one giver of internal ids, versions and stamps."""

import hashlib
from datetime import datetime
from typing import Final

from headrace.definitions.changes import DefinitionKind
from headrace.definitions.registered import (
    HIGHEST_ID_MAX,
    Registered,
    RegisteredEntity,
    RegisteredModel,
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredSource,
    RegisteredView,
    RegistryState,
    Stamp,
    all_records,
    registry_state,
)
from headrace.errors import ResourceExhausted
from headrace.names import VersionRef

ETAG_LENGTH: Final = 16  # hexadecimal digits: 64 bits, so that two changes of a name never share one in practice

_KINDS: Final = {
    RegisteredSource: DefinitionKind.SOURCE,
    RegisteredEntity: DefinitionKind.ENTITY,
    RegisteredView: DefinitionKind.FEATURE_VIEW,
    RegisteredOnDemandView: DefinitionKind.ON_DEMAND_VIEW,
    RegisteredService: DefinitionKind.FEATURE_SERVICE,
    RegisteredModel: DefinitionKind.MODEL,
}


class Draft:
    """Holds the records of a state and those put since; `highest_id` runs on from the state's."""

    def __init__(self, state: RegistryState, now: datetime) -> None:
        self._base = state
        self._now = now
        self._records: dict[VersionRef, Registered] = {record.ref: record for record in all_records(state)}
        self._changed: dict[VersionRef, Registered] = {}
        self._kinds = {record.ref.name: kind_of(record) for record in self._records.values()}
        self._versions: dict[str, list[VersionRef]] = {}
        for ref in self._records:
            self._versions.setdefault(ref.name, []).append(ref)
        self.highest_id = state.highest_id
        self.refused: set[str] = set()

    @property
    def changed(self) -> tuple[Registered, ...]:
        """Records that were put, each in its last form, in the order in which they were first put."""
        return tuple(self._changed.values())

    def kind(self, name: str) -> DefinitionKind | None:
        """Kind that a name belongs to, None where it is free."""
        return self._kinds.get(name)

    def source(self, name: str) -> RegisteredSource | None:
        """The source of a name."""
        record = self._records.get(VersionRef(name))
        return record if isinstance(record, RegisteredSource) else None

    def entity(self, name: str) -> RegisteredEntity | None:
        """The entity of a name."""
        record = self._records.get(VersionRef(name))
        return record if isinstance(record, RegisteredEntity) else None

    def views(self, name: str) -> list[RegisteredView]:
        """Versions of a view in order; none where the name is no view."""
        return [record for record in self._named(name) if isinstance(record, RegisteredView)]

    def on_demand_views(self, name: str) -> list[RegisteredOnDemandView]:
        """Versions of an on-demand view in order."""
        return [record for record in self._named(name) if isinstance(record, RegisteredOnDemandView)]

    def services(self, name: str) -> list[RegisteredService]:
        """Versions of a service in order."""
        return [record for record in self._named(name) if isinstance(record, RegisteredService)]

    def models(self, name: str) -> list[RegisteredModel]:
        """Versions of a model in order."""
        return [record for record in self._named(name) if isinstance(record, RegisteredModel)]

    def etag(self, name: str) -> str:
        """Etag of a name, empty where it is free."""
        records = self._named(name)
        return records[-1].stamp.etag if records else ""

    def all_views(self) -> list[RegisteredView]:
        """Every view version."""
        return [record for record in self._records.values() if isinstance(record, RegisteredView)]

    def put(self, record: Registered) -> None:
        """Adds a record or takes the place of the one with its name and version."""
        ref = record.ref
        if ref not in self._records:
            self._versions.setdefault(ref.name, []).append(ref)
        self._records[ref] = record
        self._changed[ref] = record
        self._kinds[ref.name] = kind_of(record)

    def take_id(self) -> int:
        """The next internal id; ids are never given twice, even when what they named is retired."""
        if self.highest_id >= HIGHEST_ID_MAX:
            raise ResourceExhausted("every internal id has been given", reason="IDS_EXHAUSTED")
        self.highest_id += 1
        return self.highest_id

    def first_stamp(self, name: str) -> Stamp:
        """Stamp of a name that is registered now."""
        return Stamp(self._now, self._now, self._etag(name))

    def next_stamp(self, stamp: Stamp) -> Stamp:
        """Stamp of a version that is registered now under a name whose mutable fields stay."""
        return Stamp(self._now, stamp.update_time, stamp.etag)

    def touched_stamp(self, name: str, stamp: Stamp) -> Stamp:
        """Stamp after a change of mutable fields."""
        return Stamp(stamp.create_time, self._now, self._etag(name))

    def state(self) -> RegistryState:
        """The state after what was put: the next revision, or the same where nothing was."""
        if not self._changed:
            return self._base
        return registry_state(self._base.revision + 1, self.highest_id, self._records.values())

    def _named(self, name: str) -> list[Registered]:
        return [self._records[ref] for ref in self._versions.get(name, [])]

    def _etag(self, name: str) -> str:
        # A revision changes a name at most once, so name and revision tell every change apart.
        identity = f"{name} {self._base.revision + 1}"
        return hashlib.sha256(identity.encode()).hexdigest()[:ETAG_LENGTH]


def kind_of(record: Registered) -> DefinitionKind:
    """Kind of a record."""
    return _KINDS[type(record)]
