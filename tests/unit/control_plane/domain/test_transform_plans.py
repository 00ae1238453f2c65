"""Plans of views with windows, filters and derived features."""

from typing import Any

import pytest

from control_plane.domain.plan import plan
from headrace.definitions import ChangeKind, Feature, FeatureView, derived, session, transform, window
from tests.unit.control_plane.domain.plan_cases import NOW, applied, only
from tests.unit.headrace.definitions.samples import COLUMNS, delay, source, view, whole_set


def total(expression: str = "flight_count", **span: Any) -> Feature:
    return Feature("total", "i64", window("sum", expression, **{"over": "6h", "hop": "5m"} | span))


def windowed(*features: Feature, **fields: Any) -> FeatureView:
    mean = Feature("twice", "i64", derived("total * 2"))
    return view(**{"features": features or [delay(), total(), mean], "filter": "flight_count > 0"} | fields)


BASE = applied(whole_set(feature_views=[windowed()]))


def outcome(wanted: FeatureView) -> tuple[ChangeKind, int, str]:
    change = plan(BASE, only(feature_views=wanted), NOW).changes[-1]
    return change.change_kind, change.version, "; ".join(change.details)


def test_the_same_computation_written_otherwise_is_unchanged() -> None:
    twice = Feature("twice", "i64", derived("(total*2) # doubled"))
    again = windowed(delay(), total(" ( flight_count ) "), twice, filter="flight_count>0")
    assert outcome(again)[:2] == (ChangeKind.UNCHANGED, 1)


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({"filter": "flight_count > 1"}, "filter changes from '(flight_count > 0)' to '(flight_count > 1)'"),
        ({"filter": ""}, "filter changes from '(flight_count > 0)' to none"),
    ],
)
def test_another_filter_is_the_next_version(changed: dict[str, Any], detail: str) -> None:
    assert outcome(windowed(**changed)) == (ChangeKind.NEW_VERSION, 2, detail)


def test_another_computation_is_the_next_version_and_says_so() -> None:
    twice = Feature("twice", "i64", derived("total * 3"))
    kind, version, details = outcome(windowed(delay(), total(over="7h"), twice))
    assert (kind, version) == (ChangeKind.NEW_VERSION, 2)
    assert "computation of feature 'total' changes from 'sum(flight_count) over 6h hop 5m' to" in details
    assert "computation of feature 'twice' changes from '(total * 2)' to '(total * 3)'" in details


def test_a_session_is_another_computation_than_its_window_and_says_so() -> None:
    rush = Feature("total", "i64", session("sum", "flight_count", gap="30m", longest="6h"))
    kind, version, details = outcome(windowed(delay(), rush, Feature("twice", "i64", derived("total * 2"))))
    assert (kind, version) == (ChangeKind.NEW_VERSION, 2)
    assert "to 'sum(flight_count) session gap 30m over 6h hop 30m'" in details


def test_a_session_that_needs_too_many_tiles_is_refused_with_the_numbers() -> None:
    rush = Feature("total", "i64", session("sum", "flight_count", gap="1s", longest="30d"))
    wanted = windowed(rush, name="flights.ops.rush")
    (problem,) = plan(BASE, only(feature_views=wanted), NOW).problems
    assert (problem.reason, problem.field) == ("ROW_TOO_LARGE", "feature_views[0].features")
    assert "a row has at most" in problem.message


def test_new_time_zone_data_is_the_next_version_of_what_uses_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    hour = "if(hour(event_time, 'Europe/Berlin') < 6, 1, 0)"
    zoned, plain = windowed(total(hour)), windowed(total(), name="flights.ops.plain")
    state = applied(whole_set(feature_views=[zoned, plain], feature_services=[], models=[]))
    monkeypatch.setattr(transform, "TIME_ZONE_DATA_VERSION", "2099z")
    kinds = [plan(state, only(feature_views=wanted), NOW).changes[-1].change_kind for wanted in (zoned, plain)]
    assert kinds == [ChangeKind.NEW_VERSION, ChangeKind.UNCHANGED]


def test_another_type_is_refused() -> None:
    ratio = Feature("total", "f64", window("avg", "flight_count", over="6h", hop="5m"))
    assert outcome(windowed(delay(), ratio, Feature("twice", "i64", derived("1"))))[0] is ChangeKind.REFUSED


def test_an_expression_that_does_not_fit_is_refused_at_its_path() -> None:
    change = plan(BASE, only(feature_views=windowed(delay(), total("flight_coun"))), NOW)
    (problem, *_) = [one for one in change.problems if "flight_coun" in one.message]
    assert (problem.reason, problem.field) == ("UNKNOWN_COLUMN", "feature_views[0].features[1].transform.expression")
    assert "did you mean 'flight_count'" in problem.message


def test_a_column_that_an_expression_reads_is_in_use() -> None:
    columns = {name: kind for name, kind in COLUMNS.items() if name != "flight_count"}
    change = plan(BASE, only(sources=source(columns=columns)), NOW).changes[-1]
    assert change.change_kind is ChangeKind.REFUSED
    assert "'flight_count' is removed, and is in use" in "; ".join(change.details)
