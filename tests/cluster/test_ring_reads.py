"""Three real servers in a ring: any of them answers any read, and any may die."""

import os
import signal
from collections.abc import Iterator

import grpc
import pytest

from core_ext.keys import encode_key
from headrace.client.routed import RoutedClient
from headrace.errors import Unavailable
from headrace.ring.values import WrongEpoch
from headrace.status import from_rpc_error
from headrace.types import Scalar
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from protos.feature.v1 import shard_service_pb2, shard_service_pb2_grpc
from tests.cluster.processes import wait_for
from tests.cluster.ring import LIMIT_S, SHARD_COUNT, TIMEOUT_S, RingProcesses, ring_of, shard_of_key
from tests.unit.feature_server.parts import SERVICE, VIEW, ipc, shop_batch

NAMES = ("red", "green", "blue")
KEYS = range(400)
PRESENT, UNAVAILABLE = 1, 5
STATE_BITS = 0x0F


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RingProcesses]:
    with ring_of(tmp_path_factory.mktemp("ring"), NAMES, replica_count=2) as processes:
        processes.write(KEYS)
        yield processes


def states(statuses: bytes) -> list[int]:
    return [status & STATE_BITS for status in statuses]


def all_present(ring: RingProcesses, name: str, timeout_s: float = TIMEOUT_S) -> bool:
    statuses, ages = ring.read(name, KEYS, timeout_s)
    assert set(states(statuses)) <= {PRESENT, UNAVAILABLE}, "never MISSING, as every row was acknowledged"
    return set(states(statuses)) == {PRESENT} and set(ages) == {30}


def test_every_shard_lies_in_two_zones_and_no_server_holds_all(ring: RingProcesses) -> None:
    held = ring.ring()
    for shard in held.shards:
        assert len({held.servers[owner].zone for owner in shard.owners}) == 2
    for server_id in held.servers:
        assert 0 < sum(server_id in shard.owners for shard in held.shards) < SHARD_COUNT


@pytest.mark.parametrize("name", NAMES)
def test_any_server_answers_for_all_shards(ring: RingProcesses, name: str) -> None:
    assert all_present(ring, name)


def test_a_newer_row_is_read_through_every_server(ring: RingProcesses) -> None:
    ring.write([7], age=31)
    assert [ring.read(name, [7])[1] for name in NAMES] == [[31]] * 3
    ring.write([7], age=30)


def test_a_key_without_a_row_is_missing_everywhere(ring: RingProcesses) -> None:
    for name in NAMES:
        assert set(states(ring.read(name, range(10_000, 10_050))[0])) == {3}


@pytest.mark.parametrize("epoch", [1, 1_000_000])
def test_a_peer_that_routed_by_another_epoch_is_told_the_ring(ring: RingProcesses, epoch: int) -> None:
    held = ring.ring()
    owner = held.shards[shard_of_key(7)].owners[0]
    key = b"\0\0\0\1" + encode_key([Scalar.I64], [7]) + b"\0\0\0\1"
    with grpc.insecure_channel(held.servers[owner].address) as channel:
        request = shard_service_pb2.BatchGetRowsRequest(ring_epoch=epoch, keys=[key])
        with pytest.raises(grpc.RpcError) as caught:
            shard_service_pb2_grpc.ShardServiceStub(channel).BatchGetRows(request, timeout=TIMEOUT_S)
    error = from_rpc_error(caught.value)
    assert isinstance(error, WrongEpoch)
    assert error.ring.epoch == held.epoch
    assert error.ring.shards == held.shards


def test_a_direct_write_is_refused_where_it_would_reach_one_copy_of_two(ring: RingProcesses) -> None:
    with grpc.insecure_channel(ring.address("red")) as channel:
        request = pb.WriteFeaturesRequest(feature_view=VIEW, arrow_ipc=ipc(shop_batch([1])))
        with pytest.raises(grpc.RpcError) as caught:
            pb_grpc.OnlineFeatureServiceStub(channel).WriteFeatures(request, timeout=TIMEOUT_S)
    assert from_rpc_error(caught.value).reason == "RING_WRITES"


def test_a_client_that_routes_asks_the_owner_first_and_any_other_after_it(ring: RingProcesses) -> None:
    held = ring.ring()
    with RoutedClient(ring.address("control")) as client:
        selection = client.prepare(SERVICE)
        for key in range(20):
            first = client.order(selection.join_keys, {"user_id": [key]})[:2]
            owners = {held.servers[owner].address for owner in held.shards[shard_of_key(key)].owners}
            assert set(first) == owners
        batch = client.get_online_features(selection, entities={"user_id": list(KEYS)})
        assert batch.numpy("age").tolist() == [30] * len(KEYS)
        ring.servers["blue"].kill()
        for key in range(20):
            batch = client.get_online_features(selection, entities={"user_id": [key]})
            assert batch.numpy("age").tolist() == [30]
    ring.start("blue")
    wait_for(lambda: all_present(ring, "blue"), LIMIT_S, ring.servers["blue"].tail)


def test_a_killed_server_is_read_around_and_comes_back(ring: RingProcesses) -> None:
    ring.servers["blue"].kill()
    assert all_present(ring, "red"), "the other owner is asked in the same read"
    assert all_present(ring, "green")
    ring.start("blue")
    wait_for(lambda: all_present(ring, "blue"), LIMIT_S, ring.servers["blue"].tail)


def test_with_one_server_left_the_rest_is_unavailable_and_not_missing(ring: RingProcesses) -> None:
    ring.servers["blue"].kill()
    ring.servers["green"].kill()
    statuses, _ = ring.read("red", KEYS)
    held = ring.ring()
    mine = ring.ids["red"]
    expected = [PRESENT if mine in held.shards[shard_of_key(key)].owners else UNAVAILABLE for key in KEYS]
    assert states(statuses) == expected
    with pytest.raises(grpc.RpcError) as caught:
        ring.read("red", KEYS, policy=pb.PARTIAL_POLICY_FAIL)
    assert isinstance(from_rpc_error(caught.value), Unavailable)
    ring.start("green")
    ring.start("blue")
    for name in NAMES:
        wait_for(lambda name=name: all_present(ring, name), LIMIT_S, ring.servers[name].tail)  # type: ignore[misc]


def test_reads_go_on_without_the_control_plane_and_a_restart_keeps_the_ring(ring: RingProcesses) -> None:
    before = ring.ring()
    ring.servers["control"].kill()
    assert all(all_present(ring, name) for name in NAMES)
    ring.servers["green"].kill()
    ring.start("green")  # from the ring that it kept
    wait_for(lambda: all_present(ring, "green"), LIMIT_S, ring.servers["green"].tail)
    ring.start_control()
    after = ring.ring()
    assert after.epoch == before.epoch
    assert after.shards == before.shards


def test_a_stopped_server_costs_a_read_its_deadline_at_most_and_is_soon_asked_last(ring: RingProcesses) -> None:
    os.kill(ring.servers["blue"].pid, signal.SIGSTOP)
    try:
        statuses, _ = ring.read("red", KEYS, timeout_s=1.0)  # raises where the answer does not come in time
        assert set(states(statuses)) <= {PRESENT, UNAVAILABLE}
        # Who does not answer some times in a row is asked last.
        wait_for(lambda: all_present(ring, "red", timeout_s=1.0), LIMIT_S, ring.servers["red"].tail)
    finally:
        os.kill(ring.servers["blue"].pid, signal.SIGCONT)
    wait_for(lambda: all_present(ring, "red"), LIMIT_S, ring.servers["red"].tail)
