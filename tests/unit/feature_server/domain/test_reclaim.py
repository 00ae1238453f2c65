"""A reclaim takes rows of retired versions, and changes no answer, no hash that it should not, and no later write."""

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from core_ext.hashing import xxh3_64
from feature_server.domain.input_marks import mark_key
from feature_server.domain.reclaim import GRACE_S, Reclaim, Reclaimed
from feature_server.domain.shard import ShardState
from feature_server.domain.shard_record import RECORD_KEY
from feature_server.domain.shard_writes import Durability
from headrace.definitions import DefinitionSet
from headrace.errors import DataLoss, FailedPrecondition, PermissionDenied, ResourceExhausted, Unavailable
from headrace.serving.principal import Principal
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.unit.feature_server.parts import ENTITY, NOW_US, PRINCIPAL, Parts, shop_batch, shop_definitions, state_of
from tests.unit.feature_server.served import until

KEPT, OTHER = "shop.web.profile", "shop.web.other"
DAY_US = 24 * 3_600 * 1_000_000


def two_views() -> DefinitionSet:
    """The shop, and its view once more under another name."""
    shop = shop_definitions()
    return replace(shop, feature_views=[*shop.feature_views, replace(shop.feature_views[0], name=OTHER)])


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", state=state_of(two_views()), row_log_bytes=64 << 20)
    yield opened
    opened.close()


def write(parts: Parts, view: str, keys: Sequence[int], age: int = 30, event_us: int = NOW_US) -> None:
    parts.writes.write(
        f"{view}@v1", lambda target: [shop_batch(keys, event_us, age)], Durability.LOG, ("", 0), PRINCIPAL
    )


def erase(parts: Parts, key: int) -> None:
    parts.writes.erase(ENTITY, lambda entity: [(key,)], Durability.LOG, ("", 0), PRINCIPAL)


def retire(parts: Parts) -> None:
    """Retires the other view, and lets the minute pass."""
    parts.catalogue.publish(state_of(two_views(), revision=2, retired=[OTHER]))
    parts.reclaim.due()
    parts.monotonic_s += GRACE_S


def answer(parts: Parts, keys: Sequence[int], view: str = KEPT) -> bytes:
    read = pb.GetOnlineFeaturesRequest(
        features=[f"{view}@v1:{name}" for name in ("age", "name", "codes")],
        entity_columns=[pb.EntityColumn(join_key="user_id", int64_values=keys)],
        options=pb.ReadOptions(include_event_times=True, include_expired=True),
    )
    return parts.reads.get(PRINCIPAL, read.SerializeToString(), lambda: None)


def reclaimed(parts: Parts) -> list[Reclaimed]:
    return list(parts.reclaim.run(PRINCIPAL))


def check_hashes(parts: Parts) -> None:
    """The hash of each shard is that of its rows."""
    for shard in parts.shards.shards:
        rows = [key + row for key, row in shard.scan(b"", 100_000) if key != RECORD_KEY]
        assert shard.status().content_hash == sum(map(xxh3_64, rows)) % 2**64


def test_rows_of_a_retired_version_go_and_no_answer_changes(parts: Parts) -> None:
    keys = list(range(600))
    write(parts, KEPT, keys)
    write(parts, KEPT, range(600, 650), event_us=NOW_US - 400 * DAY_US)
    write(parts, OTHER, keys)
    erase(parts, 7)
    answer(parts, keys[:100], OTHER)  # held in memory as well
    retire(parts)
    before, offsets = answer(parts, range(700)), [status.offset for status in parts.shards.statuses()]
    done = reclaimed(parts)
    assert sum(one.row_count for one in done) == len(keys)
    assert all(one.row_bytes > 68 * one.row_count and not one.problem for one in done)
    assert (parts.reclaim.row_count, parts.reclaim.byte_count) == (600, sum(one.row_bytes for one in done))
    assert answer(parts, range(700)) == before
    parts.table.clear()
    assert answer(parts, range(700)) == before
    assert [status.offset for status in parts.shards.statuses()] == offsets
    check_hashes(parts)
    assert sum(one.row_count for one in reclaimed(parts)) == 0


def test_records_that_end_in_the_id_of_a_retired_version_stay(parts: Parts) -> None:
    write(parts, OTHER, range(40))
    (view_id,) = (view.view_id for view in parts.catalogue.layouts[1].values() if view.definition.name == OTHER)
    mark = mark_key(1, view_id)
    for shard in parts.shards.shards:
        shard.append([], lambda time_us, offset: [], Durability.LOG, records={mark: b"mark"})
    retire(parts)
    assert [one.problem for one in reclaimed(parts)] == ["", ""]
    assert parts.reclaim.row_count == 40
    for shard in parts.shards.shards:
        assert shard.state is ShardState.SERVING
        assert shard.read([mark]) == [b"mark"]


def test_copies_in_a_ring_are_not_reclaimed(parts: Parts) -> None:
    write(parts, OTHER, [1])
    retire(parts)
    ringed = Reclaim(
        parts.shards,
        parts.catalogue,
        parts.storage,
        parts.log,
        is_alone=False,
        monotonic=lambda: parts.monotonic_s,
    )
    ringed.due()
    parts.monotonic_s += GRACE_S
    with pytest.raises(FailedPrecondition) as caught:
        list(ringed.run(PRINCIPAL))
    assert caught.value.reason == "RING_WITH_RECLAIM"
    assert ringed.row_count == 0
    assert sum(one.row_count for one in reclaimed(parts)) == 1


def test_a_version_is_left_alone_until_its_minute_is_over(parts: Parts) -> None:
    write(parts, OTHER, [1])
    assert reclaimed(parts) == []
    parts.catalogue.publish(state_of(two_views(), revision=2, retired=[OTHER]))
    assert reclaimed(parts) == []
    parts.monotonic_s += GRACE_S - 0.5
    assert reclaimed(parts) == []
    parts.monotonic_s += 0.5
    assert sum(one.row_count for one in reclaimed(parts)) == 1


def test_a_retired_version_answers_nobody(parts: Parts) -> None:
    write(parts, OTHER, [1])
    answer(parts, [1], OTHER)
    retire(parts)
    with pytest.raises(FailedPrecondition) as caught:
        answer(parts, [1], OTHER)
    assert caught.value.reason == "FEATURE_VIEW_RETIRED"


def test_a_later_tombstone_finds_no_row_in_the_place_of_one_that_went(parts: Parts) -> None:
    write(parts, OTHER, range(40))
    answer(parts, range(40), OTHER)
    retire(parts)
    reclaimed(parts)
    erase(parts, 3)
    check_hashes(parts)
    assert sum(one.row_count for one in reclaimed(parts)) == 1  # the tombstone of the retired version
    check_hashes(parts)


def test_a_fill_that_was_read_before_the_removal_is_dropped(parts: Parts) -> None:
    write(parts, OTHER, [1])
    shard = parts.shards[parts.shard_of(1)]
    ((key, row),) = [pair for pair in shard.scan(b"", 10) if pair[0] != RECORD_KEY]
    ticket = parts.table.ticket()
    assert shard.remove([key]) == (1, len(key) + len(row))
    assert parts.table.fill([key], [row], ticket) == 0
    assert shard.remove([key]) == (0, 0)


def test_the_store_opens_again_as_it_was_left(parts: Parts, tmp_path: Path) -> None:
    write(parts, KEPT, range(30))
    write(parts, OTHER, range(30))
    retire(parts)
    reclaimed(parts)
    before, hashes = answer(parts, range(30)), [status.content_hash for status in parts.shards.statuses()]
    parts.close()
    again = Parts(tmp_path / "store", state=state_of(two_views(), 2, [OTHER]), row_log_bytes=64 << 20)
    try:
        assert answer(again, range(30)) == before
        assert [status.content_hash for status in again.shards.statuses()] == hashes
        check_hashes(again)
    finally:
        again.close()


def test_reads_and_writes_beside_a_reclaim_stay_right(parts: Parts, seed: int) -> None:
    keys = list(range(200))
    write(parts, KEPT, keys, 0)
    write(parts, OTHER, keys)
    retire(parts)
    stop = threading.Event()
    wrong: list[int] = []

    def read() -> None:
        choose = random.Random(seed)
        while not stop.is_set():
            if choose.randrange(10) == 0:
                parts.table.clear()
            found = pb.GetOnlineFeaturesResponse.FromString(answer(parts, keys))
            wrong.extend(status for status in found.columns[0].statuses if status != 1)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for age in range(1, 20):
            write(parts, KEPT, keys, age)
            if age == 5:
                assert sum(one.row_count for one in reclaimed(parts)) == len(keys)
    finally:
        stop.set()
        reader.join(20)
    assert not wrong
    check_hashes(parts)


def test_a_shard_that_cannot_be_written_is_told(parts: Parts) -> None:
    write(parts, OTHER, range(40))
    retire(parts)
    parts.shards[0].quarantine(DataLoss("a block is damaged", reason="TEST"))
    parts.faults[1].write_error = Unavailable("the disk refuses", reason="STORAGE_READ_ONLY")
    first, second = reclaimed(parts)
    assert "quarantined" in first.problem
    assert "the disk refuses" in second.problem
    assert parts.shards[1].state is ShardState.READ_ONLY


def test_one_walk_at_a_time_and_only_with_the_permission(parts: Parts) -> None:
    with parts.storage.turn(), pytest.raises(ResourceExhausted):
        reclaimed(parts)
    with pytest.raises(PermissionDenied):
        list(parts.reclaim.run(Principal("nobody", frozenset())))


def test_the_thread_reclaims_by_itself_where_it_is_asked_to(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_server.domain.reclaim.CHECK_S", 0.01)
    monkeypatch.setattr("feature_server.domain.reclaim.GRACE_S", 0.05)
    write(parts, OTHER, range(40))
    parts.catalogue.publish(state_of(two_views(), revision=2, retired=[OTHER]))
    idle, busy = (
        Reclaim(parts.shards, parts.catalogue, parts.storage, parts.log, interval_s=interval) for interval in (0.0, 0.1)
    )
    for one in (idle, busy):
        one.start()
    until(lambda: busy.row_count == 40)
    for one in (idle, busy):
        one.close()
    assert idle.row_count == 0
    check_hashes(parts)
