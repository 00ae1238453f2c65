"""Reads definitions from their document form, with the path of what is wrong."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from headrace.definitions.base import Definition
from headrace.definitions.checks import check_text, check_unique, invalid, located, suggestion
from headrace.definitions.documents import Fields
from headrace.definitions.durations import parse_duration
from headrace.definitions.entities import Entity, EntityKey
from headrace.definitions.functions import Function
from headrace.definitions.models import Model
from headrace.definitions.on_demand import OnDemandSource, OnDemandView, RequestSource
from headrace.definitions.services import FeatureService, ServiceEntry
from headrace.definitions.sets import KINDS, DefinitionSet
from headrace.definitions.sources import Column, Source, SourceKind
from headrace.definitions.transforms import Derived, Latest, Transform, Window
from headrace.definitions.values import value_from_document
from headrace.definitions.views import Fallback, Feature, FeatureView
from headrace.names import NAME_LENGTH_MAX

_Made = TypeVar("_Made")
_COMMON: Final = frozenset({"name", "owner", "description", "tags"})


def set_from_document(document: object) -> DefinitionSet:
    """A set from one list per kind; an unknown key is refused with the nearest known one."""
    fields = _fields(document, frozenset(), frozenset(KINDS), "a definition file")
    return DefinitionSet(
        sources=_each(fields, "sources", source_from_document),
        entities=_each(fields, "entities", entity_from_document),
        feature_views=_each(fields, "feature_views", view_from_document),
        on_demand_views=_each(fields, "on_demand_views", on_demand_view_from_document),
        feature_services=_each(fields, "feature_services", service_from_document),
        models=_each(fields, "models", model_from_document),
    )


def source_from_document(document: object) -> Source:
    """One source."""
    known = frozenset({"kind", "uri", "event_time_column", "availability_delay", "columns", "query", "inputs"})
    fields = _definition_fields(document, known, frozenset({"columns"}), "a source")
    rest = _with_duration(fields, "availability_delay")
    if "kind" in rest:
        rest["kind"] = _member(SourceKind, rest["kind"], "kind")
    return Source(**rest | {"columns": _each(fields, "columns", _column)})


def entity_from_document(document: object) -> Entity:
    """One entity."""
    required = frozenset({"join_keys"})
    fields = _definition_fields(document, required, required, "an entity")
    return Entity(**fields | {"join_keys": _each(fields, "join_keys", _join_key)})


def view_from_document(document: object) -> FeatureView:
    """One feature view."""
    required = frozenset({"entity", "source", "features"})
    known = required | {"ttl", "fallback", "freshness_sla", "filter", "offline", "lookups", "functions"}
    fields = _definition_fields(document, known, required, "a feature view")
    rest = _with_duration(fields, "ttl", "freshness_sla")
    if "fallback" in rest:
        rest["fallback"] = _member(Fallback, rest["fallback"], "fallback")
    parts = {"lookups": _entry, "functions": _function, "features": _feature}
    return FeatureView(**rest | {part: _each(fields, part, read) for part, read in parts.items()})


def on_demand_view_from_document(document: object) -> OnDemandView:
    """One on-demand view."""
    required = frozenset({"sources", "features"})
    fields = _definition_fields(document, required | {"fallback"}, required, "an on-demand view")
    if "fallback" in fields:
        fields["fallback"] = _member(Fallback, fields["fallback"], "fallback")
    read = {"sources": _each(fields, "sources", _on_demand_source), "features": _each(fields, "features", _feature)}
    return OnDemandView(**fields | read)


def service_from_document(document: object) -> FeatureService:
    """One feature service."""
    required = frozenset({"entries"})
    fields = _definition_fields(document, required, required, "a feature service")
    return FeatureService(**fields | {"entries": _each(fields, "entries", _entry)})


def model_from_document(document: object) -> Model:
    """One model."""
    required = frozenset({"feature_service"})
    return Model(**_definition_fields(document, required, required, "a model"))


READERS: Final[Mapping[type[Definition], Callable[[object], Definition]]] = {
    Source: source_from_document,
    Entity: entity_from_document,
    FeatureView: view_from_document,
    OnDemandView: on_demand_view_from_document,
    FeatureService: service_from_document,
    Model: model_from_document,
}


def _column(document: object) -> Column:
    return Column(**_fields(document, _PAIR, _PAIR, "a column"))


def _function(document: object) -> Function:
    known = _PAIR | {"function", "columns", "digest"}
    return Function(**_fields(document, known - {"digest"}, known, "a function"))


def _join_key(document: object) -> EntityKey:
    return EntityKey(**_fields(document, _PAIR, _PAIR, "a join key"))


def _feature(document: object) -> Feature:
    fields = _fields(document, _PAIR, _PAIR | _TRANSFORMS | {"default", "description"}, "a feature")
    default, transform = fields.pop("default", None), _transform(fields)
    feature = Feature(transform=transform, **fields)
    if default is None:
        return feature
    fields["default"] = value_from_document(default, feature.type)
    return Feature(transform=transform, **fields)


def _transform(fields: Fields) -> Transform:
    """Takes the one transform out of a feature's fields."""
    given = sorted(_TRANSFORMS & fields.keys())
    if len(given) != 1:
        what = f"has {' and '.join(given)}" if given else "has no transform"
        message = f"feature {fields['name']!r} {what}; give it exactly one of derived, latest, window"
        raise invalid(message, "REQUIRED" if not given else "UNEXPECTED", given[-1] if given else "latest")
    form = fields.pop(given[0])
    with located(given[0]):
        if given[0] == "latest":
            return Latest(form)
        return Derived(form) if given[0] == "derived" else _window(form)


def _window(document: object) -> Window:
    is_session = isinstance(document, Mapping) and document.get("session_gap") is not None
    required = frozenset({"aggregate", "over"} if is_session else {"aggregate", "over", "hop"})
    known = required | {"hop", "expression", "lateness", "quantile", "item_count", "denominator", "half_life"}
    fields = _fields(document, required, known | {"session_gap"}, "a window")
    fields = {"expression": "", "hop": fields.get("session_gap"), **fields}
    return Window(**_with_duration(fields, "over", "hop", "lateness", "half_life", "session_gap"))


def _on_demand_source(document: object) -> OnDemandSource:
    if not isinstance(document, Mapping) or "request" not in document:
        return _entry(document)
    known = frozenset({"request", "fields"})
    fields = _fields(document, known, known, "a request source")
    columns = _each(fields, "fields", _request_field)
    check_unique((name for name, _ in columns), "fields", ".name", "request field")
    return RequestSource(fields["request"], dict(columns))


def _request_field(document: object) -> tuple[str, str]:
    fields = _fields(document, _PAIR, _PAIR, "a request field")
    return check_text(fields["name"], "name", 2 * NAME_LENGTH_MAX, required=True), fields["type"]


def _entry(document: object) -> ServiceEntry:
    required = frozenset({"feature_view"})
    known = required | {"features", "join_key_mapping", "output_prefix"}
    return ServiceEntry(**_fields(document, required, known, "a service entry"))


def _definition_fields(document: object, known: frozenset[str], required: frozenset[str], what: str) -> Fields:
    return _fields(document, required | {"name", "owner"}, known | _COMMON, what)


def _fields(document: object, required: frozenset[str], known: frozenset[str], what: str) -> Fields:
    if not isinstance(document, Mapping):
        raise invalid(f"{what} must be a mapping, not {_kind_of(document)}", "WRONG_TYPE", "")
    named = f"{what} named {document['name']!r}" if isinstance(document.get("name"), str) else what
    for key in document:
        if key not in known:
            raise invalid(
                f"{named} has no field {key!r}{suggestion(str(key), known)}; known: {', '.join(sorted(known))}",
                "UNKNOWN_FIELD",
                str(key)[:100],
            )
    for key in sorted(required):
        if document.get(key) is None:
            raise invalid(f"{named} needs the field {key!r}", "REQUIRED", key)
    return {key: value for key, value in document.items() if value is not None}


def _each(fields: Fields, field: str, read: Callable[[object], _Made]) -> list[_Made]:
    items = fields.get(field, [])
    if not isinstance(items, list):
        raise invalid(f"{field} must be a list, not {_kind_of(items)}", "WRONG_TYPE", field)
    made = []
    for index, item in enumerate(items):
        with located(f"{field}[{index}]"):
            made.append(read(item))
    return made


def _with_duration(fields: Fields, *names: str) -> Fields:
    return fields | {name: parse_duration(fields[name], name) for name in names if name in fields}


def _member(kind: Any, value: object, field: str) -> Any:  # Any: the enum of the caller, returned as its member
    names = [member.name.lower() for member in kind]
    if value not in names:
        raise invalid(
            f"{field} is {value!r}; it must be one of {', '.join(names)}{suggestion(str(value), names)}",
            "UNKNOWN_VALUE",
            field,
        )
    return kind[str(value).upper()]


def _kind_of(document: object) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "text", type(None): "empty"}
    return kinds.get(type(document), type(document).__name__)


_TRANSFORMS: Final = frozenset({"latest", "window", "derived"})
_PAIR: Final = frozenset({"name", "type"})
