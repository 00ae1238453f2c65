"""Writes and erasures: what is taken, what is refused, what repeats safely."""

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from core_ext.keys import encode_key, storage_key
from core_ext.row_codec import decode_row
from feature_server.domain.shard_writes import Durability
from feature_server.domain.write_columns import ENCODE_ROWS, FUTURE_MAX_US, read_ipc
from feature_server.domain.writes import WriteAck
from headrace.errors import DataLoss, FailedPrecondition, HeadraceError, InvalidArgument, NotFound, PermissionDenied
from headrace.serving.principal import Principal
from tests.unit.feature_server.parts import (
    ENTITY,
    NOW_US,
    PRINCIPAL,
    VIEW,
    Parts,
    ipc,
    shop_batch,
    shop_state,
)


def write(
    parts: Parts, batch: pa.RecordBatch, request: tuple[str, int] = ("", 0), durability: Durability = Durability.LOG
) -> WriteAck:
    return parts.writes.write(VIEW, lambda target: [batch], durability, request, PRINCIPAL)


def stored(parts: Parts, key: int) -> list[Any] | None:
    view = parts.catalogue.view(VIEW)
    place = storage_key(view.entity.entity_id, encode_key([3], [key]), view.view_id)
    row = parts.shards[parts.shard_of(key)].read([place])[0]
    return None if row is None else decode_row(view.schema, row)[1]


def refused(call: Callable[[], object]) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        call()
    return caught.value


def with_column(name: str, values: pa.Array) -> pa.RecordBatch:
    batch = shop_batch([1, 2])
    return batch.set_column(batch.schema.names.index(name), name, values)


def test_every_type_is_stored_as_sent(parts: Parts) -> None:
    write(parts, shop_batch([7]))
    assert stored(parts, 7) == [30, "user 7", 0.5, [7, 8], [1.0, 2.0]]


def test_nulls_are_stored_as_nulls(parts: Parts) -> None:
    write(parts, with_column("codes", pa.array([None, [5]], pa.list_(pa.int64()))))
    assert stored(parts, 1) == [30, "user 1", 0.5, None, [1.0, 2.0]]


def test_nan_and_infinities_are_values(parts: Parts) -> None:
    write(parts, with_column("score", pa.array([float("nan"), float("-inf")], pa.float32())))
    row = stored(parts, 1)
    assert row is not None
    assert row[2] != row[2]
    assert stored(parts, 2) == [30, "user 2", float("-inf"), [2, 3], [1.0, 2.0]]


def test_rows_of_many_slices_and_shards_are_all_there(parts: Parts) -> None:
    keys = list(range(ENCODE_ROWS + 100))
    answer = write(parts, shop_batch(keys))
    assert (answer.row_count, answer.stale_count) == (len(keys), 0)
    assert [position.shard for position in answer.positions] == [0, 1]
    assert sum(position.offset + 1 for position in answer.positions) == len(keys)
    assert stored(parts, keys[-1]) == [30, f"user {keys[-1]}", 0.5, [keys[-1], keys[-1] + 1], [1.0, 2.0]]


def test_sliced_batch_is_read_from_its_offset(parts: Parts) -> None:
    write(parts, shop_batch([5, 6, 7]).slice(1, 2))
    assert stored(parts, 5) is None
    assert stored(parts, 7) == [30, "user 7", 0.5, [7, 8], [1.0, 2.0]]


def test_order_of_columns_does_not_matter(parts: Parts) -> None:
    batch = shop_batch([1])
    write(parts, batch.select(batch.schema.names[::-1]))
    assert stored(parts, 1) == [30, "user 1", 0.5, [1, 2], [1.0, 2.0]]


def test_older_rows_are_counted_and_change_nothing(parts: Parts) -> None:
    write(parts, shop_batch([1, 2], NOW_US, 40))
    answer = write(parts, shop_batch([1, 3], NOW_US - 1, 50))
    assert (answer.row_count, answer.stale_count) == (2, 1)
    row = stored(parts, 1)
    assert row is not None
    assert row[0] == 40


BAD_BATCHES = {
    "unknown column": (shop_batch([1, 2]).append_column("extra", pa.array([1, 2])), "UNKNOWN_COLUMN", "extra"),
    "missing feature": (shop_batch([1, 2]).drop_columns(["age"]), "MISSING_COLUMN", "age"),
    "missing key": (shop_batch([1, 2]).drop_columns(["user_id"]), "MISSING_COLUMN", "user_id"),
    "missing event time": (shop_batch([1, 2]).drop_columns(["event_time"]), "MISSING_COLUMN", "event_time"),
    "column twice": (shop_batch([1, 2]).append_column("age", pa.array([1, 2])), "DUPLICATE_COLUMN", "age"),
    "wider integer": (with_column("age", pa.array([1, 2], pa.int64())), "WRONG_TYPE", "age"),
    "double for float": (with_column("score", pa.array([1.0, 2.0])), "WRONG_TYPE", "score"),
    "large string": (with_column("name", pa.array(["a", "b"], pa.large_string())), "WRONG_TYPE", "name"),
    "list of another width": (
        with_column("pair", pa.array([[1.0]] * 2, pa.list_(pa.float64(), 1))),
        "WRONG_TYPE",
        "pair",
    ),
    "string key": (with_column("user_id", pa.array(["1", "2"])), "WRONG_TYPE", "user_id"),
    "null key": (with_column("user_id", pa.array([1, None], pa.int64())), "NULL_ENTITY_KEY", "user_id[1]"),
    "naive time": (with_column("event_time", pa.array([0, 0], pa.timestamp("us"))), "NAIVE_TIME", "event_time"),
    "time as number": (with_column("event_time", pa.array([0, 0])), "WRONG_TYPE", "event_time"),
    "null time": (
        with_column("event_time", pa.array([0, None], pa.timestamp("us", "UTC"))),
        "EVENT_TIME_REQUIRED",
        "event_time[1]",
    ),
    "nanoseconds": (
        with_column("event_time", pa.array([0, 1], pa.timestamp("ns", "UTC"))),
        "TOO_PRECISE",
        "event_time",
    ),
    "far future": (
        with_column("event_time", pa.array([0, NOW_US + FUTURE_MAX_US + 1], pa.timestamp("us", "UTC"))),
        "EVENT_TIME_IN_FUTURE",
        "event_time[1]",
    ),
    "null list element": (with_column("codes", pa.array([[1], [None]], pa.list_(pa.int64()))), "BAD_VALUE", "codes"),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_bad_batch_is_refused_whole_with_its_column(parts: Parts, name: str) -> None:
    batch, reason, where = BAD_BATCHES[name]
    error = refused(lambda: write(parts, batch))
    assert (type(error), error.reason, error.field) == (InvalidArgument, reason, where)
    assert stored(parts, 1) is None


def test_times_of_another_zone_and_whole_unit_are_exact(parts: Parts) -> None:
    zone = pa.array([datetime(2020, 1, 1, 12, tzinfo=UTC)] * 2, pa.timestamp("s", "America/New_York"))
    write(parts, with_column("event_time", zone))
    assert stored(parts, 1) is not None


def test_event_time_at_the_edge_of_the_future_is_taken(parts: Parts) -> None:
    write(parts, shop_batch([1], NOW_US + FUTURE_MAX_US))
    assert stored(parts, 1) is not None


@pytest.mark.parametrize("data", [b"", b"nothing", ipc(shop_batch([1]))[:-200], b"\xff\xff\xff\xff\xff\xff\xff\x7f"])
def test_bytes_that_are_no_arrow_stream_are_refused(data: bytes) -> None:
    error = refused(lambda: read_ipc(data))
    assert (type(error), error.reason) == (InvalidArgument, "MALFORMED_ARROW")


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_stream_is_refused_before_it_is_expanded(codec: str) -> None:
    batch = shop_batch(range(1_000))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_batch(batch)
    assert refused(lambda: read_ipc(sink.getvalue().to_pybytes())).reason == "COMPRESSED_ARROW"


def test_repeated_request_is_answered_as_before_and_writes_nothing(parts: Parts) -> None:
    request = (str(uuid.UUID(int=1)), 5)
    first = write(parts, shop_batch([1], NOW_US, 40), request)
    assert write(parts, shop_batch([1], NOW_US, 40), request) == first
    assert sum(status.offset + 1 for status in parts.shards.statuses()) == 1


def test_request_id_of_another_write_is_refused(parts: Parts) -> None:
    write(parts, shop_batch([1]), (str(uuid.UUID(int=1)), 5))
    assert refused(lambda: write(parts, shop_batch([2]), (str(uuid.UUID(int=1)), 6))).reason == "REQUEST_ID_REUSED"
    assert refused(lambda: write(parts, shop_batch([2]), ("not a uuid", 6))).reason == "BAD_REQUEST_ID"


def test_unknown_and_retired_views_are_refused(parts: Parts) -> None:
    batch = shop_batch([1])

    def write_to(view: str) -> Callable[[], object]:
        return lambda: parts.writes.write(view, lambda target: [batch], Durability.LOG, ("", 0), PRINCIPAL)

    assert isinstance(refused(write_to("shop.web.profil@v1")), NotFound)
    parts.catalogue.publish(shop_state(2, retired=["shop.web.profile"]))
    assert isinstance(refused(write_to(VIEW)), FailedPrecondition)


def test_write_to_a_quarantined_shard_is_refused_before_any_row(parts: Parts) -> None:
    bad, good = parts.keys_on(0, 1)[0], parts.keys_on(1, 1)[0]
    parts.shards[0].quarantine(DataLoss("damaged", reason="STORAGE_CORRUPT"))
    assert refused(lambda: write(parts, shop_batch([good, bad]))).reason == "SHARD_QUARANTINED"
    assert stored(parts, good) is None
    assert write(parts, shop_batch([good])).row_count == 1


def erase(parts: Parts, keys: Sequence[int], request: tuple[str, int] = ("", 0)) -> WriteAck:
    return parts.writes.erase(ENTITY, lambda entity: [(key,) for key in keys], Durability.LOG, request, PRINCIPAL)


def test_erased_entity_takes_only_rows_that_happen_later(parts: Parts) -> None:
    write(parts, shop_batch([1, 2]))
    answer = erase(parts, [1, 1])
    assert answer.row_count == 1
    assert stored(parts, 1) == []
    assert stored(parts, 2) is not None
    assert write(parts, shop_batch([1], NOW_US)).stale_count == 1
    assert stored(parts, 1) == []
    parts.clock.now_us += 10
    write(parts, shop_batch([1], NOW_US + 5))
    assert stored(parts, 1) == [30, "user 1", 0.5, [1, 2], [1.0, 2.0]]


def test_repeated_erasure_leaves_what_happened_after_the_first(parts: Parts) -> None:
    request = (str(uuid.UUID(int=1)), 5)
    first = erase(parts, [1], request)
    parts.clock.now_us += 10
    write(parts, shop_batch([1], NOW_US + 5))
    assert erase(parts, [1], request) == first
    assert stored(parts, 1) == [30, "user 1", 0.5, [1, 2], [1.0, 2.0]]


def test_erasure_covers_rows_of_the_near_future_and_those_still_in_memory(parts: Parts) -> None:
    write(parts, shop_batch([1], NOW_US + FUTURE_MAX_US))
    write(parts, shop_batch([2], NOW_US), durability=Durability.MEMORY)
    erase(parts, [1, 2])
    assert stored(parts, 1) == []
    assert stored(parts, 2) == []


def test_erasure_of_an_unknown_entity_or_key_type_is_refused(parts: Parts) -> None:
    error = refused(
        lambda: parts.writes.erase("shop.web.usr", lambda entity: [(1,)], Durability.LOG, ("", 0), PRINCIPAL)
    )
    assert (type(error), error.reason) == (NotFound, "UNKNOWN_ENTITY")
    error = refused(lambda: parts.writes.erase(ENTITY, lambda entity: [("x",)], Durability.LOG, ("", 0), PRINCIPAL))
    assert (type(error), error.reason) == (InvalidArgument, "BAD_ENTITY_KEY")


def test_writes_and_erasures_need_their_permissions(parts: Parts) -> None:
    reader = Principal("a.b", frozenset({"FEATURE_READ"}))
    batch = shop_batch([1])
    for call in (
        lambda: parts.writes.write(VIEW, lambda target: [batch], Durability.LOG, ("", 0), reader),
        lambda: parts.writes.target(VIEW, reader),
        lambda: parts.writes.erase(ENTITY, lambda entity: [(1,)], Durability.LOG, ("", 0), reader),
    ):
        assert isinstance(refused(call), PermissionDenied)
