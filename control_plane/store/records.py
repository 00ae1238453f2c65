"""Rows of the tables from and to registered definitions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from control_plane.domain.draft import kind_of
from headrace.definitions.base import Definition
from headrace.definitions.changes import Change, ChangeKind, DefinitionKind
from headrace.definitions.document_reading import READERS
from headrace.definitions.documents import document
from headrace.definitions.entities import Entity
from headrace.definitions.models import Model
from headrace.definitions.on_demand import OnDemandView
from headrace.definitions.registered import (
    Registered,
    RegisteredEntity,
    RegisteredModel,
    RegisteredOnDemandView,
    RegisteredService,
    RegisteredSource,
    RegisteredView,
    Stamp,
    State,
)
from headrace.definitions.services import FeatureService
from headrace.definitions.sources import Source
from headrace.definitions.transform import canonical_json
from headrace.definitions.views import FeatureView
from headrace.names import VersionRef

Row = dict[str, Any]  # Any: column values of several types
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MUTABLE: Final = ("owner", "description", "tags", "freshness_sla")
_DESCRIPTIONS: Final = "feature_descriptions"
_DEFINITIONS: Final[Mapping[DefinitionKind, type[Definition]]] = {
    DefinitionKind.SOURCE: Source,
    DefinitionKind.ENTITY: Entity,
    DefinitionKind.FEATURE_VIEW: FeatureView,
    DefinitionKind.ON_DEMAND_VIEW: OnDemandView,
    DefinitionKind.FEATURE_SERVICE: FeatureService,
    DefinitionKind.MODEL: Model,
}


def name_row(records: Sequence[Registered]) -> Row:
    """Row of `names` from all versions of a name in order: what they share."""
    newest = records[-1]
    fields = document(newest.definition)
    mutable: Row = {key: fields[key] for key in _MUTABLE if key in fields}
    described = {
        feature.name: feature.description
        for record in records
        if isinstance(record, RegisteredView | RegisteredOnDemandView)
        for feature in record.definition.features
        if feature.description
    }
    if described:
        mutable[_DESCRIPTIONS] = described
    return {
        "name": newest.definition.name,
        "kind": int(kind_of(newest)),
        "mutable": canonical_json(mutable),
        "etag": newest.stamp.etag,
        "update_time_us": to_us(newest.stamp.update_time),
    }


def version_row(record: Registered) -> Row:
    """Row of `versions`: what belongs to one version."""
    fields = {key: value for key, value in document(record.definition).items() if key not in (*_MUTABLE, "name")}
    for feature in fields.get("features", ()):
        feature.pop("description", None)
    row: Row = {
        "name": record.definition.name,
        "version": record.ref.version,
        "state": int(State.ACTIVE),
        "frozen": canonical_json(fields),
        "create_time_us": to_us(record.stamp.create_time),
        "internal_id": None,
        "schema_id": None,
        "transform_digest": None,
    }
    return row | _own_columns(record)


def pin_rows(record: Registered) -> list[Row]:
    """Rows of `pins`: one per target, although a service may read one view twice."""
    targets = sorted(set(_targets(record)))
    return [
        {
            "name": record.definition.name,
            "version": record.ref.version,
            "pinned_name": target.name,
            "pinned_version": target.version,
        }
        for target in targets
    ]


def record_of(row: Mapping[str, Any]) -> Registered:  # Any: column values of several types
    """Registered definition of a joined row of `names` and `versions`."""
    mutable = json.loads(row["mutable"])
    fields = json.loads(row["frozen"]) | {key: mutable[key] for key in _MUTABLE if key in mutable}
    described = mutable.get(_DESCRIPTIONS, {})
    for feature in fields.get("features", ()):
        if feature["name"] in described:
            feature["description"] = described[feature["name"]]
    definition = READERS[_DEFINITIONS[DefinitionKind(row["kind"])]](fields | {"name": row["name"]})
    stamp = Stamp(from_us(row["create_time_us"]), from_us(row["update_time_us"]), row["etag"])
    return _registered(definition, stamp, row)


def changes_text(changes: Iterable[Change]) -> str:
    """Stored form of changes."""
    return canonical_json(
        [
            [int(change.definition_kind), change.name, change.version, int(change.change_kind), list(change.details)]
            for change in changes
        ]
    )


def changes_of(text: str) -> tuple[Change, ...]:
    """Changes of their stored form."""
    return tuple(
        Change(DefinitionKind(kind), name, version, ChangeKind(change), tuple(details))
        for kind, name, version, change, details in json.loads(text)
    )


def to_us(time: datetime) -> int:
    """Microseconds since the epoch."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def from_us(microseconds: int) -> datetime:
    """Aware UTC time."""
    return _EPOCH + timedelta(microseconds=microseconds)


def _own_columns(record: Registered) -> Row:
    match record:
        case RegisteredSource():
            return {"internal_id": record.source_id}
        case RegisteredEntity():
            return {"internal_id": record.entity_id}
        case RegisteredView():
            return {
                "state": int(record.state),
                "internal_id": record.view_id,
                "schema_id": record.schema_id,
                "transform_digest": record.transform_digest,
            }
        case RegisteredOnDemandView():
            return {"state": int(record.state), "transform_digest": record.transform_digest}
        case _:
            return {"state": int(record.state)}


def _targets(record: Registered) -> list[VersionRef]:
    match record:
        case RegisteredView():
            view = record.definition
            return [VersionRef(view.entity), VersionRef(view.source), *(entry.view for entry in view.lookups)]
        case RegisteredOnDemandView() | RegisteredService():
            return [entry.view for entry in record.definition.entries]
        case RegisteredModel():
            return [record.definition.service]
        case _:
            return []


def _registered(definition: Definition, stamp: Stamp, row: Mapping[str, Any]) -> Registered:  # Any: as record_of
    match definition:
        case Source():
            return RegisteredSource(definition, stamp, row["internal_id"])
        case Entity():
            return RegisteredEntity(definition, stamp, row["internal_id"])
        case FeatureView():
            return RegisteredView(
                definition,
                stamp,
                row["version"],
                State(row["state"]),
                row["internal_id"],
                row["schema_id"],
                bytes(row["transform_digest"]),
            )
        case OnDemandView():
            digest = bytes(row["transform_digest"])
            return RegisteredOnDemandView(definition, stamp, row["version"], State(row["state"]), digest)
        case FeatureService():
            return RegisteredService(definition, stamp, row["version"], State(row["state"]))
        case Model():
            return RegisteredModel(definition, stamp, row["version"], State(row["state"]))
    raise AssertionError(f"no record for {type(definition).__name__}")
