"""Lineage over a registry and a database of its own, by one clock."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from control_plane.domain.lineage.lineage import Lineage
from control_plane.domain.lineage.mirror import Mirror
from control_plane.domain.registry import Registry
from control_plane.domain.watchers import Watchers
from control_plane.rpc.registry_servicer import message_bytes
from control_plane.store.lineage_store import SqlLineageStore
from control_plane.store.registry_store import SqlRegistryStore
from tests.unit.control_plane.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_registry(watchers: Watchers, clock: Clock) -> Callable[[SqlRegistryStore], Registry]:
    return lambda store: Registry(store, watchers, clock, message_bytes)


@pytest.fixture
def make_lineage(engine: Engine, store: SqlRegistryStore, clock: Clock) -> Callable[[], Lineage]:
    def make() -> Lineage:
        log = SqlLineageStore(engine)
        made = Lineage(log, store, Mirror(log), clock)
        made.start()
        return made

    return make


@pytest.fixture
def lineage(make_lineage: Callable[[], Lineage]) -> Lineage:
    return make_lineage()
