"""Names of kinds as people type them, and definitions as documents and rows."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.definitions import (
    DefinitionKind,
    RegisteredEntity,
    RegisteredOnDemandView,
    RegisteredSource,
    RegisteredView,
)
from headrace.definitions.documents import document
from headrace.definitions.registered import Registered
from headrace.errors import InvalidArgument

_SINGULAR: Final[Mapping[str, DefinitionKind]] = {
    "source": DefinitionKind.SOURCE,
    "entity": DefinitionKind.ENTITY,
    "view": DefinitionKind.FEATURE_VIEW,
    "on_demand_view": DefinitionKind.ON_DEMAND_VIEW,
    "service": DefinitionKind.FEATURE_SERVICE,
    "model": DefinitionKind.MODEL,
}
_PLURAL: Final = {
    "sources": "source",
    "entities": "entity",
    "views": "view",
    "on_demand_views": "on_demand_view",
    "services": "service",
    "models": "model",
}
HEADER: Final = ("name", "state", "owner", "updated", "about")


def parse_kind(text: str) -> DefinitionKind:
    """Kind of "view", "views", "feature_view", "feature-views" and so on."""
    word = text.lower().replace("-", "_").removeprefix("feature_")
    kind = _SINGULAR.get(_PLURAL.get(word, word))
    if kind is None:
        raise InvalidArgument(
            f"there is no kind {text!r}; name one of {', '.join(_SINGULAR)}",
            reason="UNKNOWN_KIND",
            field="kind",
            metadata={"kind": text},
        )
    return kind


def record_document(record: Registered) -> dict[str, Any]:
    """The definition with what the registry added to it."""
    fields: dict[str, Any] = document(record.definition)
    if isinstance(record, RegisteredSource):
        fields["source_id"] = record.source_id
    elif isinstance(record, RegisteredEntity):
        fields["entity_id"] = record.entity_id
    else:
        fields |= {"version": record.version, "state": record.state.name.lower()}
        if isinstance(record, RegisteredView):
            fields |= {"view_id": record.view_id, "schema_id": record.schema_id}
            if "functions" in fields:
                fields["functions"] = [one | {"native": "no"} for one in fields["functions"]]
        if isinstance(record, RegisteredView | RegisteredOnDemandView):
            fields["transform_digest"] = record.transform_digest.hex()
    stamp = record.stamp
    return fields | {"create_time": stamp.create_time, "update_time": stamp.update_time, "etag": stamp.etag}


def record_row(record: Registered) -> tuple[str, str, str, str, str]:
    """One line of a listing, under HEADER."""
    fields = record_document(record)
    about = {
        "columns": "columns",
        "join_keys": "join keys",
        "features": "features",
        "entries": "views",
        "sources": "sources",
    }
    counts = [f"{len(fields[field])} {words}" for field, words in about.items() if field in fields]
    if "entity" in fields:
        counts.insert(0, f"entity {fields['entity']}")
    if "feature_service" in fields:
        counts.append(f"reads {fields['feature_service']}")
    updated = fields["update_time"].isoformat(timespec="seconds").replace("+00:00", "Z")
    return (str(record.ref), fields.get("state", ""), fields["owner"], updated, ", ".join(counts))
