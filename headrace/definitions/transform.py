"""Identity of a view's transform: its normalised plan and the digest of it."""

import hashlib
import json
from datetime import timedelta
from typing import Any, Final

from headrace.definitions.entities import Entity
from headrace.definitions.lookups import KNOWN_TIME, lookups_of
from headrace.definitions.sources import Source
from headrace.definitions.transforms import Derived, Latest, Transform
from headrace.definitions.views import FeatureView
from headrace.expressions import TIME_ZONE_DATA_VERSION, expression_identity

KERNEL_SEMANTICS_VERSION: Final = 1
"""Raised when a kernel of equal plans would compute other values; docs/decisions/0005-version-identity.md."""

_MICROSECOND: Final = timedelta(microseconds=1)
NO_TIME_ZONE_DATA: Final = ""
"""Time-zone data version of plans without time parts, so that new zone data gives them no new identity."""


def normalised_plan(view: FeatureView, entity: Entity, source: Source) -> dict[str, Any]:  # Any: JSON values
    """What is computed, without what is only served (TTL, defaults, fallback) or said (owner, text).

    Features stand in the order of their names: moving a column computes nothing else.
    """
    plan: dict[str, Any] = {  # Any: JSON values
        "entity": {"name": entity.name, "join_keys": [[key.name, str(key.type)] for key in entity.join_keys]},
        "source": {"name": source.name, "event_time_column": source.event_time_column} | _select(source),
        "features": [
            {"name": feature.name, "type": str(feature.type)} | _computation(feature.transform)
            for feature in sorted(view.features, key=lambda feature: feature.name)
        ],
    }
    if view.filter:
        plan["filter"] = expression_identity(view.filter).canonical
    if view.lookups:
        plan["lookups"] = [dict(one.identity) for one in lookups_of(source)]
    if view.functions:
        plan["functions"] = sorted([one.name, str(one.type), list(one.columns), one.digest] for one in view.functions)
    return plan


def _select(source: Source) -> dict[str, str]:
    return {"query": source.query.strip()} if source.query else {}


def view_digest(view: FeatureView, entity: Entity, source: Source) -> bytes:
    """Identity of a view's transform with the kernel and the time-zone data of this installation."""
    zoned = any(expression_identity(text).uses_time_zones for text in expressions_of(view))
    version = TIME_ZONE_DATA_VERSION if zoned else NO_TIME_ZONE_DATA
    return transform_digest(normalised_plan(view, entity, source), time_zone_data_version=version)


def expressions_of(view: FeatureView, *, derived: bool = True) -> list[str]:
    """Every expression of a view; without `derived` those over columns of its source alone."""
    texts = [view.filter] if view.filter else []
    for feature in view.features:
        if isinstance(feature.transform, Derived):
            texts += [feature.transform.expression] if derived else []
        elif not isinstance(feature.transform, Latest):
            texts += [text for text in (feature.transform.expression, feature.transform.denominator) if text]
    return texts


def source_columns(view: FeatureView) -> frozenset[str]:
    """Columns of its source that a registered view reads, without those of event time and its own keys."""
    return (read_columns(view) - added_names(view)).union(*(entry.join_key_mapping.values() for entry in view.lookups))


def added_names(view: FeatureView) -> frozenset[str]:
    """Columns that the events of a registered view get by lookups and functions."""
    times = (KNOWN_TIME.format(number) for number in range(1, len(view.lookups) + 1))
    return frozenset(entry.output_prefix + name for entry in view.lookups for name in entry.features).union(
        times, (one.name for one in view.functions)
    )


def read_columns(view: FeatureView) -> frozenset[str]:
    """Columns of its source, and columns that are added to it, that a view reads."""
    inputs = {column for one in view.functions for column in one.columns}
    plain = inputs | {feature.transform.column for feature in view.features if isinstance(feature.transform, Latest)}
    return frozenset(plain).union(*(expression_identity(text).columns for text in expressions_of(view, derived=False)))


def transform_digest(
    plan: dict[str, Any],  # Any: JSON values
    kernel_semantics_version: int = KERNEL_SEMANTICS_VERSION,
    time_zone_data_version: str = NO_TIME_ZONE_DATA,
) -> bytes:
    """SHA-256 of the canonical JSON of plan, kernel semantics version and time-zone data version."""
    identity = {
        "kernel_semantics_version": kernel_semantics_version,
        "plan": plan,
        "time_zone_data_version": time_zone_data_version,
    }
    return hashlib.sha256(canonical_json(identity).encode()).digest()


def _computation(transform: Transform) -> dict[str, Any]:  # Any: JSON values
    if isinstance(transform, Latest):
        return {"latest": {"column": transform.column}}
    if isinstance(transform, Derived):
        return {"derived": {"expression": expression_identity(transform.expression).canonical}}
    fields: dict[str, Any] = {  # Any: JSON values
        "aggregate": transform.aggregate,
        "expression": expression_identity(transform.expression).canonical if transform.expression else "",
        "over_us": transform.over // _MICROSECOND,
        "hop_us": transform.hop // _MICROSECOND,
        "lateness_us": transform.lateness // _MICROSECOND,
    }
    if transform.denominator:
        fields["denominator"] = expression_identity(transform.denominator).canonical
    if transform.half_life is not None:
        fields["half_life_us"] = transform.half_life // _MICROSECOND
    if transform.session_gap is not None:
        fields["session_gap_us"] = transform.session_gap // _MICROSECOND
    parameters = {"quantile": transform.quantile, "item_count": transform.item_count}
    return {"window": fields | {name: value for name, value in parameters.items() if value is not None}}


def canonical_json(document: object) -> str:
    """The one JSON text of a document: keys sorted, no spaces, no escapes but the required ones, finite numbers."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
