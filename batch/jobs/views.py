"""Views as a job reads them: resolved once from the registry, then plain values that a manifest can keep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import pyarrow as pa

from batch.historical import FeatureColumn, HistoryInput, KeyColumn
from batch.offline import columns as system
from batch.offline.columns import ViewColumns
from headrace.definitions.changes import DefinitionKind
from headrace.definitions.registered import Registered, RegisteredEntity, RegisteredService, RegisteredView
from headrace.definitions.services import ServiceEntry
from headrace.definitions.values import value_document, value_from_document
from headrace.definitions.views import FeatureView
from headrace.errors import FailedPrecondition
from headrace.names import parse_pinned_ref
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
    """One entry of a service. `keys` are (join key, column of the entity rows, type)."""

    ref: str
    transform_digest: str
    keys: tuple[tuple[str, str, str], ...]
    columns: tuple[WantedColumn, ...]
    ttl_us: int = 0
    stale_us: int = 0
    fallback: int = 1

    @property
    def table(self) -> ViewColumns:
        """Keys and wanted features of the view's table."""
        keys = [(name, Scalar[kind.upper()]) for name, _, kind in self.keys]
        return ViewColumns(parse_pinned_ref(self.ref), keys, [(c.feature, parse_type(c.type)) for c in self.columns])

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
        )


@dataclass(frozen=True, slots=True)
class WantedService:
    """A feature service, every view pinned."""

    name: str
    views: tuple[WantedView, ...]

    @property
    def outputs(self) -> list[str]:
        """Columns of the features in the result."""
        return [column.output for view in self.views for column in view.columns]


def resolve_service(definitions: Definitions, name: str) -> WantedService:
    """The service's entries; raises FailedPrecondition for a view whose rows nobody has computed."""
    service = definitions.get(DefinitionKind.FEATURE_SERVICE, name)
    assert isinstance(service, RegisteredService), "the registry answers the kind that was asked for"
    views = [_entry(definitions, entry) for entry in service.definition.entries]
    return WantedService(str(service.ref), tuple(views))


def wanted_view(
    view: FeatureView,
    entity: RegisteredEntity | Any,  # Any: whatever has join keys under `definition`
    ref: str,
    digest: str,
    entry: ServiceEntry | None = None,
) -> WantedView:
    """A view as a job reads it; without an entry all of its features under their own names."""
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
    return WantedView(ref, digest, keys, tuple(columns), *limits, int(view.fallback))


def service_document(service: WantedService) -> dict[str, Any]:  # Any: JSON values
    """JSON form."""
    return {"name": service.name, "views": [_view_document(view) for view in service.views]}


def service_from_document(document: Mapping[str, Any]) -> WantedService:  # Any: JSON values
    """Service of its JSON form."""
    views = [
        WantedView(
            **{
                **view,
                "keys": tuple(tuple(key) for key in view["keys"]),
                "columns": tuple(WantedColumn(**column) for column in view["columns"]),
            }
        )
        for view in document["views"]
    ]
    return WantedService(document["name"], tuple(views))


def history_names(views: Sequence[WantedView]) -> list[str]:
    """A name for each history; a view that stands twice gets a number."""
    seen: dict[str, int] = {}
    names = []
    for view in views:
        seen[view.ref] = seen.get(view.ref, 0) + 1
        names.append(view.ref if seen[view.ref] == 1 else f"{view.ref}#{seen[view.ref]}")
    return names


def _entry(definitions: Definitions, entry: ServiceEntry) -> WantedView:
    view = definitions.get(DefinitionKind.FEATURE_VIEW, entry.feature_view)
    assert isinstance(view, RegisteredView), "as above"
    entity = definitions.get(DefinitionKind.ENTITY, view.definition.entity)
    assert isinstance(entity, RegisteredEntity), "as above"
    require_plain(view.definition, str(view.ref))
    return wanted_view(view.definition, entity, str(view.ref), view.transform_digest.hex(), entry)


def require_plain(view: FeatureView, ref: str) -> None:
    """Refuses a view whose rows are no rows of its source."""
    if not view.is_plain:
        raise FailedPrecondition(
            f"{ref!r} has a filter, windows or derived features, whose history is not computed yet; leave it out",
            reason="TRANSFORM_NOT_COMPUTED",
            field="service",
            metadata={"feature_view": ref},
        )


def _view_document(view: WantedView) -> dict[str, Any]:  # Any: JSON values
    return {
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


def _default(column: WantedColumn) -> object:
    if column.default is None:
        return None
    return value_from_document(column.default, parse_type(column.type))


def _microseconds(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // _MICROSECOND
