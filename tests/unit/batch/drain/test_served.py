"""Cycles of the drain of served answers: each answer once whatever dies, and never before what it was made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch.drain.served import ServedDrain
from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from batch.skew.served_log import IDENTIFIER, ServedFilter, ServedLog
from feature_server.domain.shard_writes import Durability
from feature_server.storage.served_log import ServedSegments
from headrace.client.shards import LogPosition, ShardClient
from headrace.errors import DataLoss, HeadraceError, InvalidArgument
from headrace.served import COLUMNS
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.feature_server.parts import FEATURES, NOW_US, PRINCIPAL, VIEW, Parts, shop_batch
from tests.unit.feature_server.served import request


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", served_share=1.0)
    opened.writes.write(VIEW, lambda target: [shop_batch(range(50))], Durability.LOG, ("", 0), PRINCIPAL)
    yield opened
    opened.close()


@pytest.fixture
def shards(parts: Parts) -> Iterator[ShardClient]:
    parts.serve().close()
    with ShardClient(f"127.0.0.1:{parts.port}") as client:
        yield client


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


def drain_of(shards: ShardClient, catalogue: Catalogue) -> ServedDrain:
    return ServedDrain(shards, catalogue, Runs(catalogue, Provenance("test"), lambda: NOW_US), lambda: NOW_US)


def read(parts: Parts, *users: int) -> None:
    """One read per user, each a frame of its own."""
    for user in users:
        parts.reads.get(PRINCIPAL, request([user]), lambda: None)
        parts.served_writer.write_waiting()


def users(catalogue: Catalogue) -> list[int]:
    """Users of the table, one for each logged value."""
    found = ServedLog(catalogue).batches(ServedFilter())
    return sorted(int.from_bytes(one.entity_key[1:], "big") - 2**63 for batch in found for one in batch)


def each(*wanted: int) -> list[int]:
    return sorted(user for user in wanted for _ in FEATURES)


def all_of(drain: ServedDrain, **more: Any) -> int:
    count = 0
    until = drain.waiting()
    while until is not None:
        count += drain.cycle(until, **more).row_count
        until = drain.waiting()
    return count


def test_answers_lie_in_the_table_once(parts: Parts, shards: ShardClient, catalogue: Catalogue) -> None:
    read(parts, 1, 2, 3)
    drain = drain_of(shards, catalogue)
    assert all_of(drain) == 3 * len(FEATURES)
    assert users(catalogue) == each(1, 2, 3)
    read(parts, 1)
    assert all_of(drain) == len(FEATURES)
    assert all_of(drain) == 0
    assert users(catalogue) == each(1, 1, 2, 3)


@pytest.mark.parametrize("cycle_bytes", [1, 5_000])
def test_small_cycles_take_it_part_by_part(
    parts: Parts, shards: ShardClient, catalogue: Catalogue, cycle_bytes: int
) -> None:
    read(parts, *range(8))
    assert all_of(drain_of(shards, catalogue), cycle_bytes=cycle_bytes) == 8 * len(FEATURES)
    assert users(catalogue) == each(*range(8))


@pytest.mark.parametrize("die_at", ["batch.drain.served.ServedDrain._expire", "acknowledge"])
def test_cycle_that_dies_is_repeated_without_a_doubled_answer(
    parts: Parts, shards: ShardClient, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, die_at: str
) -> None:
    read(parts, 1, 2)

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        target = "headrace.client.shards.ShardClient.acknowledge_served_log" if die_at == "acknowledge" else die_at
        patch.setattr(target, die)
        with pytest.raises(SystemExit):
            all_of(drain_of(shards, catalogue))
    read(parts, 3)
    drain = drain_of(shards, catalogue)
    until = drain.waiting()
    assert until is not None
    done = drain.cycle(until)
    assert (done.row_count, done.skipped_count, done.is_all) == (len(FEATURES), 2 * len(FEATURES), True)
    assert users(catalogue) == each(1, 2, 3)


def test_answers_behind_the_end_that_was_seen_wait(parts: Parts, shards: ShardClient, catalogue: Catalogue) -> None:
    drain = drain_of(shards, catalogue)
    read(parts, 1)
    until = drain.waiting()
    assert until is not None
    read(parts, 2)
    assert drain.cycle(until).is_all
    assert users(catalogue) == each(1)
    assert all_of(drain) == len(FEATURES)


def test_restart_of_the_server_goes_on_in_a_new_epoch(
    parts: Parts, shards: ShardClient, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(parts, 1, 2)
    drain = drain_of(shards, catalogue)
    first = parts.served_store
    assert first is not None
    with monkeypatch.context() as patch:  # the answer to the acknowledgement was lost with the server
        patch.setattr(first, "acknowledge", lambda position: None)
        until = drain.waiting()
        assert until is not None
        drain.cycle(until)
    first.close()
    second = ServedSegments(parts.folder / "served-log", 64 << 20, parts.log)
    monkeypatch.setattr(parts.served_writer, "_store", second)
    for name in ("append", "read", "acknowledge", "status"):
        monkeypatch.setattr(first, name, getattr(second, name))
    read(parts, 3)
    assert all_of(drain) == len(FEATURES)
    assert users(catalogue) == each(1, 2, 3)


def test_server_without_a_log_has_nothing_to_drain(tmp_path: Path, catalogue: Catalogue) -> None:
    parts = Parts(tmp_path / "plain")
    parts.serve().close()
    with ShardClient(f"127.0.0.1:{parts.port}") as client:
        drain = drain_of(client, catalogue)
        assert drain.waiting() is None
        assert drain.cycle(LogPosition(1, 1)).row_count == 0
        for call in (
            lambda: list(client.read_served_log(LogPosition(0, 0))),
            lambda: client.acknowledge_served_log(LogPosition(0, 0)),
        ):
            with pytest.raises(HeadraceError, match="logs no answers") as caught:
                call()
            assert caught.value.reason == "NO_SERVED_LOG"
    parts.close()


def test_acknowledgement_behind_the_log_is_refused(parts: Parts, shards: ShardClient) -> None:
    with pytest.raises(InvalidArgument, match="behind the log"):
        shards.acknowledge_served_log(LogPosition(9, 9))


def test_frames_that_arrive_damaged_are_not_written(
    parts: Parts, shards: ShardClient, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(parts, 1)
    [chunk] = shards.read_served_log(LogPosition(0, 0))
    damaged = chunk.__class__(chunk.epoch, chunk.first_offset, chunk.next_offset, chunk.frames[:-1])
    monkeypatch.setattr(shards, "read_served_log", lambda *_: (one for one in [damaged]))
    drain = drain_of(shards, catalogue)
    until = drain.waiting()
    assert until is not None
    with pytest.raises(DataLoss, match="damaged"):
        drain.cycle(until)
    assert users(catalogue) == []


def test_table_of_an_earlier_release_is_read_and_gets_its_columns(
    parts: Parts, shards: ShardClient, catalogue: Catalogue
) -> None:
    read(parts, 1)
    all_of(drain_of(shards, catalogue))
    table = catalogue.load(IDENTIFIER)
    with table.update_schema(allow_incompatible_changes=True) as update:
        for name in ("feature_service", "trace_id"):
            update.delete_column(name)
    assert users(catalogue) == each(1)
    read(parts, 2)
    all_of(drain_of(shards, catalogue))
    assert users(catalogue) == each(1, 2)
    rows = catalogue.load(IDENTIFIER).scan().to_arrow()
    assert set(rows.column_names) == set(COLUMNS.names)
    assert pa.compute.sum(rows["feature_service"].is_valid()).as_py() == len(FEATURES)
