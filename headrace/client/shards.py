"""The client of the shards of a feature server, for peers and for the drain of their row logs."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import grpc
import pyarrow as pa

from headrace.client.calls import Durability
from headrace.client.channel import CHANNEL_OPTIONS, metadata
from headrace.client.closing import Closing
from headrace.client.ingest import ipc_bytes
from headrace.status import from_rpc_error
from protos.feature.v1 import online_feature_service_pb2 as pb_online
from protos.feature.v1 import shard_service_pb2 as pb

CALL_TIMEOUT_S_DEFAULT: Final = 10.0
READ_TIMEOUT_S_DEFAULT: Final = 120.0  # of one stream: a drain takes a bounded part of it
REPLAY_ROWS: Final = 8_192  # of one request; a thousand for each of 8 shards
_SERVICE: Final = "/headrace.feature.v1.ShardService/"


class LogPosition(NamedTuple):
    """First place of a row log that is not covered; epochs are compared first."""

    epoch: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class RowLogState:
    """How full a row log is. Writes are refused from `max_bytes` on."""

    stored_bytes: int
    max_bytes: int
    acknowledged: LogPosition
    end: LogPosition


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """One shard; its row log is None where the server keeps none."""

    shard: int
    epoch: int
    offset: int
    row_log: RowLogState | None


@dataclass(frozen=True, slots=True)
class RowLogChunk:
    """Whole records of one epoch, for core_ext.row_log.split_records."""

    epoch: int
    first_offset: int
    next_offset: int
    records: bytes


@dataclass(frozen=True, slots=True)
class ServedChunk:
    """Whole frames of one epoch, for headrace.served.frames_of."""

    epoch: int
    first_offset: int
    next_offset: int
    frames: bytes


class ReplayResult(NamedTuple):
    """Rows that were sent, and those of them that something newer, or they themselves, had preceded."""

    row_count: int
    stale_count: int


class BatchResult(NamedTuple):
    """Rows of a batch that were sent, those that changed nothing, and the places of those that were left out."""

    row_count: int
    stale_count: int
    deferred: Sequence[int]


class ShardClient(Closing):
    """Lists shards, reads their row logs and acknowledges them. Needs the permission PEER."""

    def __init__(
        self, target: str, *, token: str | None = None, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self._metadata = metadata(token)
        self._channel = (
            grpc.insecure_channel(target, CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, CHANNEL_OPTIONS)
        )

    def list(self, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> tuple[str, Sequence[ShardInfo]]:
        """Identity of the store, and its shards in ascending order."""
        shards: list[ShardInfo] = []
        token = store_id = ""
        while True:
            request = pb.ListShardsRequest(page_token=token)
            answer = pb.ListShardsResponse.FromString(self._unary("ListShards", request, timeout_s))
            shards += map(_shard, answer.shards)
            token, store_id = answer.next_page_token, answer.store_id
            if not token:
                return store_id, shards

    def read_row_log(
        self, shard: int, start: LogPosition, max_chunk_bytes: int = 0, timeout_s: float = READ_TIMEOUT_S_DEFAULT
    ) -> Iterator[RowLogChunk]:
        """What a shard committed from a position on, up to now; closing the iterator ends the call."""
        request = pb.ReadRowLogRequest(
            shard=shard,
            start=pb.RowLogPosition(epoch=start.epoch, next_offset=start.next_offset),
            max_chunk_bytes=max_chunk_bytes,
        )
        with closing(self._stream("ReadRowLog", request, timeout_s)) as stream:
            for raw in stream:
                answer = pb.ReadRowLogResponse.FromString(raw)
                yield RowLogChunk(answer.epoch, answer.first_offset, answer.next_offset, answer.records)

    def acknowledge_row_log(
        self, shard: int, position: LogPosition, timeout_s: float = CALL_TIMEOUT_S_DEFAULT
    ) -> RowLogState:
        """Lets a shard drop what lies before a position; the state after it."""
        request = pb.AcknowledgeRowLogRequest(
            shard=shard, position=pb.RowLogPosition(epoch=position.epoch, next_offset=position.next_offset)
        )
        raw = self._unary("AcknowledgeRowLog", request, timeout_s)
        return _state(pb.AcknowledgeRowLogResponse.FromString(raw).state)

    def served_log(self, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> tuple[str, RowLogState | None]:
        """Identity of the store, and its log of served answers, None where it keeps none."""
        raw = self._unary("ListShards", pb.ListShardsRequest(page_size=1), timeout_s)
        answer = pb.ListShardsResponse.FromString(raw)
        return answer.store_id, _state(answer.served_log) if answer.HasField("served_log") else None

    def read_served_log(
        self, start: LogPosition, max_chunk_bytes: int = 0, timeout_s: float = READ_TIMEOUT_S_DEFAULT
    ) -> Iterator[ServedChunk]:
        """Logged answers from a position on, up to now; closing the iterator ends the call."""
        request = pb.ReadServedLogRequest(
            start=pb.RowLogPosition(epoch=start.epoch, next_offset=start.next_offset), max_chunk_bytes=max_chunk_bytes
        )
        with closing(self._stream("ReadServedLog", request, timeout_s)) as stream:
            for raw in stream:
                answer = pb.ReadServedLogResponse.FromString(raw)
                yield ServedChunk(answer.epoch, answer.first_offset, answer.next_offset, answer.frames)

    def acknowledge_served_log(self, position: LogPosition, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> RowLogState:
        """Lets the server drop answers that lie before a position; the state after it."""
        request = pb.AcknowledgeServedLogRequest(
            position=pb.RowLogPosition(epoch=position.epoch, next_offset=position.next_offset)
        )
        raw = self._unary("AcknowledgeServedLog", request, timeout_s)
        return _state(pb.AcknowledgeServedLogResponse.FromString(raw).state)

    def replay_rows(
        self,
        feature_view: str,
        rows: pa.Table,
        durability: Durability,
        timeout_s: float = READ_TIMEOUT_S_DEFAULT,
        ring_epoch: int = 0,
    ) -> ReplayResult:
        """Brings rows of the offline store online in their old order, see ReplayRows in the contract."""
        row_count = stale_count = 0
        for start in range(0, rows.num_rows, REPLAY_ROWS):
            request = pb.ReplayRowsRequest(
                feature_view=feature_view,
                arrow_ipc=ipc_bytes(rows.slice(start, REPLAY_ROWS)),
                durability=durability.message,
                ring_epoch=ring_epoch,
            )
            answer = pb.ReplayRowsResponse.FromString(self._unary("ReplayRows", request, timeout_s))
            row_count += answer.row_count
            stale_count += answer.stale_count
        return ReplayResult(row_count, stale_count)

    def put_rows(
        self,
        feature_view: str,
        rows: pa.Table,
        covered: Sequence[tuple[int, int, int]],
        durability: Durability,
        timeout_s: float = READ_TIMEOUT_S_DEFAULT,
    ) -> BatchResult:
        """Brings rows that a batch made of a computed view online, see ReplayRows in the contract.

        `covered` are (shard, epoch, offset) up to which they have seen the logs.
        """
        tokens = [pb_online.WriteToken(shard=shard, epoch=epoch, offset=offset) for shard, epoch, offset in covered]
        request = pb.ReplayRowsRequest(
            feature_view=feature_view, arrow_ipc=ipc_bytes(rows), durability=durability.message, covered=tokens
        )
        answer = pb.ReplayRowsResponse.FromString(self._unary("ReplayRows", request, timeout_s))
        return BatchResult(answer.row_count, answer.stale_count, answer.deferred_rows)

    def close(self) -> None:
        """Closes the channel; calls in flight fail."""
        self._channel.close()

    def _stream(
        self, method: str, request: Any, timeout_s: float
    ) -> Generator[bytes, None, None]:  # Any: a generated message
        stream: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(_SERVICE + method)
        call = stream(request.SerializeToString(), timeout=timeout_s, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()

    def _unary(self, method: str, request: Any, timeout_s: float) -> bytes:  # Any: a generated message
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_SERVICE + method)
        try:
            return call(request.SerializeToString(), timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


def _shard(message: pb.Shard) -> ShardInfo:
    row_log = _state(message.row_log) if message.HasField("row_log") else None
    return ShardInfo(message.shard, message.epoch, message.offset, row_log)


def _state(message: pb.RowLogState) -> RowLogState:
    acknowledged = LogPosition(message.acknowledged.epoch, message.acknowledged.next_offset)
    end = LogPosition(message.end.epoch, message.end.next_offset)
    return RowLogState(message.stored_bytes, message.max_bytes, acknowledged, end)
