"""Plans of sources that are a SELECT."""

from typing import Any

import pytest

from control_plane.domain import source_plan
from control_plane.domain.plan import plan
from headrace.definitions import ChangeKind, Column, DefinitionSet, Feature, FeatureView, Source, SourceKind, latest
from tests.unit.control_plane.domain.plan_cases import NOW, applied, only
from tests.unit.headrace.definitions.samples import entity

QUERY = "SELECT airport, event_time, delay FROM flights"
SOURCE, VIEW = "flights.ops.selected", "flights.ops.chosen"


def source(query: str = QUERY, **fields: Any) -> Source:
    columns = [Column("airport", "string"), Column("event_time", "timestamp_us"), Column("delay", "f64")]
    given: dict[str, Any] = {"kind": SourceKind.SQL, "columns": columns, "inputs": {"flights": "flights/*.parquet"}}
    return Source(SOURCE, owner="flights", query=query, **given | fields)


def whole(**fields: Any) -> DefinitionSet:
    features = [Feature("delay", "f64", latest("delay"))]
    view = FeatureView(VIEW, owner="flights", entity=entity().name, source=SOURCE, features=features)
    return DefinitionSet(sources=[source(**fields)], entities=[entity()], feature_views=[view])


def test_a_select_is_registered_once() -> None:
    state = applied(whole())
    assert plan(state, whole(), NOW).after is state


@pytest.mark.parametrize(
    ("query", "reason", "part"),
    [
        ("DELETE FROM flights", "NOT_ONE_SELECT", "a source only reads"),
        ("SELECT * FROM flihgts", "UNKNOWN_INPUT", "did you mean 'flights'"),
        ("SELECT FROM WHERE", "INVALID_SQL", "no SQL"),
    ],
)
def test_what_is_no_select_is_refused_at_registration(query: str, reason: str, part: str) -> None:
    problem = plan(applied(DefinitionSet(entities=[entity()])), whole(query=query), NOW).problems[0]
    assert (problem.reason, problem.field) == (reason, "sources[0].query")
    assert part in problem.message


def test_without_the_engine_the_plan_says_that_nobody_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_plan, "has_engine", lambda: False)
    change = plan(applied(DefinitionSet(entities=[entity()])), whole(query="nonsense"), NOW).changes[0]
    assert change.change_kind is ChangeKind.CREATE
    assert "not checked here" in change.details[1]


def test_the_select_is_part_of_what_a_view_computes_and_where_its_files_lie_is_not() -> None:
    state = applied(whole())
    moved = plan(state, only(sources=source(inputs={"flights": "elsewhere/*.parquet"})), NOW)
    assert [one.change_kind for one in moved.changes] == [ChangeKind.UPDATE]
    assert "inputs changes" in moved.changes[0].details[0]
    other = plan(state, only(sources=source(f"{QUERY} WHERE delay > 0")), NOW)
    assert [(one.reason, one.field) for one in other.problems] == [("INCOMPATIBLE_CHANGE", "sources[0].query")]
    digests = {made.views[VIEW][0].transform_digest for made in (state, applied(whole(query=f"{QUERY} WHERE true")))}
    assert len(digests) == 2
