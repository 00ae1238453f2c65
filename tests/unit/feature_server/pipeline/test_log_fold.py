"""Messages of a log become the same rows at every copy, however they arrive; what is none changes nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from core_ext.row_codec import check_row
from feature_server.domain.log_messages import Kind, Logged, LogMessage, Origin, log_headers, read_message
from feature_server.domain.logged_replays import LoggedReplays
from feature_server.domain.replays import ORDER_COLUMNS, Replays
from feature_server.domain.shard_writes import Durability
from feature_server.domain.write_columns import read_ipc
from headrace.errors import DataLoss, FailedPrecondition, InvalidArgument, Unavailable
from tests.unit.feature_server.logs import Copy, FakeLog
from tests.unit.feature_server.parts import NOW_US, PRINCIPAL, VIEW, Parts, shop_batch, shop_state, state_of
from tests.unit.feature_server.pipeline.streams import (
    LAST,
    SOURCE,
    SPENT,
    UTC,
    definitions,
    message,
    order,
    partition_of,
    served,
    users_of,
)

FEATURES = {
    "orders": f"{SPENT}:orders",
    "cents": f"{SPENT}:cents",
    "shop": f"{SPENT}:shop",
    "last": f"{LAST}:last_cents",
}
EVENT_VIEWS = (SPENT, LAST)


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def start(tmp_path: Path, log: FakeLog) -> Iterator[Callable[..., Copy]]:
    """Copies of the log on folders of their own."""
    made: list[Copy] = []

    def begin(name: str = "", revision: int = 1) -> Copy:
        folder = tmp_path / (name or f"copy{len(made)}")
        made.append(Copy(folder, log, state_of(definitions(), revision)))
        return made[-1]

    yield begin
    for copy in made:
        copy.close()


def send_events(
    log: FakeLog, copy: Copy, user: int, cents: list[int], *, source_offset: int, source_partition: int = 0,
    at_us: int = NOW_US, revision: int = 1,
) -> None:  # fmt: skip
    """Events of one user as a worker puts them into the log."""
    event = message(0, [order(user, one, at_us) for one in cents], source_offset=source_offset)
    views = [copy.parts.catalogue.view(ref).view_id for ref in EVENT_VIEWS]
    origin = Origin(SOURCE, 1, source_partition)
    log.put(partition_of(user), event.value, log_headers(Kind.EVENTS, views, revision, origin))


def write_spent(copy: Copy, user: int, cents: int, at_us: int = NOW_US) -> None:
    columns = {
        "user_id": pa.array([user]),
        "event_time": pa.array([at_us], UTC),
        "cents": pa.array([cents]),
        "shop": pa.array(["direct"]),
    }
    copy.writes.write(SPENT, lambda _: [pa.RecordBatch.from_pydict(columns)], Durability.LOG, ("", 0), PRINCIPAL)


def test_copies_are_equal_however_the_log_came_to_them(log: FakeLog, start: Callable[..., Copy]) -> None:
    first, second = start(), start()
    for number in range(30):
        for user in range(6):
            at_us = NOW_US - (number * 7919 % 30) * 3_600_000_000
            send_events(log, first, user, [number, user], source_offset=number, source_partition=user, at_us=at_us)
            write_spent(second, user, 100 + number, at_us)
        first.follow(1)
        if number == 20:
            second.writes.erase("shop.web.user", lambda _: [[3], [4]], Durability.LOG, ("", 0), PRINCIPAL)
    first.follow(1)
    second.follow()
    assert first.states() == second.states()
    assert all(offset >= 0 for _, offset, _ in first.states())
    for user in range(6):
        assert served(first.parts, user, FEATURES) == served(second.parts, user, FEATURES)
    assert served(first.parts, 0, FEATURES)["orders"] == 30 * 3


def test_events_that_stand_in_the_log_twice_count_once(log: FakeLog, start: Callable[..., Copy]) -> None:
    copy, user = start(), users_of(0)[0]
    for source_offset in (1, 2, 3, 2, 3, 4):
        send_events(log, copy, user, [10, 20], source_offset=source_offset)
    copy.follow(2)
    assert served(copy.parts, user, FEATURES)["orders"] == 8
    assert copy.fold.repeated_count == 2 * 2 * len(EVENT_VIEWS)


def test_marks_are_read_from_the_shard_after_a_restart(
    log: FakeLog, start: Callable[..., Copy], tmp_path: Path
) -> None:
    copy, user = start("same"), users_of(0)[0]
    send_events(log, copy, user, [10], source_offset=5)
    copy.follow()
    copy.close()
    again = start("same")
    send_events(log, again, user, [10], source_offset=5)
    send_events(log, again, user, [10], source_offset=6)
    again.follow()
    assert served(again.parts, user, FEATURES)["orders"] == 2


def test_marks_of_writes_that_were_not_applied_are_forgotten(log: FakeLog, start: Callable[..., Copy]) -> None:
    copy, user = start(), users_of(0)[0]
    send_events(log, copy, user, [10], source_offset=5)
    copy.fold.writes(0, log.messages[0])
    copy.fold.forget(0)
    copy.follow()
    assert served(copy.parts, user, FEATURES)["orders"] == 1


def test_rows_of_a_view_that_is_not_known_yet_wait(log: FakeLog, start: Callable[..., Copy]) -> None:
    copy, user = start(), users_of(0)[0]
    event = message(0, [order(user, 1)], source_offset=1)
    log.put(0, event.value, log_headers(Kind.EVENTS, [99], 2, Origin(SOURCE, 1, 0)))
    send_events(log, copy, user, [7], source_offset=2)
    with pytest.raises(Unavailable) as error:
        copy.follow()
    assert error.value.reason == "REGISTRY_BEHIND"
    assert copy.next_offset(0) == 0
    copy.parts.catalogue.publish(state_of(definitions(), 2))
    copy.follow()
    assert copy.fold.damaged_count == 1, "revision 2 is here, and has no such view: nobody can mean it"
    assert served(copy.parts, user, FEATURES)["last"] == 7


def test_what_is_no_message_is_passed_by_every_copy(log: FakeLog, start: Callable[..., Copy]) -> None:
    first, second = start(), start()
    user = users_of(0)[0]
    view = first.parts.catalogue.view(SPENT)
    good = message(0, [order(user, 1)], source_offset=1)
    origin = Origin(SOURCE, 1, 0)
    for value, headers in [
        (b"", ()),
        (b"none", log_headers(Kind.ROWS, [view.view_id], 1)),
        (good.value, log_headers(Kind.ROWS, [view.view_id], 1)),
        (good.value, [("layout", b"9"), ("kind", b"events")]),
        (good.value[:-9], log_headers(Kind.EVENTS, [view.view_id], 1, origin)),
        (good.value, [*log_headers(Kind.EVENTS, [view.view_id], 1), ("source", b"x")]),
    ]:
        log.put(0, value, headers)
    send_events(log, first, user, [7], source_offset=2)
    first.follow()
    second.follow(1)
    assert first.fold.damaged_count == 6
    assert first.states() == second.states()
    assert served(first.parts, user, FEATURES)["orders"] == 1


def test_an_erased_entity_stays_erased_whatever_its_newest_row_says(log: FakeLog, start: Callable[..., Copy]) -> None:
    copy, user = start(), users_of(0)[0]
    write_spent(copy, user, 5, NOW_US + 60_000_000)
    copy.writes.erase("shop.web.user", lambda _: [[user]], Durability.LOG, ("", 0), PRINCIPAL)
    copy.follow()
    assert served(copy.parts, user, FEATURES)["shop"] is None
    write_spent(copy, user, 6, NOW_US + 120_000_000)
    copy.follow()
    assert served(copy.parts, user, FEATURES)["shop"] == "direct"


def test_rows_carry_the_time_of_the_broker_and_their_place_in_the_log(log: FakeLog, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "shop", log, shop_state())
    (one, two) = copy.parts.keys_on(1, 2)
    for _ in range(2):
        copy.writes.write(VIEW, lambda _: [shop_batch([one, two])], Durability.LOG, ("", 0), PRINCIPAL)
    copy.follow()
    view = copy.parts.catalogue.view(VIEW)
    rows = [row for key, row in copy.parts.shards[1].scan(b"", 10) if key[-4:] == view.view_id.to_bytes(4, "big")]
    headers = [check_row(row) for row in rows]
    assert {(one.source_id, one.partition, one.write_time_us) for one in headers} == {(0, 1, NOW_US + 2_000)}
    assert sorted(one.offset for one in headers) == [1 << 20, 1 << 20 | 1]
    copy.close()


def test_entities_that_outgrow_their_row_are_left_out_alone(
    log: FakeLog, start: Callable[..., Copy], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = start(), start()
    (large, small) = users_of(0, 2)

    def send(text: str) -> None:
        columns = {
            "user_id": pa.array([large, small]),
            "event_time": pa.array([NOW_US, NOW_US], UTC),
            "cents": pa.array([1, 1]),
            "shop": pa.array([text, "small"]),
        }
        first.writes.write(SPENT, lambda _: [pa.RecordBatch.from_pydict(columns)], Durability.LOG, ("", 0), PRINCIPAL)

    for _ in range(40):
        send("x" * 200_000)
    first.follow(1)
    second.follow()
    assert 0 < first.fold.outgrown_count < 40
    assert first.states() == second.states()
    assert served(first.parts, small, FEATURES)["orders"] == 40
    assert served(first.parts, large, FEATURES)["orders"] == 40 - first.fold.outgrown_count


def test_writes_are_checked_before_the_log_has_them(log: FakeLog, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "shop", log, shop_state())
    with pytest.raises(InvalidArgument):
        copy.writes.write(VIEW, lambda _: [shop_batch([1], NOW_US + 3_600_000_000)], Durability.LOG, ("", 0), PRINCIPAL)
    with pytest.raises(FailedPrecondition):
        copy.writes.write(VIEW, lambda _: [shop_batch([1])], Durability.FSYNC, ("", 0), PRINCIPAL)
    assert log.messages == [[], []]
    answer = copy.writes.write(VIEW, lambda _: [shop_batch(range(3_000))], Durability.MEMORY, ("", 0), PRINCIPAL)
    assert (answer.row_count, answer.stale_count) == (3_000, 0)
    assert [position.offset for position in answer.positions] == [len(held) - 1 for held in log.messages]
    assert sum(read_message(one).batch.num_rows for held in log.messages for one in held) == 3_000
    copy.follow()
    assert sum(copy.next_offset(shard) for shard in range(2)) == sum(map(len, log.messages))
    copy.close()


def test_a_message_is_read_as_it_was_written(log: FakeLog) -> None:
    batch = shop_batch([1, 2])
    written = LogMessage(Kind.ROWS, [3, 4], 7, batch)
    read = read_message(Logged(0, 0, written.value(), written.headers()))
    assert read == LogMessage(Kind.ROWS, [3, 4], 7, read_ipc(written.value())[0])
    assert read.batch.equals(batch)
    with pytest.raises(DataLoss):
        read_message(Logged(0, 0, written.value(), []))


def test_rows_of_the_offline_store_keep_the_order_that_they_had(log: FakeLog, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "shop", log, shop_state())
    plain = Parts(tmp_path / "plain", state=shop_state())
    one, two = copy.parts.keys_on(1, 2)
    newer = replayed(shop_batch([one, two], age=31), write_us=NOW_US - 5, first_offset=70)
    older = replayed(shop_batch([one, two], age=30), write_us=NOW_US - 9, first_offset=60)
    replays = [
        LoggedReplays(copy.parts.catalogue, copy.parts.shards, copy.parts.clock, log),
        Replays(plain.catalogue, plain.shards, plain.clock),
    ]
    for batch in (newer, older):
        for one_of_both in replays:
            answer = one_of_both.write(VIEW, lambda batch=batch: [batch], Durability.LOG, (), PRINCIPAL)  # type: ignore[misc]
            assert answer.row_count == 2
    copy.follow()
    assert copy.parts.shards[1].status().content_hash == plain.shards[1].status().content_hash != 0
    copy.close()
    plain.close()


def test_rows_of_a_batch_of_windows_are_refused(log: FakeLog, start: Callable[..., Copy]) -> None:
    copy = start()
    replays = LoggedReplays(copy.parts.catalogue, copy.parts.shards, copy.parts.clock, log)
    with pytest.raises(FailedPrecondition) as error:
        replays.write(SPENT, list, Durability.LOG, (), PRINCIPAL)
    assert error.value.reason == "RING_REPLAY"


def replayed(batch: pa.RecordBatch, write_us: int, first_offset: int) -> pa.RecordBatch:
    """Rows with the columns of an order."""
    count = batch.num_rows
    times = [write_us] * count
    values = [times, times, [1] * count, [1] * count, range(first_offset, first_offset + count), [False] * count]
    for (name, kind), column in zip(ORDER_COLUMNS.items(), values, strict=True):
        numbers = pa.array(column, pa.bool_() if kind == pa.bool_() else pa.int64())
        batch = batch.append_column(pa.field(name, kind), numbers.cast(kind))
    return batch
