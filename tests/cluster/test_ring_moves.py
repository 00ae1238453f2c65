"""Shards of real servers on the move: in, out, and rebuilt after damage, with every row read all the while."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from headrace.errors import HeadraceError, Unavailable
from headrace.ring.values import Phase, Ring
from headrace.status import from_rpc_error
from protos.control.v1 import placement_service_pb2 as placement_pb
from protos.control.v1 import placement_service_pb2_grpc as placement_grpc
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from tests.cluster.processes import wait_for
from tests.cluster.ring import LIMIT_S, SHARD_COUNT, TIMEOUT_S, RingProcesses, ring_of, shard_of_key
from tests.unit.feature_server.parts import VIEW, ipc, shop_batch

NAMES = ("red", "green", "blue")
KEYS = range(300)
PRESENT = 1
STATE_BITS = 0x0F


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[RingProcesses]:
    with ring_of(tmp_path, NAMES, replica_count=2) as processes:
        processes.write(KEYS)
        yield processes


def is_at_rest(ring: RingProcesses, server_count: int) -> Callable[[], bool]:
    def holds() -> bool:
        held = ring.ring()
        phases = {replica.phase for shard in held.shards for replica in shard.replicas}
        return len(held.servers) == server_count and phases == {Phase.SERVING}

    return holds


def tails(ring: RingProcesses) -> Callable[[], str]:
    return lambda: "\n".join(f"{name}: {server.tail()}" for name, server in ring.servers.items())


def settle(ring: RingProcesses, server_count: int) -> Ring:
    wait_for(is_at_rest(ring, server_count), LIMIT_S, tails(ring))
    return ring.ring()


def owned(held: Ring, server_id: str) -> set[int]:
    return {number for number, shard in enumerate(held.shards) if server_id in shard.owners}


@contextmanager
def reading(ring: RingProcesses, name: str) -> Iterator[list[str]]:
    """Reads every key again and again; gives what was wrong, which must stay empty."""
    wrong: list[str] = []
    count = 0
    is_over = threading.Event()

    def read() -> None:
        nonlocal count
        while not is_over.is_set():
            try:
                statuses, ages = ring.read(name, KEYS)
            except grpc.RpcError as error:
                wrong.append(str(from_rpc_error(error)))
                continue
            states = {status & STATE_BITS for status in statuses}
            if states != {PRESENT} or set(ages) != {30}:
                wrong.append(f"states {states}, ages {set(ages)}")
            count += 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield wrong
    finally:
        is_over.set()
        thread.join(LIMIT_S)
    assert count > 0


def test_a_server_that_joins_takes_its_share_while_all_is_read(ring: RingProcesses) -> None:
    before = ring.ring()
    with reading(ring, "red") as wrong:
        ring.start("white")
        after = settle(ring, 4)
    assert wrong == []
    new = next(server.server_id for server in after.servers.values() if server.zone == "white")
    moved = sum(
        len(set(new_shard.owners) - set(old_shard.owners))
        for old_shard, new_shard in zip(before.shards, after.shards, strict=True)
    )
    assert len(owned(after, new)) == 4, "a fourth of 16 copies"
    assert moved == 4, "nothing else has moved"
    ring.write([5], age=31)
    for name in (*NAMES, "white"):
        assert ring.read(name, [5]) == (bytes([PRESENT]), [31])


def test_a_drained_server_gives_everything_away_and_may_be_stopped(ring: RingProcesses) -> None:
    ring.start("white")
    settle(ring, 4)
    leaver = next(server.server_id for server in ring.ring().servers.values() if server.zone == "green")
    with reading(ring, "red") as wrong:
        with grpc.insecure_channel(ring.address("control")) as channel:
            stub = placement_grpc.PlacementServiceStub(channel)
            stub.DrainServer(placement_pb.DrainServerRequest(server_id=leaver), timeout=TIMEOUT_S)
        after = settle(ring, 3)
        assert ring.servers["green"].stop() == 0
    assert wrong == []
    assert leaver not in after.servers
    for name in ("red", "blue", "white"):
        assert set(ring.read(name, KEYS)[0]) == {PRESENT}


def test_a_damaged_shard_is_rebuilt_from_its_peer(ring: RingProcesses) -> None:
    before = ring.ring()
    victim = ring.ids["blue"]
    shard = min(owned(before, victim))
    ring.servers["blue"].stop()
    folder = ring.folder / "blue" / f"shard-{shard:04}"
    (folder / "CURRENT").write_bytes(b"MANIFEST-999999\n")
    with reading(ring, "red") as wrong:
        ring.start("blue")
        wait_for(lambda: ring.ring().shards[shard].owners_epoch > before.epoch, LIMIT_S, tails(ring))
        after = settle(ring, 3)
    assert wrong == []
    assert victim in after.shards[shard].owners
    other = next(owner for owner in after.shards[shard].owners if owner != victim)
    name = next(name for name, server_id in ring.ids.items() if server_id == other)
    ring.servers[name].kill()
    mine = [key for key in KEYS if shard_of_key(key) == shard]
    assert set(ring.read("blue", mine)[0]) == {PRESENT}, "the rebuilt copy answers alone"


def direct_write(ring: RingProcesses, name: str, key: int, age: int) -> HeadraceError | None:
    """What a write of one row to a server is refused with."""
    with grpc.insecure_channel(ring.address(name)) as channel:
        request = pb.WriteFeaturesRequest(feature_view=VIEW, arrow_ipc=ipc(shop_batch([key], age=age)))
        try:
            pb_grpc.OnlineFeatureServiceStub(channel).WriteFeatures(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return from_rpc_error(error)
    return None


def written_to_the_owner(ring: RingProcesses, key: int, age: int) -> bool:
    """Whether a direct write was acknowledged."""
    held = ring.ring()
    address = held.servers[held.shards[shard_of_key(key)].owners[0]].address
    name = next(name for name in ring.ports if ring.address(name) == address)
    error = direct_write(ring, name, key, age)
    assert error is None or isinstance(error, Unavailable) or error.reason == "RING_EPOCH", error
    return error is None


def test_with_one_copy_of_each_shard_no_acknowledged_write_is_lost_on_a_move(tmp_path: Path) -> None:
    with ring_of(tmp_path, NAMES, replica_count=1) as ring:
        acknowledged: dict[int, int] = {}
        is_over = threading.Event()

        def write() -> None:
            number = 0
            while not is_over.is_set():
                number += 1
                key = number % 100
                if written_to_the_owner(ring, key, number):
                    acknowledged[key] = number

        writer = threading.Thread(target=write)
        writer.start()
        try:
            wait_for(lambda: len(acknowledged) == 100, LIMIT_S, tails(ring))
            ring.start("white")
            after = settle(ring, 4)
            count = sum(acknowledged.values())
            wait_for(lambda: sum(acknowledged.values()) > count + 100, LIMIT_S, tails(ring))
        finally:
            is_over.set()
            writer.join(LIMIT_S)
        new = next(server.server_id for server in after.servers.values() if server.zone == "white")
        assert len(owned(after, new)) == SHARD_COUNT // 4
        keys = sorted(acknowledged)
        for name in (*NAMES, "white"):
            statuses, ages = ring.read(name, keys)
            assert set(statuses) == {PRESENT}
            assert list(ages) == [acknowledged[key] for key in keys]
