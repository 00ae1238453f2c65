"""What `headrace lineage` prints and how it exits."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from control_plane.cli import lineage_commands
from control_plane.cli.lineage_choices import Affected, Planned
from control_plane.cli.lineage_commands import ImpactOptions
from control_plane.cli.output import Format
from control_plane.cli.session import Session
from headrace.client.lineage import ImpactPage
from headrace.errors import InvalidArgument
from headrace.lineage.values import EdgeKind, Effect, Impacted, Node, NodeChange, NodeKind, PathStep, Total

COLUMN = PathStep(Node(NodeKind.SOURCE_COLUMN, "a.b.rows:delay"))
FEATURE = PathStep(Node(NodeKind.FEATURE, "a.b.view@v1:delay"), EdgeKind.VALUE, "latest(delay)")
MODEL = PathStep(Node(NodeKind.MODEL, "a.b.model@v1"), EdgeKind.PINS)
TOTALS = (Total(1, NodeKind.FEATURE, 1), Total(2, NodeKind.MODEL, 1))
PAGES = [
    ImpactPage(
        "a.b.rows:delay", TOTALS, 1_000_000, (Impacted(FEATURE.node, 1, "a", Effect.BROKEN, (COLUMN, FEATURE)),)
    ),
    ImpactPage(
        "a.b.rows:delay", TOTALS, 1_000_000, (Impacted(MODEL.node, 2, "", Effect.STARVED, (COLUMN, FEATURE, MODEL)),)
    ),
]


@dataclass
class FakeClient:
    """Stands for the client of lineage."""

    pages: list[ImpactPage]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def impact(self, name: str, column: str, **fields: Any) -> Iterator[ImpactPage]:
        self.asked.append({"name": name, "column": column, **fields})
        return iter(self.pages)


class FakeSession(Session):
    """A session whose lineage is given."""

    client: FakeClient

    @contextmanager
    def lineage(self) -> Iterator[FakeClient]:  # type: ignore[override]
        yield self.client


def session(pages: list[ImpactPage] = PAGES, form: Format = Format.TABLE) -> FakeSession:
    made = FakeSession({}, form=form, out=io.StringIO())
    made.client = FakeClient(pages)
    return made


def printed(made: FakeSession) -> str:
    assert isinstance(made.out, io.StringIO)
    return made.out.getvalue()


def test_impact_tells_totals_then_every_node_of_every_page() -> None:
    made = session()
    assert lineage_commands.impact(made, ImpactOptions("a.b.rows", "delay", change=Planned.DROP)) == 0
    lines = printed(made).splitlines()
    assert lines[0] == "a.b.rows:delay is dropped: 2 nodes in 2 hops, now"
    assert [line.split() for line in lines[3:5]] == [["1", "feature", "1"], ["2", "model", "1"]]
    assert "a.b.rows:delay -value-> a.b.view@v1:delay -pins-> a.b.model@v1" in lines[-1]
    assert lines[-1].split()[:5] == ["a.b.model@v1", "model", "2", "-", "starved"]
    assert made.client.asked[0]["change"] is NodeChange.DROP


def test_impact_as_json_holds_the_same() -> None:
    made = session(form=Format.JSON)
    lineage_commands.impact(made, ImpactOptions("a.b.rows", "delay", as_of="2026-01-31T00:00Z"))
    found = json.loads(printed(made))
    assert (found["node_count"], found["as_of"]) == (2, "2026-01-31T00:00:00Z")
    assert [one["node"] for one in found["impacted"]] == ["a.b.view@v1:delay", "a.b.model@v1"]
    assert found["impacted"][0]["path"][1] == {
        "node": "a.b.view@v1:delay",
        "kind": "FEATURE",
        "edge": "VALUE",
        "transform": "latest(delay)",
    }
    assert found["totals"] == [
        {"hop": 1, "kind": "FEATURE", "nodes": 1},
        {"hop": 2, "kind": "MODEL", "nodes": 1},
    ]


@pytest.mark.parametrize(
    ("fail_on", "code"),
    [((), 0), ((Affected.MODELS,), 1), ((Affected.SERVICES,), 0), ((Affected.SERVICES, Affected.ANY), 1)],
)
def test_fail_on_sets_the_exit_code_by_the_totals(fail_on: tuple[Affected, ...], code: int) -> None:
    made = session([ImpactPage("a.b.rows:delay", TOTALS, 1, ())])
    assert lineage_commands.impact(made, ImpactOptions("a.b.rows", "delay", fail_on=fail_on)) == code


def test_kinds_are_asked_of_the_server_and_a_time_needs_a_zone() -> None:
    made = session()
    lineage_commands.impact(made, ImpactOptions("a.b.rows", kinds=(Affected.MODELS, Affected.VIEWS)))
    assert set(made.client.asked[0]["kinds"]) == {NodeKind.MODEL, NodeKind.FEATURE_VIEW, NodeKind.ON_DEMAND_VIEW}
    with pytest.raises(InvalidArgument):
        lineage_commands.impact(made, ImpactOptions("a.b.rows", as_of="2026-01-31"))


def test_nothing_reached_is_one_line() -> None:
    made = session([ImpactPage("a.b.rows:delay", (), 1, ())])
    assert lineage_commands.impact(made, ImpactOptions("a.b.rows", "delay")) == 0
    assert printed(made) == "a.b.rows:delay changes: 0 nodes in 0 hops, now\n"
