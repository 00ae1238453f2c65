"""Reads over real shards: fills beside writes, deadlines, tokens, damaged shards."""

import threading
from collections.abc import Callable, Sequence

import pytest

from core_ext import rules
from feature_server.domain.fetches import CHUNK_KEYS
from feature_server.domain.reads import Asked
from feature_server.domain.shard import Position, ShardState
from feature_server.domain.shard_writes import Durability
from headrace.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from headrace.serving.principal import Principal
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.unit.feature_server.parts import NOW_US, PRINCIPAL, SERVICE, VIEW, Parts, shop_batch, shop_state

LIMIT_S = 10.0
FAIL = pb.PARTIAL_POLICY_FAIL


def request(keys: Sequence[int], **options: object) -> bytes:
    message = pb.GetOnlineFeaturesRequest(
        feature_service=SERVICE,
        entity_columns=[pb.EntityColumn(join_key="user_id", int64_values=keys)],
        options=pb.ReadOptions(**options),  # type: ignore[arg-type]  # fields of the message by name
    )
    return message.SerializeToString()


def get(parts: Parts, data: bytes, remaining_s: float | None = None) -> pb.GetOnlineFeaturesResponse:
    return pb.GetOnlineFeaturesResponse.FromString(parts.reads.get(PRINCIPAL, data, lambda: remaining_s))


def ages(answer: pb.GetOnlineFeaturesResponse) -> list[int]:
    values = answer.columns[0].values
    return [int.from_bytes(values[at : at + 4], "little", signed=True) for at in range(0, len(values), 4)]


def write(parts: Parts, keys: Sequence[int], age: int, event_time_us: int = NOW_US) -> Sequence[Position]:
    batch = shop_batch(keys, event_time_us, age)
    return parts.writes.write(VIEW, lambda target: [batch], Durability.LOG, ("", 0), PRINCIPAL).positions


def token(position: Position) -> pb.WriteToken:
    return pb.WriteToken(shard=position.shard, epoch=position.epoch, offset=position.offset)


def refused(call: Callable[[], object]) -> HeadraceError:
    with pytest.raises(HeadraceError) as caught:
        call()
    return caught.value


def test_read_through_the_table_equals_the_read_from_disk(parts: Parts) -> None:
    write(parts, [1, 2, 3], 40)
    from_disk = parts.reads.get(PRINCIPAL, request([3, 1, 9, 1]), lambda: None)
    assert parts.table.stats()["entity_count"] == 3
    assert parts.reads.get(PRINCIPAL, request([3, 1, 9, 1]), lambda: None) == from_disk
    answer = pb.GetOnlineFeaturesResponse.FromString(from_disk)
    assert ages(answer) == [40, 40, 0, 40]
    assert answer.columns[0].statuses == bytes([rules.PRESENT, rules.PRESENT, rules.MISSING, rules.PRESENT])


def test_write_between_the_read_of_disk_and_the_fill_is_not_lost(parts: Parts) -> None:
    write(parts, [1], 40)
    shard = parts.shard_of(1)

    def overtake(keys: Sequence[bytes]) -> None:
        parts.faults[shard].after_read = lambda keys: None
        write(parts, [1], 41)

    parts.faults[shard].after_read = overtake
    assert ages(get(parts, request([1]))) == [40]  # what the disk held when it was asked
    assert ages(get(parts, request([1]))) == [41]  # and never again
    assert parts.table.stats()["dropped_fill_count"] == 1


def test_acknowledged_write_is_seen_by_every_later_read_beside_readers(parts: Parts) -> None:
    stop = threading.Event()
    keys = list(range(20))
    write(parts, keys, 0)

    def read() -> None:
        while not stop.is_set():
            get(parts, request(keys))
            parts.table.clear()

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for age in range(1, 60):
            write(parts, keys, age)
            assert ages(get(parts, request(keys))) == [age] * len(keys)
    finally:
        stop.set()
        for reader in readers:
            reader.join(LIMIT_S)


def test_rows_after_the_deadline_are_unavailable_and_the_rest_is_answered(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = parts.keys_on(0, 2 * CHUNK_KEYS)
    write(parts, keys, 40)
    clock = SlowClock()
    for module in ("reads", "fetches"):
        monkeypatch.setattr(f"feature_server.domain.{module}.time", clock)
    parts.faults[0].after_read = lambda read: clock.advance(1.0)
    answer = get(parts, request(keys), 0.5)
    late = rules.UNAVAILABLE | rules.CAUSE_DEADLINE
    assert answer.columns[0].statuses == bytes([rules.PRESENT] * CHUNK_KEYS + [late] * CHUNK_KEYS)
    assert answer.columns[2].statuses == answer.columns[0].statuses
    parts.faults[0].after_read = lambda read: None
    assert get(parts, request(keys)).columns[0].statuses == bytes([rules.PRESENT] * len(keys))


class SlowClock:
    """Stands for the time module: reads take as long as the test says."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def test_deadline_fails_the_call_where_partial_answers_are_refused(parts: Parts) -> None:
    write(parts, [1], 40)
    error = refused(lambda: get(parts, request([1], partial_policy=FAIL), 0.0))
    assert isinstance(error, DeadlineExceeded)
    assert get(parts, request([1]), 0.0).columns[0].statuses == bytes([rules.UNAVAILABLE | rules.CAUSE_DEADLINE])


def test_rows_of_a_quarantined_shard_are_unavailable_and_the_others_are_read(parts: Parts) -> None:
    bad, good = parts.keys_on(0, 1)[0], parts.keys_on(1, 1)[0]
    write(parts, [bad, good], 40)
    parts.shards[0].quarantine(DataLoss("damaged", reason="STORAGE_CORRUPT"))
    answer = get(parts, request([bad, good]))
    assert answer.columns[0].statuses == bytes([rules.UNAVAILABLE | rules.CAUSE_QUARANTINED, rules.PRESENT])
    error = refused(lambda: get(parts, request([bad, good], partial_policy=FAIL)))
    assert (type(error), error.reason) == (DataLoss, "SHARD_QUARANTINED")


def test_damaged_row_quarantines_its_shard_and_is_never_served(parts: Parts) -> None:
    bad = parts.keys_on(0, 1)[0]
    write(parts, [bad], 40)
    shard = parts.shards[0]
    key = parts.core.serve(request([bad]), NOW_US)
    stored_key = key.storage_keys[0]  # type: ignore[union-attr]  # a miss, as nothing was read yet
    row = shard.read([stored_key])[0]
    assert row is not None
    assert shard._store is not None
    shard._store.write([stored_key], [row[:-5] + bytes([row[-5] ^ 1]) + row[-4:]], sync=False)
    answer = get(parts, request([bad]))
    assert answer.columns[0].statuses == bytes([rules.UNAVAILABLE | rules.CAUSE_QUARANTINED])
    assert shard.state is ShardState.QUARANTINED


def test_read_with_its_own_token_sees_the_write(parts: Parts) -> None:
    positions = write(parts, [1], 40)
    tokens = [token(position) for position in positions]
    assert ages(get(parts, request([1], min_offsets=tokens))) == [40]
    assert ages(get(parts, request([1], min_offsets=tokens))) == [40]


def test_read_waits_for_a_write_that_is_on_its_way(parts: Parts) -> None:
    batch = shop_batch([1], NOW_US, 40)
    shard = parts.shard_of(1)
    positions = parts.writes.write(VIEW, lambda target: [batch], Durability.MEMORY, ("", 0), PRINCIPAL).positions
    later = threading.Thread(target=parts.shards[shard].commit_queued)
    later.start()
    assert ages(get(parts, request([1], min_offsets=[token(positions[0])]), LIMIT_S)) == [40]
    later.join(LIMIT_S)


@pytest.mark.parametrize(
    ("wanted", "error", "reason"),
    [
        ((9, 1, 0), InvalidArgument, "UNKNOWN_SHARD"),
        ((-1, 1, 0), InvalidArgument, "UNKNOWN_SHARD"),
        ((0, 7, 0), FailedPrecondition, "EPOCH_MISMATCH"),
        ((0, 1, 99), DeadlineExceeded, "MIN_OFFSET_NOT_REACHED"),
    ],
)
def test_tokens_that_cannot_be_met_are_refused(
    parts: Parts, wanted: tuple[int, int, int], error: type[HeadraceError], reason: str
) -> None:
    tokens = [pb.WriteToken(shard=wanted[0], epoch=wanted[1], offset=wanted[2])]
    found = refused(lambda: get(parts, request([1], min_offsets=tokens), 0.05))
    assert (type(found), found.reason) == (error, reason)


def test_list_of_features_is_read_by_name_and_by_handle(parts: Parts) -> None:
    write(parts, [1], 40)
    features = [f"{VIEW}:score", f"{VIEW}:age"]
    columns = [pb.EntityColumn(join_key="user_id", int64_values=[1])]
    by_name = get(parts, pb.GetOnlineFeaturesRequest(features=features, entity_columns=columns).SerializeToString())
    assert [column.name for column in by_name.columns] == features
    handle = parts.reads.prepare(PRINCIPAL, "", features).handle
    by_handle = get(parts, pb.GetOnlineFeaturesRequest(handle=handle, entity_columns=columns).SerializeToString())
    assert [column.name for column in by_handle.columns] == ["", ""]
    assert [column.values for column in by_handle.columns] == [column.values for column in by_name.columns]


def test_handles_are_the_same_on_every_server_and_follow_the_selection(parts: Parts) -> None:
    features = [f"{VIEW}:score", f"{VIEW}:age"]
    handle = parts.reads.prepare(PRINCIPAL, "", features).handle
    parts.catalogue.publish(shop_state(revision=2))
    assert parts.reads.prepare(PRINCIPAL, "", features).handle == handle
    assert parts.reads.prepare(PRINCIPAL, "", features[::-1]).handle != handle
    by_service = parts.reads.prepare(PRINCIPAL, SERVICE, [])
    assert by_service.handle == parts.reads.prepare(PRINCIPAL, f"{SERVICE}@v1", []).handle != handle
    assert by_service.feature_service == f"{SERVICE}@v1"


@pytest.mark.parametrize(
    ("selection", "error", "reason", "near"),
    [
        ({"feature_service": "shop.web.modle"}, NotFound, "UNKNOWN_FEATURE_SERVICE", "shop.web.model"),
        ({"feature_service": "shop.web.model@v2"}, NotFound, "UNKNOWN_FEATURE_SERVICE", "shop.web.model@v1"),
        ({"features": ["shop.web.profile@v1:aeg"]}, NotFound, "UNKNOWN_FEATURE", "age"),
        ({"features": ["shop.web.profil@v1:age"]}, NotFound, "UNKNOWN_FEATURE_VIEW", "shop.web.profile@v1"),
        ({"features": ["age"]}, InvalidArgument, "INVALID_NAME", ""),
        ({"handle": bytes(32)}, FailedPrecondition, "UNKNOWN_HANDLE", ""),
        ({"handle": b"short"}, InvalidArgument, "BAD_HANDLE", ""),
        ({}, InvalidArgument, "NO_SELECTION", ""),
        ({"feature_service": SERVICE, "features": ["x"]}, InvalidArgument, "TWO_SELECTIONS", ""),
    ],
)
def test_selection_that_is_not_registered_is_refused_with_what_is_near(
    parts: Parts, selection: dict[str, object], error: type[HeadraceError], reason: str, near: str
) -> None:
    columns = [pb.EntityColumn(join_key="user_id", int64_values=[1])]
    message = pb.GetOnlineFeaturesRequest(entity_columns=columns, **selection)  # type: ignore[arg-type]  # by name
    found = refused(lambda: get(parts, message.SerializeToString()))
    assert (type(found), found.reason) == (error, reason)
    assert near in found.message


def test_retired_service_is_refused(parts: Parts) -> None:
    parts.catalogue.publish(shop_state(revision=2, retired=[SERVICE]))
    columns = [pb.EntityColumn(join_key="user_id", int64_values=[1])]
    message = pb.GetOnlineFeaturesRequest(feature_service=f"{SERVICE}@v1", entity_columns=columns)
    found = refused(lambda: get(parts, message.SerializeToString()))
    assert (type(found), found.reason) == (FailedPrecondition, "FEATURE_SERVICE_RETIRED")


def test_reads_need_their_permission(parts: Parts) -> None:
    stranger = Principal("a.b", frozenset({"FEATURE_WRITE"}))
    for call in (
        lambda: parts.reads.get(stranger, request([1]), lambda: None),
        lambda: parts.reads.prepare(stranger, SERVICE, []),
    ):
        assert isinstance(refused(call), PermissionDenied)


def turn_of(*requests: bytes, remaining_s: float | None = None) -> list[Asked]:
    return [(PRINCIPAL, data, lambda: remaining_s) for data in requests]


def read_sizes(parts: Parts) -> dict[int, list[int]]:
    """Per shard, how many keys each read of it asks for, from now on."""
    sizes: dict[int, list[int]] = {}

    def count(shard: int) -> Callable[[Sequence[bytes]], None]:
        return lambda keys: sizes.setdefault(shard, []).append(len(keys))

    for shard, faults in enumerate(parts.faults):
        faults.after_read = count(shard)
    return sizes


def test_reads_of_one_turn_read_each_shard_once_and_answer_as_alone(parts: Parts) -> None:
    first, second = parts.keys_on(0, 3), parts.keys_on(1, 2)
    write(parts, [*first, *second], 40)
    requests = [request([key]) for key in first] + [request(second), request([*first, *second]), request([9_999])]
    alone = [parts.reads.get(PRINCIPAL, data, lambda: None) for data in requests]
    parts.table.clear()
    sizes = read_sizes(parts)
    assert parts.reads.get_turn(turn_of(*requests)) == alone
    del sizes[parts.shard_of(9_999)]
    assert all(len(counts) == 1 for counts in sizes.values())
    assert parts.reads.get_turn(turn_of(*requests)) == alone
    assert all(len(counts) == 1 for counts in sizes.values())  # by now all are in the table


def test_read_refused_in_a_turn_leaves_the_others_alone(parts: Parts) -> None:
    write(parts, [1], 40)
    good, bad = request([1]), request([], partial_policy=FAIL)
    outcomes = parts.reads.get_turn([*turn_of(good, bad), (Principal("nobody", frozenset()), good, lambda: None)])
    assert outcomes[0] == parts.reads.get(PRINCIPAL, good, lambda: None)
    assert [type(outcome) for outcome in outcomes[1:]] == [InvalidArgument, PermissionDenied]


def test_deadline_of_one_read_of_a_turn_is_its_own(parts: Parts) -> None:
    write(parts, [1, 2], 40)
    late, failing, good = request([1]), request([1], partial_policy=FAIL), request([2])
    sizes = read_sizes(parts)
    outcomes = parts.reads.get_turn([*turn_of(late, failing, remaining_s=0.0), *turn_of(good)])
    assert isinstance(outcomes[0], bytes)
    answer = pb.GetOnlineFeaturesResponse.FromString(outcomes[0])
    assert answer.columns[0].statuses == bytes([rules.UNAVAILABLE | rules.CAUSE_DEADLINE])
    assert isinstance(outcomes[1], DeadlineExceeded)
    assert outcomes[2] == parts.reads.get(PRINCIPAL, good, lambda: None)
    assert sizes == {parts.shard_of(2): [1]}


def test_quarantined_shard_fails_reads_of_a_turn_as_each_wants_it(parts: Parts) -> None:
    bad, good = parts.keys_on(0, 1)[0], parts.keys_on(1, 1)[0]
    write(parts, [bad, good], 40)
    parts.shards[0].quarantine(DataLoss("damaged", reason="STORAGE_CORRUPT"))
    outcomes = parts.reads.get_turn(turn_of(request([bad, good]), request([bad], partial_policy=FAIL), request([good])))
    assert isinstance(outcomes[0], bytes)
    statuses = pb.GetOnlineFeaturesResponse.FromString(outcomes[0]).columns[0].statuses
    assert statuses == bytes([rules.UNAVAILABLE | rules.CAUSE_QUARANTINED, rules.PRESENT])
    assert isinstance(outcomes[1], DataLoss)
    assert outcomes[2] == parts.reads.get(PRINCIPAL, request([good]), lambda: None)
