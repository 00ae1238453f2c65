"""The log of served answers on both transports: every value as the client got it, and what is dropped is counted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch.skew.canonical import value_bytes
from core_ext.keys import encode_key
from core_ext.rules import CAUSE_MASK, EXPIRED, PRESENT, STATE_MASK, WITHHELD
from core_ext.served_ring import is_sampled
from feature_server.domain.row_log import LogPosition
from feature_server.domain.shard_writes import Durability
from feature_server.rpc.native_front import HAS_NATIVE, TRANSPORTS
from headrace.definitions import FeatureService, ServiceEntry
from headrace.served import NO_ROW_US, decode_rows, frames_of
from headrace.types import parse_type
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.unit.feature_server.parts import (
    ENTITY,
    FEATURES,
    NOW_US,
    OWNER,
    PRINCIPAL,
    SERVICE,
    VIEW,
    Parts,
    shop_batch,
    shop_definitions,
    state_of,
)
from tests.unit.feature_server.served import request, serving, until

I64 = 3


def key(user: int) -> bytes:
    return encode_key([I64], [user])


@pytest.fixture(params=[name for name in TRANSPORTS if HAS_NATIVE or name != "native"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", served_share=1.0)
    yield opened
    opened.close()


def write(
    parts: Parts, users: Sequence[int], event_us: int = NOW_US, batch: pa.RecordBatch | None = None, view: str = VIEW
) -> None:
    rows = batch if batch is not None else shop_batch(users, event_us)
    parts.writes.write(view, lambda _: [rows], Durability.LOG, ("", 0), PRINCIPAL)


def rows_of(parts: Parts) -> list[dict[str, Any]]:
    """Every logged row so far, in order."""
    assert parts.served_store is not None
    parts.served_writer.write_waiting()
    chunks = parts.served_store.read(LogPosition(0, 0), 1 << 20)
    return [
        row for chunk in chunks for frame in frames_of(chunk.records) for row in decode_rows(frame.stream).to_pylist()
    ]


def slots(answer: pb.GetOnlineFeaturesResponse) -> list[tuple[str, int, int]]:
    """Feature, row and status of every value that a client got."""
    return [
        (name, row, status)
        for name, column in zip(FEATURES, answer.columns, strict=True)
        for row, status in enumerate(column.statuses)
    ]


def expected_value(user: int, feature: str) -> bytes:
    row = shop_batch([user]).to_pylist()[0]
    return value_bytes(row[feature], parse_type(FEATURES[feature]))


def test_every_value_is_logged_as_it_was_served(logged: Parts, transport: str) -> None:
    write(logged, range(6))
    logged.writes.erase(ENTITY, lambda layout: [(5,)], Durability.LOG, ("", 0), PRINCIPAL)
    users = [0, 3, 5, 77, 3]
    with serving(logged, transport) as served:
        answers = [served.get(request(users)) for _ in range(3)]  # misses, then hits where the loop answers
    rows = rows_of(logged)
    assert len(rows) == 3 * len(users) * len(FEATURES)
    for answer, part in zip(answers, _parts(rows, 3), strict=True):
        assert [(row["feature"].partition(":")[2], row["status"]) for row in part] == [
            (name, status) for name, _, status in slots(answer)
        ]
        for (name, place, status), row in zip(slots(answer), part, strict=True):
            user = users[place]
            assert row["entity_key"] == key(user)
            assert row["feature"] == f"{VIEW}:{name}"
            assert row["served_time"].timestamp() * 1e6 == pytest.approx(answer.read_time_us, abs=1)
            assert row["registry_revision"] == answer.registry_revision == 1
            assert row["feature_service"] == f"{SERVICE}@v1"
            assert row["trace_id"] is None
            assert row["value"] == (expected_value(user, name) if status & STATE_MASK == PRESENT else b"")
            shard = logged.shards[logged.shard_of(user)].status()
            assert (row["shard"], row["shard_epoch"], row["applied_offset"]) == shard[:3]
            no_row = None if status & CAUSE_MASK else NO_ROW_US
            assert row["row_event_time_us"] == (NOW_US if status & STATE_MASK == PRESENT else no_row)
        digest = logged.catalogue.view(VIEW).transform_digest
        assert {row["transform_digest"] for row in part} == {digest}
    assert logged.served_writer.sampled_count == 3
    assert logged.served_writer.written_count == len(rows)
    assert not any(logged.served_writer.dropped().values())


def _parts(rows: list[dict[str, Any]], count: int) -> Iterator[list[dict[str, Any]]]:
    size = len(rows) // count
    return (rows[at * size : (at + 1) * size] for at in range(count))


def test_lists_of_features_handles_and_null_keys(logged: Parts, transport: str) -> None:
    write(logged, range(3))
    names = [f"{VIEW}:age", "shop.web.profile:codes"]
    columns = [pb.EntityColumn(join_key="user_id", int64_values=[1, 0, 2], null_rows=[1])]
    with serving(logged, transport) as served:
        served.get(pb.GetOnlineFeaturesRequest(features=names, entity_columns=columns).SerializeToString())
        handle = logged.catalogue.features(names).handle
        served.get(pb.GetOnlineFeaturesRequest(handle=handle, entity_columns=columns).SerializeToString())
        handle = logged.catalogue.service(SERVICE).handle
        for _ in range(2):
            served.get(pb.GetOnlineFeaturesRequest(handle=handle, entity_columns=columns).SerializeToString())
    rows = rows_of(logged)
    by_list = [(f"{VIEW}:{name}", user) for name in ("age", "codes") for user in (1, 2)]
    whole = [(f"{VIEW}:{name}", user) for name in FEATURES for user in (1, 2)]
    assert [(row["feature"], row["entity_key"]) for row in rows] == [
        (name, key(user)) for name, user in 2 * by_list + 2 * whole
    ]
    assert [row["feature_service"] for row in rows] == [None] * 8 + [f"{SERVICE}@v1"] * 20


def test_expired_values_are_logged_as_they_were_asked_for(tmp_path: Path, transport: str) -> None:
    parts = Parts(tmp_path / "store", served_share=1.0, state=state_of(shop_definitions(timedelta(hours=1))))
    write(parts, [1])  # long before the clock of the loop
    with serving(parts, transport) as served:
        parts.clock.now_us += 2 * 3_600_000_000
        served.get(request([1]))
        served.get(request([1], include_expired=True))
    plain, shown = _parts(rows_of(parts), 2)
    assert [(row["status"], row["value"]) for row in plain] == [(EXPIRED | WITHHELD, b"")] * len(FEATURES)
    assert [(row["status"], row["value"]) for row in shown] == [(EXPIRED, expected_value(1, name)) for name in FEATURES]
    parts.close()


def test_views_that_stay_online_are_not_logged(logged: Parts, transport: str) -> None:
    shop = shop_definitions()
    hidden = replace(shop.feature_views[0], name="shop.web.hidden", offline=False)
    entries = [
        ServiceEntry("shop.web.hidden@v1", list(FEATURES), output_prefix="h_"),
        ServiceEntry(VIEW, ["age", "name"]),
    ]
    services = [
        FeatureService("shop.web.mixed", owner=OWNER, entries=entries),
        FeatureService("shop.web.online", owner=OWNER, entries=entries[:1]),
    ]
    logged.catalogue.publish(
        state_of(replace(shop, feature_views=[hidden, *shop.feature_views], feature_services=services))
    )
    for view, event_us in (("shop.web.hidden@v1", NOW_US - 7), (VIEW, NOW_US)):
        write(logged, [1, 2], event_us, view=view)
    with serving(logged, transport) as served:
        for _ in range(2):  # the second time from the table
            answer = served.get(request([1, 2], "shop.web.mixed"))
            assert [list(column.statuses) for column in answer.columns] == [[PRESENT] * 2] * (len(FEATURES) + 2)
            served.get(request([1, 2], "shop.web.online"))
    rows = [(row["feature"], row["entity_key"], row["value"], row["row_event_time_us"]) for row in rows_of(logged)]
    assert rows == 2 * [
        (f"{VIEW}:{name}", key(user), expected_value(user, name), NOW_US) for name in ("age", "name") for user in (1, 2)
    ]
    assert logged.served_writer.sampled_count == 4
    assert not any(logged.served_writer.dropped().values())


def test_share_of_none_logs_none(tmp_path: Path, transport: str) -> None:
    parts = Parts(tmp_path / "store", served_share=0.0)
    write(parts, [1])
    with serving(parts, transport) as served:
        for _ in range(20):
            served.get(request([1]))
    assert rows_of(parts) == []
    assert parts.served_writer.sampled_count == 0
    parts.close()


def test_the_sample_is_the_one_that_the_hash_says(tmp_path: Path, transport: str) -> None:
    share = 0.3
    parts = Parts(tmp_path / "store", served_share=share)
    write(parts, [1])
    times = []
    with serving(parts, transport) as served:
        for user in range(200):
            parts.clock.now_us += 1
            read = request([user])
            answer = served.get(read)
            if is_sampled(share, read, answer.read_time_us):
                times.append(answer.read_time_us)
    logged = list(dict.fromkeys(int(row["served_time"].timestamp() * 1e6 + 0.5) for row in rows_of(parts)))
    assert len(logged) == len(times)
    assert all(abs(found - wanted) <= 1 for found, wanted in zip(logged, times, strict=True))
    assert 25 < len(times) < 100
    parts.close()


def test_reads_that_nobody_writes_down_are_dropped_and_answered(tmp_path: Path, transport: str) -> None:
    parts = Parts(tmp_path / "store", served_share=1.0, queue_bytes=4_000)
    write(parts, range(10))
    with serving(parts, transport) as served:
        for _ in range(50):
            assert served.get(request(range(10))).row_count == 10
    dropped = parts.served_writer.dropped()["queue_full"]
    sampled = parts.served_writer.sampled_count
    assert dropped > 0 and sampled > 0 and dropped + sampled == 50
    assert parts.ring.counts()["held_bytes"] <= 4_000
    assert len(rows_of(parts)) == sampled * 10 * len(FEATURES)
    assert parts.ring.counts()["held_bytes"] == 0
    parts.close()


def test_refused_reads_leave_nothing_behind(logged: Parts, transport: str) -> None:
    with serving(logged, transport) as served:
        assert served.refused(request([1], "shop.web.unknown")).reason == "UNKNOWN_FEATURE_SERVICE"
        assert served.refused(b"\xff").code == "INVALID_ARGUMENT"
    assert rows_of(logged) == []
    assert logged.ring.counts() == {"sampled": 0, "dropped": 0, "held_bytes": 0}


def test_registry_that_changes_before_the_log_is_written(logged: Parts, transport: str) -> None:
    write(logged, [1])
    with serving(logged, transport) as served:
        served.get(request([1]))
        logged.catalogue.publish(state_of(shop_definitions(), 2))
        served.get(request([1]))
    assert [row["registry_revision"] for row in rows_of(logged)] == [1] * len(FEATURES) + [2] * len(FEATURES)


def test_row_that_is_written_between_the_look_and_the_answer(logged: Parts) -> None:
    """The offset is the one before the rows were looked up, so that a row seen at it is never told as unseen."""
    write(logged, [1])
    before = logged.shards[logged.shard_of(1)].status().offset
    logged.table.clear()
    faults = logged.faults[logged.shard_of(1)]

    def write_more(_: Sequence[bytes]) -> None:
        faults.after_read = lambda keys: None
        write(logged, [1], NOW_US + 1)

    faults.after_read = write_more
    logged.reads.get(PRINCIPAL, request([1]), lambda: None, bytes(range(16)))
    rows = rows_of(logged)
    assert {row["applied_offset"] for row in rows} == {before}
    assert {row["trace_id"] for row in rows} == {bytes(range(16))}


def test_writer_thread_writes_by_itself_and_at_its_end(logged: Parts, transport: str) -> None:
    write(logged, [1])
    logged.served_writer.start()
    with serving(logged, transport) as served:
        served.get(request([1]))
        until(lambda: logged.served_writer.written_count == len(FEATURES))
        served.get(request([1]))
        logged.served_writer.close()
        assert logged.served_writer.written_count == 2 * len(FEATURES)
        assert served.get(request([1])).row_count == 1, "reads go on without a log"
    assert logged.served_writer.dropped()["queue_full"] == 1


def test_log_that_is_full_drops_and_counts(logged: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    assert logged.served_store is not None
    monkeypatch.setattr(logged.served_store, "_bytes_max", 10)
    write(logged, [1])
    logged.reads.get(PRINCIPAL, request([1]), lambda: None)
    assert rows_of(logged) == []
    assert logged.served_writer.dropped() == {
        "queue_full": 0,
        "unresolved": 0,
        "too_large": 0,
        "log_full": 1,
        "failed": 0,
    }


def test_answer_that_cannot_be_read_does_not_end_the_log(logged: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    write(logged, [1])
    logged.reads.get(PRINCIPAL, request([1]), lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr("feature_server.domain.served_writer.served_rows", lambda reads, selection: 1 / 0)
        logged.served_writer.write_waiting()
    logged.reads.get(PRINCIPAL, request([1]), lambda: None)
    assert len(rows_of(logged)) == len(FEATURES)
    assert logged.served_writer.dropped()["failed"] == 1


def test_selection_that_nobody_knows_any_more_is_dropped_and_counted(logged: Parts) -> None:
    write(logged, [1])
    logged.reads.get(PRINCIPAL, request([1]), lambda: None)
    for revision in (2, 3):  # two registries later
        logged.catalogue.publish(state_of(shop_definitions(timedelta(hours=revision)), revision))
    assert rows_of(logged) == []
    assert logged.served_writer.dropped()["unresolved"] == 1


def test_more_values_than_a_frame_holds_take_several(logged: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_server.domain.served_writer.FRAME_ROWS", 20)
    write(logged, range(10))
    for users in ([1, 2], [3], list(range(10)), [4]):
        logged.reads.get(PRINCIPAL, request(users), lambda: None)
    rows = rows_of(logged)
    assert [row["entity_key"] for row in rows if row["feature"].endswith(":age")] == [
        key(user) for user in (1, 2, 3, *range(10), 4)
    ]
    assert logged.served_store is not None
    frames = [
        frame.row_count
        for chunk in logged.served_store.read(LogPosition(0, 0), 1 << 20)
        for frame in frames_of(chunk.records)
    ]
    assert frames == [15, 20, 20, 10, 5]


def test_read_of_too_many_values_is_dropped_and_counted(logged: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_server.domain.served_writer.READ_ROWS_MAX", len(FEATURES))
    write(logged, range(2))
    for users in ([0, 1], [0]):
        logged.reads.get(PRINCIPAL, request(users), lambda: None)
    assert len(rows_of(logged)) == len(FEATURES)
    assert logged.served_writer.dropped()["too_large"] == 1
