"""Lineage over a registry and a database of its own."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from control_plane.domain.lineage.lineage import Lineage
from control_plane.domain.lineage.mirror import Mirror
from control_plane.store.lineage_store import SqlLineageStore
from control_plane.store.registry_store import SqlRegistryStore

LATER = datetime(2026, 6, 1, tzinfo=UTC)  # than what the clock of the registry tells


@pytest.fixture
def make_lineage(engine: Engine, store: SqlRegistryStore) -> Callable[[], Lineage]:
    def make() -> Lineage:
        log = SqlLineageStore(engine)
        made = Lineage(log, store, Mirror(log), lambda: LATER)
        made.start()
        return made

    return make


@pytest.fixture
def lineage(make_lineage: Callable[[], Lineage]) -> Lineage:
    return make_lineage()
