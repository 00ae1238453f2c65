"""Writers of a ring whose copies share a log, and what its topic says that every copy must hold."""

import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import grpc
import pyarrow as pa

from core_ext.row_codec import Schema, decode_row
from headrace.errors import HeadraceError, Unavailable
from headrace.status import from_rpc_error
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from protos.feature.v1 import shard_service_pb2, shard_service_pb2_grpc
from tests.cluster.ring import SHARD_COUNT, TIMEOUT_S, RingProcesses, shard_of_key
from tests.streams.fold import read_topic
from tests.unit.feature_server.parts import SERVICE, VIEW, ipc, shop_batch

ROW_BITS: Final = 20
PRESENT: Final = 1
STATE_BITS: Final = 0x0F
PAUSE_S: Final = 0.05


class Row(NamedTuple):
    """A row of a user as the total order compares it, and its age."""

    event_us: int
    write_us: int
    source_id: int
    partition: int
    offset: int
    age: int


@dataclass(slots=True)
class RingWriter:
    """Writes ages that only rise to keys of its own, over any server that answers, and reads each of them back."""

    ring: RingProcesses
    keys: Sequence[int]
    source: random.Random
    acknowledged: dict[int, int] = field(default_factory=dict)
    attempted: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    refused_count: int = 0
    read_count: int = 0
    _is_over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends once the write under way has an end."""
        self._is_over.set()
        self._thread.join(TIMEOUT_S * 3)
        assert not self._thread.is_alive(), "a write has no end"

    def _run(self) -> None:
        age = 0
        while not self._is_over.is_set():
            age += 1
            count = self.source.randint(1, len(self.keys))
            keys = self.source.sample(self.keys, count)
            try:
                tokens = self._write(keys, age)
            except Unavailable:
                self.refused_count += 1
                time.sleep(PAUSE_S)
                continue
            except HeadraceError as error:
                self.wrong.append(f"write refused: {error}")
                return
            self.acknowledged.update(dict.fromkeys(keys, age))
            self._read_back(keys, age, tokens)

    def _write(self, keys: Sequence[int], age: int) -> Sequence[pb.WriteToken]:
        self.attempted.update(dict.fromkeys(keys, age))
        name = self.source.choice(list(self.ring.ids))
        request = pb.WriteFeaturesRequest(
            feature_view=VIEW, arrow_ipc=ipc(shop_batch(keys, time.time_ns() // 1_000, age))
        )
        with grpc.insecure_channel(self.ring.address(name)) as channel:
            try:
                answer = pb_grpc.OnlineFeatureServiceStub(channel).WriteFeatures(request, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from error
        return list(answer.tokens)

    def _read_back(self, keys: Sequence[int], age: int, tokens: Sequence[pb.WriteToken]) -> None:
        """Through any server, whichever owners it asks."""
        name = self.source.choice(list(self.ring.ids))
        request = pb.GetOnlineFeaturesRequest(
            feature_service=SERVICE, entity_columns=[pb.EntityColumn(join_key="user_id", int64_values=keys)]
        )
        request.options.min_offsets.extend(tokens)
        with grpc.insecure_channel(self.ring.address(name)) as channel:
            try:
                answer = pb_grpc.OnlineFeatureServiceStub(channel).GetOnlineFeatures(request, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                if not isinstance(from_rpc_error(error), Unavailable):
                    self.wrong.append(f"read refused: {from_rpc_error(error)}")
                return
        ages = pa.py_buffer(answer.columns[0].values)
        found = pa.Array.from_buffers(pa.int32(), len(keys), [None, ages]).to_pylist()
        for status, value in zip(bytes(answer.columns[0].statuses), found, strict=True):
            if status & STATE_BITS == PRESENT and value != age:
                self.wrong.append(f"{name} answers {value} after {age} was acknowledged")
            elif status & STATE_BITS == PRESENT:
                self.read_count += 1
            elif status & STATE_BITS != pb.VALUE_STATE_UNAVAILABLE:
                self.wrong.append(f"{name} answers status {status} after {age} was acknowledged")


def fold(bootstrap: str, topic: str) -> tuple[dict[int, Row], list[int]]:
    """The row of every user that the topic leaves, and the offset behind the last message of each partition."""
    newest: dict[int, Row] = {}
    ends = [0] * SHARD_COUNT
    for logged in read_topic(bootstrap, topic):
        ends[logged.partition] = max(ends[logged.partition], logged.offset + 1)
        with pa.ipc.open_stream(logged.value) as reader:
            rows: list[dict[str, Any]] = reader.read_all().to_pylist()
        for number, row in enumerate(rows):
            assert shard_of_key(row["user_id"]) == logged.partition, "a partition has rows of one shard"
            event_us = round(row["event_time"].timestamp() * 1_000_000)
            place = logged.offset << ROW_BITS | number
            made = Row(event_us, logged.time_us, 0, logged.partition, place, row["age"])
            newest[row["user_id"]] = max(made, newest.get(row["user_id"], made))
    return newest, ends


def ends_of(bootstrap: str, topic: str) -> list[int]:
    """The offset behind the last message of each partition."""
    ends = [0] * SHARD_COUNT
    for logged in read_topic(bootstrap, topic):
        ends[logged.partition] = max(ends[logged.partition], logged.offset + 1)
    return ends


def positions(ring: RingProcesses, name: str) -> dict[int, tuple[int, int, bytes]]:
    """Epoch, offset and content hash by shard of a server."""
    with grpc.insecure_channel(ring.address(name)) as channel:
        stub = shard_service_pb2_grpc.ShardServiceStub(channel)
        shards = stub.ListShards(shard_service_pb2.ListShardsRequest(), timeout=TIMEOUT_S).shards
    return {one.shard: (one.epoch, one.offset, one.content_hash) for one in shards}


def stored(ring: RingProcesses, name: str, keys: Mapping[int, bytes], schema: Schema) -> dict[int, Row]:
    """Rows of users by their storage keys, of a server that owns all of them, and from nobody else."""
    held = ring.ring()
    epoch = max(held.shards[shard_of_key(user)].owners_epoch for user in keys)
    request = shard_service_pb2.BatchGetRowsRequest(keys=list(keys.values()), ring_epoch=epoch)
    with grpc.insecure_channel(ring.address(name)) as channel:
        answer = shard_service_pb2_grpc.ShardServiceStub(channel).BatchGetRows(request, timeout=TIMEOUT_S)
    found = {}
    for user, row in zip(keys, answer.rows, strict=True):
        if not row:
            continue
        header, values = decode_row(schema, row)
        order = header.event_time_us, header.write_time_us, header.source_id, header.partition, header.offset
        found[user] = Row(*order, values[0])
    return found
