"""Servicer of headrace.feature.v1.OnlineFeatureService."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import grpc
from opentelemetry.trace import get_current_span

from core_ext.hashing import xxh3_64
from feature_server.domain.imports import ImportProgress, Imports
from feature_server.domain.reads import Reads
from feature_server.domain.selection import Prepared
from feature_server.domain.shard import Position
from feature_server.domain.shard_writes import Durability
from feature_server.domain.write_columns import read_ipc
from feature_server.domain.writes import WriteAck, Writes
from feature_server.rpc.row_messages import batch_of_rows, key_rows
from headrace.convert.values import type_to_pb
from headrace.errors import InvalidArgument, ResourceExhausted
from headrace.served import TRACE_BYTES
from headrace.serving.principal import Principal
from protos.common.v1 import value_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb

STREAM_COUNT_MAX: Final = 8  # write streams at once; each holds one of the threads that are added for them
STREAM_RETRY_MS: Final = 1_000

_DURABILITIES: Final[dict[int, Durability]] = {
    pb.DURABILITY_UNSPECIFIED: Durability.LOG,
    pb.DURABILITY_MEMORY: Durability.MEMORY,
    pb.DURABILITY_LOG: Durability.LOG,
    pb.DURABILITY_FSYNC: Durability.FSYNC,
}


class FeatureServicer:
    """Converts messages, calls the domain, converts back."""

    def __init__(self, reads: Reads, writes: Writes, imports: Imports, principal: Callable[[], Principal]) -> None:
        self._reads = reads
        self._writes = writes
        self._imports = imports
        self._principal = principal
        self._streams = threading.BoundedSemaphore(STREAM_COUNT_MAX)

    def get_online_features(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """The hot path: bytes in, bytes out, no message object."""

        def remaining() -> float | None:
            left_s = context.time_remaining()
            return None if left_s is None or math.isinf(left_s) else left_s

        return self._reads.get(self._principal(), request, remaining, _trace_id())

    def PrepareFeatureSet(  # noqa: N802 - named by the contract
        self, request: pb.PrepareFeatureSetRequest, context: grpc.ServicerContext
    ) -> pb.PrepareFeatureSetResponse:
        """Resolves a selection."""
        return _prepared_to_pb(self._reads.prepare(self._principal(), request.feature_service, request.features))

    def WriteFeatures(  # noqa: N802 - named by the contract
        self, request: pb.WriteFeaturesRequest, context: grpc.ServicerContext
    ) -> pb.WriteFeaturesResponse:
        """Writes one batch."""
        return self._write(request)

    def IngestFeatures(  # noqa: N802 - named by the contract
        self, requests: Iterator[pb.IngestFeaturesRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.IngestFeaturesResponse]:
        """Writes batch after batch; each is answered when it is as durable as asked."""
        with self._stream():
            for request in requests:
                yield pb.IngestFeaturesResponse(write=self._write(request.write))

    def ImportFeatures(  # noqa: N802 - named by the contract
        self, request: pb.ImportFeaturesRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ImportFeaturesResponse]:
        """Writes a file."""
        durability = durability_of(request.durability)
        with self._stream():
            for progress in self._imports.run(
                request.feature_view, request.uri, durability, self._principal(), request.request_id
            ):
                yield _progress_to_pb(progress)

    def DeleteEntity(  # noqa: N802 - named by the contract
        self, request: pb.DeleteEntityRequest, context: grpc.ServicerContext
    ) -> pb.DeleteEntityResponse:
        """Erases entities."""
        keys = key_rows(request.entity_columns)
        repeated = (request.request_id, _digest(request) if request.request_id else 0)
        answer = self._writes.erase(
            request.entity, keys, durability_of(request.durability), repeated, self._principal()
        )
        return pb.DeleteEntityResponse(tokens=_tokens(answer.positions), entity_count=answer.row_count)

    def _write(self, request: pb.WriteFeaturesRequest) -> pb.WriteFeaturesResponse:
        data = request.arrow_ipc  # taken once: each look at it copies megabytes
        if bool(data) == bool(request.rows):
            raise InvalidArgument(
                "set exactly one of arrow_ipc and rows", reason="TWO_FORMS" if request.rows else "NO_ROWS", field="rows"
            )
        answer: WriteAck = self._writes.write(
            request.feature_view,
            lambda target: read_ipc(data) if data else [batch_of_rows(request.rows, target)],
            durability_of(request.durability),
            (request.request_id, _digest(request, data) if request.request_id else 0),
            self._principal(),
        )
        return pb.WriteFeaturesResponse(
            tokens=_tokens(answer.positions), row_count=answer.row_count, stale_count=answer.stale_count
        )

    @contextmanager
    def _stream(self) -> Iterator[None]:
        # A stream holds a thread for as long as it lasts.
        if not self._streams.acquire(blocking=False):
            raise ResourceExhausted(
                f"{STREAM_COUNT_MAX} write streams are open already; send more over each, or try again later",
                reason="TOO_MANY_STREAMS",
                retry_after_ms=STREAM_RETRY_MS,
            )
        try:
            yield
        finally:
            self._streams.release()


def _trace_id() -> bytes | None:
    """Of the trace that this call is in."""
    context = get_current_span().get_span_context()
    return context.trace_id.to_bytes(TRACE_BYTES, "big") if context.is_valid else None


def _digest(request: pb.WriteFeaturesRequest | pb.DeleteEntityRequest, data: bytes = b"") -> int:
    if data and isinstance(request, pb.WriteFeaturesRequest):
        return xxh3_64(data) ^ xxh3_64(request.feature_view.encode())
    return xxh3_64(request.SerializeToString(deterministic=True))


def durability_of(number: int) -> Durability:
    """Durability of a request; raises InvalidArgument for a number that is none."""
    durability = _DURABILITIES.get(number)
    if durability is None:
        raise InvalidArgument(
            f"durability {number} is unknown; use MEMORY, LOG or FSYNC",
            reason="UNKNOWN_DURABILITY",
            field="durability",
            metadata={"durability": str(number)},
        )
    return durability


def _tokens(positions: Sequence[Position]) -> list[pb.WriteToken]:
    return [pb.WriteToken(shard=item.shard, epoch=item.epoch, offset=item.offset) for item in positions]


def _progress_to_pb(progress: ImportProgress) -> pb.ImportFeaturesResponse:
    return pb.ImportFeaturesResponse(
        row_count=progress.row_count,
        stale_count=progress.stale_count,
        total_count=progress.total_count,
        done=progress.is_done,
        tokens=_tokens(progress.positions),
    )


def _prepared_to_pb(prepared: Prepared) -> pb.PrepareFeatureSetResponse:
    return pb.PrepareFeatureSetResponse(
        handle=prepared.handle,
        columns=[
            pb.OutputColumn(name=column.name, feature=column.reference, value_type=type_to_pb(column.value_type))
            for column in prepared.columns
        ],
        join_keys=[
            pb.JoinKey(name=name, scalar_type=value_pb2.ScalarType.ValueType(scalar))
            for name, scalar in prepared.join_keys.items()
        ],
        registry_revision=prepared.plan.revision,
        feature_service=prepared.feature_service,
        request_fields=[
            pb.RequestField(name=name, value_type=type_to_pb(kind)) for name, kind in prepared.request_fields.items()
        ],
    )
