"""Calls of the fault runs through the generated stubs: writes, reads, shard positions and stored rows."""

import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from core_ext.keys import encode_key, shard_of_slot, slot_of_key, storage_key
from core_ext.row_codec import Schema, check_row, decode_row
from headrace.types import Scalar, parse_type
from protos.control.v1 import registry_service_pb2, registry_service_pb2_grpc
from protos.feature.v1 import (
    online_feature_service_pb2_grpc,
    shard_service_pb2,
    shard_service_pb2_grpc,
)
from tests.cluster import dataset
from tests.cluster.checker import ShardPosition, StoredRow
from tests.cluster.history import LOG, Request, Seen, Token, Write

TIMEOUT_S: Final = 20.0
MESSAGE_BYTES_MAX: Final = 256 << 20
KEYS_PER_READ: Final = 2_000
SHARD_COUNT: Final = 8  # of an embedded server
FIRST_KEY_OF_SINGLE_ROWS: Final = 1_000_000
RING_EPOCH: Final = 0  # a server without placement has no ring
CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.enable_retries", 0),  # the history must know each attempt
    # A server that comes back is found soon; gRPC's defaults wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


@dataclass(frozen=True, slots=True)
class View:
    """Ids that the registry gave the view of the runs."""

    entity_id: int
    view_id: int
    schema: Schema

    def storage_key(self, key: int) -> bytes:
        """Where the row of a key lies."""
        return storage_key(self.entity_id, encode_key([Scalar.I64], [key]), self.view_id)


def register(registry_address: str) -> View:
    """Applies the definitions of the runs, which is safe to repeat."""
    with grpc.insecure_channel(registry_address, CHANNEL_OPTIONS) as channel:
        stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
        definitions = dataset.definitions()
        request_id = "00000000-0000-4000-8000-000000000000"
        stub.ApplyDefinitions(
            registry_service_pb2.ApplyDefinitionsRequest(definitions=definitions, request_id=request_id),
            timeout=TIMEOUT_S,
            wait_for_ready=True,
        )
        entity = stub.GetEntity(registry_service_pb2.GetEntityRequest(name=dataset.ENTITY), timeout=TIMEOUT_S).entity
        view = stub.GetFeatureView(
            registry_service_pb2.GetFeatureViewRequest(name=dataset.VIEW), timeout=TIMEOUT_S
        ).feature_view
    types = [parse_type(dataset.TYPES[name]) for name in dataset.FEATURES]
    schema = Schema(view.schema_id, [(kind.scalar, kind.shape, kind.list_size) for kind in types])
    return View(entity.entity_id, view.view_id, schema)


def shard_of_key(key: int, shard_count: int) -> int:
    """Shard that owns a key."""
    return shard_of_slot(slot_of_key(encode_key([Scalar.I64], [key])), shard_count)


def request_for_shard(shard: int, shard_count: int = SHARD_COUNT) -> Request:
    """A request of one row, past the keys of the loads, that a shard owns."""
    first = FIRST_KEY_OF_SINGLE_ROWS
    key = next(key for key in itertools.count(first) if shard_of_key(key, shard_count) == shard)
    write = Write(key, dataset.event_time_us(shard + 1, 0), shard + 1)
    return Request(str(uuid.UUID(int=key, version=4)), LOG, (write,))


def code_of(error: grpc.RpcError) -> str:
    """Status name of a failed call."""
    code: grpc.StatusCode = error.code()  # what a stub raises is also a grpc.Call
    return str(code.name)


class Caller:
    """One channel to a feature server. Errors come up as grpc.RpcError."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
        self.online = online_feature_service_pb2_grpc.OnlineFeatureServiceStub(self.channel)
        self.peer = shard_service_pb2_grpc.ShardServiceStub(self.channel)
        self._health = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()

    def is_serving(self, name: str = "") -> bool:
        """Health of the server or of a part such as "shard/3"; False while it does not answer."""
        try:
            answer = self._health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def write(self, request: Request, payload_bytes: int = dataset.PAYLOAD_BYTES) -> list[Token]:
        """Tokens of an acknowledged write."""
        message = dataset.write_request(request, payload_bytes)
        answer = self.online.WriteFeatures(message, timeout=TIMEOUT_S)
        return [Token(token.shard, token.epoch, token.offset) for token in answer.tokens]

    def read(self, keys: Sequence[int]) -> tuple[tuple[Seen, ...], frozenset[int]]:
        """Rows of the keys, and the keys that the server said it cannot read."""
        seen: list[Seen] = []
        unavailable: set[int] = set()
        for start in range(0, len(keys), KEYS_PER_READ):
            part = keys[start : start + KEYS_PER_READ]
            answer = self.online.GetOnlineFeatures(dataset.read_request(part), timeout=TIMEOUT_S)
            rows, missed = dataset.seen_rows(part, answer)
            seen += rows
            unavailable |= missed
        return tuple(seen), frozenset(unavailable)

    def shards(self) -> list[ShardPosition]:
        """What the server says of its shards."""
        answer = self.peer.ListShards(shard_service_pb2.ListShardsRequest(page_size=1_024), timeout=TIMEOUT_S)
        return [
            ShardPosition(
                shard.shard,
                shard.epoch,
                shard.offset,
                shard.content_hash,
                shard_service_pb2.ShardState.Name(shard.state).removeprefix("SHARD_STATE_"),
                shard.detail,
            )
            for shard in answer.shards
        ]

    def stored_rows(self, view: View, keys: Sequence[int], shard_count: int) -> list[StoredRow]:
        """Rows as they are stored, for every key that has one."""
        rows = []
        for start in range(0, len(keys), KEYS_PER_READ):
            part = keys[start : start + KEYS_PER_READ]
            storage_keys = [view.storage_key(key) for key in part]
            answer = self.peer.BatchGetRows(
                shard_service_pb2.BatchGetRowsRequest(ring_epoch=RING_EPOCH, keys=storage_keys), timeout=TIMEOUT_S
            )
            assert not answer.unavailable_rows, "rows of a quarantined shard have no state to check"
            for key, name, row in zip(part, storage_keys, answer.rows, strict=True):
                if row:
                    rows.append(_stored(view, key, name, row, shard_of_key(key, shard_count)))
        return rows


def _stored(view: View, key: int, name: bytes, row: bytes, shard: int) -> StoredRow:
    header = check_row(row, view.schema)
    values = decode_row(view.schema, row)[1]
    return StoredRow(
        shard,
        name,
        row,
        key,
        int(values[0]),
        header.event_time_us,
        header.write_time_us,
        header.source_id,
        header.partition,
        header.offset,
    )
