"""The durable registry: what is stored comes back, whole or not at all."""

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from sqlalchemy import Engine, event, func, insert, select, update

from control_plane.domain.plan import Plan, plan
from control_plane.domain.storage import Answer, Revision
from control_plane.store import engine as engine_module
from control_plane.store import registry_store as module
from control_plane.store.engine import open_sqlite, reading, writing
from control_plane.store.migrate import migrate
from control_plane.store.registry_store import SqlRegistryStore
from control_plane.store.tables import answers, names, pins, registry, versions
from headrace.definitions import DefinitionSet, RegistryState, ServiceEntry
from headrace.definitions.registered import Registered, all_records
from headrace.errors import Aborted, Unavailable
from tests.unit.control_plane.domain.test_plan_properties import Step, step_from, steps
from tests.unit.headrace.definitions.samples import SERVICE, SOURCE, VIEW, entity, service, source, whole_set

NOW = datetime(2026, 2, 1, 3, 4, 5, 678_901, tzinfo=UTC)


def stored(store: SqlRegistryStore, wanted: DefinitionSet) -> RegistryState:
    with store.transaction() as transaction:
        made = plan(transaction.state, wanted, NOW)
        transaction.store(made, revision_of(made))
    return made.after


def revision_of(made: Plan) -> Revision:
    return Revision(made.after.revision, NOW, "someone", "APPLY", made.changes)


def test_new_database_is_an_empty_registry(store: SqlRegistryStore) -> None:
    assert store.read() == RegistryState()
    assert store.revision() == 0
    assert store.revisions(0, 10) == []


def test_stored_state_is_read_by_another_process(store: SqlRegistryStore, engine: Engine) -> None:
    state = stored(store, whole_set())
    assert store.read() is state
    assert SqlRegistryStore(engine).read() == state


@given(steps())
@settings(max_examples=40)
def test_random_history_comes_back_equal(history: Sequence[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = open_sqlite(Path(folder))
        migrate(engine)
        store = SqlRegistryStore(engine)
        for step in history:
            with store.transaction() as transaction:
                before = transaction.state
                after = step_from(before, step)
                if after is not before:
                    transaction.store(Plan((), (), records_between(before, after), after), revision_like(after))
        state = store.read()
        assert repr(SqlRegistryStore(engine).read()) == repr(state)
        engine.dispose()


def records_between(before: RegistryState, after: RegistryState) -> tuple[Registered, ...]:
    old = {repr(record) for record in all_records(before)}
    return tuple(record for record in all_records(after) if repr(record) not in old)


def revision_like(state: RegistryState) -> Revision:
    return Revision(state.revision, NOW, "someone", "APPLY", ())


def test_unchanged_registry_is_not_read_again(store: SqlRegistryStore, engine: Engine) -> None:
    stored(store, whole_set())
    reader = SqlRegistryStore(engine)
    reader.read()
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    reader.read()
    assert [statement for statement in statements if "names" in statement or "versions" in statement] == []
    assert len(statements) == 2, "the begin and the head"


def test_block_that_raises_stores_nothing(store: SqlRegistryStore, engine: Engine) -> None:
    before = stored(store, whole_set())

    def fail_halfway() -> None:
        with store.transaction() as transaction:
            made = plan(transaction.state, DefinitionSet(entities=[entity("flights.ops.new")]), NOW)
            transaction.store(made, revision_of(made))
            transaction.keep_answer("a", Answer("d", 2, ()), NOW)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail_halfway()
    assert store.read() is before
    assert SqlRegistryStore(engine).read() == before
    with store.transaction() as transaction:
        assert transaction.answer("a") is None


def test_head_that_moved_is_aborted(store: SqlRegistryStore, engine: Engine) -> None:
    def write_as_if_unlocked() -> None:
        with store.transaction() as transaction:
            made = plan(transaction.state, whole_set(), NOW)
            transaction._connection.execute(update(registry).values(revision=7))
            transaction.store(made, revision_of(made))

    with pytest.raises(Aborted) as caught:
        write_as_if_unlocked()
    assert caught.value.reason == "CONCURRENT_CHANGE"
    assert SqlRegistryStore(engine).read() == RegistryState()


def test_name_and_version_are_unique_whatever_the_writer_believes(store: SqlRegistryStore, engine: Engine) -> None:
    stored(store, whole_set())
    with reading(engine) as connection:
        row = dict(connection.execute(select(versions).where(versions.c.name == VIEW)).mappings().one())
    for changed in ({}, {"version": 2}, {"version": 2, "internal_id": 99}):
        with pytest.raises(Aborted) as caught, writing(engine) as connection:
            connection.execute(insert(versions), row | changed)
        assert caught.value.reason == "CONCURRENT_CHANGE"
    with pytest.raises(Aborted), writing(engine) as connection:
        connection.execute(insert(versions), row | {"name": "no.such.name"})


def test_pins_say_what_refers_to_what_once(store: SqlRegistryStore, engine: Engine) -> None:
    twice = [ServiceEntry(VIEW, output_prefix="a_"), ServiceEntry(VIEW, (), {"airport": "dest"}, "b_")]
    stored(store, whole_set(feature_services=[service(entries=twice)]))
    with reading(engine) as connection:
        found = {tuple(row) for row in connection.execute(select(pins).where(pins.c.name == SERVICE))}
        assert found == {(SERVICE, 1, VIEW, 1)}
        assert connection.execute(select(func.count()).select_from(pins)).scalar_one() == 4


def test_update_rewrites_the_name_and_no_version(store: SqlRegistryStore, engine: Engine) -> None:
    stored(store, whole_set())
    stored(store, DefinitionSet(sources=[source(tags={"a": "b"})]))
    with reading(engine) as connection:
        mutable = connection.execute(select(names.c.mutable).where(names.c.name == SOURCE)).scalar_one()
    assert mutable == '{"owner":"flights","tags":{"a":"b"}}'


def test_answers_beyond_the_bound_are_dropped_oldest_first(
    store: SqlRegistryStore, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_COUNT_MAX", 3)
    for number in range(5):
        with store.transaction() as transaction:
            transaction.keep_answer(f"r{number}", Answer("d", number, ()), NOW.replace(microsecond=number))
    with reading(engine) as connection:
        assert sorted(connection.execute(select(answers.c.request_id)).scalars()) == ["r2", "r3", "r4"]


def test_writer_that_waits_too_long_is_told_to_come_again(
    store: SqlRegistryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_MS", 1)
    other = SqlRegistryStore(open_sqlite(tmp_path))
    with store.transaction(), pytest.raises(Unavailable) as caught, other.transaction():
        pass
    assert caught.value.reason == "STORE_UNAVAILABLE"
    assert caught.value.retry_after_ms is not None
    assert other.read() == RegistryState(), "readers are not held up"
