"""Servicer of headrace.feature.v1.ShardService."""

import time
from collections.abc import Callable
from typing import Final

import grpc

from feature_server.domain.peer_reads import PeerReads
from feature_server.domain.reads import DEADLINE_DEFAULT_S
from headrace.errors import InvalidArgument
from headrace.serving.principal import Principal
from protos.feature.v1 import shard_service_pb2 as pb

PAGE_SIZE_DEFAULT: Final = 64
PAGE_SIZE_MAX: Final = 1_024
HASH_BYTES: Final = 8


class ShardServicer:
    """Converts messages, calls the domain, converts back."""

    def __init__(self, reads: PeerReads, principal: Callable[[], Principal]) -> None:
        self._reads = reads
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
                )
                for status in statuses[:count]
            ],
            next_page_token=str(first + count) if len(statuses) > count else "",
        )


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
