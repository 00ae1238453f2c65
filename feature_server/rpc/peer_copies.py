"""Takes copies of shards from their owners over gRPC."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import grpc

from feature_server.ring.copies import Answer, AskLog, TakeSnapshot
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.log import LogRange
from feature_server.ring.snapshot import SnapshotChunk, SnapshotEnd, SnapshotIntake, SnapshotSink
from headrace.client.channel import CHANNEL_OPTIONS, metadata
from headrace.client.tls import Tls, channel_credentials, open_channel
from headrace.errors import Unavailable
from headrace.status import from_rpc_error
from protos.feature.v1 import shard_service_pb2 as pb
from protos.feature.v1 import shard_service_pb2_grpc as pb_grpc

COPY_TIMEOUT_S: Final = 600.0  # of one shard; 60 GB at the least rate that is of use


class PeerCopies:
    """Satisfies CopySource. `sinks` make the place of a snapshot, by shard; `log_range` tells what a log holds.

    Where copies share no log, a shard takes no writes while it is copied, so that nothing is left to catch up with.
    """

    def __init__(
        self,
        held: HeldRing,
        sinks: Sequence[Callable[[], SnapshotSink]],
        token: str | None,
        tls: Tls | None,
        log_range: Callable[[int], LogRange | None] = lambda shard: None,
    ) -> None:
        self._log_range = log_range
        self._held = held
        self._sinks = sinks
        self._metadata = metadata(token)
        self._credentials = channel_credentials(tls)
        self._lock = threading.Lock()
        self._is_closed = False
        self._streams: set[Any] = set()  # Any: a stream of grpc, which has no common type

    def perform(self, step: AskLog | TakeSnapshot) -> Answer:
        """Does a step to its end."""
        if isinstance(step, AskLog):
            return self._log_range(step.shard)
        ring = self._held.ring
        source = ring.servers.get(step.source_id)
        replica = ring.shards[step.shard].of(self._held.server_id)
        if source is None or replica is None:
            raise Unavailable(
                f"the ring has changed, and shard {step.shard} is not to be copied from {step.source_id} any more",
                reason="RING_CHANGED",
                metadata={"shard": str(step.shard), "source": step.source_id},
            )
        request = pb.CopyShardRequest(
            shard=step.shard,
            ring_epoch=self._held.owners_epoch([step.shard]),
            server_id=self._held.server_id,
            phase_epoch=replica.phase_epoch,
        )
        self._copy(request, source.address)
        return None

    def close(self) -> None:
        """Breaks off the copies that are being taken."""
        with self._lock:
            self._is_closed = True
            streams = list(self._streams)
        for stream in streams:
            stream.cancel()

    def _copy(self, request: pb.CopyShardRequest, address: str) -> None:
        intake = SnapshotIntake(request.shard, self._sinks[request.shard]())
        end = None
        with open_channel(address, CHANNEL_OPTIONS, self._credentials) as channel:
            stub = pb_grpc.ShardServiceStub(channel)
            with self._kept(stub.CopyShard(request, timeout=COPY_TIMEOUT_S, metadata=self._metadata)) as stream:
                for answer in stream:
                    if answer.HasField("end"):
                        end = _end(answer.end)
                    else:
                        chunk = answer.chunk
                        intake.take(SnapshotChunk(chunk.part, chunk.position, chunk.data, chunk.checksum))
        intake.finish(end)

    @contextmanager
    def _kept(self, stream: Any) -> Iterator[Any]:
        """A stream that `close` cancels."""
        with self._lock:
            if self._is_closed:
                stream.cancel()
            self._streams.add(stream)
        try:
            yield stream
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        finally:
            stream.cancel()
            with self._lock:
                self._streams.discard(stream)


def _end(message: pb.SnapshotEnd) -> SnapshotEnd:
    return SnapshotEnd(message.epoch, message.next_offset, message.content_hash, message.digest)
