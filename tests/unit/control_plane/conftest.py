"""A registry over a database of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from control_plane.domain.registry import Registry
from control_plane.domain.watchers import Watchers
from control_plane.rpc.registry_servicer import message_bytes
from control_plane.store.engine import open_sqlite
from control_plane.store.migrate import migrate
from control_plane.store.registry_store import SqlRegistryStore
from tests.unit.control_plane.clock import Clock


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_sqlite(tmp_path)
    migrate(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def store(engine: Engine) -> SqlRegistryStore:
    return SqlRegistryStore(engine)


@pytest.fixture
def watchers() -> Watchers:
    return Watchers()


@pytest.fixture
def make_registry(watchers: Watchers) -> Callable[[SqlRegistryStore], Registry]:
    return lambda store: Registry(store, watchers, Clock(), message_bytes)


@pytest.fixture
def registry(store: SqlRegistryStore, make_registry: Callable[[SqlRegistryStore], Registry]) -> Registry:
    return make_registry(store)
