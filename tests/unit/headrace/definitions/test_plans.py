"""Plans of views: windows, filters and derived features, from their definitions to one kernel plan."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from headrace.convert.definitions import set_from_pb, set_to_pb
from headrace.definitions import (
    AGGREGATES,
    DefinitionSet,
    Feature,
    FeatureView,
    Window,
    derived,
    latest,
    session,
    window,
)
from headrace.definitions.document_reading import set_from_document
from headrace.definitions.documents import set_document
from headrace.definitions.files import load, to_yaml
from headrace.definitions.plans import NO_COLUMN, ViewPlan, WindowFeature, compile_plan, plan_of
from headrace.definitions.registered import RegisteredView
from headrace.definitions.transform import normalised_plan, source_columns, view_digest
from headrace.errors import FailedPrecondition, InvalidArgument
from protos.control.v1 import definitions_pb2 as pb
from tests.unit.feature_server.parts import state_of
from tests.unit.headrace.definitions.samples import entity, source, view, whole_set

COLUMNS = {
    "event_time": "timestamp_us",
    "delay": "f32",
    "flights": "i32",
    "cancelled": "bool",
    "carrier": "string",
    "dest": "string",
}
SPAN: dict[str, Any] = {"over": "6h", "hop": "5m"}
HOUR_US = 3_600_000_000
ALL = [
    Feature("events", "i64", window("count", **SPAN)),
    Feature("known", "i64", window("count", "delay", **SPAN)),
    Feature("flown", "i64", window("sum", "flights", lateness="1h", **SPAN)),
    Feature("late", "f64", window("sum", "if(delay > 15.0, delay, 0)", **SPAN)),
    Feature("mean", "f64", window("avg", "delay", **SPAN)),
    Feature("least", "f32", window("min", "delay", **SPAN)),
    Feature("greatest", "i32", window("max", "flights", **SPAN)),
    Feature("opening", "string", window("first", "carrier", **SPAN)),
    Feature("newest", "string", window("last", "carrier", **SPAN)),
    Feature("spread", "f64", window("stddev", "delay", **SPAN)),
    Feature("square", "f64", window("variance", "delay", **SPAN)),
    Feature("carriers", "i64", window("approx_distinct", "carrier", **SPAN)),
    Feature("p95", "f64", window("quantile", "delay", quantile=0.95, **SPAN)),
    Feature("top", "list<string>", window("top_k", "carrier", item_count=3, **SPAN)),
    Feature("recent", "list<f32>", window("last_n", "delay", item_count=5, **SPAN)),
    Feature("share", "f64", window("ratio", "cast(cancelled as i64)", denominator="flights", **SPAN)),
    Feature("fading", "f64", window("decayed_sum", "delay", half_life="2h", **SPAN)),
    Feature("rush", "i64", session("count", gap="30m", longest="6h")),
    Feature("worst", "f32", session("max", "delay", gap="45m", hop="15m", lateness="1h")),
    Feature("faded", "f64", session("decayed_sum", "delay", gap="1h", half_life="2h")),
    Feature("dep_delay", "f32", latest("delay")),
    Feature("excess", "f64", derived("dep_delay - mean")),
]


def rich_view(**fields: Any) -> FeatureView:
    return view(**{"features": ALL, "filter": "dest != 'XNA' # closed"} | fields)


def rich_set(**fields: Any) -> DefinitionSet:
    return whole_set(sources=[source(columns=COLUMNS)], feature_views=[rich_view(**fields)])


def plan_for(*features: Feature, **fields: Any) -> ViewPlan:
    return compile_plan(rich_view(features=features or ALL, **fields), entity(), source(columns=COLUMNS))


def test_a_plan_holds_every_aggregate_and_shares_inputs() -> None:
    plan = plan_for()
    canonical = [one.canonical for one in plan.inputs]
    assert canonical == [
        "delay",
        "flights",
        "if((delay > 15.0), delay, 0)",
        "carrier",
        "cast(cancelled as i64)",
    ]
    by_name = dict(zip(plan.window_names, plan.windows, strict=True))
    assert by_name["events"] == WindowFeature(1, NO_COLUMN, NO_COLUMN, 6 * HOUR_US, HOUR_US // 12, 0)
    assert by_name["p95"] == WindowFeature(11, 0, NO_COLUMN, 6 * HOUR_US, HOUR_US // 12, 950_000)
    assert by_name["share"] == WindowFeature(14, 4, 1, 6 * HOUR_US, HOUR_US // 12, 0)
    assert by_name["fading"].parameter == 2 * HOUR_US
    assert by_name["top"].parameter == 3
    assert by_name["rush"] == WindowFeature(1, NO_COLUMN, NO_COLUMN, 6 * HOUR_US, HOUR_US // 2, 0, HOUR_US // 2)
    assert by_name["worst"] == WindowFeature(5, 0, NO_COLUMN, 24 * HOUR_US, HOUR_US // 4, 0, 3 * HOUR_US // 4)
    assert {one.aggregate for one in plan.windows} == set(AGGREGATES.values())
    assert plan.lateness_us[plan.window_names.index("flown")] == HOUR_US
    assert plan.filter is not None
    assert plan.filter.canonical == "(dest != 'XNA')"
    assert plan.latest == (("dep_delay", "delay"),)
    assert [(name, one.columns) for name, one in plan.derived] == [("excess", ("dep_delay", "mean"))]


def test_every_form_comes_back() -> None:
    wanted = rich_set()
    assert set_from_document(set_document(wanted)) == wanted
    assert set_from_pb(pb.DefinitionSet.FromString(set_to_pb(wanted).SerializeToString())) == wanted


def test_yaml_comes_back(tmp_path: Any) -> None:
    file = tmp_path / "set.yaml"
    file.write_text(to_yaml(rich_set()), encoding="utf-8")
    assert load(file) == rich_set()


def test_numbers_of_aggregates_are_those_of_the_contract() -> None:
    names = {name.removeprefix("AGGREGATE_").lower(): number for name, number in pb.Aggregate.items() if number}
    assert names == AGGREGATES


def digest_of(*features: Feature, **fields: Any) -> bytes:
    return view_digest(rich_view(features=features or ALL, **fields), entity(), source(columns=COLUMNS))


def test_writing_an_expression_otherwise_keeps_the_digest_and_another_computation_does_not() -> None:
    first = Feature("a", "f64", window("sum", "delay * 2.0", **SPAN))
    same = Feature("a", "f64", window("sum", "( delay*2.0 ) # twice", **SPAN))
    assert digest_of(first) == digest_of(same)
    assert digest_of(first, filter="dest!='XNA'") == digest_of(first)
    others = [
        Feature("a", "f64", window("sum", "delay * 3.0", **SPAN)),
        Feature("a", "f64", window("avg", "delay * 2.0", **SPAN)),
        Feature("a", "f64", window("sum", "delay * 2.0", over="7h", hop="5m")),
        Feature("a", "f64", window("sum", "delay * 2.0", over="6h", hop="6m")),
        Feature("a", "f64", window("sum", "delay * 2.0", lateness="1m", **SPAN)),
    ]
    assert len({digest_of(one) for one in (first, *others)}) == 6
    assert digest_of(first, filter="") != digest_of(first)


def test_a_gap_is_part_of_the_identity_and_a_hop_that_is_the_gap_is_not() -> None:
    first = Feature("a", "i64", session("count", gap="30m", longest="6h"))
    same = Feature("a", "i64", session("count", gap=timedelta(minutes=30), longest="360m", hop="30m"))
    assert first == same
    others = [
        Feature("a", "i64", session("count", gap="31m", longest="6h", hop="30m")),
        Feature("a", "i64", session("count", gap="30m", longest="7h")),
        Feature("a", "i64", session("count", gap="30m", longest="6h", hop="15m")),
        Feature("a", "i64", window("count", over="6h", hop="30m")),
    ]
    assert len({digest_of(one) for one in (first, *others)}) == 5


def test_forms_without_a_hop_are_sessions_whose_hop_is_the_gap() -> None:
    wanted = session("count", gap="30m", longest="6h")
    document = set_document(rich_set())
    document["feature_views"][0]["features"][0]["window"] = {"aggregate": "count", "over": "6h", "session_gap": "30m"}
    assert set_from_document(document).feature_views[0].features[0].transform == wanted
    message = set_to_pb(rich_set(features=[Feature("a", "i64", wanted)]))
    message.feature_views[0].features[0].transform.window.ClearField("hop_duration")
    assert set_from_pb(message).feature_views[0].features[0].transform == wanted
    document["feature_views"][0]["features"][0]["window"] = {"aggregate": "count", "over": "6h"}
    with pytest.raises(InvalidArgument, match="needs the field 'hop'"):
        set_from_document(document)


def test_a_feature_without_a_gap_has_the_digest_that_it_always_had() -> None:
    plan = normalised_plan(rich_view(features=ALL[:1]), entity(), source(columns=COLUMNS))
    assert set(plan["features"][0]["window"]) == {"aggregate", "expression", "over_us", "hop_us", "lateness_us"}


def test_columns_in_use_are_those_of_every_expression() -> None:
    assert source_columns(rich_view()) == frozenset(COLUMNS) - {"event_time"}


EXPRESSION = "features[0].transform.expression"
PROBLEMS = [
    (Feature("a", "f64", window("sum", "flights", **SPAN)), "features[0].type", "sum of i32 is i64"),
    (Feature("a", "f64", window("avg", "carrier", **SPAN)), EXPRESSION, "avg takes i32"),
    (Feature("a", "list<f32>", window("top_k", "delay", item_count=3, **SPAN)), EXPRESSION, "top_k"),
    (Feature("a", "f64", window("avg", "dely", **SPAN)), EXPRESSION, "did you mean 'delay'"),
    (Feature("a", "f64", derived("mean + 1")), EXPRESSION, "column 'mean' is unknown"),
    (Feature("a", "f32", derived("1.5")), "features[0].type", "its expression is f64"),
    (Feature("a", "f64", latest("delay")), "features[0].transform", "has f32 there"),
]  # fmt: skip


@pytest.mark.parametrize(("feature", "field", "message"), PROBLEMS, ids=[case[2] for case in PROBLEMS])
def test_what_does_not_fit_the_source_names_the_field(feature: Feature, field: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        plan_for(feature)
    assert caught.value.field == field
    assert message in caught.value.message


def test_a_filter_must_be_bool() -> None:
    with pytest.raises(InvalidArgument, match="filter is i64; it must be bool"):
        plan_for(filter="flights + 1")


WRONG = [
    ({"aggregate": "sun"}, "aggregate", "did you mean 'sum'"),
    ({"expression": ""}, "expression", "required"),
    ({"expression": "a +"}, "expression", "ends too early"),
    ({"hop": "7h"}, "hop", "longer than the window"),
    ({"over": "0s"}, "over", "must lie between"),
    ({"quantile": 0.5}, "quantile", "takes no quantile"),
    ({"aggregate": "quantile"}, "quantile", "needs its quantile"),
    ({"aggregate": "quantile", "quantile": 1.5}, "quantile", "from 0.0 to 1.0"),
    ({"aggregate": "quantile", "quantile": 0.12345678}, "quantile", "six decimals"),
    ({"aggregate": "top_k", "item_count": 0}, "item_count", "from 1 to 1000"),
    ({"aggregate": "ratio"}, "denominator", "needs its denominator"),
    ({"aggregate": "decayed_sum", "half_life": "soon"}, "half_life", "write a duration"),
]


@pytest.mark.parametrize(("fields", "field", "message"), WRONG, ids=[case[2] for case in WRONG])
def test_a_wrong_window_names_its_field(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        window(**{"aggregate": "sum", "expression": "a"} | SPAN | fields)
    assert caught.value.field == f"transform.{field}"
    assert message in caught.value.message


WRONG_SESSIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"gap": "7h"}, "session_gap", "longer than the 6:00:00 at which its sessions are cut"),
    ({"gap": "0s"}, "session_gap", "must lie between"),
    ({"gap": "soon"}, "session_gap", "write a duration"),
    ({"hop": "31m"}, "hop", "longer than the session_gap of 0:30:00: leave it out"),
    ({"hop": "0s"}, "hop", "must lie between"),
    ({"longest": "4000d"}, "over", "at most"),
    ({"quantile": 0.5}, "quantile", "takes no quantile"),
]


@pytest.mark.parametrize(("fields", "field", "message"), WRONG_SESSIONS, ids=[case[2] for case in WRONG_SESSIONS])
def test_a_wrong_session_names_its_field(fields: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        session(**{"aggregate": "sum", "expression": "a", "gap": "30m", "longest": "6h"} | fields)
    assert caught.value.field == f"transform.{field}"
    assert message in caught.value.message


def test_a_feature_has_exactly_one_transform() -> None:
    document = set_document(rich_set())
    feature = document["feature_views"][0]["features"][0]
    feature["latest"] = "delay"
    with pytest.raises(InvalidArgument, match="has latest and window; give it exactly one"):
        set_from_document(document)
    del feature["latest"], feature["window"]
    with pytest.raises(InvalidArgument, match="has no transform"):
        set_from_document(document)


def test_a_version_of_another_kernel_has_no_plan_here() -> None:
    state = state_of(rich_set())
    record = state.views[rich_view().name][0]
    assert isinstance(record, RegisteredView)
    with pytest.raises(FailedPrecondition, match="another kernel"):
        plan_of(replace(record, transform_digest=bytes(32)), state)
    digest = view_digest(record.definition, entity(), source(columns=COLUMNS))
    assert plan_of(replace(record, transform_digest=digest), state).digest == digest


def test_durations_may_be_timedeltas() -> None:
    hour = timedelta(hours=1)
    assert window("count", over=hour, hop=hour) == Window(aggregate="count", expression="", over=hour, hop=hour)
