"""On-demand views as people write them, and what they compile to."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.convert.definitions import on_demand_view_from_pb, on_demand_view_to_pb, set_from_pb, set_to_pb
from headrace.definitions import (
    DefinitionSet,
    Fallback,
    Feature,
    OnDemandView,
    RequestSource,
    ServiceEntry,
    derived,
    latest,
    load_yaml,
    to_yaml,
)
from headrace.errors import InvalidArgument
from headrace.types import Scalar, ValueType
from tests.unit.headrace.definitions.samples import VIEW

TRIP = RequestSource("trip", {"distance_km": "f64", "at": "timestamp_us"})
SPEED = Feature("speed", "f64", derived("distance_km / dep_delay"), default=0.0)


def on_demand(**fields: object) -> OnDemandView:
    given = {"owner": "flights", "sources": [f"{VIEW}@v1", TRIP], "features": [SPEED]}
    return OnDemandView("flights.ml.trip", **given | fields)  # type: ignore[arg-type]


def test_a_text_is_a_view_and_types_are_parsed() -> None:
    view = on_demand()
    assert view.entries == (ServiceEntry(f"{VIEW}@v1"),)
    assert TRIP.fields == {"distance_km": ValueType(Scalar.F64), "at": ValueType(Scalar.TIMESTAMP_US)}


def test_yaml_and_messages_give_the_same_view_back(tmp_path: Path) -> None:
    entry = ServiceEntry(VIEW, ["dep_delay"], {"airport": "origin"}, "origin_")
    given = DefinitionSet(on_demand_views=[on_demand(sources=[entry, TRIP], fallback=Fallback.DEFAULT)])
    file = tmp_path / "on_demand.yaml"
    file.write_text(to_yaml(given))
    assert load_yaml(file) == given
    assert set_from_pb(set_to_pb(given)) == given


def test_a_message_without_a_source_is_refused_with_its_path() -> None:
    message = on_demand_view_to_pb(on_demand())
    message.sources.add()
    with pytest.raises(InvalidArgument) as caught:
        on_demand_view_from_pb(message)
    assert (caught.value.reason, caught.value.field) == ("REQUIRED", "sources[2].kind")


WRONG: dict[str, tuple[Callable[[], object], str, str]] = {
    "no view": (lambda: on_demand(sources=[TRIP]), "REQUIRED", "sources"),
    "no source": (lambda: on_demand(sources=[]), "REQUIRED", "sources"),
    "a number": (lambda: on_demand(sources=[VIEW, 3]), "WRONG_TYPE", "sources[1]"),
    "no name": (lambda: on_demand(sources=["Trip"]), "INVALID_NAME", "sources[0].feature_view"),
    "latest": (
        lambda: on_demand(features=[Feature("x", "f64", latest("x"))]),
        "WRONG_TYPE",
        "features[0].transform",
    ),
    "fallback": (lambda: on_demand(fallback=Fallback.EXPIRED_VALUE), "WRONG_TYPE", "fallback"),
    "no field": (lambda: RequestSource("trip", {}), "REQUIRED", "fields"),
    "field name": (lambda: RequestSource("trip", {"Km": "f64"}), "INVALID_NAME", "fields.Km."),
    "field type": (lambda: RequestSource("trip", {"km": "f65"}), "UNKNOWN_TYPE", "fields.km.type"),
    "list": (lambda: RequestSource("trip", {"km": "list<f64>"}), "WRONG_TYPE", "fields.km"),
    "event time": (lambda: RequestSource("trip", {"event_time": "timestamp_us"}), "RESERVED_NAME", "fields.event_time"),
    "too many": (lambda: RequestSource("trip", {f"f{n}": "f64" for n in range(257)}), "TOO_MANY", "fields"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_with_its_path(case: str) -> None:
    make, reason, field = WRONG[case]
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert caught.value.reason == reason
    assert caught.value.field.rstrip(".").startswith(field.rstrip("."))
