"""What changed above a model between two times, and what it was made of."""

from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.domain.lineage.lineage import ImpactQuestion, Lineage
from control_plane.domain.lineage.mirror import Closure
from control_plane.domain.registry import Registry
from headrace.definitions import DefinitionKind, DefinitionSet
from headrace.errors import InvalidArgument, PermissionDenied
from headrace.lineage.values import NodeKind, Requirement, Run, RunData, RunState, UpstreamChange, UpstreamKind
from headrace.serving.principal import LOCAL, Principal
from tests.unit.control_plane.domain.lineage.test_lineage import RUN_ID, trained
from tests.unit.headrace.definitions.samples import COLUMNS, MODEL, SERVICE, SOURCE, VIEW, source, view, whole_set

NODE = f"{MODEL}@v1"
OTHER_ID = "1b8b1c1e-2b5f-4b52-9d2a-1d3f6b1e7a11"
START_US = 1_767_225_600_000_000  # 2026-01-01, where the clock of the tests begins


@pytest.fixture
def filled(registry: Registry, lineage: Lineage) -> Lineage:
    registry.apply_definitions(LOCAL, whole_set())
    return lineage


def fitted(run_id: str, at_us: int, **fields: object) -> Run:
    """A training of the model from the set that `trained` makes."""
    given: dict[str, object] = {
        "run_id": run_id,
        "job": "fit",
        "state": RunState.SUCCEEDED,
        "start_time_us": at_us,
        "end_time_us": at_us,
        "inputs": (RunData("training_set:delays"),),
        "outputs": (RunData(NODE),),
        "git_sha": "first",
    }
    return Run(**given | fields)  # type: ignore[arg-type]


def now_us(lineage: Lineage) -> int:
    return lineage.impact(LOCAL, ImpactQuestion(SOURCE)).moment.known_us


def changes(lineage: Lineage, start_us: int, end_us: int | None = None) -> list[UpstreamChange]:
    return list(lineage.changes(LOCAL, NODE, "", (start_us, end_us)).items)


def kinds(found: list[UpstreamChange]) -> list[tuple[UpstreamKind, str]]:
    return [(one.kind, one.text) for one in found]


def test_nothing_changed_is_an_empty_list(filled: Lineage) -> None:
    page = filled.changes(LOCAL, NODE, "", (now_us(filled), None))
    assert (page.items, page.count, page.next_page_token) == ([], 0, "")


def test_columns_owners_and_limits_are_typed_and_told_by_whom(filled: Lineage, registry: Registry) -> None:
    before_us = now_us(filled)
    changed = source(columns={**COLUMNS, "spare": "i64", "new": "f32"}, owner="flights.oncall")
    limited = view(freshness_sla=timedelta(hours=1))
    registry.apply_definitions(LOCAL, DefinitionSet(sources=[changed], feature_views=[limited]))
    found = changes(filled, before_us)
    assert (UpstreamKind.SLA, f"{VIEW}: freshness limit changes from none to 1h, by local") in kinds(found)
    owner = next(one for one in found if one.kind is UpstreamKind.OWNER)
    assert owner.text == f"{SOURCE}: owner changes from 'flights' to 'flights.oncall', by local"
    assert (owner.owner, owner.node.kind) == ("flights.oncall", NodeKind.SOURCE)
    assert (UpstreamKind.SCHEMA, f"{SOURCE}: type of column 'spare' changes from 'i32' to 'i64', by local") in kinds(
        found
    )
    hops = [one.hop_count for one in found]
    assert hops == sorted(hops), "the nearest comes first"
    assert changes(filled, before_us, before_us) == []


def test_a_column_that_a_view_reads_is_a_change_of_schema(filled: Lineage) -> None:
    found = changes(filled, START_US - 1)
    schema = [one for one in found if one.kind is UpstreamKind.SCHEMA]
    assert f"{SOURCE}:dep_delay is a part of {SOURCE}" in [one.text for one in schema]
    first = next(one for one in found if one.kind is UpstreamKind.EDGE)
    assert first.text == f"{NODE} reads {SERVICE}@v1"
    assert [step.node.name for step in first.path] == [NODE, f"{SERVICE}@v1"]


def test_another_view_of_the_source_changes_nothing_above_the_model(filled: Lineage, registry: Registry) -> None:
    before_us = now_us(filled)
    registry.apply_definitions(LOCAL, DefinitionSet(feature_views=[view("flights.ops.other")]))
    between_us = now_us(filled)
    assert kinds(changes(filled, before_us)) == []
    registry.retire_definition(LOCAL, DefinitionKind.FEATURE_VIEW, "flights.ops.other@v1")
    assert now_us(filled) > between_us > before_us
    assert kinds(changes(filled, between_us)) == []


def test_runs_tell_of_data_and_of_code(filled: Lineage) -> None:
    filled.record_run(LOCAL, trained(start_time_us=START_US, end_time_us=START_US))
    filled.record_run(LOCAL, fitted(OTHER_ID, START_US + 1))
    again = "2b8b1c1e-2b5f-4b52-9d2a-1d3f6b1e7a12"
    filled.record_run(LOCAL, fitted(again, START_US + 5_000_000, git_sha="second"))
    found = changes(filled, START_US + 2, START_US + 6_000_000)
    code = next(one for one in found if one.kind is UpstreamKind.CODE)
    assert code.text == "git sha of job fit changes from first to second"
    assert (code.node.name, code.time_us) == (f"run:{again}", START_US + 5_000_000)
    data = [one.text for one in found if one.kind is UpstreamKind.DATA]
    assert f"{NODE} was written by run:{again}" in data
    assert f"run:{again} reads training_set:delays" in data
    assert not any(RUN_ID in text for text in data), "what happened before is no change"


def test_pages_of_changes_together_are_the_whole(filled: Lineage, registry: Registry) -> None:
    whole = filled.changes(LOCAL, NODE, "", (START_US - 1, None), (1_000, ""))
    assert whole.count == len(whole.items) > 4
    token = ""
    found: list[UpstreamChange] = []
    while True:
        page = filled.changes(LOCAL, NODE, "", (START_US - 1, None), (2, token))
        found += page.items
        registry.apply_definitions(LOCAL, DefinitionSet(sources=[source(owner=f"flights.team{len(found)}")]))
        token = page.next_page_token
        if not token:
            break
    assert [replace(one, owner="") for one in found] == [replace(one, owner="") for one in whole.items]


def test_paths_are_made_for_the_page_alone_and_long_ones_end_it(
    filled: Lineage, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = changes(filled, START_US - 1)
    made: list[int] = []
    path = Closure.path

    def counted(closure: Closure, position: int) -> list[int]:
        made.append(position)
        return path(closure, position)

    monkeypatch.setattr(Closure, "path", counted)
    assert len(filled.changes(LOCAL, NODE, "", (START_US - 1, None), (2, "")).items) == len(made) == 2
    monkeypatch.setattr("control_plane.domain.lineage.changes.PATH_STEPS_MAX", 3)
    page = filled.changes(LOCAL, NODE, "", (START_US - 1, None))
    found = list(page.items)
    while page.next_page_token:
        assert len(page.items) == 1 or sum(one.hop_count for one in page.items) <= 3
        page = filled.changes(LOCAL, NODE, "", (START_US - 1, None), (0, page.next_page_token))
        found += page.items
    assert found == whole
    assert all(one.hop_count == len(one.path) - 1 for one in found)


def test_times_out_of_order_and_strangers_are_refused(filled: Lineage) -> None:
    with pytest.raises(InvalidArgument) as caught:
        filled.changes(LOCAL, NODE, "", (2, 1))
    assert caught.value.field == "end_time"
    nobody = Principal("nobody", frozenset())
    with pytest.raises(PermissionDenied):
        filled.changes(nobody, NODE, "", (0, None))
    with pytest.raises(PermissionDenied):
        filled.requirements(nobody, NODE)


def test_requirements_are_all_that_a_model_was_made_of(filled: Lineage, registry: Registry) -> None:
    filled.record_run(LOCAL, trained())
    filled.record_run(LOCAL, fitted(OTHER_ID, 3_000))
    found: dict[str, Requirement] = {one.node.name: one for one in filled.requirements(LOCAL, MODEL).items}
    assert {
        f"{SERVICE}@v1",
        f"{VIEW}@v1",
        SOURCE,
        "flights.ops.airport",
        f"snapshot:{VIEW}@v1#77",
        "dataset:rows.parquet",
        "training_set:delays",
        f"run:{RUN_ID}",
        f"run:{OTHER_ID}",
    } == set(found)
    assert all(one.exists for one in found.values())
    assert found["training_set:delays"].digest == "ab" * 32
    record = registry.get_view(LOCAL, f"{VIEW}@v1")
    assert found[f"{VIEW}@v1"].digest == record.transform_digest.hex()
    assert found[f"run:{OTHER_ID}"].detail == "fit succeeded, git first"
    assert [one.hop_count for one in filled.requirements(LOCAL, NODE).items] == sorted(
        one.hop_count for one in found.values()
    )
