"""Views as a job reads them: resolved once from the registry, then plain values that a manifest can keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import pyarrow as pa

from batch.historical import FeatureColumn, HistoryInput, KeyColumn
from batch.historical.computation import Computation, computation_of
from batch.offline import columns as system
from batch.offline.columns import ViewColumns
from headrace.definitions.changes import DefinitionKind
from headrace.definitions.document_reading import entity_from_document, source_from_document
from headrace.definitions.document_reading import view_from_document as definition_from_document
from headrace.definitions.documents import document
from headrace.definitions.enrichment import enriched
from headrace.definitions.entities import Entity
from headrace.definitions.lookups import (
    lookup_document,
    lookup_from_document,
    lookups_of,
    with_lookups,
    without_lookups,
)
from headrace.definitions.plans import check_digest, compile_plan
from headrace.definitions.registered import Registered, RegisteredEntity, RegisteredSource, RegisteredView
from headrace.definitions.services import ServiceEntry
from headrace.definitions.sources import Source
from headrace.definitions.values import value_document, value_from_document
from headrace.errors import FailedPrecondition
from headrace.names import VersionRef, parse_pinned_ref
from headrace.types import Scalar, parse_type

_MICROSECOND: Final = timedelta(microseconds=1)


class Definitions(Protocol):
    """Where definitions are looked up; a client of the registry is one."""

    def get(self, kind: DefinitionKind, name: str) -> Registered:
        """One definition by name; without a version the newest that is not retired."""
        ...


@dataclass(frozen=True, slots=True)
class WantedColumn:
    """One feature: its name in the view and in the result, its type, and its default in JSON form or None."""

    feature: str
    output: str
    type: str
    default: Any = None  # Any: JSON values


@dataclass(frozen=True, slots=True)
class WantedView:
    """One entry of a service. `keys` are (join key, column of the entity rows, type).

    A computed view comes with the documents of its view, entity and source, so that it stands without a registry.
    """

    ref: str
    transform_digest: str
    keys: tuple[tuple[str, str, str], ...]
    columns: tuple[WantedColumn, ...]
    ttl_us: int = 0
    stale_us: int = 0
    fallback: int = 1
    definitions: Mapping[str, Any] | None = None  # Any: JSON values

    @property
    def table(self) -> ViewColumns:
        """Keys and what the wanted features are read from, of the view's table."""
        keys = [(name, Scalar[kind.upper()]) for name, _, kind in self.keys]
        computation = self.computation()
        if computation is None:
            features = [(c.feature, parse_type(c.type)) for c in self.columns]
        else:
            beside = {system.EVENT_TIME, *(name for name, _ in keys)}
            features = [(name, kind) for name, kind in computation.columns.items() if name not in beside]
        return ViewColumns(parse_pinned_ref(self.ref), keys, features)

    def computation(self) -> Computation | None:
        """How the wanted features come from events, None where they are columns of the table.

        Raises FailedPrecondition where this installation would compute other values than when the view was registered.
        """
        if self.definitions is None:
            return None
        looked_up = [lookup_from_document(one) for one in self.definitions.get("lookups", ())]
        view = definition_from_document(self.definitions["view"])
        source = with_lookups(source_from_document(self.definitions["source"]), looked_up, view.functions)
        entity = entity_from_document(self.definitions["entity"])
        plan = compile_plan(view, entity, source)
        check_digest(plan, self.ref, bytes.fromhex(self.transform_digest))
        return computation_of(plan, source, [one.feature for one in self.columns], self.ref, system.EVENT_TIME)

    def history(self, rows: pa.RecordBatchReader | pa.Table, name: str = "") -> HistoryInput:
        """What the join reads; rows have the columns of `table`."""
        return HistoryInput(
            name=name or self.ref,
            columns=tuple(
                FeatureColumn(one.feature, parse_type(one.type), _default(one), one.output) for one in self.columns
            ),
            keys=tuple(KeyColumn(name, column, Scalar[kind.upper()]) for name, column, kind in self.keys),
            event_time=system.EVENT_TIME,
            rows=rows,
            write_time=system.WRITE_TIME,
            available_time=system.AVAILABLE_TIME,
            source_id=system.SOURCE_ID,
            partition=system.PARTITION,
            offset=system.OFFSET,
            tombstone=system.TOMBSTONE,
            ttl_us=self.ttl_us,
            stale_us=self.stale_us,
            fallback=self.fallback,
            computation=self.computation(),
        )


def wanted_view(definitions: Definitions, record: RegisteredView, entry: ServiceEntry | None = None) -> WantedView:
    """A view as a job reads it; without an entry all of its features under their own names."""
    view, ref = record.definition, str(record.ref)
    if not view.offline:
        raise FailedPrecondition(
            f"rows of {ref} stay online (offline: false), so that it has no history; register a version without that",
            reason="VIEW_NOT_OFFLINE",
            field="offline",
            metadata={"feature_view": ref},
        )
    entity = definitions.get(DefinitionKind.ENTITY, view.entity)
    assert isinstance(entity, RegisteredEntity), "the registry answers the kind that was asked for"
    names = (entry.features if entry else ()) or [feature.name for feature in view.features]
    prefix = entry.output_prefix if entry else ""
    columns = []
    for name in names:
        feature = view.feature(name)
        assert feature is not None, "the registry resolves the features of a service"
        default = None if feature.default is None else value_document(feature.default)
        columns.append(WantedColumn(name, prefix + name, str(feature.type), default))
    keys = tuple(
        (key.name, entry.request_column(key.name) if entry else key.name, str(key.type))
        for key in entity.definition.join_keys
    )
    limits = (_microseconds(view.ttl), _microseconds(view.freshness_sla))
    documents: dict[str, Any] | None = None  # Any: JSON values
    if not view.is_plain:
        source = computed_source(definitions, record, entity)
        parts = {"view": view, "entity": entity.definition, "source": without_lookups(source)}
        documents = {name: document(part) for name, part in parts.items()}
        if view.lookups:
            documents["lookups"] = [lookup_document(one) for one in lookups_of(source)]
    digest = record.transform_digest.hex()
    return WantedView(ref, digest, keys, tuple(columns), *limits, int(view.fallback), documents)


def computed_source(definitions: Definitions, record: RegisteredView, entity: RegisteredEntity) -> Source:
    """What a version computes from: its source, with what its lookups add."""

    def find(ref: VersionRef) -> RegisteredView:
        found = definitions.get(DefinitionKind.FEATURE_VIEW, str(ref))
        assert isinstance(found, RegisteredView), "the registry answers the kind that was asked for"
        return found

    def find_entity(name: str) -> Entity:
        found = definitions.get(DefinitionKind.ENTITY, name)
        assert isinstance(found, RegisteredEntity), "as above"
        return found.definition

    source = definitions.get(DefinitionKind.SOURCE, record.definition.source)
    assert isinstance(source, RegisteredSource), "as above"
    return enriched(record.definition, entity.definition, source.definition, find, find_entity)


def view_document(view: WantedView) -> dict[str, Any]:  # Any: JSON values
    """JSON form."""
    fields: dict[str, Any] = {  # as above
        "ref": view.ref,
        "transform_digest": view.transform_digest,
        "keys": [list(key) for key in view.keys],
        "columns": [
            {"feature": c.feature, "output": c.output, "type": c.type, "default": c.default} for c in view.columns
        ],
        "ttl_us": view.ttl_us,
        "stale_us": view.stale_us,
        "fallback": view.fallback,
    }
    return fields if view.definitions is None else fields | {"definitions": dict(view.definitions)}


def view_from_document(fields: Mapping[str, Any]) -> WantedView:  # Any: JSON values
    """View of its JSON form."""
    keys = tuple((name, column, kind) for name, column, kind in fields["keys"])
    columns = tuple(WantedColumn(**column) for column in fields["columns"])
    return WantedView(**{**fields, "keys": keys, "columns": columns})


def history_names(views: Sequence[WantedView]) -> list[str]:
    """A name for each history; a view that stands twice gets a number."""
    seen: dict[str, int] = {}
    names = []
    for view in views:
        seen[view.ref] = seen.get(view.ref, 0) + 1
        names.append(view.ref if seen[view.ref] == 1 else f"{view.ref}#{seen[view.ref]}")
    return names


def _default(column: WantedColumn) -> object:
    if column.default is None:
        return None
    return value_from_document(column.default, parse_type(column.type))


def _microseconds(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // _MICROSECOND
