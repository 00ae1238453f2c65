"""The registry's methods over a real store."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from control_plane.domain import registry as module
from control_plane.domain.pages import PageRequest
from control_plane.domain.registry import Registry
from control_plane.domain.watchers import Watchers
from control_plane.rpc.registry_servicer import message_bytes
from control_plane.store.registry_store import SqlRegistryStore
from headrace.definitions import ChangeKind, DefinitionKind, DefinitionSet
from headrace.errors import (
    Aborted,
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from headrace.serving.principal import LOCAL, Principal
from tests.unit.control_plane.clock import Clock
from tests.unit.headrace.definitions.samples import (
    ENTITY,
    MODEL,
    SERVICE,
    SOURCE,
    VIEW,
    count,
    delay,
    entity,
    source,
    view,
    whole_set,
)

READER = Principal("reader", frozenset({"REGISTRY_READ"}))
WRITER = Principal("writer", frozenset({"REGISTRY_WRITE"}))
NOBODY = Principal("nobody", frozenset())
REQUEST = "0b8b1c1e-2b5f-4b52-9d2a-1d3f6b1e7a10"
MakeRegistry = Callable[[SqlRegistryStore], Registry]


def tagged(text: str) -> DefinitionSet:
    return DefinitionSet(sources=[source(tags={"a": text})])


def test_plan_shows_what_apply_makes_and_changes_nothing(registry: Registry) -> None:
    planned, revision = registry.plan_definitions(READER, whole_set())
    assert revision == 0
    assert registry.plan_definitions(READER, whole_set()) == (planned, 0)
    assert registry.apply_definitions(WRITER, whole_set()) == (planned, 1)


def test_apply_twice_is_unchanged_and_keeps_the_revision(registry: Registry) -> None:
    registry.apply_definitions(WRITER, whole_set())
    changes, revision = registry.apply_definitions(WRITER, whole_set())
    assert {change.change_kind for change in changes} == {ChangeKind.UNCHANGED}
    assert revision == 1


def test_log_tells_who_did_what_and_when(registry: Registry, store: SqlRegistryStore) -> None:
    changes, _ = registry.apply_definitions(WRITER, whole_set())
    registry.retire_definition(LOCAL, DefinitionKind.MODEL, f"{MODEL}@v1")
    first, second = store.revisions(0, 10)
    assert (first.number, first.principal, first.action, first.changes) == (1, "writer", "APPLY", tuple(changes))
    assert (second.number, second.principal, second.action) == (2, "local", "RETIRE")
    assert second.time > first.time
    assert store.revisions(1, 10) == [second]


def test_refused_set_changes_nothing_at_all(registry: Registry, store: SqlRegistryStore) -> None:
    registry.apply_definitions(WRITER, whole_set())
    before = store.read()
    wanted = DefinitionSet(entities=[entity("flights.ops.new")], feature_views=[view(features=[count()])])
    with pytest.raises(FailedPrecondition) as caught:
        registry.apply_definitions(WRITER, wanted)
    assert caught.value.reason == "INCOMPATIBLE_CHANGE"
    assert store.read() == before
    assert len(store.revisions(0, 10)) == 1


def test_plan_against_an_older_revision_is_aborted(registry: Registry) -> None:
    registry.apply_definitions(WRITER, whole_set(), base_revision=0)
    registry.apply_definitions(WRITER, tagged("x"), base_revision=1)
    with pytest.raises(Aborted) as caught:
        registry.apply_definitions(WRITER, tagged("y"), base_revision=1)
    assert caught.value.reason == "STALE_REVISION"
    assert caught.value.metadata == {"base_revision": "1", "registry_revision": "2"}


@pytest.mark.parametrize("base_revision", [-1, 5])
def test_base_revision_that_never_was_is_refused(registry: Registry, base_revision: int) -> None:
    with pytest.raises((InvalidArgument, Aborted)):
        registry.apply_definitions(WRITER, whole_set(), base_revision)


def test_repeated_request_gets_its_first_answer(registry: Registry) -> None:
    first = registry.apply_definitions(WRITER, whole_set(), 0, REQUEST)
    registry.apply_definitions(WRITER, tagged("x"))
    assert registry.apply_definitions(WRITER, whole_set(), 0, REQUEST.upper()) == first


def test_repeated_request_is_answered_after_a_restart(
    registry: Registry, engine: Engine, make_registry: MakeRegistry
) -> None:
    first = registry.apply_definitions(WRITER, whole_set(), 0, REQUEST)
    assert make_registry(SqlRegistryStore(engine)).apply_definitions(WRITER, whole_set(), 0, REQUEST) == first


def test_failed_request_may_be_repeated(registry: Registry) -> None:
    with pytest.raises(FailedPrecondition):
        registry.apply_definitions(WRITER, DefinitionSet(feature_views=[view()]), 0, REQUEST)
    registry.apply_definitions(WRITER, whole_set(), 0, REQUEST)


def test_request_id_of_another_request_is_refused(registry: Registry) -> None:
    registry.apply_definitions(WRITER, whole_set(), 0, REQUEST)
    with pytest.raises(InvalidArgument) as caught:
        registry.retire_definition(WRITER, DefinitionKind.MODEL, f"{MODEL}@v1", REQUEST)
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_request_id_that_is_no_uuid_is_refused(registry: Registry) -> None:
    with pytest.raises(InvalidArgument) as caught:
        registry.apply_definitions(WRITER, whole_set(), 0, "again")
    assert (caught.value.reason, caught.value.field) == ("INVALID_REQUEST_ID", "request_id")


def test_retiring_twice_makes_one_revision(registry: Registry) -> None:
    registry.apply_definitions(WRITER, whole_set())
    assert registry.retire_definition(WRITER, DefinitionKind.MODEL, f"{MODEL}@v1") == 2
    assert registry.retire_definition(WRITER, DefinitionKind.MODEL, f"{MODEL}@v1") == 2


def test_registry_beyond_what_watchers_take_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REGISTRY_MESSAGE_BYTES_MAX", 100)
    with pytest.raises(ResourceExhausted) as caught:
        registry.apply_definitions(WRITER, whole_set())
    assert caught.value.reason == "REGISTRY_FULL"
    assert registry.list_sources(READER, PageRequest()).items == ()


def test_two_writers_at_once_give_each_name_and_id_once(engine: Engine, make_registry: MakeRegistry) -> None:
    """Sixteen sets that share one source, applied through two stores as two processes would."""
    registries = [make_registry(SqlRegistryStore(engine)) for _ in range(2)]
    wanted = [DefinitionSet(sources=[source()], entities=[entity(f"flights.ops.e{number}")]) for number in range(16)]
    with ThreadPoolExecutor(4) as pool:
        made = list(
            pool.map(
                lambda number: registries[number % 2].apply_definitions(
                    WRITER, wanted[number], request_id=str(uuid.UUID(int=number))
                ),
                range(16),
            )
        )
    assert sorted(revision for _, revision in made) == list(range(1, 17))
    state = SqlRegistryStore(engine).read()
    ids = [record.entity_id for record in state.entities.values()] + [state.sources[SOURCE].source_id]
    assert sorted(ids) == list(range(1, 18))
    assert sum(change.change_kind is ChangeKind.CREATE for changes, _ in made for change in changes) == 17


def test_two_plans_of_one_revision_applied_at_once_make_one_of_them(
    engine: Engine, make_registry: MakeRegistry
) -> None:
    registries = [make_registry(SqlRegistryStore(engine)) for _ in range(2)]
    registries[0].apply_definitions(WRITER, whole_set())

    def attempt(number: int) -> str:
        try:
            registries[number].apply_definitions(WRITER, tagged(str(number)), base_revision=1)
        except Aborted as error:
            return error.reason
        return "applied"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(attempt, range(2))) == ["STALE_REVISION", "applied"]


def test_get_finds_each_kind(registry: Registry) -> None:
    registry.apply_definitions(WRITER, whole_set())
    registry.apply_definitions(WRITER, DefinitionSet(feature_views=[view(features=[delay(), count()])]))
    assert registry.get_source(READER, SOURCE).source_id == 1
    assert registry.get_entity(READER, ENTITY).entity_id == 2
    assert registry.get_view(READER, VIEW).version == 2
    assert registry.get_view(READER, f"{VIEW}@v1").version == 1
    assert registry.get_service(READER, SERVICE).version == 1
    assert registry.get_model(READER, f"{MODEL}@v1").version == 1


def test_get_says_what_is_near_or_why_there_is_none(registry: Registry) -> None:
    registry.apply_definitions(WRITER, whole_set())
    with pytest.raises(NotFound, match=r"did you mean 'flights\.ops\.traffic'") as caught:
        registry.get_view(READER, "flights.ops.trafic")
    assert caught.value.reason == "FEATURE_VIEW_NOT_FOUND"
    with pytest.raises(NotFound, match="has no version 7"):
        registry.get_view(READER, f"{VIEW}@v7")
    registry.retire_definition(WRITER, DefinitionKind.MODEL, f"{MODEL}@v1")
    with pytest.raises(NotFound, match="every version of model"):
        registry.get_model(READER, MODEL)
    with pytest.raises(InvalidArgument):
        registry.get_source(READER, f"{SOURCE}@v1")


def test_lists_are_in_order_with_every_version(registry: Registry) -> None:
    registry.apply_definitions(WRITER, whole_set())
    registry.apply_definitions(WRITER, DefinitionSet(feature_views=[view(features=[delay(), count()])]))
    page = registry.list_views(READER, PageRequest(page_size=1))
    rest = registry.list_views(READER, PageRequest(page_token=page.next_page_token))
    assert [str(record.ref) for record in page.items + rest.items] == [f"{VIEW}@v1", f"{VIEW}@v2"]
    assert len(registry.list_services(READER, PageRequest()).items) == 1
    assert len(registry.list_models(READER, PageRequest()).items) == 1
    assert len(registry.list_entities(READER, PageRequest()).items) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda registry: registry.plan_definitions(NOBODY, whole_set()),
        lambda registry: registry.apply_definitions(READER, whole_set(), -1, "no uuid"),
        lambda registry: registry.retire_definition(READER, DefinitionKind.SOURCE, "none"),
        lambda registry: next(registry.watch(NOBODY, -1, lambda: True)),
        lambda registry: registry.get_source(NOBODY, "none"),
        lambda registry: registry.get_entity(NOBODY, "none"),
        lambda registry: registry.get_view(NOBODY, "none"),
        lambda registry: registry.get_service(NOBODY, "none"),
        lambda registry: registry.get_model(NOBODY, "none"),
        lambda registry: registry.list_sources(NOBODY, PageRequest(-1)),
        lambda registry: registry.list_entities(NOBODY, PageRequest(-1)),
        lambda registry: registry.list_views(NOBODY, PageRequest(-1)),
        lambda registry: registry.list_services(NOBODY, PageRequest(-1)),
        lambda registry: registry.list_models(NOBODY, PageRequest(-1)),
    ],
)
def test_permission_is_asked_before_anything_else(registry: Registry, call: Callable[[Registry], object]) -> None:
    with pytest.raises(PermissionDenied):
        call(registry)


def test_watch_gives_the_state_at_once_and_after_each_change(registry: Registry) -> None:
    states = registry.watch(READER, 0, lambda: True)
    assert next(states).revision == 0
    registry.apply_definitions(WRITER, whole_set())
    assert next(states).revision == 1
    registry.apply_definitions(WRITER, tagged("x"))
    registry.apply_definitions(WRITER, tagged("y"))
    assert next(states).revision == 3, "states between may be left out"


def test_watch_waits_until_the_registry_is_past_what_is_held(registry: Registry) -> None:
    registry.apply_definitions(WRITER, whole_set())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: next(registry.watch(READER, 1, lambda: True)))
        registry.apply_definitions(WRITER, tagged("x"))
        assert first.result(timeout=30).revision == 2


def test_watch_sees_what_another_process_changed(registry: Registry, engine: Engine) -> None:
    states = registry.watch(READER, 0, lambda: True)
    next(states)
    other = Registry(SqlRegistryStore(engine), Watchers(), Clock(), message_bytes)
    other.apply_definitions(WRITER, whole_set())
    assert next(states).revision == 1


def test_watch_ends_when_the_caller_left(registry: Registry, watchers: Watchers) -> None:
    is_active = True
    states = registry.watch(READER, 0, lambda: is_active)
    next(states)
    is_active = False
    watchers.wake()
    assert list(states) == []
    assert watchers.count == 0


def test_watch_of_a_stopping_server_says_to_come_again(registry: Registry, watchers: Watchers) -> None:
    states = registry.watch(READER, 0, lambda: True)
    next(states)
    watchers.close()
    with pytest.raises(Unavailable) as caught:
        next(states)
    assert caught.value.reason == "STOPPING"
    assert caught.value.retry_after_ms is not None
    assert watchers.count == 0


@pytest.mark.parametrize(("held", "error"), [(-1, InvalidArgument), (1, FailedPrecondition)])
def test_watch_from_a_revision_that_never_was_is_refused(
    registry: Registry, held: int, error: type[HeadraceError]
) -> None:
    with pytest.raises(error) as caught:
        next(registry.watch(READER, held, lambda: True))
    assert caught.value.field == "held_revision"
