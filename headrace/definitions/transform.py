"""Identity of a view's transform: its normalised plan and the digest of it."""

import hashlib
import json
from typing import Any, Final

from headrace.definitions.entities import Entity
from headrace.definitions.sources import Source
from headrace.definitions.views import FeatureView

KERNEL_SEMANTICS_VERSION: Final = 1
"""Raised when a kernel of equal plans would compute other values; docs/decisions/0005-version-identity.md."""

NO_TIME_ZONE_DATA: Final = ""
"""Time-zone data version of plans without time parts, so that new zone data gives them no new identity."""


def normalised_plan(view: FeatureView, entity: Entity, source: Source) -> dict[str, Any]:  # Any: JSON values
    """What is computed, without what is only served (TTL, defaults, fallback) or said (owner, text).

    Features stand in the order of their names: moving a column computes nothing else.
    """
    return {
        "entity": {"name": entity.name, "join_keys": [[key.name, str(key.type)] for key in entity.join_keys]},
        "source": {"name": source.name, "event_time_column": source.event_time_column},
        "features": [
            {"name": feature.name, "type": str(feature.type), "latest": {"column": feature.transform.column}}
            for feature in sorted(view.features, key=lambda feature: feature.name)
        ],
    }


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


def canonical_json(document: object) -> str:
    """The one JSON text of a document: keys sorted, no spaces, no escapes but the required ones, finite numbers."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
