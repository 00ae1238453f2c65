"""Which views may share a row, and that a packed row holds what the rows held."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from core_ext.arrow import arrow_column
from core_ext.row_codec import decode_row, encode_rows
from feature_server.domain.co_location import Grouping, grouping, pack, packed_schema
from headrace.definitions import DefinitionSet, Feature, FeatureService, ServiceEntry, latest, window
from tests.unit.feature_server.parts import FEATURES, OWNER, VIEW, Parts, shop_definitions, state_of

VISITS, PLACES = "shop.web.visits", "shop.web.places"
MODEL, OTHER = "shop.web.pair", "shop.web.other"


def definitions(*services: tuple[str, Sequence[str]], extra: Sequence[Feature] = ()) -> DefinitionSet:
    """The shop with two more views of its user, and services over views named."""
    shop = shop_definitions()
    profile = shop.feature_views[0]
    visits = replace(profile, name=VISITS, features=[Feature("age", "i32", latest("age")), *extra])
    places = replace(profile, name=PLACES, features=[Feature("name", "string", latest("name"))])
    features = {VIEW: list(FEATURES), f"{VISITS}@v1": [one.name for one in visits.features], f"{PLACES}@v1": ["name"]}
    made = [
        FeatureService(
            name=name,
            owner=OWNER,
            entries=[ServiceEntry(view, features[view], output_prefix=f"p{at}_") for at, view in enumerate(views)],
        )
        for name, views in services
    ]
    return replace(shop, feature_views=[profile, visits, places], feature_services=made)


def grouped(parts: Parts, given: DefinitionSet, service: str = f"{MODEL}@v1") -> Grouping:
    parts.catalogue.publish(state_of(given))
    names = [f"{one.name}@v1" for one in given.feature_services]
    return grouping(service, {name: parts.catalogue.service(name) for name in names})


def views_of(found: Grouping) -> list[set[str]]:
    return [{view.ref for view in candidate.views} for candidate in found.candidates]


def test_views_that_one_service_reads_are_a_candidate(parts: Parts) -> None:
    found = grouped(parts, definitions((MODEL, [VIEW, f"{VISITS}@v1"])))
    assert views_of(found) == [{VIEW, f"{VISITS}@v1"}]
    assert found.apart == ()
    assert len(found.candidates[0].columns) == len(FEATURES) + 1


def test_view_that_another_service_reads_alone_stays_apart(parts: Parts) -> None:
    services = ((MODEL, [VIEW, f"{VISITS}@v1", f"{PLACES}@v1"]), (OTHER, [f"{PLACES}@v1"]))
    found = grouped(parts, definitions(*services))
    assert views_of(found) == [{VIEW, f"{VISITS}@v1"}]
    assert [one.view for one in found.apart] == [f"{PLACES}@v1"]
    assert found.apart[0].why.endswith(f"is read by exactly {OTHER}@v1, {MODEL}@v1")


def test_services_that_read_the_same_views_keep_them_together(parts: Parts) -> None:
    pair = [VIEW, f"{VISITS}@v1"]
    found = grouped(parts, definitions((MODEL, pair), (OTHER, pair[::-1])))
    assert found.candidates[0].services == (f"{MODEL}@v1", f"{OTHER}@v1")


def test_windows_and_single_views_stay_apart(parts: Parts) -> None:
    counted = [Feature("count", "i64", window("count", over="1h", hop="1m"))]
    found = grouped(parts, definitions((MODEL, [VIEW, f"{VISITS}@v1"]), extra=counted))
    assert found.candidates == ()
    assert {one.view: one.why.split()[0] for one in found.apart} == {f"{VISITS}@v1": "its", VIEW: "no"}


def test_packed_row_holds_values_nulls_and_order_of_every_view(parts: Parts) -> None:
    candidate = grouped(parts, definitions((MODEL, [VIEW, f"{VISITS}@v1"]))).candidates[0]
    profile = [
        pa.array([1, None], pa.int32()),
        pa.array(["Grüße", None], pa.string()),
        pa.array([0.5, 1.5], pa.float32()),
        pa.array([[1, 2, 3], []], pa.list_(pa.int64())),
        pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64(), 2)),
    ]
    columns = {VIEW: profile, f"{VISITS}@v1": [pa.array([7, 8], pa.int32())]}
    rows = []
    for number, view in enumerate(candidate.views):
        batch = encode_rows(view.schema, list(map(arrow_column, columns[view.ref])), np.array([10 + number, 20]))
        rows.append(batch.stamp(np.arange(2), 100 + number, None, 5 + number, 3, 40))
    first, second = (decode_row(packed_schema(candidate), row) for row in pack(candidate, rows))
    order_first = [10, 100, 100, 40, 3, 5, 11, 101, 101, 40, 3, 6]
    assert first[1] == [1, "Grüße", 0.5, [1, 2, 3], [1.0, 2.0], 7, *order_first]
    assert second[1][:6] == [None, None, 1.5, [], [3.0, 4.0], 8]
    assert (first[0].event_time_us, second[0].event_time_us) == (11, 20), "that of the newest view"
