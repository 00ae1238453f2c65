"""Second stage on real shards: every event counts once, whatever is repeated, cut off, refused or damaged."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_server.domain.input_marks import InputMark, decode_mark, mark_key
from feature_server.pipeline.consumer import Event
from feature_server.pipeline.keyed import POSITION, WRITE_TIME, read_keyed, write_keyed
from headrace.errors import DataLoss, FailedPrecondition, ResourceExhausted, Unavailable
from tests.unit.feature_server.parts import NOW_US, state_of
from tests.unit.feature_server.pipeline.streams import (
    LAST,
    SPENT,
    TOPIC,
    Stage,
    definitions,
    message,
    order,
    partition_of,
    served,
    users_of,
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    opened = Stage(tmp_path / "store")
    yield opened
    opened.close()


def test_one_event_reaches_every_view_of_its_source(stage: Stage) -> None:
    user = users_of(0)[0]
    stage.apply(0, message(0, [order(user, 250)], source_offset=7))
    assert stage.values(user) == {"orders": 1, "cents": 250, "shops": ["a"], "shop": "a", "last_cents": 250}


def test_messages_read_again_change_nothing(stage: Stage) -> None:
    user = users_of(0)[0]
    first = message(0, [order(user, 1), order(user, 2)], source_offset=0)
    second = message(1, [order(user, 4)], source_offset=1)
    stage.apply(0, first, second)
    stage.apply(0, first)
    stage.apply(0, second, first)
    assert stage.values(user)["cents"] == 7
    assert stage.meters.stage("apply", "shop.web.orders").replayed_count == 2 * (2 + 1 + 2)


def test_an_event_that_the_first_stage_sent_twice_counts_once(stage: Stage) -> None:
    user = users_of(0)[0]
    stage.apply(0, message(0, [order(user, 1)], source_offset=5))
    stage.apply(0, message(1, [order(user, 1)], source_offset=5), message(2, [order(user, 8)], source_offset=6))
    assert stage.values(user)["cents"] == 9


def test_source_partitions_are_counted_apart(stage: Stage) -> None:
    user = users_of(0)[0]
    stage.apply(0, message(0, [order(user, 1)], source_offset=5, source_partition=0))
    stage.apply(0, message(1, [order(user, 2)], source_offset=5, source_partition=1))
    assert stage.values(user)["cents"] == 3


def test_a_restart_begins_at_the_mark_and_takes_nothing_twice(tmp_path: Path) -> None:
    user = users_of(1)[0]
    messages = [message(at, [order(user, 1 << at)], source_offset=at) for at in range(4)]
    stage = Stage(tmp_path / "store")
    assert stage.applying.start(TOPIC, 1) is None
    stage.apply(1, *messages[:2])
    stage.apply(1, messages[2])
    stage.close()  # as if killed before it settled
    stage = Stage(tmp_path / "store")
    assert stage.applying.start(TOPIC, 1) == 2
    assert stage.applying.start(TOPIC, 0) is None
    stage.apply(1, *messages)  # as if the group's offset had been trusted
    assert stage.values(user)["cents"] == 15
    stage.close()


def test_a_view_without_any_mark_misses_nothing_of_a_unit_that_was_cut_off(tmp_path: Path) -> None:
    user = users_of(0)[0]
    stage = Stage(tmp_path / "store")
    # The mark and the rows of the first view are read, then the mark of the second.
    writes = iter([None, None, Unavailable("the disk fails", reason="STORAGE_IO")])
    faults = stage.parts.faults[0]
    faults.after_read = lambda _: setattr(faults, "write_error", next(writes, faults.write_error))
    with pytest.raises(Unavailable):
        stage.apply(0, message(40, [order(user, 1)], source_offset=0))
    stage.close()
    stage = Stage(tmp_path / "store")
    assert stage.applying.start(TOPIC, 0) == 40
    stage.apply(0, message(40, [order(user, 1)], source_offset=0))
    assert stage.values(user) == {"orders": 1, "cents": 1, "shops": ["a"], "shop": "a", "last_cents": 1}
    stage.close()


def test_events_that_make_no_rows_are_settled(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "store", state_of(definitions(filter_text="cents > 10"), retired=["shop.web.last"]))
    stage.apply(0, *(message(at, [order(users_of(0)[0], 1)], source_offset=at) for at in range(5)))
    assert stage.applying.start(TOPIC, 0) is None
    stage.apply(0, message(5, [order(users_of(0)[0], 1)], source_offset=5))
    stage.applying.settle()
    stage.close()
    stage = Stage(tmp_path / "store")
    assert stage.applying.start(TOPIC, 0) == 6
    stage.close()


def test_marks_move_with_the_rows_or_not_at_all(stage: Stage) -> None:
    user = users_of(0)[0]
    view = stage.parts.catalogue.view(SPENT)
    faults = stage.parts.faults[0]
    faults.write_error = Unavailable("the disk fails", reason="STORAGE_IO")
    sent = message(0, [order(user, 1)], source_offset=0)
    with pytest.raises(Unavailable):
        stage.apply(0, sent)
    assert not stage.applying.is_writable(TOPIC, 0)
    assert stage.applying.is_writable(TOPIC, 1)
    faults.write_error = None
    stage.parts.shards[0].resume()
    assert stage.parts.shards[0].read([mark_key(view.view_id, 0)]) == [None]
    stage.apply(0, sent)
    assert stage.values(user)["cents"] == 1
    mark = decode_mark(stage.parts.shards[0].read([mark_key(view.view_id, 0)])[0] or b"")
    assert mark == InputMark(TOPIC.topic_id, 1, {(1, 0): 0})


def test_rows_and_mark_lie_in_one_write(stage: Stage) -> None:
    faults = stage.parts.faults[0]
    faults.write_sizes.clear()
    first, second, _ = users_of(0)
    stage.apply(0, message(0, [order(first, 1), order(second, 2)], source_offset=0))
    # Of each view two rows, its mark and the record of the shard; of the first where the entity begins as well.
    assert faults.write_sizes == [5, 4]


def test_marks_are_read_anew_when_a_partition_is_begun_again(stage: Stage) -> None:
    user = users_of(0)[0]
    sent = message(0, [order(user, 1)], source_offset=0)
    stage.apply(0, sent)
    stage.parts.shards[0].empty()
    assert stage.applying.start(TOPIC, 0) is None
    stage.apply(0, sent)
    assert stage.values(user)["cents"] == 1


def lacks_its_function(*_: object) -> None:
    raise FailedPrecondition("its function is not there", reason="TEST")


def test_events_wait_while_a_view_that_they_feed_cannot_be_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = users_of(0)[0]
    sent = message(0, [order(user, 1)], source_offset=0)
    with monkeypatch.context() as patch:
        patch.setattr("feature_server.domain.layouts.computed_layout", lacks_its_function)
        stage = Stage(tmp_path / "store")
    with pytest.raises(FailedPrecondition, match="its function is not there"):
        stage.apply(0, sent)
    stage.close()
    stage = Stage(tmp_path / "store")
    assert stage.values(user)["last_cents"] is None
    stage.apply(0, sent)
    assert (stage.values(user)["cents"], stage.values(user)["last_cents"]) == (1, 1)
    stage.close()


def test_a_retired_view_that_cannot_be_computed_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = users_of(0)[0]
    with monkeypatch.context() as patch:
        patch.setattr("feature_server.domain.layouts.computed_layout", lacks_its_function)
        stage = Stage(tmp_path / "store", state_of(definitions(), retired=["shop.web.spent"]))
    stage.apply(0, message(0, [order(user, 1)], source_offset=0))
    assert served(stage.parts, user, {"cents": f"{LAST}:last_cents"}) == {"cents": 1}
    stage.close()


def test_a_full_disk_holds_the_shard_back(stage: Stage) -> None:
    stage.parts.faults[0].write_error = ResourceExhausted("no space", reason="DISK_FULL")
    with pytest.raises(ResourceExhausted):
        stage.apply(0, message(0, [order(users_of(0)[0], 1)], source_offset=0))


def test_a_topic_made_anew_is_an_alarm(stage: Stage) -> None:
    stage.apply(0, message(0, [order(users_of(0)[0], 1)], source_offset=0))
    other = replace(TOPIC, topic_id=bytes(16))
    with pytest.raises(DataLoss, match="was made anew"):
        stage.applying.start(other, 0)


def test_a_damaged_message_is_set_aside_and_the_others_are_taken(stage: Stage) -> None:
    user = users_of(0)[0]
    good = message(0, [order(user, 1)], source_offset=0)
    damaged = Event(1, good.value[:-40], NOW_US, good.headers)
    unknown = Event(2, good.value, NOW_US, [])
    stage.apply(0, good, damaged, unknown, message(3, [order(user, 2)], source_offset=1))
    assert [(one.offset, one.reason) for one in stage.buried] == [(1, "KEYED_MESSAGE"), (2, "KEYED_MESSAGE")]
    assert stage.values(user)["cents"] == 3


def test_an_event_that_outgrows_its_row_is_set_aside_alone(stage: Stage) -> None:
    big, small, _ = users_of(0)
    events = [order(big, 1, shop="x" * 400_000), order(small, 2), order(big, 4, NOW_US + 1, shop="y" * 400_000)]
    events += [order(big, 8, NOW_US + 2, shop="z" * 400_000), order(small, 16)]
    stage.apply(0, message(0, events, source_offset=3))
    assert {one.reason for one in stage.buried} == {"ROW_TOO_LARGE"}
    assert {(one.offset, one.partition) for one in stage.buried} == {(3, 0)}
    assert stage.values(small)["cents"] == 18
    buried = [pa.ipc.open_stream(one.payload).read_all().to_pylist() for one in stage.buried]
    kept = stage.values(big)["cents"] + sum(rows[0]["cents"] for rows in buried)
    assert kept == 13 and all(len(rows) == 1 for rows in buried)


def test_direct_writes_and_streams_of_one_view_add_up(stage: Stage) -> None:
    user = users_of(0)[0]
    stage.apply(0, message(900, [order(user, 1, NOW_US)], source_offset=900))
    stage.write_direct(user, 2, NOW_US - 1)
    stage.apply(0, message(901, [order(user, 4, NOW_US - 2)], source_offset=901))
    assert stage.values(user) == {
        "orders": 3,
        "cents": 7,
        "shops": ["a", "direct", "a"],
        "shop": "a",
        "last_cents": 1,
    }


def test_what_the_filter_leaves_out_counts_nowhere(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "store", state_of(definitions(filter_text="cents > 10")))
    user = users_of(0)[0]
    stage.apply(0, message(0, [order(user, 5), order(user, 20), order(user, 7)], source_offset=0))
    assert stage.values(user)["orders"] == 1
    stage.apply(0, message(1, [order(user, 6)], source_offset=1))
    assert stage.values(user)["orders"] == 1
    stage.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cut_into_batches_with_any_replay_leaves_the_same_values(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    users = users_of(0)
    events = data.draw(
        st.lists(
            st.tuples(st.sampled_from(users), st.integers(0, 99), st.integers(0, 3 * 86_400)), min_size=1, max_size=30
        )
    )
    log = [
        message(
            at, [order(user, cents, NOW_US - age * 1_000_000, f"s{at}")], source_offset=at // 2, source_partition=at % 2
        )
        for at, (user, cents, age) in enumerate(events)
    ]
    plain = Stage(tmp_path_factory.mktemp("plain") / "store")
    for one in log:
        plain.apply(0, one)
    folder = tmp_path_factory.mktemp("cut") / "store"
    cut = Stage(folder)
    at = 0
    while at < len(log):
        back = data.draw(st.integers(0, at))
        end = data.draw(st.integers(at + 1, len(log)))
        cut.apply(0, *log[back:end])
        at = end
        if data.draw(st.booleans()):
            cut.close()
            cut = Stage(folder)
    assert [cut.values(user) for user in users] == [plain.values(user) for user in users]
    plain.close()
    cut.close()


def test_a_message_from_before_a_view_knew_its_columns_is_passed_over(stage: Stage) -> None:
    user = users_of(0)[0]
    sent = message(0, [order(user, 1)], source_offset=0)
    events = read_keyed(sent)
    older = events.batch.drop_columns(["shop"])
    system = {POSITION: pa.array(events.positions), WRITE_TIME: pa.array(events.write_us)}
    value = write_keyed(
        pa.RecordBatch.from_pydict({**dict(zip(older.schema.names, older.columns, strict=True)), **system})
    )
    stage.apply(0, sent._replace(value=value), message(1, [order(user, 2)], source_offset=1))
    assert stage.values(user) == {"orders": 1, "cents": 2, "shops": ["a"], "shop": "a", "last_cents": 2}
    assert stage.meters.stage("apply", "shop.web.orders").skipped_count == 1


def test_marks_are_checked_before_they_are_believed() -> None:
    mark = InputMark(bytes(range(16)), 12, {(3, 1): 2**50, (3, 0): 7})
    data = mark.encode()
    assert decode_mark(data) == mark
    for at in range(len(data)):
        damaged = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(DataLoss):
            decode_mark(damaged)
        with pytest.raises(DataLoss):
            decode_mark(data[:at])


def test_partitions_of_users_are_those_of_the_shards() -> None:
    assert {partition_of(user) for user in users_of(0)} == {0}
