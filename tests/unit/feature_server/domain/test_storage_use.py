"""What a walk over the rows counts, what it leaves alone, and how it keeps to its bounds."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from feature_server.domain.input_marks import mark_key
from feature_server.domain.shard_writes import Durability
from feature_server.domain.storage_use import SCAN_BYTES_PER_S, SCAN_ROWS, ShardUse, StorageUse, ViewUse
from feature_server.storage.row_log import SegmentLog
from headrace.errors import DataLoss, InvalidArgument, PermissionDenied, ResourceExhausted
from headrace.serving.principal import Principal
from tests.unit.feature_server.domain.test_reads import write
from tests.unit.feature_server.parts import ENTITY, NOW_US, PRINCIPAL, Parts, shop_definitions, state_of

DAY_US = 24 * 3_600 * 1_000_000


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """The shop with a time to live of two days, and a row log."""
    state = state_of(shop_definitions(ttl=timedelta(days=2)))
    opened = Parts(tmp_path / "store", state=state, row_log_bytes=64 << 20)
    yield opened
    opened.close()


def measured(parts: Parts, *shards: int) -> list[ShardUse]:
    return list(parts.storage.measure(PRINCIPAL, shards))


def summed(uses: list[ShardUse]) -> ViewUse:
    """The shop's view over all shards."""
    views = [use.views[view_id] for use in uses for view_id in use.views]
    total = ViewUse(views[0].view_id, views[0].layout)
    for view in views:
        for name in ("row", "expired", "tombstone", "logged"):
            for unit in ("count", "bytes"):
                field = f"{name}_{unit}"
                setattr(total, field, getattr(total, field) + getattr(view, field))
    return total


def test_rows_expired_rows_and_tombstones_are_counted_once(parts: Parts) -> None:
    write(parts, range(700), 30)
    write(parts, range(100), 31, NOW_US - 2 * DAY_US)  # older than what is stored: they change nothing
    write(parts, range(1_000, 1_050), 30, NOW_US - 2 * DAY_US)  # at exactly the limit it is expired
    write(parts, range(2_000, 2_040), 30, NOW_US - 2 * DAY_US + 1)
    parts.writes.erase(ENTITY, lambda entity: [(1,), (1_001,), (9_999,)], Durability.LOG, ("", 0), PRINCIPAL)
    uses = measured(parts)
    total = summed(uses)
    assert [use.shard for use in uses] == [0, 1]
    assert (total.row_count, total.expired_count, total.tombstone_count) == (791, 49, 3)
    assert 0 < total.tombstone_bytes < total.expired_bytes < total.row_bytes
    assert (total.logged_count, total.logged_bytes > total.row_bytes) == (893, True)
    assert all(use.disk_bytes > 0 and use.row_log_bytes > 0 and not use.problem for use in uses)
    assert total.layout is not None and total.layout.definition.owner == "shop"


def test_records_beside_the_rows_are_not_counted(parts: Parts) -> None:
    write(parts, range(50), 30)
    before = [use.views for use in measured(parts)]
    (view_id,) = before[0]
    for shard in parts.shards.shards:
        records = {mark_key(1, view_id): b"mark", mark_key(view_id, 0): b"mark"}
        shard.append([], lambda time_us, offset: [], Durability.LOG, records=records)
    assert [use.views for use in measured(parts)] == before


def test_what_is_acknowledged_no_longer_waits_in_the_row_log(parts: Parts) -> None:
    write(parts, range(50), 30)
    for shard in parts.shards.shards:
        assert isinstance(shard.row_log, SegmentLog)
        shard.row_log.acknowledge(shard.row_log.status().end)
    total = summed(measured(parts))
    assert (total.row_count, total.logged_count) == (50, 0)


def test_rows_of_retired_versions_are_told(parts: Parts) -> None:
    write(parts, [1], 30)
    parts.catalogue.publish(state_of(shop_definitions(), revision=2, retired=["shop.web.profile", "shop.web.model"]))
    layout = summed(measured(parts)).layout
    assert layout is not None and not layout.is_active


def test_neither_the_row_table_nor_an_answer_changes(parts: Parts) -> None:
    write(parts, range(20), 30)
    before, hashes = parts.table.stats(), [status.content_hash for status in parts.shards.statuses()]
    measured(parts)
    assert parts.table.stats() == before
    assert [status.content_hash for status in parts.shards.statuses()] == hashes


def test_a_walk_rests_as_long_as_it_works_and_as_its_bytes_ask(parts: Parts) -> None:
    keys = parts.keys_on(0, 3 * SCAN_ROWS)
    write(parts, keys, 30)
    slept: list[float] = []
    storage = StorageUse(parts.shards, parts.catalogue, parts.clock, sleep=slept.append, monotonic=lambda: 0.0)
    (use,) = storage.measure(PRINCIPAL, [0])
    one = next(iter(use.views.values()))
    assert one.row_count == len(keys)
    key_bytes = one.row_count * len(next(iter(parts.shards[0].scan(b"\0\0\0\1", 1)))[0])
    total = sum(slept) * SCAN_BYTES_PER_S
    # The last step of a walk is short, and a row of the log comes with the head of its record.
    assert one.row_bytes - key_bytes - 1_000 + one.logged_bytes < total < 2 * (one.row_bytes + one.logged_bytes)


def test_a_shard_that_cannot_be_read_is_told_and_the_others_are_measured(parts: Parts) -> None:
    write(parts, range(20), 30)
    parts.shards[0].quarantine(DataLoss("a block is damaged", reason="TEST"))
    first, second = measured(parts)
    assert "shard 0 is quarantined" in first.problem
    assert not first.views
    assert second.views and not second.problem


def test_one_walk_at_a_time_and_an_abandoned_one_ends(parts: Parts) -> None:
    write(parts, range(20), 30)
    walk = parts.storage.measure(PRINCIPAL, [])
    next(walk)
    with pytest.raises(ResourceExhausted) as caught:
        measured(parts)
    assert caught.value.reason == "ALREADY_WALKING"
    walk.close()  # type: ignore[attr-defined]  # a generator
    assert len(measured(parts)) == 2
    assert list(parts.storage.measure(PRINCIPAL, [], lambda: False)) == []


def test_wrong_shards_and_callers_are_refused(parts: Parts) -> None:
    with pytest.raises(InvalidArgument) as caught:
        measured(parts, 2)
    assert caught.value.reason == "UNKNOWN_SHARD"
    with pytest.raises(PermissionDenied):
        list(parts.storage.measure(Principal("nobody", frozenset()), []))
