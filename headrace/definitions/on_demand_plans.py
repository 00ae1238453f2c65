"""Plans of on-demand views: what servers and jobs compute alike, compiled from registered versions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from headrace.definitions.checks import invalid, located, suggestion
from headrace.definitions.entities import Entity
from headrace.definitions.on_demand import REQUEST_FIELD_COUNT_MAX, OnDemandView, RequestSource
from headrace.definitions.plans import expression_of_type
from headrace.definitions.registered import RegisteredOnDemandView, RegisteredView, RegistryState
from headrace.definitions.services import KEY_COLUMN_COUNT_MAX, ServiceEntry
from headrace.definitions.transform import NO_TIME_ZONE_DATA, transform_digest
from headrace.definitions.transforms import Derived
from headrace.errors import FailedPrecondition
from headrace.expressions import TIME_ZONE_DATA_VERSION, CompiledExpression, expression_identity
from headrace.names import VersionRef
from headrace.types import ValueType

DEPTH_MAX: Final = 16  # on-demand views over one another; a longer chain is a mistake, and each costs a read its time

AnyView = RegisteredView | RegisteredOnDemandView


@dataclass(frozen=True, slots=True)
class SourceColumn:
    """A column that expressions read: a feature of a view, or a field of the request where `entry` is None."""

    entry: ServiceEntry | None
    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class OnDemandPlan:
    """A view whose sources are pinned and list what is read; `columns` are those.

    `keys` are the request columns of its join keys, `request_fields` the request data that its features, and those
    that they read, may need. `features` stand in the order of the view.
    """

    view: OnDemandView
    columns: Mapping[str, SourceColumn]
    keys: Mapping[str, ValueType]
    request_fields: Mapping[str, ValueType]
    features: Mapping[str, CompiledExpression]
    digest: bytes
    depth: int


@dataclass(frozen=True, slots=True)
class _Upstream:
    types: Mapping[str, ValueType]
    keys: Mapping[str, ValueType]
    request_fields: Mapping[str, ValueType]
    digest: bytes
    depth: int


class OnDemandPlans:
    """Compiles on-demand views over one set of registered versions; each version once."""

    def __init__(self, find: Callable[[VersionRef], AnyView | None], entity: Callable[[str], Entity]) -> None:
        self._find = find
        self._entity = entity
        self._plans: dict[VersionRef, OnDemandPlan] = {}

    def plan_of(self, record: RegisteredOnDemandView) -> OnDemandPlan:
        """Plan of a version. Raises FailedPrecondition where this installation would compute other values."""
        if record.ref not in self._plans:
            plan = self.compile(record.definition)
            if plan.digest != record.transform_digest:
                raise FailedPrecondition(
                    f"{str(record.ref)!r} was registered with another kernel or other time-zone data than are "
                    "installed here: install those, or apply the definition again for a new version",
                    reason="TRANSFORM_CHANGED",
                    field="feature_view",
                    metadata={"feature_view": str(record.ref), "registered": record.transform_digest.hex()},
                )
            self._plans[record.ref] = plan
        return self._plans[record.ref]

    def compile(self, view: OnDemandView) -> OnDemandPlan:
        """Plan of a view whose sources are pinned to registered versions. Raises InvalidArgument for what is wrong."""
        upstreams = {entry.view: self._upstream(entry.view) for entry in view.entries}
        depth = 1 + max((one.depth for one in upstreams.values()), default=0)
        if depth > DEPTH_MAX:
            message = f"{view.name!r} makes {depth} on-demand views over one another; at most {DEPTH_MAX} are allowed"
            raise invalid(message, "TOO_DEEP", "sources", depth=depth)
        columns, keys = _columns(view, upstreams), _keys(view, upstreams)
        fields = _request_fields(view, upstreams, keys)
        features = _features(view, columns, keys)
        used = {name for one in features.values() for name in one.columns}
        pinned = replace(view, sources=tuple(_narrowed(view, upstreams, used)))
        kept = {name: column for name, column in columns.items() if name in used}
        return OnDemandPlan(pinned, kept, keys, fields, features, _digest(pinned, upstreams), depth)

    def _upstream(self, ref: VersionRef) -> _Upstream:
        record = self._find(ref)
        assert record is not None, "references were checked"
        types = {feature.name: feature.type for feature in record.definition.features}
        if isinstance(record, RegisteredView):
            keys = {key.name: key.type for key in self._entity(record.definition.entity).join_keys}
            return _Upstream(types, keys, {}, record.transform_digest, 0)
        plan = self.plan_of(record)
        return _Upstream(types, plan.keys, plan.request_fields, plan.digest, plan.depth)


def plans_of_state(state: RegistryState) -> OnDemandPlans:
    """Plans over the versions of a registry, retired ones included."""
    return OnDemandPlans(
        lambda ref: state.view(ref) or state.on_demand_view(ref), lambda name: state.entities[name].definition
    )


def _columns(view: OnDemandView, upstreams: Mapping[VersionRef, _Upstream]) -> dict[str, SourceColumn]:
    columns: dict[str, SourceColumn] = {}
    origins: dict[str, str] = {}
    for index, source in enumerate(view.sources):
        path = f"sources[{index}]"
        if isinstance(source, RequestSource):
            found = {name: SourceColumn(None, name, kind) for name, kind in source.fields.items()}
            origin, remedy = f"request source {source.name!r}", "rename the field"
        else:
            found = _entry_columns(source, upstreams[source.view].types, path)
            origin, remedy = source.feature_view, "give the source an output_prefix, or list the features to take of it"
        for name, column in found.items():
            if name in columns:
                raise invalid(
                    f"column {name!r} comes from {origins[name]} and from {origin}; {remedy}",
                    "DUPLICATE_NAME",
                    path,
                    name=name,
                )
            columns[name], origins[name] = column, origin
    return columns


def _entry_columns(entry: ServiceEntry, types: Mapping[str, ValueType], path: str) -> dict[str, SourceColumn]:
    for position, name in enumerate(entry.features):
        if name not in types:
            raise invalid(
                f"view {entry.view} has no feature {name!r}{suggestion(name, types)}",
                "UNKNOWN_FEATURE",
                f"{path}.features[{position}]",
                feature=name,
            )
    return {
        entry.output_prefix + name: SourceColumn(entry, name, types[name]) for name in (entry.features or list(types))
    }


def _keys(view: OnDemandView, upstreams: Mapping[VersionRef, _Upstream]) -> dict[str, ValueType]:
    keys: dict[str, ValueType] = {}
    for index, source in enumerate(view.sources):
        if isinstance(source, RequestSource):
            continue
        own, path = upstreams[source.view].keys, f"sources[{index}].join_key_mapping"
        for key in source.join_key_mapping:
            if key not in own:
                message = f"{source.view} has no join key {key!r}{suggestion(key, own)}"
                raise invalid(message, "UNKNOWN_JOIN_KEY", path, join_key=key)
        mapped = [source.request_column(key) for key in own]
        if len(set(mapped)) < len(mapped):
            raise invalid(f"two join keys of {source.view} are mapped to one request column", "DUPLICATE_NAME", path)
        for column, kind in zip(mapped, own.values(), strict=True):
            if keys.setdefault(column, kind) != kind:
                raise invalid(
                    f"the sources are keyed by different entities: request column {column!r} would be {keys[column]} "
                    f"for one and {kind} for {source.view}; map one of them to another name with join_key_mapping",
                    "ENTITY_MISMATCH",
                    path,
                    column=column,
                )
    if len(keys) > KEY_COLUMN_COUNT_MAX:
        message = f"the sources are read by {len(keys)} join key columns; at most {KEY_COLUMN_COUNT_MAX} are allowed"
        raise invalid(message, "TOO_MANY", "sources", count=len(keys))
    return keys


def _request_fields(
    view: OnDemandView, upstreams: Mapping[VersionRef, _Upstream], keys: Mapping[str, ValueType]
) -> dict[str, ValueType]:
    fields: dict[str, ValueType] = {}
    for index, source in enumerate(view.sources):
        is_request = isinstance(source, RequestSource)
        own = source.fields if isinstance(source, RequestSource) else upstreams[source.view].request_fields
        for name, kind in own.items():
            path = f"sources[{index}].fields.{name}" if is_request else f"sources[{index}].feature_view"
            if fields.setdefault(name, kind) != kind:
                message = f"request field {name!r} would be {fields[name]} for one source and {kind} for another"
                raise invalid(f"{message}; rename one of them", "WRONG_TYPE", path, name=name)
            if name in keys:
                message = f"request field {name!r} has the name of a join key column; rename the field, or map the key"
                raise invalid(message, "RESERVED_NAME", path, name=name)
    if len(fields) > REQUEST_FIELD_COUNT_MAX:
        message = f"the sources have {len(fields)} request fields; at most {REQUEST_FIELD_COUNT_MAX} are allowed"
        raise invalid(message, "TOO_MANY", "sources", count=len(fields))
    return fields


def _features(
    view: OnDemandView, columns: Mapping[str, SourceColumn], keys: Mapping[str, ValueType]
) -> dict[str, CompiledExpression]:
    types = {name: column.type for name, column in columns.items()}
    made = {}
    for index, feature in enumerate(view.features):
        if feature.name in columns or feature.name in keys:
            what = "a column of its sources" if feature.name in columns else "a join key"
            message = f"feature {feature.name!r} has the name of {what}; rename it"
            raise invalid(message, "DUPLICATE_NAME", f"features[{index}].name", feature=feature.name)
        assert isinstance(feature.transform, Derived), "the definition was checked"
        with located(f"features[{index}]"):
            made[feature.name] = expression_of_type(feature, feature.transform.expression, types)
    return made


def _narrowed(
    view: OnDemandView, upstreams: Mapping[VersionRef, _Upstream], used: set[str]
) -> Iterator[ServiceEntry | RequestSource]:
    """The sources with the features that expressions read, in the order of their views."""
    for index, source in enumerate(view.sources):
        if isinstance(source, RequestSource):
            yield source
            continue
        features = [name for name in upstreams[source.view].types if source.output_prefix + name in used]
        if source.features:
            features = [name for name in features if name in source.features]
        if not features:
            message = f"no expression reads a feature of {source.feature_view}; leave the source out"
            raise invalid(message, "UNEXPECTED", f"sources[{index}]", feature_view=source.feature_view)
        yield replace(source, features=features)


def _digest(view: OnDemandView, upstreams: Mapping[VersionRef, _Upstream]) -> bytes:
    """Identity: what is computed and from which pinned versions, without what is only served or said."""
    texts = [feature.transform.expression for feature in view.features if isinstance(feature.transform, Derived)]
    identities = [expression_identity(text) for text in texts]
    features = zip(view.features, identities, strict=True)
    plan: dict[str, Any] = {  # Any: JSON values
        "on_demand": [_source_document(source, upstreams) for source in view.sources],
        "features": sorted([feature.name, str(feature.type), one.canonical] for feature, one in features),
    }
    is_zoned = any(one.uses_time_zones for one in identities)
    return transform_digest(plan, time_zone_data_version=TIME_ZONE_DATA_VERSION if is_zoned else NO_TIME_ZONE_DATA)


def _source_document(
    source: ServiceEntry | RequestSource, upstreams: Mapping[VersionRef, _Upstream]
) -> dict[str, Any]:  # Any: JSON values
    if isinstance(source, RequestSource):
        return {"request": sorted([name, str(kind)] for name, kind in source.fields.items())}
    return {
        "feature_view": source.feature_view,
        "transform": upstreams[source.view].digest.hex(),
        "features": sorted(source.features),
        "join_key_mapping": dict(source.join_key_mapping),
        "output_prefix": source.output_prefix,
    }
