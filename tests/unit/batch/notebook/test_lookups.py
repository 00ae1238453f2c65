"""Previews of views that look other views up, whose events are at hand."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from headrace.definitions import Feature, latest
from headrace.errors import InvalidArgument
from headrace.history import LookedUp, label, preview
from tests.unit.feature_server.domain.test_lookups import (
    CATALOG_TYPES,
    DEMAND,
    HOUR_US,
    SPENDING,
    UTC,
    definitions,
)

START_US = 1_760_000_000_000_000
KINDS = definitions()
SOURCES = {one.name: one for one in KINDS.sources}
VIEWS = {one.name: one for one in KINDS.feature_views}
USER, ITEM = KINDS.entities


def prices(*rows: tuple[str, int, float | None]) -> pa.Table:
    items, times, values = zip(*rows, strict=True)
    types = {column.name: column.type.arrow for column in SOURCES["shop.web.prices"].columns}
    given: dict[str, list[Any]] = {"price": list(values), "label": list(items)}
    columns = {name: pa.array(given.get(name, [None] * len(rows)), types[name]) for name in CATALOG_TYPES}
    return pa.table({"item_id": list(items), "event_time": stamps(times), **columns})


def stamps(times: Any) -> pa.Array:
    return pa.array([START_US + at for at in times], UTC)


SALES = pa.table({"item_id": ["a", "a", "b"], "event_time": stamps([10, 50, 20]), "amount": [2, 5, 4]})
CLICKS = pa.table(
    {
        "user_id": [1, 1, 1, 2, 2],
        "item": ["a", "a", None, "b", "none"],
        "event_time": stamps([30, 60, 61, 25, 70]),
        "quantity": [1, 2, 3, 4, 5],
    }
)
CATALOG_ROWS = prices(("a", 10, 9.0), ("a", 40, 8.0), ("b", 20, None))


def looked_up() -> list[LookedUp]:
    catalog = LookedUp(VIEWS["shop.web.catalog"], CATALOG_ROWS, ITEM, SOURCES["shop.web.prices"])
    return [catalog, LookedUp(VIEWS[DEMAND], SALES, ITEM, SOURCES["shop.web.sales"])]


def asked(*rows: tuple[int, int]) -> pa.Table:
    users, times = zip(*rows, strict=True)
    return pa.table({"user_id": list(users), "event_time": stamps(times)})


def shown(entities: pa.Table, **changes: Any) -> pa.Table:
    given: dict[str, Any] = {"entity": USER, "source": SOURCES["shop.web.clicks"], "looked_up": looked_up()}
    return preview(VIEWS[SPENDING], CLICKS, entities=entities, **given | changes)


def test_every_event_gets_the_features_as_of_its_own_time() -> None:
    found = shown(asked((1, 30), (1, 60), (1, 61), (2, 25), (2, 70)))
    assert found["item_price"].to_pylist() == [9.0, 8.0, None, 1.5, 1.5]
    assert found["sold"].to_pylist() == [2, 7, None, 4, 0]
    assert found["spent"].to_pylist() == [9.0, 9.0 + 2 * 8.0, 9.0 + 2 * 8.0, 1.5 * 4, 1.5 * 4 + 1.5 * 5]


def test_previews_reach_through_a_view_that_looks_up_itself() -> None:
    lookup = replace(VIEWS[SPENDING].lookups[0], join_key_mapping={})
    feature = Feature("price", "f64", latest("item_price"))
    demand = replace(VIEWS[DEMAND], lookups=[lookup], features=[*VIEWS[DEMAND].features, feature])
    below = looked_up()
    deep = LookedUp(demand, SALES, ITEM, SOURCES["shop.web.sales"], [below[0]])
    spending = replace(
        VIEWS[SPENDING],
        features=[Feature("then", "f64", latest("now_price"))],
        filter="",
        lookups=VIEWS[SPENDING].lookups[1:],
    )
    found = preview(
        spending, CLICKS, entity=USER, source=SOURCES["shop.web.clicks"], entities=asked((1, 60), (2, 25)),
        looked_up=[deep],
    )  # fmt: skip
    # The price as of the sale, not as of the click: a was sold at 50, when it cost 8; b when its price was unknown.
    assert found["then"].to_pylist() == [8.0, 1.5]


def test_labels_are_computed_from_enriched_events() -> None:
    found = label(
        asked((1, 30), (1, 59)), VIEWS[SPENDING], CLICKS, entity=USER, source=SOURCES["shop.web.clicks"],
        horizon=timedelta(microseconds=HOUR_US), looked_up=looked_up(),
    )  # fmt: skip
    assert found["spent"].to_pylist() == [16.0, 16.0]


def test_a_view_that_is_not_given_is_named() -> None:
    with pytest.raises(InvalidArgument) as caught:
        shown(asked((1, 30)), looked_up=looked_up()[:1])
    assert (caught.value.reason, caught.value.field) == ("MISSING_VIEW", "looked_up")
    assert DEMAND in caught.value.message
