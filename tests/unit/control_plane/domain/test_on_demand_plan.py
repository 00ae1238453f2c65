"""Plans of on-demand views: what is registered, what a change makes, and every refusal."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from control_plane.domain.plan import plan
from control_plane.domain.retire import retire
from control_plane.store.records import name_row, pin_rows, record_of, version_row
from headrace.convert.registry import state_from_pb, state_to_pb
from headrace.definitions import (
    ChangeKind,
    DefinitionKind,
    DefinitionSet,
    Feature,
    OnDemandView,
    RegistryState,
    RequestSource,
    ServiceEntry,
    State,
    derived,
    load,
)
from headrace.definitions.on_demand import REQUEST_FIELD_COUNT_MAX
from headrace.definitions.on_demand_plans import DEPTH_MAX, plans_of_state
from headrace.definitions.services import KEY_COLUMN_COUNT_MAX
from headrace.errors import FailedPrecondition
from headrace.names import VersionRef
from tests.unit.control_plane.domain.plan_cases import NOW, applied, only
from tests.unit.headrace.definitions.samples import SERVICE, VIEW, count, delay, entity, service, view, whole_set

TRIP, FAST = "flights.ml.trip", "flights.ml.fast"
REQUEST = RequestSource("trip", {"distance_km": "f64"})


def trip(**fields: Any) -> OnDemandView:
    given = {
        "owner": "flights",
        "sources": [VIEW, REQUEST],
        "features": [Feature("speed", "f64", derived("distance_km / dep_delay"))],
    }
    return OnDemandView(TRIP, **given | fields)


def fast(**fields: Any) -> OnDemandView:
    features = [Feature("is_fast", "bool", derived("speed > 10.0"))]
    return OnDemandView(FAST, **{"owner": "flights", "sources": [TRIP], "features": features} | fields)


BOTH = whole_set(
    feature_views=[view(features=[delay(), count()])],
    on_demand_views=[fast(), trip()],
    feature_services=[service(entries=[ServiceEntry(FAST), ServiceEntry(TRIP, output_prefix="trip_")])],
)
BASE = applied(BOTH)


def version(name: str, number: int = 1) -> VersionRef:
    return VersionRef(name, number)


def test_sources_are_pinned_and_list_what_is_read() -> None:
    record = BASE.on_demand_view(version(TRIP))
    assert record is not None and record.state is State.ACTIVE
    assert record.definition.sources == (ServiceEntry(f"{VIEW}@v1", ["dep_delay"]), REQUEST)
    below = BASE.on_demand_view(version(FAST))
    assert below is not None and below.definition.sources == (ServiceEntry(f"{TRIP}@v1", ["speed"]),)
    entries = BASE.service(version(SERVICE)).definition.entries  # type: ignore[union-attr]
    assert [(entry.feature_view, entry.features) for entry in entries] == [
        (f"{FAST}@v1", ("is_fast",)),
        (f"{TRIP}@v1", ("speed",)),
    ]


def test_a_set_that_is_registered_changes_nothing() -> None:
    made = plan(BASE, BOTH, NOW)
    assert {change.change_kind for change in made.changes} == {ChangeKind.UNCHANGED}
    assert made.after is BASE


def test_store_and_messages_give_the_registry_back() -> None:
    assert state_from_pb(state_to_pb(BASE)) == BASE
    record = BASE.on_demand_views[TRIP][0]
    assert record_of(name_row([record]) | version_row(record)) == record
    assert [row["pinned_name"] for row in pin_rows(record)] == [VIEW]


def test_a_new_version_below_makes_one_above() -> None:
    wider = view(features=[delay(default=1.0), count()])
    made = plan(BASE, whole_set(feature_views=[wider], models=[]), NOW)
    changed = plan(made.after, only(on_demand_views=trip()), NOW)
    (change,) = changed.changes
    assert (change.change_kind, change.version) == (ChangeKind.NEW_VERSION, 2)
    assert f"source {VIEW}@v2 is added" in change.details
    first, second = changed.after.on_demand_views[TRIP]
    assert first.transform_digest != second.transform_digest
    pinned = plan(made.after, only(on_demand_views=trip(sources=[f"{VIEW}@v1", REQUEST])), NOW)
    assert pinned.changes[0].change_kind is ChangeKind.UNCHANGED


@pytest.mark.parametrize(
    ("changes", "kind", "detail"),
    [
        ({"description": "text"}, ChangeKind.UPDATE, "description changes"),
        ({"features": [Feature("speed", "f64", derived("(distance_km / dep_delay)"))]}, ChangeKind.UNCHANGED, ""),
        (
            {"features": [Feature("speed", "f64", derived("distance_km * dep_delay"))]},
            ChangeKind.NEW_VERSION,
            "computation of feature 'speed' changes",
        ),
        ({"features": [Feature("pace", "f64", derived("distance_km"))]}, ChangeKind.REFUSED, "'speed' is removed"),
        (
            {"features": [Feature("speed", "bool", derived("distance_km > dep_delay"))]},
            ChangeKind.REFUSED,
            "type of feature 'speed' changes from f64",
        ),
    ],
)
def test_what_a_change_makes(changes: dict[str, Any], kind: ChangeKind, detail: str) -> None:
    (change,) = plan(BASE, only(on_demand_views=trip(**changes)), NOW).changes
    assert change.change_kind is kind
    assert detail in "; ".join(change.details)


def other(**fields: Any) -> OnDemandView:
    return OnDemandView("flights.ml.other", **{"owner": "flights"} | fields)


def featured(text: str, *sources: Any, kind: str = "f64", name: str = "x") -> OnDemandView:
    return other(sources=list(sources), features=[Feature(name, kind, derived(text))])


KEYED = whole_set(
    entities=[entity(), entity("flights.ops.plane", keys={"airport": "i64"})],
    feature_views=[view(), view("flights.ops.planes", entity="flights.ops.plane")],
    models=[],
)
REFUSED: dict[str, tuple[OnDemandView, str, str, str]] = {
    "unknown view": (
        featured("x", "flights.ops.none"), "UNKNOWN_REFERENCE", "sources[0].feature_view", "no feature view"
    ),
    "unknown version": (featured("x", f"{VIEW}@v9"), "UNKNOWN_REFERENCE", "sources[0].feature_view", "newest is v1"),
    "a service": (
        featured("x", SERVICE), "UNKNOWN_REFERENCE", "sources[0].feature_view", "it is a feature service"
    ),
    "unknown feature": (
        featured("dep_dela", VIEW), "UNKNOWN_COLUMN", "features[0].transform.expression", "mean 'dep_delay'?, at"
    ),
    "unknown listed feature": (
        featured("x", ServiceEntry(VIEW, ["dep_dela"])), "UNKNOWN_FEATURE", "sources[0].features[0]", "did you mean"
    ),
    "wrong type": (featured("dep_delay", VIEW), "WRONG_TYPE", "features[0].type", "declare f32"),
    "types that do not fit": (
        featured("dep_delay + 'a'", VIEW), "TYPE_MISMATCH", "features[0].transform.expression", "^"
    ),
    "entities of different keys": (
        featured("dep_delay + b_dep_delay", VIEW, ServiceEntry("flights.ops.planes", output_prefix="b_")),
        "ENTITY_MISMATCH", "sources[1].join_key_mapping", "'airport' would be string for one and i64",
    ),
    "unknown join key": (
        featured("dep_delay", ServiceEntry(VIEW, [], {"airprt": "x"})),
        "UNKNOWN_JOIN_KEY", "sources[0].join_key_mapping", "did you mean 'airport'?",
    ),
    "columns of one name": (
        featured("dep_delay", VIEW, ServiceEntry(VIEW, [], {"airport": "dest"})),
        "DUPLICATE_NAME", "sources[1]", "give the source an output_prefix",
    ),
    "field of one name": (
        featured("dep_delay", VIEW, RequestSource("r", {"dep_delay": "f64"})), "DUPLICATE_NAME", "sources[1]", "rename"
    ),
    "field like a key": (
        featured("dep_delay", VIEW, RequestSource("r", {"airport": "f64"})),
        "RESERVED_NAME", "sources[1].fields.airport", "map the key",
    ),
    "feature like a column": (
        featured("dep_delay", VIEW, kind="f32", name="dep_delay"), "DUPLICATE_NAME", "features[0].name", "rename it"
    ),
    "feature like a key": (
        featured("dep_delay", VIEW, kind="f32", name="airport"), "DUPLICATE_NAME", "features[0].name", "a join key"
    ),
    "source that nobody reads": (
        featured("d", VIEW, RequestSource("r", {"d": "f64"})), "UNEXPECTED", "sources[0]", "leave the source out"
    ),
    "itself": (
        featured("x", "flights.ml.other@v1"), "CYCLE", "sources", "flights.ml.other reads flights.ml.other"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_the_remedy(case: str) -> None:
    wanted, reason, field, words = REFUSED[case]
    made = plan(applied(KEYED), only(on_demand_views=wanted), NOW)
    assert [change.change_kind for change in made.changes] == [ChangeKind.REFUSED]
    problem = made.problems[0]
    assert (problem.reason, problem.field) == (reason, f"on_demand_views[0].{field}")
    assert words in problem.message


def test_views_that_read_one_another_are_refused_by_name() -> None:
    wanted = DefinitionSet(on_demand_views=[trip(sources=[FAST, REQUEST]), fast()])
    made = plan(applied(whole_set()), wanted, NOW)
    assert {problem.reason for problem in made.problems} == {"CYCLE"}
    assert made.problems[0].message.startswith(f"{TRIP!r} reads itself: {TRIP} reads {FAST} reads {TRIP}")


def test_a_new_version_that_would_read_its_older_self_is_refused() -> None:
    changed = trip(sources=[FAST, VIEW, REQUEST])
    made = plan(BASE, only(on_demand_views=changed), NOW)
    assert [problem.reason for problem in made.problems] == ["CYCLE"]


def test_a_chain_that_is_too_long_is_refused() -> None:
    first = featured("dep_delay", VIEW, kind="f32", name="f0")
    views = [OnDemandView("flights.chain.n0", owner="flights", sources=first.sources, features=first.features)]
    for number in range(1, DEPTH_MAX + 1):
        feature = Feature(f"f{number}", "f32", derived(f"f{number - 1}"))
        below = f"flights.chain.n{number - 1}"
        views.append(OnDemandView(f"flights.chain.n{number}", owner="flights", sources=[below], features=[feature]))
    made = plan(applied(whole_set()), DefinitionSet(on_demand_views=views[::-1]), NOW)
    assert [(problem.reason, problem.field) for problem in made.problems] == [
        ("TOO_DEEP", "on_demand_views[0].sources")
    ]


def test_a_service_refuses_request_fields_that_clash() -> None:
    other_trip = OnDemandView(
        "flights.ml.second",
        owner="flights",
        sources=[VIEW, RequestSource("t", {"distance_km": "i64"})],
        features=[Feature("far", "bool", derived("distance_km > 3 and dep_delay > 0.0"))],
    )
    wanted = DefinitionSet(
        on_demand_views=[other_trip],
        feature_services=[service("flights.ml.both", entries=[ServiceEntry(TRIP), ServiceEntry("flights.ml.second")])],
    )
    made = plan(BASE, wanted, NOW)
    assert [problem.reason for problem in made.problems] == ["WRONG_TYPE"]
    assert "request field 'distance_km' would be f64 for one entry and i64" in made.problems[0].message
    mapped = service("flights.ml.mapped", entries=[ServiceEntry(TRIP, [], {"airport": "distance_km"})])
    reasons = [problem.reason for problem in plan(BASE, only(feature_services=mapped), NOW).problems]
    assert reasons == ["RESERVED_NAME"]


def numbered(name: str, prefix: str, count: int, *more: Any, factor: str = "dep_delay") -> OnDemandView:
    """A view that takes so many request fields of its own."""
    fields = RequestSource(f"{prefix}_fields", {f"{prefix}{number}": "f64" for number in range(count)})
    feature = Feature(f"{prefix}_first", "f64", derived(f"coalesce({', '.join(fields.fields)}) * {factor}"))
    return OnDemandView(name, owner="flights", sources=[VIEW, fields, *more], features=[feature])


LEFT, RIGHT = "flights.ml.left", "flights.ml.right"


@pytest.mark.parametrize(("count", "reasons"), [(128, []), (129, ["TOO_MANY"]), (200, ["TOO_MANY"])])
def test_request_fields_of_a_view_are_counted_over_its_sources(count: int, reasons: list[str]) -> None:
    own = RequestSource("more", {f"m{number}": "f64" for number in range(count)})
    alone = plan(BASE, only(on_demand_views=numbered(LEFT, "l", count, own)), NOW)
    below = applied(BOTH, only(on_demand_views=numbered(RIGHT, "r", count)))
    over = numbered(LEFT, "l", count, ServiceEntry(RIGHT), factor="dep_delay * r_first")
    above = plan(below, only(on_demand_views=over), NOW)
    for made in (alone, above):
        assert [problem.reason for problem in made.problems] == reasons
    for problem in (*alone.problems, *above.problems):
        assert problem.field == "on_demand_views[0].sources"
        assert f"{2 * count} request fields; at most {REQUEST_FIELD_COUNT_MAX}" in problem.message


@pytest.mark.parametrize(("count", "reasons"), [(128, []), (129, ["TOO_MANY"]), (200, ["TOO_MANY"])])
def test_request_fields_of_a_service_are_counted_over_its_entries(count: int, reasons: list[str]) -> None:
    wanted = DefinitionSet(
        on_demand_views=[numbered(LEFT, "l", count), numbered(RIGHT, "r", count)],
        feature_services=[service("flights.ml.both", entries=[ServiceEntry(LEFT), ServiceEntry(RIGHT)])],
    )
    made = plan(BASE, wanted, NOW)
    assert [problem.reason for problem in made.problems] == reasons
    for problem in made.problems:
        assert problem.field == "feature_services[0].entries"
        assert f"{2 * count} request fields; at most {REQUEST_FIELD_COUNT_MAX} are allowed: split" in problem.message


@pytest.mark.parametrize(("count", "reasons"), [(KEY_COLUMN_COUNT_MAX, []), (KEY_COLUMN_COUNT_MAX + 1, ["TOO_MANY"])])
def test_join_key_columns_of_a_service_are_counted_over_its_entries(count: int, reasons: list[str]) -> None:
    entries = [ServiceEntry(VIEW, [], {"airport": f"k{number}"}, f"k{number}_") for number in range(count)]
    made = plan(BASE, only(feature_services=service("flights.ml.wide", entries=entries)), NOW)
    assert [problem.reason for problem in made.problems] == reasons
    for problem in made.problems:
        assert problem.field == "feature_services[0].entries"
        assert f"{count} join key columns; at most {KEY_COLUMN_COUNT_MAX}" in problem.message


@pytest.mark.parametrize(("count", "reasons"), [(KEY_COLUMN_COUNT_MAX, []), (KEY_COLUMN_COUNT_MAX + 1, ["TOO_MANY"])])
def test_join_key_columns_of_a_view_are_counted_over_its_sources(count: int, reasons: list[str]) -> None:
    sources = [ServiceEntry(VIEW, [], {"airport": f"k{number}"}, f"k{number}_") for number in range(count)]
    features = [Feature("first", "f32", derived(f"coalesce({', '.join(f'k{at}_dep_delay' for at in range(count))})"))]
    wide = OnDemandView("flights.ml.wide", owner="flights", sources=sources, features=features)
    made = plan(BASE, only(on_demand_views=wide), NOW)
    assert [problem.reason for problem in made.problems] == reasons
    for problem in made.problems:
        assert problem.field == "on_demand_views[0].sources"
        assert f"{count} join key columns; at most {KEY_COLUMN_COUNT_MAX}" in problem.message


@pytest.mark.parametrize("pinned", [TRIP, FAST])
def test_a_service_over_what_is_computed_otherwise_here_is_one_problem(pinned: str) -> None:
    record = BASE.on_demand_views[TRIP][0]
    damaged = replace(record, transform_digest=bytes(32))
    state = replace(BASE, on_demand_views={**BASE.on_demand_views, TRIP: (damaged,)})
    entries = [ServiceEntry(f"{VIEW}@v1"), ServiceEntry(f"{pinned}@v1", output_prefix="x_")]
    wanted = DefinitionSet(
        feature_services=[
            service("flights.ml.bad", entries=entries),
            service("flights.ml.good", entries=entries[:1]),
        ]
    )
    made = plan(state, wanted, NOW)
    assert [change.change_kind for change in made.changes] == [ChangeKind.REFUSED, ChangeKind.CREATE]
    assert [(problem.reason, problem.field) for problem in made.problems] == [
        ("TRANSFORM_CHANGED", "feature_services[0].entries[1].feature_view")
    ]
    assert f"{TRIP}@v1" in made.problems[0].message


def test_what_is_read_is_not_retired() -> None:
    with pytest.raises(FailedPrecondition, match=rf"pinned by on-demand view {TRIP}@v1"):
        retire(BASE, DefinitionKind.FEATURE_VIEW, f"{VIEW}@v1", NOW)
    with pytest.raises(FailedPrecondition, match=rf"pinned by on-demand view {FAST}@v1, feature service {SERVICE}@v1"):
        retire(BASE, DefinitionKind.ON_DEMAND_VIEW, f"{TRIP}@v1", NOW)


def test_a_plan_of_another_kernel_is_refused() -> None:
    record = BASE.on_demand_views[TRIP][0]
    changed = RegistryState(entities=BASE.entities, views=BASE.views, on_demand_views={TRIP: [record]})
    assert plans_of_state(changed).plan_of(record).request_fields.keys() == {"distance_km"}
    damaged = record.__class__(record.definition, record.stamp, 1, State.ACTIVE, bytes(32))
    with pytest.raises(FailedPrecondition, match="registered with another kernel"):
        plans_of_state(changed).plan_of(damaged)


def test_examples_of_the_guide_agree_and_are_planned(tmp_path: Path, repository: Path) -> None:
    guide = (repository / "docs" / "definitions.md").read_text(encoding="utf-8")
    state, found = RegistryState(), []
    for language, ending in (("python", "py"), ("yaml", "yaml")):
        for part in ("", " windows", " on-demand"):
            file = tmp_path / f"{ending}{len(part)}.{ending}"
            file.write_text(guide.split(f"```{language}{part}\n")[1].split("```")[0], encoding="utf-8")
            definitions = load(file)
            made = plan(state, definitions, NOW)
            made.require_possible()
            state = made.after
        found.append(definitions.on_demand_views[0])
    assert found[0] == found[1]
    assert {change.change_kind for change in made.changes} == {ChangeKind.UNCHANGED}
