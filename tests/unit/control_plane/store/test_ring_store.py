"""Rings in a database: one per epoch, the newest after a restart."""

import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, func, select, update

from control_plane.domain.ring.steps import formed
from control_plane.store import ring_store
from control_plane.store.engine import reading, writing
from control_plane.store.ring_store import SqlRingStore
from control_plane.store.tables import ring_epochs
from headrace.errors import Aborted, DataLoss
from headrace.ring.documents import ring_document, ring_of_document
from headrace.ring.values import Ring, RingServer

SERVERS = [RingServer(name, f"{name}:1", "zone", 3, is_draining=name == "b") for name in "abc"]
FIRST = formed(SERVERS, 8, 2, "ring")


def store(engine: Engine) -> SqlRingStore:
    return SqlRingStore(engine, lambda: datetime(2026, 1, 1, tzinfo=UTC))


def follows(ring: Ring, epoch: int) -> Ring:
    return Ring(epoch, ring.replica_count, ring.servers, ring.shards, ring.ring_id)


def test_without_a_ring_the_epoch_is_zero(engine: Engine) -> None:
    assert store(engine).read() == Ring()


def test_the_newest_ring_is_read_by_the_next_process(engine: Engine) -> None:
    store(engine).append(FIRST, "join a")
    store(engine).append(follows(FIRST, 2), "join b")
    assert store(engine).read() == follows(FIRST, 2)


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_epoch_that_does_not_follow_is_refused(engine: Engine, epoch: int) -> None:
    store(engine).append(FIRST, "join a")
    with pytest.raises(Aborted):
        store(engine).append(follows(FIRST, epoch), "late")
    assert store(engine).read() == FIRST


def test_old_epochs_are_forgotten(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_store, "EPOCH_COUNT_MAX", 3)
    for epoch in range(1, 7):
        store(engine).append(follows(FIRST, epoch), "step")
    with reading(engine) as connection:
        kept = connection.execute(select(func.min(ring_epochs.c.epoch), func.count())).one()
    assert tuple(kept) == (4, 3)


@pytest.mark.parametrize("text", ["{", "[]", '{"layout": 9}', '{"layout": 1, "epoch": 1}'])
def test_a_damaged_row_is_told(engine: Engine, text: str) -> None:
    store(engine).append(FIRST, "join a")
    with writing(engine) as connection:
        connection.execute(update(ring_epochs).values(ring=text))
    with pytest.raises(DataLoss):
        store(engine).read()


def test_a_document_gives_its_ring_back() -> None:
    assert ring_of_document(json.loads(json.dumps(ring_document(FIRST)))) == FIRST
