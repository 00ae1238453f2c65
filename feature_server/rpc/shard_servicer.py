"""Servicer of headrace.feature.v1.ShardService."""

import time
from collections.abc import Callable, Iterator
from typing import Final

import grpc

from feature_server.domain.peer_reads import PeerReads
from feature_server.domain.reads import DEADLINE_DEFAULT_S
from feature_server.domain.replays import Replays
from feature_server.domain.row_log import LogPosition, RowLogStatus
from feature_server.domain.shard import Position
from feature_server.domain.write_columns import read_ipc
from feature_server.ring.held_ring import check_no_ring
from feature_server.ring.shard_snapshots import ShardSnapshots
from feature_server.ring.snapshot import SnapshotEnd
from feature_server.rpc.feature_servicer import durability_of
from headrace.errors import InvalidArgument
from headrace.serving.principal import Principal
from protos.feature.v1 import online_feature_service_pb2 as pb_online
from protos.feature.v1 import shard_service_pb2 as pb

PAGE_SIZE_DEFAULT: Final = 64
PAGE_SIZE_MAX: Final = 1_024
HASH_BYTES: Final = 8
CHUNK_BYTES_DEFAULT: Final = 1 << 20
CHUNK_BYTES_MAX: Final = 16 << 20  # far below the limit of a message, as one record may hold 8 MiB more


class ShardServicer:
    """Converts messages, calls the domain, converts back."""

    def __init__(
        self,
        reads: PeerReads,
        replays: Replays,
        principal: Callable[[], Principal],
        snapshots: ShardSnapshots | None = None,
    ) -> None:
        self._snapshots = snapshots
        self._reads = reads
        self._replays = replays
        self._principal = principal

    def BatchGetRows(  # noqa: N802 - named by the contract
        self, request: pb.BatchGetRowsRequest, context: grpc.ServicerContext
    ) -> pb.BatchGetRowsResponse:
        """Reads stored rows."""
        positions = [(token.shard, token.epoch, token.offset) for token in request.min_offsets]
        deadline_s = time.monotonic() + min(context.time_remaining(), DEADLINE_DEFAULT_S)
        rows, unavailable = self._reads.rows(request.keys, request.ring_epoch, positions, deadline_s, self._principal())
        return pb.BatchGetRowsResponse(rows=[row or b"" for row in rows], unavailable_rows=unavailable)

    def ListShards(  # noqa: N802 - named by the contract
        self, request: pb.ListShardsRequest, context: grpc.ServicerContext
    ) -> pb.ListShardsResponse:
        """Lists shards page by page."""
        count, first = _page_size(request.page_size), _first(request.page_token)
        statuses = self._reads.statuses(first, count + 1, self._principal())
        return pb.ListShardsResponse(
            shards=[
                pb.Shard(
                    shard=status.shard,
                    epoch=status.epoch,
                    offset=status.offset,
                    state=pb.ShardState.ValueType(status.state),
                    content_hash=status.content_hash.to_bytes(HASH_BYTES, "little"),
                    detail=status.detail,
                    row_log=_log_state(self._reads.row_log_status(status.shard)),
                )
                for status in statuses[:count]
            ],
            next_page_token=str(first + count) if len(statuses) > count else "",
            store_id=self._reads.store_id,
            served_log=_log_state(self._reads.served_log_status()),
        )

    def ReadRowLog(  # noqa: N802 - named by the contract
        self, request: pb.ReadRowLogRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ReadRowLogResponse]:
        """Streams what a shard committed."""
        start = LogPosition(request.start.epoch, request.start.next_offset)
        chunk_bytes = _chunk_bytes(request.max_chunk_bytes)
        for chunk in self._reads.row_log(request.shard, start, chunk_bytes, self._principal()):
            yield pb.ReadRowLogResponse(
                epoch=chunk.epoch,
                first_offset=chunk.first_offset,
                next_offset=chunk.next_offset,
                records=chunk.records,
            )

    def AcknowledgeRowLog(  # noqa: N802 - named by the contract
        self, request: pb.AcknowledgeRowLogRequest, context: grpc.ServicerContext
    ) -> pb.AcknowledgeRowLogResponse:
        """Lets a shard drop what is drained."""
        status = self._reads.acknowledge(request.shard, _drained(request), self._principal())
        return pb.AcknowledgeRowLogResponse(state=_log_state(status))

    def ReadServedLog(  # noqa: N802 - named by the contract
        self, request: pb.ReadServedLogRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ReadServedLogResponse]:
        """Streams logged answers."""
        start = LogPosition(request.start.epoch, request.start.next_offset)
        chunk_bytes = _chunk_bytes(request.max_chunk_bytes)
        for chunk in self._reads.served_log(start, chunk_bytes, self._principal()):
            yield pb.ReadServedLogResponse(
                epoch=chunk.epoch,
                first_offset=chunk.first_offset,
                next_offset=chunk.next_offset,
                frames=chunk.records,
            )

    def AcknowledgeServedLog(  # noqa: N802 - named by the contract
        self, request: pb.AcknowledgeServedLogRequest, context: grpc.ServicerContext
    ) -> pb.AcknowledgeServedLogResponse:
        """Lets the log of answers drop what is drained."""
        status = self._reads.acknowledge_served(_drained(request), self._principal())
        return pb.AcknowledgeServedLogResponse(state=_log_state(status))

    def ReplayRows(  # noqa: N802 - named by the contract
        self, request: pb.ReplayRowsRequest, context: grpc.ServicerContext
    ) -> pb.ReplayRowsResponse:
        """Writes rows of the offline store in their old order."""
        answer = self._replays.write(
            request.feature_view,
            lambda: read_ipc(request.arrow_ipc),
            durability_of(request.durability),
            [Position(token.shard, token.epoch, token.offset) for token in request.covered],
            self._principal(),
            ring_epoch=request.ring_epoch,
        )
        return pb.ReplayRowsResponse(
            tokens=[pb_online.WriteToken(shard=p.shard, epoch=p.epoch, offset=p.offset) for p in answer.positions],
            row_count=answer.row_count,
            stale_count=answer.stale_count,
            deferred_rows=answer.deferred,
        )

    def CopyShard(  # noqa: N802 - named by the contract
        self, request: pb.CopyShardRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.CopyShardResponse]:
        """Streams the content of a shard."""
        if self._snapshots is None:
            check_no_ring(request.ring_epoch or 1)
        assert self._snapshots is not None, "a server without a ring has refused"
        joining = (request.server_id, request.phase_epoch)
        chunk_bytes = _chunk_bytes(request.max_chunk_bytes)
        for item in self._snapshots.read(request.shard, request.ring_epoch, joining, chunk_bytes, self._principal()):
            if isinstance(item, SnapshotEnd):
                yield pb.CopyShardResponse(end=pb.SnapshotEnd(**item._asdict()))
            else:
                yield pb.CopyShardResponse(chunk=pb.SnapshotChunk(**item._asdict()))


def _drained(request: pb.AcknowledgeRowLogRequest | pb.AcknowledgeServedLogRequest) -> LogPosition:
    if not request.HasField("position"):
        raise InvalidArgument("position is missing; say how far the log is drained", reason="NO_POSITION")
    return LogPosition(request.position.epoch, request.position.next_offset)


def _log_state(status: RowLogStatus | None) -> pb.RowLogState | None:
    if status is None:
        return None
    return pb.RowLogState(
        stored_bytes=status.stored_bytes,
        max_bytes=status.bytes_max,
        acknowledged=pb.RowLogPosition(epoch=status.acknowledged.epoch, next_offset=status.acknowledged.next_offset),
        end=pb.RowLogPosition(epoch=status.end.epoch, next_offset=status.end.next_offset),
    )


def _chunk_bytes(asked: int) -> int:
    if asked < 0:
        raise InvalidArgument(
            f"max_chunk_bytes is {asked}; send 0 or more", reason="BAD_CHUNK_BYTES", field="max_chunk_bytes"
        )
    return min(asked or CHUNK_BYTES_DEFAULT, CHUNK_BYTES_MAX)


def _page_size(asked: int) -> int:
    if asked < 0:
        raise InvalidArgument(f"page_size is {asked}; send 0 or more", reason="BAD_PAGE_SIZE", field="page_size")
    return min(asked or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def _first(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdecimal() and len(token) <= len(str(PAGE_SIZE_MAX))):
        raise InvalidArgument(
            "page_token was not made by this server; start without one", reason="BAD_PAGE_TOKEN", field="page_token"
        )
    return int(token)
