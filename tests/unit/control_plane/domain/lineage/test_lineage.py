"""What a node reaches: paths, owners, effects, pages, as-of, runs, refusals."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, delete, update

from control_plane.domain.lineage import nodes
from control_plane.domain.lineage.edges import Edge, EdgeChange
from control_plane.domain.lineage.lineage import ImpactPage, ImpactQuestion, Lineage
from control_plane.domain.lineage.tokens import write_token
from control_plane.domain.registry import Registry
from control_plane.store.engine import writing
from control_plane.store.lineage_log import append
from control_plane.store.tables import lineage_edges, lineage_head, lineage_nodes
from headrace.definitions import DefinitionKind, DefinitionSet, Feature, ServiceEntry, SourceKind, derived
from headrace.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied
from headrace.lineage.values import EdgeKind, Effect, Impacted, NodeChange, NodeKind, Run, RunData, RunState
from headrace.serving.principal import LOCAL, Principal
from tests.unit.headrace.definitions.samples import (
    COLUMNS,
    MODEL,
    SERVICE,
    SOURCE,
    VIEW,
    count,
    delay,
    entity,
    model,
    service,
    source,
    view,
    whole_set,
)

RUN_ID = "0b8b1c1e-2b5f-4b52-9d2a-1d3f6b1e7a10"
SCORED = Feature("score", "f64", derived("cast(dep_delay as f64) * 2.0"))
WANTED = whole_set(feature_views=[view(features=[delay(), count(), SCORED])])


@pytest.fixture
def filled(registry: Registry, lineage: Lineage) -> Lineage:
    registry.apply_definitions(LOCAL, WANTED)
    return lineage


def by_name(page: ImpactPage) -> dict[str, Impacted]:
    return {item.node.name: item for item in page.items}


def totals(page: ImpactPage) -> dict[tuple[int, str], int]:
    return {(total.hop_count, total.kind.name): total.count for total in page.totals}


def test_a_column_reaches_features_service_and_model_by_named_paths(filled: Lineage) -> None:
    page = filled.impact(LOCAL, ImpactQuestion(SOURCE, "dep_delay", NodeChange.DROP))
    found = by_name(page)
    assert set(found) == {f"{VIEW}@v1:dep_delay", f"{VIEW}@v1:score", f"{SERVICE}@v1", f"{MODEL}@v1"}
    assert (page.start.kind, page.next_page_token) == (NodeKind.SOURCE_COLUMN, "")
    last = found[f"{MODEL}@v1"]
    assert (last.hop_count, last.owner, last.effect) == (3, "flights", Effect.STARVED)
    assert [(step.node.name, step.kind) for step in last.path] == [
        (f"{SOURCE}:dep_delay", None),
        (f"{VIEW}@v1:dep_delay", EdgeKind.VALUE),
        (f"{SERVICE}@v1", EdgeKind.SERVES),
        (f"{MODEL}@v1", EdgeKind.PINS),
    ]
    assert last.path[1].transform == "latest(dep_delay)"
    assert found[f"{VIEW}@v1:dep_delay"].effect is Effect.BROKEN
    assert found[f"{VIEW}@v1:score"].effect is Effect.STARVED
    assert totals(page) == {(1, "FEATURE"): 1, (2, "FEATURE"): 1, (2, "FEATURE_SERVICE"): 1, (3, "MODEL"): 1}


def test_what_reads_a_part_by_two_ways_is_broken_although_a_shorter_path_leads_elsewhere(
    registry: Registry, lineage: Lineage
) -> None:
    features = [delay(), count(), SCORED]
    registry.apply_definitions(LOCAL, whole_set(feature_views=[view(features=features, filter="dep_delay > 0.0")]))
    found = by_name(lineage.impact(LOCAL, ImpactQuestion(SOURCE, "dep_delay", NodeChange.RENAME)))
    parts = {name: found[f"{VIEW}@v1:{name}"].effect for name in ("dep_delay", "flight_count", "score")}
    assert set(parts.values()) == {Effect.BROKEN}, "the filter of their view reads it"
    found = by_name(lineage.impact(LOCAL, ImpactQuestion(SOURCE, "dep_delay", NodeChange.RETYPE)))
    assert found[f"{VIEW}@v1"].effect is Effect.RECOMPILED
    assert found[f"{SERVICE}@v1"].effect is Effect.AFFECTED


def test_a_column_that_nothing_reads_reaches_nothing(filled: Lineage) -> None:
    page = filled.impact(LOCAL, ImpactQuestion(SOURCE, "spare", NodeChange.DROP))
    assert (page.items, page.totals) == ((), ())


@pytest.mark.parametrize("column", ["event_time", "airport"])
def test_time_and_keys_reach_every_feature(filled: Lineage, column: str) -> None:
    page = filled.impact(LOCAL, ImpactQuestion(SOURCE, column, kinds=frozenset({NodeKind.FEATURE})))
    assert set(by_name(page)) == {f"{VIEW}@v1:{name}" for name in ("dep_delay", "flight_count", "score")}


def test_a_name_without_a_version_is_the_newest_that_is_not_retired(filled: Lineage, registry: Registry) -> None:
    registry.apply_definitions(
        LOCAL, DefinitionSet(feature_services=[service(entries=[ServiceEntry(VIEW, ["dep_delay"])])])
    )
    assert filled.impact(LOCAL, ImpactQuestion(SERVICE)).start.name == f"{SERVICE}@v2"
    registry.retire_definition(LOCAL, DefinitionKind.FEATURE_SERVICE, f"{SERVICE}@v2")
    page = filled.impact(LOCAL, ImpactQuestion(SERVICE))
    assert page.start.name == f"{SERVICE}@v1"
    assert set(by_name(page)) == {f"{MODEL}@v1"}


def test_what_is_retired_is_reached_as_of_before_and_not_now(filled: Lineage, registry: Registry) -> None:
    question = ImpactQuestion(SOURCE, "dep_delay", kinds=frozenset({NodeKind.MODEL}))
    before_us = filled.impact(LOCAL, question).moment.known_us
    registry.retire_definition(LOCAL, DefinitionKind.MODEL, f"{MODEL}@v1")
    assert by_name(filled.impact(LOCAL, question)) == {}
    past = ImpactQuestion(SOURCE, "dep_delay", as_of_us=before_us, kinds=frozenset({NodeKind.MODEL}))
    assert set(by_name(filled.impact(LOCAL, past))) == {f"{MODEL}@v1"}
    earlier = ImpactQuestion(SOURCE, "dep_delay", as_of_us=before_us - 1)
    assert filled.impact(LOCAL, earlier).items == ()


def test_pages_together_are_the_whole_and_stay_as_they_were(filled: Lineage, registry: Registry) -> None:
    question = ImpactQuestion(SOURCE)
    whole = filled.impact(LOCAL, question, page_size=1_000)
    page = filled.impact(LOCAL, question, page_size=2)
    found = [*page.items]
    registry.apply_definitions(LOCAL, DefinitionSet(models=[model("flights.ml.another")]))
    while page.next_page_token:
        page = filled.impact(LOCAL, question, 2, page.next_page_token)
        assert page.totals == whole.totals
        found += page.items
    assert found == list(whole.items)
    assert len(filled.impact(LOCAL, question, page_size=1_000).items) == len(found) + 1


def test_a_second_process_answers_the_pages_of_the_first(
    filled: Lineage, make_lineage: Callable[[], Lineage], registry: Registry
) -> None:
    question = ImpactQuestion(SOURCE)
    whole = filled.impact(LOCAL, question, page_size=1_000)
    first = filled.impact(LOCAL, question, page_size=3)
    registry.retire_definition(LOCAL, DefinitionKind.MODEL, f"{MODEL}@v1")
    rest = make_lineage().impact(LOCAL, question, 1_000, first.next_page_token)
    assert [*first.items, *rest.items] == list(whole.items)


@pytest.mark.parametrize(
    "token", ["x", "W10=", "WyJhIiwxLDIsM10=", "A" * 300], ids=["no base64", "empty", "of another", "long"]
)
def test_a_token_of_another_question_is_refused(filled: Lineage, token: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        filled.impact(LOCAL, ImpactQuestion(SOURCE), 0, token)
    assert caught.value.reason == "INVALID_PAGE_TOKEN"
    given = filled.impact(LOCAL, ImpactQuestion(SOURCE), 2).next_page_token
    with pytest.raises(InvalidArgument):
        filled.impact(LOCAL, ImpactQuestion(SOURCE, change=NodeChange.DROP), 2, given)


@pytest.mark.parametrize("position", [0, 10**9, 2**63 - 1])
def test_a_position_that_is_made_up_is_an_empty_or_a_first_page(filled: Lineage, position: int) -> None:
    question = ImpactQuestion(SOURCE)
    whole = filled.impact(LOCAL, question, page_size=1_000)
    token = write_token(question.key, whole.moment, position)
    found = filled.impact(LOCAL, question, 1_000, token)
    assert found.items == (whole.items if position == 0 else ())
    assert found.totals == whole.totals


@pytest.mark.parametrize(
    ("node", "column", "kind", "said"),
    [
        ("", "", InvalidArgument, "name is empty"),
        ("a" * 10_000, "", InvalidArgument, "at most 2400 characters"),
        ("../../etc\0", "", InvalidArgument, "printable"),
        ("flights\u202eops", "", InvalidArgument, "printable"),
        ("'; DROP TABLE lineage_edges; --", "", NotFound, "no node"),
        ("flights.ops.departure", "", NotFound, f"did you mean '{SOURCE}'"),
        (SOURCE, "dep_dela", NotFound, "did you mean 'dep_delay'"),
        (f"{VIEW}@v9", "", NotFound, "no node"),
        ("flights.ops.nothing", "x", NotFound, "no source"),
    ],
)
def test_what_is_no_node_is_refused(filled: Lineage, node: str, column: str, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said.replace("'", ".")):
        filled.impact(LOCAL, ImpactQuestion(node, column))


def test_permissions_are_asked_first(filled: Lineage) -> None:
    nobody, reader = Principal("nobody", frozenset()), Principal("reader", frozenset({"REGISTRY_READ"}))
    with pytest.raises(PermissionDenied):
        filled.impact(nobody, ImpactQuestion("no such node"))
    with pytest.raises(PermissionDenied):
        filled.record_run(reader, trained())
    assert filled.impact(reader, ImpactQuestion(SOURCE)).items


def trained(**fields: object) -> Run:
    given: dict[str, object] = {
        "run_id": RUN_ID,
        "job": "training_set",
        "state": RunState.SUCCEEDED,
        "start_time_us": 1_000,
        "end_time_us": 2_000,
        "inputs": (RunData(f"{VIEW}@v1", "77"), RunData(f"{SERVICE}@v1"), RunData("dataset:rows.parquet")),
        "outputs": (RunData("training_set:delays"),),
        "git_sha": "abc123",
        "kernel_version": "1",
        "digests": {"training_set:delays": "ab" * 32},
    }
    return Run(**given | fields)  # type: ignore[arg-type]


def test_a_run_joins_what_it_read_with_what_it_wrote(filled: Lineage) -> None:
    assert filled.record_run(LOCAL, trained())
    assert not filled.record_run(LOCAL, trained()), "repeating it changes nothing"
    found = by_name(filled.impact(LOCAL, ImpactQuestion(f"{VIEW}@v1")))
    path = found["training_set:delays"].path
    assert [step.node.name for step in path] == [
        f"{VIEW}@v1",
        f"{SERVICE}@v1",
        f"run:{RUN_ID}",
        "training_set:delays",
    ]
    assert f"snapshot:{VIEW}@v1#77" in found
    job = by_name(filled.impact(LOCAL, ImpactQuestion("job:training_set")))
    assert set(job) == {f"run:{RUN_ID}", "training_set:delays"}


def test_a_run_that_wrote_a_version_reaches_what_reads_the_whole(registry: Registry, lineage: Lineage) -> None:
    registry.apply_definitions(LOCAL, whole_set(sources=[source(kind=SourceKind.FILE, uri="s3://lake/departures")]))
    lineage.record_run(LOCAL, trained(inputs=(), outputs=(RunData("dataset:s3://lake/departures", "5"),), digests={}))
    found = by_name(lineage.impact(LOCAL, ImpactQuestion(f"run:{RUN_ID}")))
    assert {"snapshot:dataset:s3://lake/departures#5", SOURCE, f"{MODEL}@v1"} <= set(found)


def test_a_failed_run_has_written_nothing(filled: Lineage) -> None:
    filled.record_run(LOCAL, trained(state=RunState.FAILED))
    found = by_name(filled.impact(LOCAL, ImpactQuestion(f"{SERVICE}@v1")))
    assert f"run:{RUN_ID}" in found
    assert "training_set:delays" not in found


def test_another_run_under_a_known_id_is_refused(filled: Lineage) -> None:
    filled.record_run(LOCAL, trained())
    with pytest.raises(AlreadyExists) as caught:
        filled.record_run(LOCAL, trained(git_sha="other"))
    assert caught.value.reason == "RUN_EXISTS"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"run_id": "no uuid"}, "INVALID_RUN_ID"),
        ({"job": ""}, "INVALID_NAME"),
        ({"job": "a\nb"}, "INVALID_NAME"),
        ({"git_sha": "x" * 129}, "INVALID_NAME"),
        ({"end_time_us": 0}, "OUT_OF_RANGE"),
        ({"inputs": (RunData("flights.ops.unknown@v1"),)}, "UNKNOWN_NODE"),
        ({"inputs": (RunData(""),)}, "INVALID_NAME"),
        ({"outputs": (RunData("training_set:a\0b"),)}, "INVALID_NAME"),
        ({"outputs": (RunData("dataset:" + "x" * 10_000),)}, "INVALID_NAME"),
        ({"inputs": (RunData("dataset:a"),) * 10_001}, "TOO_MANY"),
    ],
)
def test_a_run_that_cannot_be_is_refused(filled: Lineage, fields: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        filled.record_run(LOCAL, trained(**fields))
    assert caught.value.reason == reason


def test_a_source_over_a_view_that_came_later_is_linked_and_can_change(registry: Registry, lineage: Lineage) -> None:
    first, second = (
        source(
            "flights.ops.late",
            kind=SourceKind.SQL,
            query=f"SELECT event_time, {name} FROM rows",
            inputs={"rows": f"lake:{VIEW}@v1"},
        )
        for name in ("dep_delay", "flight_count")
    )
    registry.apply_definitions(LOCAL, DefinitionSet(sources=[first]))
    registry.apply_definitions(LOCAL, WANTED)
    question, other = (ImpactQuestion(f"{VIEW}@v1:{name}") for name in ("dep_delay", "flight_count"))
    assert "flights.ops.late" in by_name(lineage.impact(LOCAL, question))
    assert "flights.ops.late" not in by_name(lineage.impact(LOCAL, other))
    registry.apply_definitions(LOCAL, DefinitionSet(sources=[second]))
    assert "flights.ops.late" not in by_name(lineage.impact(LOCAL, question))
    assert "flights.ops.late" in by_name(lineage.impact(LOCAL, other))


def test_a_log_that_differs_from_what_was_declared_is_put_right(
    registry: Registry, lineage: Lineage, engine: Engine
) -> None:
    registry.apply_definitions(LOCAL, WANTED)
    spare = ImpactQuestion(SOURCE, kinds=frozenset({NodeKind.SOURCE_COLUMN}))
    lost = nodes.column(SOURCE, "spare")
    edge = Edge(nodes.source(SOURCE), lost, EdgeKind.CONTAINS)
    with writing(engine) as connection:
        append(connection, [EdgeChange(nodes.source(SOURCE), ended=[edge])], 0)
    assert lost.name not in by_name(lineage.impact(LOCAL, spare))
    fewer = {name: text for name, text in COLUMNS.items() if name != "spare"}
    registry.apply_definitions(LOCAL, DefinitionSet(sources=[source(columns=fewer)]))
    registry.apply_definitions(LOCAL, DefinitionSet(sources=[source()]))
    assert lost.name in by_name(lineage.impact(LOCAL, spare))


def test_an_older_registry_is_declared_when_a_server_starts(
    registry: Registry, engine: Engine, make_lineage: Callable[[], Lineage]
) -> None:
    registry.apply_definitions(LOCAL, WANTED)
    whole = make_lineage().impact(LOCAL, ImpactQuestion(SOURCE), page_size=1_000)
    with writing(engine) as connection:
        connection.execute(delete(lineage_edges))
        connection.execute(delete(lineage_nodes))
        connection.execute(update(lineage_head).values(declared_revision=0))
    again = make_lineage().impact(LOCAL, ImpactQuestion(SOURCE), page_size=1_000)
    assert {item.node for item in again.items} == {item.node for item in whole.items}
    registry.apply_definitions(LOCAL, DefinitionSet(sources=[source(description="x")], entities=[entity()]))
    registry.retire_definition(LOCAL, DefinitionKind.MODEL, f"{MODEL}@v1")
    assert f"{MODEL}@v1" not in by_name(make_lineage().impact(LOCAL, ImpactQuestion(SOURCE), page_size=1_000))
