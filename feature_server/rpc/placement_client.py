"""The control plane's PlacementService as a server calls it, and the watch of its rings."""

import threading
from collections.abc import Callable
from random import Random
from typing import Any, Final

import grpc

from feature_server.ring.membership import BACKOFF_MAX_S, BACKOFF_MIN_S, JITTER, Renewed
from headrace.client.channel import metadata
from headrace.client.tls import Tls, channel_credentials, open_channel
from headrace.convert.ring import ring_from_pb, ring_to_pb, server_to_pb
from headrace.errors import HeadraceError
from headrace.ring.values import Ring, RingServer
from headrace.serving.logging import EventLog
from headrace.status import from_rpc_error
from protos.control.v1 import placement_service_pb2 as pb
from protos.control.v1 import placement_service_pb2_grpc as pb_grpc
from protos.ring.v1 import ring_pb2

CALL_TIMEOUT_S: Final = 3.0  # below a third of a lease
WATCH_DEADLINE_S: Final = 600.0  # of one watch; it then begins anew, so that a dead peer is noticed at last
STOP_WAIT_S: Final = 5.0
OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", int(BACKOFF_MAX_S * 1_000)),
)


class PlacementClient:
    """Satisfies Placement over gRPC; and follows the rings on a thread of its own."""

    def __init__(self, address: str, token: str | None, tls: Tls | None, *, random: Random, log: EventLog) -> None:
        self._channel = open_channel(address, OPTIONS, channel_credentials(tls))
        self._stub = pb_grpc.PlacementServiceStub(self._channel)
        self._metadata = metadata(token)
        self._random = random
        self._log = log
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._call: Any = None  # Any: a stream of grpc, which has no common type
        self._thread: threading.Thread | None = None

    def join(self, server: RingServer, shard_count: int) -> Renewed:
        """Takes the server in."""
        request = pb.JoinRingRequest(server=server_to_pb(server), shard_count=shard_count)
        return _renewed(self._unary(self._stub.JoinRing, request))

    def renew(
        self, server_id: str, held_epoch: int, ready: list[tuple[int, int]], damaged: list[tuple[int, int]]
    ) -> Renewed:
        """One heartbeat."""
        request = pb.RenewLeaseRequest(
            server_id=server_id,
            held_epoch=held_epoch,
            ready_replicas=[pb.ReplicaReport(shard=shard, phase_epoch=epoch) for shard, epoch in ready],
            damaged_replicas=[pb.ReplicaReport(shard=shard, phase_epoch=epoch) for shard, epoch in damaged],
        )
        return _renewed(self._unary(self._stub.RenewLease, request))

    def follow(self, held_epoch: Callable[[], int], take: Callable[[Ring], None]) -> None:
        """Begins to hand over every newer ring."""
        self._thread = threading.Thread(target=self._run, args=(held_epoch, take), name="ring-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch and closes the channel."""
        self._stop.set()
        with self._lock:
            if self._call is not None:
                self._call.cancel()
        if self._thread is not None:
            self._thread.join(STOP_WAIT_S)
        self._channel.close()

    def _run(self, held_epoch: Callable[[], int], take: Callable[[Ring], None]) -> None:
        backoff_s = BACKOFF_MIN_S
        while not self._stop.is_set():
            try:
                for ring in self._rings(held_epoch()):
                    backoff_s = BACKOFF_MIN_S
                    take(ring)
            except HeadraceError as error:
                if not self._stop.is_set() and error.code != "DEADLINE_EXCEEDED":
                    self._log.warning("ring_watch_ended", reason=error.reason, detail=error.message)
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
                self._log.failure("ring_watch_failed", error)
            self._stop.wait(backoff_s * self._random.uniform(1 - JITTER, 1 + JITTER))
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    def _rings(self, held_epoch: int) -> "Any":
        call = self._stub.WatchRing(
            pb.WatchRingRequest(held_epoch=held_epoch), timeout=WATCH_DEADLINE_S, metadata=self._metadata
        )
        with self._lock:
            self._call = call
        if self._stop.is_set():
            call.cancel()
        try:
            for message in call:
                yield ring_from_pb(message.ring)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error

    def _unary(self, call: Any, request: Any) -> Any:
        try:
            return call(request, timeout=CALL_TIMEOUT_S, metadata=self._metadata)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


class RingCopy:
    """The ring that a server holds, as a checked file. `read` and `write` are those of the storage."""

    def __init__(self, read: Callable[[], bytes | None], write: Callable[[bytes], None], log: EventLog) -> None:
        self._read = read
        self._write = write
        self._log = log

    def load(self) -> Ring | None:
        """The ring that was kept; a damaged one is only logged, as the control plane brings another."""
        try:
            data = self._read()
            return None if data is None else ring_from_pb(ring_pb2.Ring.FromString(data))
        except (HeadraceError, ValueError) as error:
            self._log.error("ring_copy_unusable", detail=str(error))
            return None

    def keep(self, ring: Ring) -> None:
        """Keeps a ring; raises where the disk refuses."""
        self._write(ring_to_pb(ring).SerializeToString())


def _renewed(answer: pb.JoinRingResponse | pb.RenewLeaseResponse) -> Renewed:
    ring = ring_from_pb(answer.ring) if answer.HasField("ring") else None
    return Renewed(answer.lease_duration.ToMicroseconds() / 1e6, ring)
