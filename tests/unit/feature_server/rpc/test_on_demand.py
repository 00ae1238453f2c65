"""On-demand features over both transports: prepared, read by name and by handle, from disk and from the table."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core_ext import rules
from feature_server.rpc.native_front import HAS_NATIVE, TRANSPORTS, NativeTransport
from headrace.client import Client, PreparedFeatures
from headrace.definitions import (
    DefinitionSet,
    Feature,
    FeatureService,
    OnDemandView,
    RequestSource,
    ServiceEntry,
    derived,
)
from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument, NotFound
from headrace.types import Scalar, ValueType
from tests.unit.feature_server.domain.test_reads import write
from tests.unit.feature_server.parts import OWNER, VIEW, Parts, shop_definitions, state_of
from tests.unit.feature_server.served import Served, serving

OFFER, DEAL, PAIR = "shop.web.offer", "shop.web.deal", "shop.web.pair"
SERVICE, PAIRS = "shop.web.deals", "shop.web.pairs"
DATA = {"price": np.array([10.0, 20.0, 30.0]), "coupon": ["a", None, "c"]}


def on_demand_definitions() -> DefinitionSet:
    """One view over stored features, one over that, and one that names two entities."""
    offer = OnDemandView(
        OFFER, owner=OWNER,
        sources=[f"{VIEW}", RequestSource("offer", {"price": "f64", "coupon": "string"})],
        features=[
            Feature("total", "f64", derived("price * score")),
            Feature("label", "string", derived("concat(name, ' ', coalesce(coupon, '-'))")),
        ],
    )  # fmt: skip
    deal = OnDemandView(
        DEAL, owner=OWNER, sources=[ServiceEntry(f"{OFFER}@v1", ["total"])],
        features=[Feature("is_good", "bool", derived("total > 7.0"))],
    )  # fmt: skip
    pair = OnDemandView(
        PAIR, owner=OWNER,
        sources=[
            ServiceEntry(VIEW, ["age"], {"user_id": "buyer"}, "buyer_"),
            ServiceEntry(VIEW, ["age"], {"user_id": "seller"}, "seller_"),
        ],
        features=[Feature("gap", "i64", derived("buyer_age - seller_age"))],
    )  # fmt: skip
    entries = [ServiceEntry(f"{DEAL}@v1", ["is_good"]), ServiceEntry(f"{OFFER}@v1", ["label"], output_prefix="offer_")]
    mapped = ServiceEntry(f"{PAIR}@v1", ["gap"], {"seller": "owner_id"})
    services = [
        FeatureService(SERVICE, owner=OWNER, entries=entries),
        FeatureService(PAIRS, owner=OWNER, entries=[mapped]),
    ]
    shop = shop_definitions()
    return replace(shop, on_demand_views=[offer, deal, pair], feature_services=[*shop.feature_services, *services])


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", state=state_of(on_demand_definitions()))
    yield opened
    opened.close()


@pytest.fixture(params=TRANSPORTS)
def client(request: pytest.FixtureRequest, parts: Parts) -> Iterator[Client]:
    if request.param == NativeTransport.name and not HAS_NATIVE:
        pytest.skip("the native loop was not compiled in")
    write(parts, [1, 2], 40)
    write(parts, [3], 25)
    with serving(parts, request.param) as served, Client(f"127.0.0.1:{served.port}") as opened:
        assert isinstance(served, Served)
        yield opened


def test_a_prepared_selection_tells_what_to_send(client: Client) -> None:
    prepared = client.prepare(SERVICE)
    assert prepared.request_fields == {"price": ValueType(Scalar.F64), "coupon": ValueType(Scalar.STRING)}
    assert dict(prepared.join_keys) == {"user_id": Scalar.I64}
    assert [column.name for column in prepared.columns] == ["is_good", "offer_label"]
    only = client.prepare(features=[f"{DEAL}@v1:is_good"])
    assert list(only.request_fields) == ["price"]


@pytest.mark.parametrize("way", ["service", "handle", "features"])
def test_values_are_computed_from_disk_and_from_the_table(client: Client, way: str) -> None:
    names = [f"{DEAL}@v1:is_good", f"{OFFER}:label"]
    selections: dict[str, str | PreparedFeatures | None] = {"service": SERVICE, "handle": client.prepare(SERVICE)}
    for _ in range(2):  # the second time from the table
        batch = client.get_online_features(
            selections.get(way),
            features=names if way == "features" else (),
            entities={"user_id": [1, 2, 9]},
            request_data=DATA,
        )
        good, label = (batch.to_arrow().column(name).to_pylist() for name in batch.columns)
        assert (good, label) == ([False, True, None], ["user 1 a", "user 2 -", None])
        assert batch.statuses(batch.columns[0]).tolist() == [rules.PRESENT, rules.PRESENT, rules.MISSING]


def test_two_entities_in_one_row(client: Client) -> None:
    prepared = client.prepare(PAIRS)
    assert set(prepared.join_keys) == {"buyer", "owner_id"}
    batch = client.get_online_features(prepared, entities={"buyer": [1, 3], "owner_id": [3, 3]})
    assert batch.numpy("gap").tolist() == [15, 0]


WRONG: dict[str, tuple[dict[str, object] | None, str, str]] = {
    "nothing": (None, "MISSING_REQUEST_FIELD", "request_columns"),
    "one": ({"price": [1.0]}, "MISSING_REQUEST_FIELD", "request_columns"),
    "another": ({"price": [1.0], "coupon": ["a"], "x": [1]}, "UNKNOWN_REQUEST_COLUMN", "request_columns[2].name"),
    "too many": ({"price": [1.0, 2.0], "coupon": ["a"]}, "REQUEST_LENGTH_MISMATCH", "request_columns[0].values"),
    "type": ({"price": [1], "coupon": ["a"]}, "WRONG_REQUEST_TYPE", "request_columns[0].value_type"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_request_data_is_one_clear_error(client: Client, case: str) -> None:
    data, reason, field = WRONG[case]
    with pytest.raises(InvalidArgument) as caught:
        client.get_online_features(SERVICE, entities={"user_id": [1]}, request_data=data)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_unknown_names_are_refused_with_near_ones(client: Client) -> None:
    with pytest.raises(NotFound, match="did you mean 'is_good'"):
        client.prepare(features=[f"{DEAL}@v1:is_god"])
    with pytest.raises(NotFound, match=f"did you mean '{DEAL}@v1'"):
        client.prepare(features=["shop.web.deall@v1:is_good"])


def test_what_this_installation_would_compute_otherwise_is_not_served(parts: Parts, tmp_path: Path) -> None:
    state = state_of(on_demand_definitions(), revision=2)
    (record,) = state.on_demand_views[OFFER]
    changed = {**state.on_demand_views, OFFER: (replace(record, transform_digest=bytes(32)),)}
    parts.catalogue.publish(replace(state, on_demand_views=changed))
    for service in (SERVICE, f"{SERVICE}@v1"):
        with pytest.raises(HeadraceError) as caught:
            parts.catalogue.service(service)
        assert isinstance(caught.value, FailedPrecondition)
        assert caught.value.reason == "TRANSFORM_CHANGED"
    assert parts.catalogue.service(PAIRS).feature_service == f"{PAIRS}@v1"
