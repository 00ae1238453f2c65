"""Converts definitions from and to their messages."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from headrace.convert.transforms import transform_from_pb, transform_to_pb
from headrace.convert.values import (
    duration_from_pb,
    duration_to_pb,
    type_from_pb,
    type_to_pb,
    value_from_pb,
    value_to_pb,
)
from headrace.definitions.base import Definition
from headrace.definitions.checks import check_unique, invalid, located
from headrace.definitions.entities import Entity, EntityKey
from headrace.definitions.functions import Function
from headrace.definitions.models import Model
from headrace.definitions.on_demand import OnDemandSource, OnDemandView, RequestSource
from headrace.definitions.services import FeatureService, ServiceEntry
from headrace.definitions.sets import DefinitionSet
from headrace.definitions.sources import Column, Source, SourceKind
from headrace.definitions.views import Fallback, Feature, FeatureView
from headrace.types import ValueType
from protos.common.v1 import value_pb2
from protos.control.v1 import definitions_pb2 as pb

_Made = TypeVar("_Made")
_Message = TypeVar("_Message")


def set_to_pb(definitions: DefinitionSet) -> pb.DefinitionSet:
    """Message of a set, without the fields that only the registry fills."""
    return pb.DefinitionSet(
        sources=map(source_to_pb, definitions.sources),
        entities=map(entity_to_pb, definitions.entities),
        feature_views=map(view_to_pb, definitions.feature_views),
        on_demand_views=map(on_demand_view_to_pb, definitions.on_demand_views),
        feature_services=map(service_to_pb, definitions.feature_services),
        models=map(model_to_pb, definitions.models),
    )


def set_from_pb(message: pb.DefinitionSet, field: str = "definitions") -> DefinitionSet:
    """Checked set of a message; an error names the path, such as `definitions.sources[0].kind`."""
    with located(field):
        return DefinitionSet(
            sources=_each("sources", message.sources, source_from_pb),
            entities=_each("entities", message.entities, entity_from_pb),
            feature_views=_each("feature_views", message.feature_views, view_from_pb),
            on_demand_views=_each("on_demand_views", message.on_demand_views, on_demand_view_from_pb),
            feature_services=_each("feature_services", message.feature_services, service_from_pb),
            models=_each("models", message.models, model_from_pb),
        )


def source_to_pb(source: Source) -> pb.Source:
    """Message of a source."""
    return pb.Source(
        name=source.name,
        kind=pb.SourceKind.ValueType(source.kind),
        uri=source.uri,
        columns=[pb.Column(name=column.name, value_type=type_to_pb(column.type)) for column in source.columns],
        event_time_column=source.event_time_column,
        availability_delay_duration=duration_to_pb(source.availability_delay),
        query=source.query,
        inputs=source.inputs,
        metadata=_metadata(source),
    )


def source_from_pb(message: pb.Source) -> Source:
    """Checked source of a message."""
    return Source(
        columns=_each("columns", message.columns, _column),
        kind=_member(SourceKind, message.kind, "kind"),
        event_time_column=message.event_time_column,
        uri=message.uri,
        query=message.query,
        inputs=dict(message.inputs),
        availability_delay=duration_from_pb(message.availability_delay_duration, "availability_delay_duration"),
        **_common(message.name, message.metadata),
    )


def entity_to_pb(entity: Entity) -> pb.Entity:
    """Message of an entity."""
    keys = [
        pb.EntityKey(name=key.name, scalar_type=value_pb2.ScalarType.ValueType(key.type.scalar))
        for key in entity.join_keys
    ]
    return pb.Entity(name=entity.name, join_keys=keys, metadata=_metadata(entity))


def entity_from_pb(message: pb.Entity) -> Entity:
    """Checked entity of a message."""
    return Entity(join_keys=_each("join_keys", message.join_keys, _key), **_common(message.name, message.metadata))


def view_to_pb(view: FeatureView) -> pb.FeatureView:
    """Message of a view, without version, state and ids."""
    return pb.FeatureView(
        name=view.name,
        entity=view.entity,
        source=view.source,
        features=map(_feature_to_pb, view.features),
        ttl_duration=None if view.ttl is None else duration_to_pb(view.ttl),
        fallback=pb.Fallback.ValueType(view.fallback),
        freshness_sla_duration=None if view.freshness_sla is None else duration_to_pb(view.freshness_sla),
        filter=view.filter,
        offline=None if view.offline else False,
        lookups=map(_entry_to_pb, view.lookups),
        functions=map(_function_to_pb, view.functions),
        metadata=_metadata(view),
    )


def view_from_pb(message: pb.FeatureView) -> FeatureView:
    """Checked view of a message."""
    ttl = duration_from_pb(message.ttl_duration, "ttl_duration") if message.HasField("ttl_duration") else None
    limit = message.freshness_sla_duration if message.HasField("freshness_sla_duration") else None
    return FeatureView(
        entity=message.entity,
        source=message.source,
        features=_each("features", message.features, _feature),
        ttl=ttl,
        fallback=_member(Fallback, message.fallback or Fallback.NONE, "fallback"),
        freshness_sla=None if limit is None else duration_from_pb(limit, "freshness_sla_duration"),
        filter=message.filter,
        offline=message.offline if message.HasField("offline") else True,
        lookups=_each("lookups", message.lookups, _entry),
        functions=_each("functions", message.functions, _function),
        **_common(message.name, message.metadata),
    )


def on_demand_view_to_pb(view: OnDemandView) -> pb.OnDemandView:
    """Message of an on-demand view, without version, state and digest."""
    return pb.OnDemandView(
        name=view.name,
        sources=map(_on_demand_source_to_pb, view.sources),
        features=map(_feature_to_pb, view.features),
        fallback=pb.Fallback.ValueType(view.fallback),
        metadata=_metadata(view),
    )


def on_demand_view_from_pb(message: pb.OnDemandView) -> OnDemandView:
    """Checked on-demand view of a message."""
    return OnDemandView(
        sources=_each("sources", message.sources, _on_demand_source),
        features=_each("features", message.features, _feature),
        fallback=_member(Fallback, message.fallback or Fallback.NONE, "fallback"),
        **_common(message.name, message.metadata),
    )


def service_to_pb(service: FeatureService) -> pb.FeatureService:
    """Message of a service, without version and state."""
    entries = map(_entry_to_pb, service.entries)
    return pb.FeatureService(name=service.name, entries=entries, metadata=_metadata(service))


def service_from_pb(message: pb.FeatureService) -> FeatureService:
    """Checked service of a message."""
    return FeatureService(entries=_each("entries", message.entries, _entry), **_common(message.name, message.metadata))


def model_to_pb(model: Model) -> pb.Model:
    """Message of a model, without version and state."""
    return pb.Model(name=model.name, feature_service=model.feature_service, metadata=_metadata(model))


def model_from_pb(message: pb.Model) -> Model:
    """Checked model of a message."""
    return Model(feature_service=message.feature_service, **_common(message.name, message.metadata))


def _feature_to_pb(feature: Feature) -> pb.Feature:
    return pb.Feature(
        name=feature.name,
        value_type=type_to_pb(feature.type),
        transform=transform_to_pb(feature.transform),
        default_value=None if feature.default is None else value_to_pb(feature.default, feature.type),
        description=feature.description,
    )


def _feature(message: pb.Feature) -> Feature:
    value_type = type_from_pb(message.value_type)
    transform = transform_from_pb(message.transform, message.name)
    default = value_from_pb(message.default_value, value_type, "default_value")
    return Feature(message.name, value_type, transform, default=default, description=message.description)


def _function_to_pb(function: Function) -> pb.FunctionColumn:
    return pb.FunctionColumn(
        name=function.name,
        value_type=type_to_pb(function.type),
        function=function.path,
        columns=function.columns,
        digest=bytes.fromhex(function.digest),
    )


def _function(message: pb.FunctionColumn) -> Function:
    value_type, digest = type_from_pb(message.value_type), message.digest.hex()
    return Function(message.name, value_type, message.function, list(message.columns), digest=digest)


def _column(message: pb.Column) -> Column:
    return Column(message.name, type_from_pb(message.value_type))


def _key(message: pb.EntityKey) -> EntityKey:
    value_type = type_from_pb(value_pb2.ValueType(scalar_type=message.scalar_type), "scalar_type")
    return EntityKey(message.name, value_type)


def _on_demand_source_to_pb(source: OnDemandSource) -> pb.OnDemandSource:
    if isinstance(source, ServiceEntry):
        return pb.OnDemandSource(entry=_entry_to_pb(source))
    fields = [pb.RequestField(name=name, value_type=type_to_pb(kind)) for name, kind in source.fields.items()]
    return pb.OnDemandSource(request=pb.RequestSource(name=source.name, fields=fields))


def _on_demand_source(message: pb.OnDemandSource) -> OnDemandSource:
    kind = message.WhichOneof("kind")
    if kind is None:
        raise invalid("a source is a view or request data, and neither is set", "REQUIRED", "kind")
    with located(kind):
        if kind == "entry":
            return _entry(message.entry)
        fields = _each("fields", message.request.fields, _request_field)
        check_unique((name for name, _ in fields), "fields", ".name", "request field")
        return RequestSource(message.request.name, dict(fields))


def _request_field(message: pb.RequestField) -> tuple[str, ValueType]:
    return message.name, type_from_pb(message.value_type)


def _entry_to_pb(entry: ServiceEntry) -> pb.FeatureServiceEntry:
    return pb.FeatureServiceEntry(
        feature_view=entry.feature_view,
        features=entry.features,
        join_key_mapping=entry.join_key_mapping,
        output_prefix=entry.output_prefix,
    )


def _entry(message: pb.FeatureServiceEntry) -> ServiceEntry:
    return ServiceEntry(
        feature_view=message.feature_view,
        features=list(message.features),
        join_key_mapping=dict(message.join_key_mapping),
        output_prefix=message.output_prefix,
    )


def _metadata(definition: Definition) -> pb.Metadata:
    return pb.Metadata(
        owner=definition.owner, description=definition.description, tags=definition.tags, etag=definition.etag
    )


def _common(name: str, metadata: pb.Metadata) -> dict[str, Any]:  # Any: fields of several types, checked by their kind
    return {
        "name": name,
        "owner": metadata.owner,
        "description": metadata.description,
        "tags": dict(metadata.tags),
        "etag": metadata.etag,
    }


def _each(field: str, messages: Iterable[_Message], read: Callable[[_Message], _Made]) -> list[_Made]:
    made = []
    for index, message in enumerate(messages):
        with located(f"{field}[{index}]"):
            made.append(read(message))
    return made


def _member(kind: Any, number: int, field: str) -> Any:  # Any: the enum of the caller, returned as its member
    try:
        return kind(number)
    except ValueError as error:
        what = f"is {number}, which is unknown" if number else "is not set"
        names = ", ".join(member.name for member in kind)
        raise invalid(f"{field} {what}; it must be one of {names}", "UNKNOWN_VALUE", field, value=number) from error
