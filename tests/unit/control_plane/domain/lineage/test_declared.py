"""Edges that definitions declare, down to the columns that their expressions read."""

import pytest

from control_plane.domain.lineage import nodes
from control_plane.domain.lineage.declared import declared_changes, declared_edges, node_of
from control_plane.domain.lineage.edges import Edge, edge_change
from headrace.definitions import (
    DefinitionSet,
    Feature,
    RegistryState,
    ServiceEntry,
    SourceKind,
    derived,
    latest,
    window,
)
from headrace.definitions.functions import Function
from headrace.definitions.registered import all_records
from headrace.definitions.transform import source_columns
from headrace.lineage.values import EdgeKind, Node, NodeKind
from headrace.names import VersionRef
from tests.unit.control_plane.domain.plan_cases import applied
from tests.unit.control_plane.domain.test_lookup_plan import CATALOG, CLICKS, LOOKUP, PRICES, SPENDING, shop, spending
from tests.unit.control_plane.domain.test_on_demand_plan import BOTH, FAST, TRIP
from tests.unit.headrace import sample_functions
from tests.unit.headrace.definitions.samples import (
    ENTITY,
    MODEL,
    SERVICE,
    SOURCE,
    VIEW,
    count,
    delay,
    source,
    view,
    whole_set,
)

Line = tuple[str, str, str]  # source, kind, target


def lines(edges: list[Edge]) -> set[Line]:
    return {(edge.source.name, edge.kind.name.lower(), edge.target.name) for edge in edges}


def all_lines(state: RegistryState) -> set[Line]:
    return {line for record in all_records(state) for line in lines(declared_edges(record, state))}


def test_a_whole_set_is_one_graph_from_columns_to_the_model() -> None:
    assert all_lines(applied(whole_set())) == {
        *((SOURCE, "contains", f"{SOURCE}:{name}") for name in ("event_time", "dep_delay", "flight_count", "spare")),
        (SOURCE, "contains", f"{SOURCE}:airport"),
        (SOURCE, "reads", f"{VIEW}@v1"),
        (ENTITY, "key", f"{VIEW}@v1"),
        (f"{SOURCE}:airport", "key", f"{VIEW}@v1"),
        (f"{SOURCE}:event_time", "time", f"{VIEW}@v1"),
        (f"{VIEW}@v1", "contains", f"{VIEW}@v1:dep_delay"),
        (f"{SOURCE}:dep_delay", "value", f"{VIEW}@v1:dep_delay"),
        (f"{VIEW}@v1", "reads", f"{SERVICE}@v1"),
        (f"{VIEW}@v1:dep_delay", "serves", f"{SERVICE}@v1"),
        (f"{SERVICE}@v1", "pins", f"{MODEL}@v1"),
    }


def test_filters_windows_and_derived_features_name_the_columns_that_they_read() -> None:
    features = [
        Feature("late", "f64", window("ratio", "dep_delay", denominator="flight_count", over="1h", hop="1m")),
        Feature("flights", "i64", window("count", over="1h", hop="1m")),
        Feature("score", "f64", derived("late * 2.0")),
    ]
    state = applied(
        whole_set(feature_views=[view(features=features, filter="spare > 0")], feature_services=[], models=[])
    )
    found = lines(declared_edges(state.views[VIEW][0], state))
    reads = {line for line in found if line[1] in ("value", "filter")}
    assert reads == {
        (f"{SOURCE}:dep_delay", "value", f"{VIEW}@v1:late"),
        (f"{SOURCE}:flight_count", "value", f"{VIEW}@v1:late"),
        (f"{VIEW}@v1:late", "value", f"{VIEW}@v1:score"),
        (f"{SOURCE}:spare", "filter", f"{VIEW}@v1"),
    }
    texts = {edge.target.name: edge.transform for edge in declared_edges(state.views[VIEW][0], state)}
    assert texts[f"{VIEW}@v1:late"] == "window ratio(dep_delay, flight_count) over 1:00:00"
    assert texts[f"{VIEW}@v1:score"] == "(late * 2.0)"


def test_what_a_lookup_adds_is_made_of_the_feature_and_found_by_the_key() -> None:
    state = applied(shop())
    found = {line for line in lines(declared_edges(state.views[SPENDING][0], state)) if line[2].endswith(":spent")}
    assert found == {
        (f"{CATALOG}@v1:price", "value", f"{SPENDING}@v1:spent"),
        (f"{CLICKS}:item", "key", f"{SPENDING}@v1:spent"),
        (f"{CLICKS}:amount", "value", f"{SPENDING}@v1:spent"),
        (f"{SPENDING}@v1", "contains", f"{SPENDING}@v1:spent"),
    }


def test_what_a_function_adds_is_made_of_its_columns() -> None:
    function = Function("host", "string", sample_functions.band, columns=["item"])
    features = [Feature("host", "string", latest("host"))]
    state = applied(shop(feature_views=[spending(*features, lookups=[], functions=[function])]))
    found = lines(declared_edges(state.views[SPENDING][0], state))
    assert (f"{CLICKS}:item", "value", f"{SPENDING}@v1:host") in found
    assert not any(f"{CLICKS}:host" in line for line in found)


def test_on_demand_features_are_made_of_features_and_not_of_the_request() -> None:
    state = applied(BOTH)
    found = lines(declared_edges(state.on_demand_views[TRIP][0], state))
    assert found == {
        (f"{TRIP}@v1", "contains", f"{TRIP}@v1:speed"),
        (f"{VIEW}@v1:dep_delay", "value", f"{TRIP}@v1:speed"),
    }
    assert lines(declared_edges(state.on_demand_views[FAST][0], state)) >= {
        (f"{TRIP}@v1:speed", "value", f"{FAST}@v1:is_fast")
    }


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("SELECT rows.dep_delay FROM rows JOIN more USING (airport)", {"dep_delay"}),
        ("SELECT * FROM rows JOIN more USING (airport)", {"dep_delay", "flight_count"}),
    ],
)
def test_a_select_reads_the_features_that_it_can_name(query: str, read: set[str]) -> None:
    columns = {"event_time": "timestamp_us", "dep_delay": "f32"}
    inputs = {"rows": f"lake:{VIEW}@v1", "more": "data/more.parquet"}
    joined = source("flights.ops.joined", columns=columns, kind=SourceKind.SQL, query=query, inputs=inputs)
    first = whole_set(feature_views=[view(features=[delay(), count()])])
    state = applied(first, DefinitionSet(sources=[joined]))
    found = lines(declared_edges(state.sources["flights.ops.joined"], state))
    assert {line for line in found if line[1] != "contains"} == {
        *((f"{VIEW}@v1:{name}", "value", "flights.ops.joined") for name in read),
        (f"{VIEW}@v1", "reads", "flights.ops.joined"),
        ("dataset:data/more.parquet", "reads", "flights.ops.joined"),
    }


@pytest.mark.parametrize("wanted", [whole_set(), shop(), BOTH], ids=["flights", "shop", "on demand"])
def test_every_column_that_a_view_reads_reaches_one_of_its_features(wanted: DefinitionSet) -> None:
    state = applied(wanted)
    for versions in state.views.values():
        for record in versions:
            edges = declared_edges(record, state)
            reached = {edge.source.name for edge in edges if edge.target.name.startswith(str(record.ref))}
            given = state.sources[record.definition.source].definition.name
            assert {f"{given}:{name}" for name in source_columns(record.definition)} <= reached


def test_changes_are_those_of_the_records_alone() -> None:
    before = applied(whole_set())
    after = applied(whole_set(), whole_set(feature_views=[view(features=[delay(), count()])], models=[]))
    newer = after.view(VersionRef(VIEW, 2))
    assert newer is not None
    (change,) = declared_changes([newer], before, after)
    assert change.origin == Node(NodeKind.FEATURE_VIEW, f"{VIEW}@v2")
    assert Edge(
        nodes.column(SOURCE, "flight_count"),
        nodes.feature(VersionRef(VIEW, 2), "flight_count"),
        EdgeKind.VALUE,
        "latest(flight_count)",
    ) in tuple(change.edges)
    assert declared_changes([], before, before) == []


def test_a_source_that_loses_a_column_ends_its_edge() -> None:
    before = applied(whole_set())
    kept = {"event_time": "timestamp_us", "dep_delay": "f32", "flight_count": "i64", "new": "f32"}
    after = applied(whole_set(), DefinitionSet(sources=[source(columns=kept)]))
    (declaration,) = declared_changes([after.sources[SOURCE]], before, after)
    assert node_of(after.sources[SOURCE]) == declaration.origin
    change = edge_change(declaration.origin, declared_edges(before.sources[SOURCE], before), declaration.edges)
    assert change is not None
    assert [edge.target.name for edge in change.ended] == [f"{SOURCE}:spare"]
    assert [edge.target.name for edge in change.begun] == [f"{SOURCE}:new"]


def test_a_view_that_comes_declares_the_sources_over_it_anew() -> None:
    over = source(
        "flights.ops.late", kind=SourceKind.SQL, query="SELECT * FROM rows", inputs={"rows": f"lake:{VIEW}@v1"}
    )
    before = applied(DefinitionSet(sources=[over]))
    after = applied(DefinitionSet(sources=[over]), whole_set())
    (record,) = after.views[VIEW]
    found = {one.origin.name: lines(list(one.edges)) for one in declared_changes([record], before, after)}
    assert set(found) == {f"{VIEW}@v1", "flights.ops.late"}
    assert (f"{VIEW}@v1:dep_delay", "value", "flights.ops.late") in found["flights.ops.late"]
    assert [one.origin.name for one in declared_changes([record], after, after)] == [f"{VIEW}@v1"]


def test_lookups_of_the_sample_are_resolved() -> None:
    assert (LOOKUP.feature_view, PRICES) == (CATALOG, "shop.web.prices")
    assert ServiceEntry(f"{CATALOG}@v1", ["price"], {"item_id": "item"}, "item_") in (
        applied(shop()).views[SPENDING][0].definition.lookups
    )
