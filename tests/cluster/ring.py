"""A ring of real processes: a control plane and feature servers on loopback, killed and started by name."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import numpy as np
import pyarrow as pa

from core_ext.keys import encode_key, shard_of_slot, slot_of_key
from headrace.client.calls import Durability
from headrace.client.shards import ShardClient
from headrace.convert.definitions import set_to_pb
from headrace.convert.ring import ring_from_pb
from headrace.errors import Unavailable
from headrace.ring.values import Ring, WrongEpoch
from headrace.types import Scalar
from protos.control.v1 import placement_service_pb2 as placement_pb
from protos.control.v1 import placement_service_pb2_grpc as placement_grpc
from protos.control.v1 import registry_service_pb2, registry_service_pb2_grpc
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from tests.cluster.processes import ServerProcess, wait_for
from tests.unit.feature_server.parts import SERVICE, VIEW, shop_batch, shop_definitions

SHARD_COUNT: Final = 8
TIMEOUT_S: Final = 20.0
LIMIT_S: Final = 60.0


@dataclass(slots=True)
class RingProcesses:
    """The processes by name; `control` is the control plane."""

    folder: Path
    replica_count: int
    options: Sequence[str] = ()
    servers: dict[str, ServerProcess] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def start_control(self) -> None:
        """Starts the control plane, on the port that it had."""
        arguments = [
            *("--data", str(self.folder / "control"), "--port", str(self.ports.get("control", 0))),
            *("--ring-shards", str(SHARD_COUNT), "--ring-replicas", str(self.replica_count), "--ring-servers", "3"),
        ]
        self._start("control", "control_plane.app", arguments)

    def start(self, name: str) -> None:
        """Starts a feature server, on the port that it had."""
        arguments = [
            *("--data", str(self.folder / name), "--port", str(self.ports.get(name, 0)), "--ring", "--zone", name),
            *("--registry", f"127.0.0.1:{self.ports['control']}", "--shards", str(SHARD_COUNT)),
            *self.options,
        ]
        self._start(name, "feature_server.app", arguments)

    def _start(self, name: str, module: str, arguments: Sequence[str]) -> None:
        if name not in self.servers:
            self.servers[name] = ServerProcess(module, arguments, self.folder / f"{name}.log")
        self.servers[name].arguments = arguments
        self.servers[name].launch()
        self.ports[name] = self.servers[name].wait_listening()

    def address(self, name: str) -> str:
        """Where a process listens."""
        return f"127.0.0.1:{self.ports[name]}"

    def apply(self) -> None:
        """Registers the shop."""
        with grpc.insecure_channel(self.address("control")) as channel:
            request = registry_service_pb2.ApplyDefinitionsRequest(definitions=set_to_pb(shop_definitions()))
            registry_service_pb2_grpc.RegistryServiceStub(channel).ApplyDefinitions(request, timeout=TIMEOUT_S)

    def ring(self) -> Ring:
        """The ring as the control plane has it."""
        with grpc.insecure_channel(self.address("control")) as channel:
            stub = placement_grpc.PlacementServiceStub(channel)
            return ring_from_pb(stub.GetRing(placement_pb.GetRingRequest(), timeout=TIMEOUT_S).ring)

    def settle(self) -> Ring:
        """The ring once every shard has its owners."""

        def is_settled() -> bool:
            shards = self.ring().shards
            return bool(shards) and all(len(shard.owners) == self.replica_count for shard in shards)

        wait_for(is_settled, LIMIT_S, lambda: "\n".join(server.tail() for server in self.servers.values()))
        return self.ring()

    def write(self, keys: Sequence[int], age: int = 30) -> None:
        """Brings the same rows, in one order, to every owner of their shards; again where one of them has moved."""
        by_shard: dict[int, list[int]] = {}
        for key in keys:
            by_shard.setdefault(shard_of_key(key), []).append(key)
        for shard, shard_keys in by_shard.items():
            table = replayed(shard_keys, shard, age)
            wait_for(lambda shard=shard, table=table: self._replay(shard, table), LIMIT_S)  # type: ignore[misc]

    def _replay(self, shard: int, table: pa.Table) -> bool:
        """Whether every owner has taken the rows."""
        ring = self.ring()
        try:
            for owner in ring.shards[shard].owners:
                with ShardClient(ring.servers[owner].address) as client:
                    epoch = ring.shards[shard].owners_epoch
                    client.replay_rows(VIEW, table, Durability.LOG, ring_epoch=epoch)
        except (WrongEpoch, Unavailable):
            return False
        return True

    def read(
        self, name: str, keys: Sequence[int], timeout_s: float = TIMEOUT_S, policy: int = 0
    ) -> tuple[bytes, Sequence[int]]:
        """Statuses and ages that a server answers."""
        with grpc.insecure_channel(self.address(name)) as channel:
            request = pb.GetOnlineFeaturesRequest(
                feature_service=SERVICE, entity_columns=[pb.EntityColumn(join_key="user_id", int64_values=keys)]
            )
            request.options.partial_policy = pb.PartialPolicy.ValueType(policy)
            answer = pb_grpc.OnlineFeatureServiceStub(channel).GetOnlineFeatures(request, timeout=timeout_s)
        return bytes(answer.columns[0].statuses), np.frombuffer(answer.columns[0].values, np.int32).tolist()

    def stop(self) -> None:
        """Ends every process."""
        for server in self.servers.values():
            server.stop()


@contextmanager
def ring_of(
    folder: Path, names: Sequence[str], replica_count: int, options: Sequence[str] = ()
) -> Iterator[RingProcesses]:
    """A settled ring that serves the shop; `options` are those of every feature server."""
    processes = RingProcesses(folder, replica_count, options)
    try:
        processes.start_control()
        processes.apply()
        for name in names:
            processes.start(name)
        ring = processes.settle()
        ids = {server.address: server.server_id for server in ring.servers.values()}
        processes.ids = {name: ids[processes.address(name)] for name in names}
        yield processes
    finally:
        processes.stop()


def shard_of_key(key: int) -> int:
    """Shard of a user."""
    return shard_of_slot(slot_of_key(encode_key([Scalar.I64], [key])), SHARD_COUNT)


def replayed(keys: Sequence[int], shard: int, age: int) -> pa.Table:
    """Rows of the shop with the place in the total order that a log gave them."""
    count = len(keys)
    now_us = time.time_ns() // 1_000
    table = pa.Table.from_batches([shop_batch(keys, now_us, age)])
    times = pa.array([now_us] * count, pa.timestamp("us", "UTC"))
    order = {
        "_write_time": times,
        "_available_time": times,
        "_source_id": pa.array([1] * count, pa.uint32()),
        "_log_partition": pa.array([shard] * count, pa.int32()),
        "_offset": pa.array(range(count), pa.int64()),
        "_tombstone": pa.array([False] * count, pa.bool_()),
    }
    for name, column in order.items():
        table = table.append_column(name, column)
    return table
