"""Document form of definitions: the plain mappings of YAML files and of the stored registry."""

from collections.abc import Callable
from typing import Any, Final

from headrace.definitions.base import Definition
from headrace.definitions.durations import format_duration
from headrace.definitions.entities import Entity
from headrace.definitions.functions import Function
from headrace.definitions.models import Model
from headrace.definitions.on_demand import OnDemandSource, OnDemandView
from headrace.definitions.services import FeatureService, ServiceEntry
from headrace.definitions.sets import KINDS, DefinitionSet
from headrace.definitions.sources import Source
from headrace.definitions.transforms import Derived, Latest, Transform
from headrace.definitions.values import value_document
from headrace.definitions.views import Fallback, Feature, FeatureView

Fields = dict[str, Any]  # Any: documents are the untyped edge; document_reading checks every value


def set_document(definitions: DefinitionSet) -> Fields:
    """One list per kind that is not empty."""
    lists = {field: [document(item) for item in getattr(definitions, field)] for field in KINDS}
    return {field: items for field, items in lists.items() if items}


def document(definition: Definition) -> Fields:
    """Fields of one definition, defaults left out; without the etag, which is not part of what is defined."""
    fields: Fields = {"name": definition.name, "owner": definition.owner}
    if definition.description:
        fields["description"] = definition.description
    if definition.tags:
        fields["tags"] = dict(definition.tags)
    return fields | _WRITERS[type(definition)](definition)


def _source(source: Source) -> Fields:
    fields: Fields = {"kind": source.kind.name.lower()}
    if source.uri:
        fields["uri"] = source.uri
    if source.query:
        fields |= {"query": source.query, "inputs": dict(source.inputs)}
    fields["event_time_column"] = source.event_time_column
    if source.availability_delay:
        fields["availability_delay"] = format_duration(source.availability_delay)
    fields["columns"] = [{"name": column.name, "type": str(column.type)} for column in source.columns]
    return fields


def _entity(entity: Entity) -> Fields:
    return {"join_keys": [{"name": key.name, "type": str(key.type)} for key in entity.join_keys]}


def _view(view: FeatureView) -> Fields:
    fields: Fields = {"entity": view.entity, "source": view.source}
    if view.ttl is not None:
        fields["ttl"] = format_duration(view.ttl)
    if view.fallback is not Fallback.NONE:
        fields["fallback"] = view.fallback.name.lower()
    if view.freshness_sla is not None:
        fields["freshness_sla"] = format_duration(view.freshness_sla)
    if view.filter:
        fields["filter"] = view.filter
    if not view.offline:
        fields["offline"] = False
    if view.lookups:
        fields["lookups"] = [_entry(entry) for entry in view.lookups]
    if view.functions:
        fields["functions"] = [_function(function) for function in view.functions]
    fields["features"] = [_feature(feature) for feature in view.features]
    return fields


def _function(function: Function) -> Fields:
    return {
        "name": function.name,
        "type": str(function.type),
        "function": function.path,
        "columns": list(function.columns),
        "digest": function.digest,
    }


def _feature(feature: Feature) -> Fields:
    fields: Fields = {"name": feature.name, "type": str(feature.type)} | _transform(feature.transform)
    if feature.default is not None:
        fields["default"] = value_document(feature.default)
    if feature.description:
        fields["description"] = feature.description
    return fields


def _transform(transform: Transform) -> Fields:
    if isinstance(transform, Latest):
        return {"latest": transform.column}
    if isinstance(transform, Derived):
        return {"derived": transform.expression}
    fields: Fields = {"aggregate": transform.aggregate}
    fields |= {name: getattr(transform, name) for name in ("expression", "denominator") if getattr(transform, name)}
    if transform.session_gap is not None:
        fields["session_gap"] = format_duration(transform.session_gap)
    fields |= {"over": format_duration(transform.over), "hop": format_duration(transform.hop)}
    if transform.lateness:
        fields["lateness"] = format_duration(transform.lateness)
    if transform.half_life is not None:
        fields["half_life"] = format_duration(transform.half_life)
    for name in ("quantile", "item_count"):
        if getattr(transform, name) is not None:
            fields[name] = getattr(transform, name)
    return {"window": fields}


def _on_demand_view(view: OnDemandView) -> Fields:
    fields: Fields = {"sources": [_on_demand_source(source) for source in view.sources]}
    if view.fallback is not Fallback.NONE:
        fields["fallback"] = view.fallback.name.lower()
    return fields | {"features": [_feature(feature) for feature in view.features]}


def _on_demand_source(source: OnDemandSource) -> Fields:
    if isinstance(source, ServiceEntry):
        return _entry(source)
    fields = [{"name": name, "type": str(kind)} for name, kind in source.fields.items()]
    return {"request": source.name, "fields": fields}


def _service(service: FeatureService) -> Fields:
    return {"entries": [_entry(entry) for entry in service.entries]}


def _entry(entry: ServiceEntry) -> Fields:
    fields: Fields = {"feature_view": entry.feature_view}
    if entry.features:
        fields["features"] = list(entry.features)
    if entry.join_key_mapping:
        fields["join_key_mapping"] = dict(entry.join_key_mapping)
    if entry.output_prefix:
        fields["output_prefix"] = entry.output_prefix
    return fields


def _model(model: Model) -> Fields:
    return {"feature_service": model.feature_service}


_WRITERS: Final[dict[type[Definition], Callable[[Any], Fields]]] = {  # Any: each writer takes the kind of its key
    Source: _source,
    Entity: _entity,
    FeatureView: _view,
    OnDemandView: _on_demand_view,
    FeatureService: _service,
    Model: _model,
}
