"""Plans: every outcome per kind."""

from datetime import timedelta
from typing import Any

import pytest

from control_plane.domain.plan import Plan, plan
from control_plane.domain.retire import retire
from headrace.definitions import (
    ChangeKind,
    DefinitionKind,
    DefinitionSet,
    Fallback,
    Feature,
    FeatureView,
    RegistryState,
    ServiceEntry,
    SourceKind,
    State,
    latest,
)
from headrace.definitions.registered import HIGHEST_ID_MAX, all_records
from headrace.definitions.transform import normalised_plan, transform_digest
from headrace.errors import Aborted, FailedPrecondition, ResourceExhausted
from tests.unit.control_plane.domain.plan_cases import (
    BASE,
    CASES,
    CREATE,
    EARLIER,
    NEW_VERSION,
    NOW,
    REFUSED,
    UNCHANGED,
    UPDATE,
    Case,
    applied,
    only,
)
from tests.unit.headrace.definitions.samples import (
    ENTITY,
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


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{kind}: {case.name}") for kind, case in CASES])
def test_outcome(case: Case) -> None:
    made = plan(case.state, case.wanted, NOW)
    change = made.changes[-1]
    assert (change.change_kind, change.version) == (case.change, case.version)
    assert case.detail in "; ".join(change.details)
    if case.change is REFUSED:
        assert (made.problems[0].reason, made.problems[0].field) == (case.reason, case.path)
        with pytest.raises(FailedPrecondition) as caught:
            made.require_possible()
        assert caught.value.reason == case.reason
        assert caught.value.metadata["name"] == change.name
    else:
        made.require_possible()
        again = plan(made.after, case.wanted, NOW)
        assert {change.change_kind for change in again.changes} == {UNCHANGED}, "applied once, it is done"


def test_empty_registry_takes_a_whole_set_in_the_order_of_what_refers_to_what() -> None:
    made = plan(RegistryState(), whole_set(), NOW)
    assert [(change.definition_kind, change.name, change.version) for change in made.changes] == [
        (DefinitionKind.SOURCE, SOURCE, 0),
        (DefinitionKind.ENTITY, ENTITY, 0),
        (DefinitionKind.FEATURE_VIEW, VIEW, 1),
        (DefinitionKind.FEATURE_SERVICE, SERVICE, 1),
        (DefinitionKind.MODEL, MODEL, 1),
    ]
    assert {change.change_kind for change in made.changes} == {CREATE}
    assert made.after.revision == 1


def test_unchanged_set_keeps_the_revision_and_writes_nothing() -> None:
    made = plan(BASE, whole_set(), NOW)
    assert made.records == ()
    assert made.after is BASE


def test_what_is_left_out_stays_registered() -> None:
    assert plan(BASE, DefinitionSet(), NOW).after is BASE


def test_ids_come_from_one_counter_over_all_kinds() -> None:
    ids = [BASE.sources[SOURCE].source_id, BASE.entities[ENTITY].entity_id]
    ids += [BASE.views[VIEW][0].view_id, BASE.views[VIEW][0].schema_id]
    assert ids == [1, 2, 3, 4]
    assert BASE.highest_id == 4


def test_counter_at_its_end_refuses_new_names() -> None:
    full = RegistryState(revision=1, highest_id=HIGHEST_ID_MAX)
    with pytest.raises(ResourceExhausted) as caught:
        plan(full, only(entities=entity()), NOW)
    assert caught.value.reason == "IDS_EXHAUSTED"


def test_new_version_stands_beside_those_before_with_its_own_ids_and_digest() -> None:
    wider = view(features=[delay(), count()])
    state = plan(BASE, only(feature_views=wider), NOW).after
    first, second = state.views[VIEW]
    assert first == BASE.views[VIEW][0]
    assert (second.view_id, second.schema_id) == (5, 6)
    assert second.transform_digest == transform_digest(normalised_plan(wider, entity(), source()))
    assert second.transform_digest != first.transform_digest


def test_change_that_is_only_served_keeps_the_transform_digest() -> None:
    state = plan(BASE, only(feature_views=view(ttl=timedelta(days=1))), NOW).after
    assert state.views[VIEW][1].transform_digest == state.views[VIEW][0].transform_digest


def test_entries_are_stored_pinned_and_named() -> None:
    (stored,) = BASE.services[SERVICE]
    assert stored.definition.entries == (ServiceEntry(f"{VIEW}@v1", ["dep_delay"]),)


def test_mutable_parts_belong_to_every_version_of_the_name() -> None:
    wider = view(features=[delay(description="late"), count()], tags={"a": "b"}, freshness_sla=timedelta(hours=1))
    state = plan(BASE, only(feature_views=wider), NOW).after
    first, second = (record.definition for record in state.views[VIEW])
    assert first.tags == second.tags == {"a": "b"}
    assert first.freshness_sla == second.freshness_sla == timedelta(hours=1)
    assert first.features[0].description == "late"
    assert state.views[VIEW][0].stamp.etag == state.views[VIEW][1].stamp.etag


def test_stamp_tells_when_it_was_registered_and_when_it_changed() -> None:
    changed = plan(BASE, only(sources=source(tags={"a": "b"})), NOW).after.sources[SOURCE].stamp
    before = BASE.sources[SOURCE].stamp
    assert (changed.create_time, changed.update_time) == (EARLIER, NOW)
    assert changed.etag != before.etag


def test_new_version_alone_keeps_the_etag() -> None:
    state = plan(BASE, only(feature_views=view(ttl=timedelta(days=1))), NOW).after
    first, second = state.views[VIEW]
    assert (second.stamp.create_time, second.stamp.etag) == (NOW, first.stamp.etag)


def test_edit_of_the_newest_etag_is_taken_and_of_an_older_one_aborted() -> None:
    etag = BASE.sources[SOURCE].stamp.etag
    made = plan(BASE, only(sources=source(tags={"a": "b"}, etag=etag)), NOW)
    assert made.changes[0].change_kind is UPDATE
    with pytest.raises(Aborted) as caught:
        plan(made.after, only(sources=source(etag=etag)), NOW)
    assert (caught.value.reason, caught.value.field) == ("STALE_ETAG", "sources[0].etag")


def test_etag_of_a_name_that_is_free_is_aborted() -> None:
    with pytest.raises(Aborted):
        plan(RegistryState(), only(sources=source(etag="abc")), NOW)


def test_every_refusal_of_a_set_is_reported_and_dependants_say_why() -> None:
    wanted = DefinitionSet(
        sources=[source(columns={"event_time": "timestamp_us"})],
        feature_views=[view(features=[count()])],
        feature_services=[service()],
    )
    made = plan(BASE, wanted, NOW)
    assert [change.change_kind for change in made.changes] == [REFUSED, REFUSED, REFUSED]
    assert "is itself refused in this set" in made.changes[2].details[0]
    with pytest.raises(FailedPrecondition, match=r"and \d more") as caught:
        made.require_possible()
    assert caught.value.metadata["refused"] == f"{SOURCE}, {VIEW}, {SERVICE}"


def retired(state: RegistryState, *refs: tuple[DefinitionKind, str]) -> RegistryState:
    for kind, ref in refs:
        state = retire(state, kind, ref, NOW).after
    return state


ALL_RETIRED = retired(
    BASE,
    (DefinitionKind.MODEL, f"{MODEL}@v1"),
    (DefinitionKind.FEATURE_SERVICE, f"{SERVICE}@v1"),
    (DefinitionKind.FEATURE_VIEW, f"{VIEW}@v1"),
)


def test_retired_names_get_the_next_number_and_never_an_old_one() -> None:
    made = plan(ALL_RETIRED, whole_set(models=[model(pins=f"{SERVICE}@v2")]), NOW)
    assert [(change.change_kind, change.version) for change in made.changes[2:]] == [(NEW_VERSION, 2)] * 3
    assert made.changes[2].details == ("every earlier version is retired",)
    assert [record.state for record in made.after.views[VIEW]] == [State.RETIRED, State.ACTIVE]
    assert made.after.views[VIEW][1].view_id == 5


@pytest.mark.parametrize(
    ("wanted", "kind"),
    [
        (only(feature_services=service("flights.ml.new")), "feature view"),
        (only(feature_services=service("flights.ml.new", entries=[ServiceEntry(f"{VIEW}@v1")])), "feature view"),
        (only(models=model("flights.ml.new")), "feature service"),
    ],
)
def test_retired_version_cannot_be_pinned(wanted: DefinitionSet, kind: str) -> None:
    made = plan(ALL_RETIRED, wanted, NOW)
    assert made.problems[0].reason == "RETIRED_REFERENCE"
    assert "is retired; pin an active version" in made.problems[0].message


def test_type_of_a_retired_version_still_binds_its_name() -> None:
    wider = plan(BASE, only(feature_views=view(features=[delay(), count()])), NOW).after
    state = retired(wider, (DefinitionKind.FEATURE_VIEW, f"{VIEW}@v2"))
    other = Feature("flight_count", "i32", latest("spare"))
    made = plan(state, only(feature_views=view(features=[delay(), other])), NOW)
    assert made.changes[0].change_kind is REFUSED
    back = plan(state, only(feature_views=view()), NOW)
    assert (back.changes[0].change_kind, back.changes[0].version) == (UNCHANGED, 1)


def test_column_that_only_retired_views_use_is_free() -> None:
    made = plan(ALL_RETIRED, only(sources=source(columns={"event_time": "timestamp_us"})), NOW)
    assert made.changes[0].change_kind is UPDATE


@pytest.mark.parametrize(
    ("old", "new", "expected"), [(0.0, -0.0, NEW_VERSION), (float("nan"), float("nan"), UNCHANGED)]
)
def test_defaults_are_compared_by_their_bits(old: float, new: float, expected: ChangeKind) -> None:
    def wanted(value: float) -> FeatureView:
        return view(features=[delay(default=value)])

    state = applied(whole_set(feature_views=[wanted(old)]))
    assert plan(state, only(feature_views=wanted(new)), NOW).changes[0].change_kind is expected


def test_order_of_features_is_part_of_a_version() -> None:
    state = applied(whole_set(feature_views=[view(features=[delay(), count()])]))
    made = plan(state, only(feature_views=view(features=[count(), delay()])), NOW)
    assert made.changes[0].details == ("features change their order",)


def test_records_of_a_plan_are_those_that_differ() -> None:
    made: Plan = plan(BASE, whole_set(feature_views=[view(ttl=timedelta(days=1))]), NOW)
    before, after = set(map(repr, all_records(BASE))), set(map(repr, all_records(made.after)))
    assert set(map(repr, made.records)) == after - before


def test_defaults_that_are_never_served_are_pointed_out() -> None:
    def details(**fields: Any) -> str:
        wanted = whole_set(feature_views=[view(features=[delay(default=0.0)], **fields)])
        return "; ".join(plan(RegistryState(), wanted, NOW).changes[2].details)

    assert "so no default is served" in details()
    assert "so no default is served" not in details(fallback=Fallback.DEFAULT)


def test_a_stream_in_use_keeps_its_topic_and_may_change_its_options() -> None:
    def streamed(uri: str) -> DefinitionSet:
        return whole_set(sources=[source(kind=SourceKind.STREAM, uri=uri)])

    state = applied(streamed("kafka:departures?format=json"))
    optioned = plan(state, streamed("kafka:departures?format=json&start=latest"), NOW)
    assert [one.change_kind for one in optioned.changes if one.name == SOURCE] == [UPDATE]
    (problem,) = plan(state, only(sources=streamed("kafka:arrivals?format=json").sources[0]), NOW).problems
    assert (problem.reason, problem.field) == ("INCOMPATIBLE_CHANGE", "sources[0].uri")
    assert "the topic changes from 'kafka:departures?format=json'" in problem.message and VIEW in problem.message
    unread = applied(only(sources=source(kind=SourceKind.STREAM, uri="kafka:departures?format=json")))
    moved = plan(unread, only(sources=source(kind=SourceKind.STREAM, uri="kafka:arrivals?format=json")), NOW)
    assert [one.change_kind for one in moved.changes] == [UPDATE]
