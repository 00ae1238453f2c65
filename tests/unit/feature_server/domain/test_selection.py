"""Limits of a selection: lists and services that no plan of the core holds are refused, and the others served."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from headrace.definitions import Feature, FeatureService, OnDemandView, RequestSource, ServiceEntry, derived
from headrace.definitions.on_demand import REQUEST_FIELD_COUNT_MAX
from headrace.definitions.registered import RegistryState
from headrace.definitions.services import KEY_COLUMN_COUNT_MAX
from headrace.errors import InvalidArgument
from headrace.types import Scalar, ValueType
from tests.unit.feature_server.parts import OWNER, SERVICE, VIEW, Parts, shop_definitions, state_of

BAD = "shop.web.bad"
LIMITS = {
    "request fields": (REQUEST_FIELD_COUNT_MAX, "TOO_MANY_REQUEST_FIELDS"),
    "join keys": (KEY_COLUMN_COUNT_MAX, "TOO_MANY_JOIN_KEYS"),
}


def of_fields(name: str, fields: dict[str, str]) -> OnDemandView:
    """A view that reads every one of the request fields."""
    feature = Feature("x", "f64", derived(f"coalesce({', '.join(fields)}) * score"))
    source = RequestSource("given", fields)
    return OnDemandView(name, owner=OWNER, sources=[VIEW, source], features=[feature])


def of_keys(name: str, keys: Sequence[str]) -> OnDemandView:
    """A view that reads a feature by every one of the join keys."""
    sources = [ServiceEntry(VIEW, ["age"], {"user_id": key}, f"{key}_") for key in keys]
    feature = Feature("x", "i32", derived(f"coalesce({', '.join(f'{key}_age' for key in keys)})"))
    return OnDemandView(name, owner=OWNER, sources=sources, features=[feature])


def pair(what: str, count: int) -> list[OnDemandView]:
    """Two views that have so many of them together."""
    names = [f"n{number}" for number in range(count)]
    parts = {"shop.web.left": names[: count // 2], "shop.web.right": names[count // 2 :]}
    if what == "join keys":
        return [of_keys(name, part) for name, part in parts.items()]
    return [of_fields(name, dict.fromkeys(part, "f64")) for name, part in parts.items()]


def clashing() -> list[OnDemandView]:
    """Two views of one request field that is of two types."""
    right = of_fields("shop.web.right", {"price": "f64"})
    label = Feature("x", "string", derived("concat(name, price)"))
    return [
        replace(
            right,
            name="shop.web.left",
            sources=[ServiceEntry(VIEW), RequestSource("given", {"price": "string"})],
            features=[label],
        ),
        right,
    ]


def shop_with(views: Sequence[OnDemandView]) -> RegistryState:
    """The shop, and a service over these views beside its own."""
    shop = shop_definitions()
    entries = [ServiceEntry(f"{view.name}@v1", ["x"], output_prefix=f"v{at}_") for at, view in enumerate(views)]
    services = [FeatureService(BAD, owner=OWNER, entries=entries), *shop.feature_services]
    return state_of(replace(shop, on_demand_views=views, feature_services=services), revision=2)


CASES = {what: (pair(what, limit + 1), reason) for what, (limit, reason) in LIMITS.items()}
CASES["types of a request field"] = (clashing(), "REQUEST_FIELD_CONFLICT")


@pytest.mark.parametrize("case", CASES)
def test_selection_that_no_plan_holds_is_refused_and_the_others_are_served(parts: Parts, case: str) -> None:
    views, reason = CASES[case]
    parts.catalogue.publish(shop_with(views))
    assert parts.catalogue.revision == 2
    assert parts.catalogue.service(SERVICE).feature_service == f"{SERVICE}@v1"
    names = [f"{view.name}@v1:x" for view in views]
    calls: list[Callable[[], object]] = [
        lambda: parts.catalogue.service(BAD),
        lambda: parts.catalogue.features(names),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument) as caught:
            call()
        assert (caught.value.reason, caught.value.field) == (reason, "features")
    for name in names:
        assert parts.catalogue.features([name]).columns, "each of them alone is within the limit"
    logged = parts.stream.getvalue()
    assert "feature_service_not_served" in logged and f"{BAD}@v1" in logged and f"{SERVICE}@v1" not in logged


@pytest.mark.parametrize("what", LIMITS)
def test_selection_at_the_limit_is_served(parts: Parts, what: str) -> None:
    limit, _ = LIMITS[what]
    parts.catalogue.publish(shop_with(pair(what, limit)))
    prepared = parts.catalogue.service(BAD)
    if what == "join keys":
        assert dict(prepared.join_keys) == {f"n{number}": Scalar.I64 for number in range(limit)}
    else:
        assert prepared.request_fields == {f"n{number}": ValueType(Scalar.F64) for number in range(limit)}
