"""Retirement and what forbids it."""

from datetime import UTC, datetime

import pytest

from control_plane.domain.plan import plan
from control_plane.domain.retire import retire
from headrace.definitions import ChangeKind, DefinitionKind, DefinitionSet, RegistryState, ServiceEntry, State
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound
from tests.unit.headrace.definitions.samples import MODEL, SERVICE, SOURCE, VIEW, model, service, whole_set

NOW = datetime(2026, 2, 1, tzinfo=UTC)
OTHER_SERVICE, OTHER_MODEL = "flights.ml.other", "flights.ml.other_model"
WANTED = whole_set(
    feature_services=[service(), service(OTHER_SERVICE, entries=[ServiceEntry(VIEW, output_prefix="o_")])],
    models=[model(), model(OTHER_MODEL), model("flights.ml.third", pins=f"{OTHER_SERVICE}@v1")],
)
STATE = plan(RegistryState(), WANTED, NOW).after
VIEW_KIND, SERVICE_KIND, MODEL_KIND = (
    DefinitionKind.FEATURE_VIEW,
    DefinitionKind.FEATURE_SERVICE,
    DefinitionKind.MODEL,
)


def test_service_pinned_by_models_is_refused_and_names_them_all() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        retire(STATE, SERVICE_KIND, f"{SERVICE}@v1", NOW)
    assert caught.value.reason == "PINNED"
    assert caught.value.metadata["pinned_by"] == f"model {MODEL}@v1, model {OTHER_MODEL}@v1"


def test_view_pinned_by_services_is_refused_and_names_them_and_their_models() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        retire(STATE, VIEW_KIND, f"{VIEW}@v1", NOW)
    assert caught.value.metadata["pinned_by"] == (
        f"feature service {SERVICE}@v1, model {MODEL}@v1, model {OTHER_MODEL}@v1, "
        f"feature service {OTHER_SERVICE}@v1, model flights.ml.third@v1"
    )


def test_from_the_model_down_everything_can_be_retired() -> None:
    state = STATE
    for kind, name in [
        (MODEL_KIND, f"{MODEL}@v1"),
        (MODEL_KIND, f"{OTHER_MODEL}@v1"),
        (MODEL_KIND, "flights.ml.third@v1"),
        (SERVICE_KIND, f"{SERVICE}@v1"),
        (SERVICE_KIND, f"{OTHER_SERVICE}@v1"),
        (VIEW_KIND, f"{VIEW}@v1"),
    ]:
        made = retire(state, kind, name, NOW)
        assert made.after.revision == state.revision + 1
        assert len(made.records) == 1
        state = made.after
    assert state.views[VIEW][0].state is State.RETIRED
    assert state.highest_id == STATE.highest_id


def test_retiring_twice_changes_nothing() -> None:
    once = retire(STATE, MODEL_KIND, f"{MODEL}@v1", NOW).after
    twice = retire(once, MODEL_KIND, f"{MODEL}@v1", NOW)
    assert twice.after is once
    assert twice.changes[0].change_kind is ChangeKind.UNCHANGED


def test_other_version_of_a_pinned_service_is_free() -> None:
    wider = DefinitionSet(feature_services=[service(entries=[ServiceEntry(VIEW, output_prefix="p_")])])
    state = plan(STATE, wider, NOW).after
    assert retire(state, SERVICE_KIND, f"{SERVICE}@v2", NOW).after.services[SERVICE][1].state is State.RETIRED


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        (VIEW_KIND, "flights.ops.none@v1", "FEATURE_VIEW_NOT_FOUND"),
        (VIEW_KIND, f"{VIEW}@v2", "FEATURE_VIEW_NOT_FOUND"),
        (SERVICE_KIND, f"{VIEW}@v1", "FEATURE_SERVICE_NOT_FOUND"),
        (MODEL_KIND, f"{SERVICE}@v1", "MODEL_NOT_FOUND"),
    ],
)
def test_unknown_version_is_not_found(kind: DefinitionKind, name: str, reason: str) -> None:
    with pytest.raises(NotFound) as caught:
        retire(STATE, kind, name, NOW)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        (VIEW_KIND, VIEW, "VERSION_REQUIRED"),
        (VIEW_KIND, "traffic@v1", "INVALID_NAME"),
        (DefinitionKind.SOURCE, f"{SOURCE}@v1", "UNKNOWN_VALUE"),
        (DefinitionKind.ENTITY, f"{SOURCE}@v1", "UNKNOWN_VALUE"),
    ],
)
def test_what_has_no_version_is_refused(kind: DefinitionKind, name: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        retire(STATE, kind, name, NOW)
    assert caught.value.reason == reason
