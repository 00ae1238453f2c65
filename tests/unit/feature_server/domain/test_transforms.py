"""Views that compute more than latest columns: refused for reads and writes, beside views that are served."""

from dataclasses import replace

import pytest

from feature_server.domain.shard import Durability
from headrace.definitions import Feature, FeatureService, ServiceEntry, window
from headrace.errors import FailedPrecondition
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.unit.feature_server.parts import OWNER, PRINCIPAL, VIEW, Parts, shop_batch, shop_definitions, state_of

COUNTS = "shop.web.counts"


@pytest.fixture
def windowed(parts: Parts) -> Parts:
    """The shop with a windowed view and a service over it."""
    shop = shop_definitions()
    features = [Feature("visits", "i64", window("count", over="1h", hop="1m"))]
    view = replace(shop.feature_views[0], name=COUNTS, features=features)
    service = FeatureService(name="shop.web.rich", owner=OWNER, entries=[ServiceEntry(f"{COUNTS}@v1", ["visits"])])
    grown = replace(shop, feature_views=[*shop.feature_views, view], feature_services=[*shop.feature_services, service])
    parts.catalogue.publish(state_of(grown))
    return parts


@pytest.mark.parametrize("fields", [{"feature_service": "shop.web.rich"}, {"features": [f"{COUNTS}:visits"]}])
def test_reading_a_windowed_view_says_that_it_is_not_served(windowed: Parts, fields: dict[str, object]) -> None:
    keys = [pb.EntityColumn(join_key="user_id", int64_values=[1])]
    request = pb.GetOnlineFeaturesRequest(entity_columns=keys, **fields)  # type: ignore[arg-type]  # by name
    with pytest.raises(FailedPrecondition, match=f"'{COUNTS}@v1' has a filter, windows or derived") as caught:
        windowed.reads.get(PRINCIPAL, request.SerializeToString(), lambda: None)
    assert caught.value.reason == "TRANSFORM_NOT_SERVED"


def test_writing_a_windowed_view_says_that_it_is_not_served_and_others_are(windowed: Parts) -> None:
    batch = shop_batch([1])
    with pytest.raises(FailedPrecondition) as caught:
        windowed.writes.write(COUNTS, lambda target: [batch], Durability.LOG, ("", 0), PRINCIPAL)
    assert caught.value.reason == "TRANSFORM_NOT_SERVED"
    assert windowed.writes.write(VIEW, lambda target: [batch], Durability.LOG, ("", 0), PRINCIPAL).positions
