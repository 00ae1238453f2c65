"""Identity of a transform."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace.definitions import Fallback, Feature, FeatureView, latest
from headrace.definitions.transform import normalised_plan, transform_digest
from tests.unit.headrace.definitions.samples import count, delay, entity, source, view

GOLDEN = (
    '{"kernel_semantics_version":1,"plan":{"entity":{"join_keys":[["airport","string"]],"name":"flights.ops.airport"},'
    '"features":[{"latest":{"column":"dep_delay"},"name":"dep_delay","type":"f32"}],'
    '"source":{"event_time_column":"event_time","name":"flights.ops.departures"}},"time_zone_data_version":""}'
)


def digest_of(feature_view: FeatureView) -> bytes:
    return transform_digest(normalised_plan(feature_view, entity(), source()))


def test_digest_is_the_hash_of_the_canonical_text() -> None:
    assert digest_of(view()) == hashlib.sha256(GOLDEN.encode()).digest()


@pytest.mark.parametrize(
    "changed",
    [
        {"ttl": timedelta(days=1)},
        {"fallback": Fallback.DEFAULT},
        {"owner": "flights.oncall"},
        {"description": "text"},
        {"freshness_sla": timedelta(hours=1)},
        {"features": [delay(default=1.0)]},
        {"features": [delay(description="text")]},
    ],
)
def test_what_is_only_served_or_said_keeps_the_digest(changed: dict[str, Any]) -> None:
    assert digest_of(replace(view(), **changed)) == digest_of(view())


@pytest.mark.parametrize(
    "changed",
    [
        {"features": [delay(), count()]},
        {"features": [Feature("dep_delay", "f32", latest("other"))]},
        {"source": "flights.ops.other"},
    ],
)
def test_another_computation_has_another_digest(changed: dict[str, Any]) -> None:
    plan = normalised_plan(replace(view(), **changed), entity(), source(changed.get("source", source().name)))
    assert transform_digest(plan) != digest_of(view())


def test_order_of_features_keeps_the_digest() -> None:
    assert digest_of(view(features=[delay(), count()])) == digest_of(view(features=[count(), delay()]))


def test_kernel_and_time_zone_versions_are_part_of_the_digest() -> None:
    plan = normalised_plan(view(), entity(), source())
    digests = {transform_digest(plan), transform_digest(plan, 2), transform_digest(plan, 1, "2026f")}
    assert len(digests) == 3
