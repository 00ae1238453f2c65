"""What listens on the port of a feature server: the gRPC server itself, or the native loop in front of it."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import grpc

from feature_server.domain.peer_reads import PEER_PERMISSION
from feature_server.domain.reads import READ_PERMISSION, Reads
from feature_server.rpc.native_misses import READ_METHOD, MissReads, full, no_memory
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.serving.auth import Authenticator
from headrace.serving.call_metrics import LATENCY_BOUNDS_S
from headrace.serving.certificates import ForwardedIdentities
from headrace.serving.logging import EventLog
from headrace.serving.server import DRAIN_GRACE_S, WORKER_COUNT, Health, drain, is_loopback, listen
from headrace.serving.telemetry import Telemetry
from headrace.serving.tls import TlsFiles, TlsMaterial

try:
    from core_ext import native_loop
except ImportError:  # libnghttp2 was not there when the cores were compiled
    HAS_NATIVE = False
else:
    HAS_NATIVE = True

if TYPE_CHECKING:
    from core_ext.native_loop import NativeServer
    from core_ext.request_core import RequestCore

NATIVE: Final = "native"
GRPCIO: Final = "grpcio"
TRANSPORTS: Final = (NATIVE, GRPCIO)
CONNECTION_BYTES: Final = 512 << 20  # unread answers and requests of all connections together
CONNECTION_BYTES_MIN: Final = 128 << 20  # what no connection is closed for, 16 KiB of each, and a few large answers
LOOP_COUNT_DEFAULT_MAX: Final = 8  # more only where somebody asks for them
ACCESS_INTERVAL_S: Final = 0.5  # a revoked token is refused after at most this long
GOODBYE_S: Final = 0.2  # two ticks of a draining loop: the notice, then the last stream that is served
ROWS_METHOD: Final = "/headrace.feature.v1.ShardService/BatchGetRows"
STREAM_CHECK_S: Final = 0.005
BACK_NAME_BYTES: Final = 16  # random, as abstract sockets of all users of the machine share their names

_SECOND_NS: Final = 1e9
_TURN_BOUNDS: Final = (*map(str, LATENCY_BOUNDS_S), "inf")
_Total: TypeAlias = Literal[
    "missed", "full", "forwarded", "refused_connections", "abusive_connections", "memory_refused", "greedy_connections",
    "handshakes", "failed_handshakes", "evicted_handshakes",
]  # fmt: skip
Read: TypeAlias = Callable[[], Iterable[tuple[float, Mapping[str, str]]]]


def default_transport(log: EventLog) -> str:
    """The native loop where it was compiled in."""
    if HAS_NATIVE:
        return NATIVE
    log.info("native_transport_missing", remedy="install libnghttp2-dev, libssl-dev and pkg-config, then make build")
    return GRPCIO


class GrpcioTransport:
    """The gRPC server on the port."""

    name = GRPCIO

    def __init__(self, server: grpc.Server, health: Health) -> None:
        self._server = server
        self._health = health

    def start(self) -> None:
        """Nothing: the server listens by itself."""

    def drain(self) -> None:
        """Lets running calls end and stops."""
        drain(self._server, self._health)


class NativeTransport:
    """The native loop on the port, and the gRPC server on an abstract unix socket behind it."""

    name = NATIVE

    def __init__(
        self,
        server: grpc.Server,
        health: Health,
        *,
        core: "RequestCore",
        reads: Reads,
        authenticator: Authenticator,
        telemetry: Telemetry,
        log: EventLog,
        forwarded: ForwardedIdentities | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        if not HAS_NATIVE:
            raise FailedPrecondition(
                "the native transport was not compiled in; install libnghttp2-dev, libssl-dev and pkg-config and run "
                "make build, or take --transport grpcio",
                reason="NATIVE_TRANSPORT_MISSING",
                field="transport",
            )
        self._server = server
        self._health = health
        self._core = core
        self._authenticator = authenticator
        self._telemetry = telemetry
        self._log = log
        self._forwarded = forwarded or ForwardedIdentities()
        self._tls = tls
        self._material: TlsMaterial | None = None
        self._native: NativeServer | None = None
        self._misses = MissReads(reads, authenticator, telemetry.calls.meter(READ_METHOD, "unary"), log)
        self._workers: list[threading.Thread] = []
        self._granted: dict[tuple[str, int], frozenset[bytes]] = {}
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._keep_access, name="native-access", daemon=True)

    def bind(self, host: str, port: int, loop_count: int, connection_bytes: int = CONNECTION_BYTES) -> int:
        """Takes a port, 0 for a free one, and returns it; raises PORT_IN_USE where it is taken."""
        if connection_bytes < CONNECTION_BYTES_MIN:
            raise InvalidArgument(
                f"--connection-bytes is {connection_bytes}; give at least {CONNECTION_BYTES_MIN}",
                reason="CONNECTION_BYTES",
                field="connection_bytes",
            )
        if not 0 <= loop_count <= native_loop.LOOP_COUNT_MAX:
            raise InvalidArgument(
                f"--loops is 1 to {native_loop.LOOP_COUNT_MAX}, or 0 for one per core, not {loop_count}",
                reason="LOOP_COUNT",
                field="loops",
            )
        loops = loop_count or min(os.cpu_count() or 1, LOOP_COUNT_DEFAULT_MAX)
        self._listener = listen(host, port)
        back_name = f"headrace-{os.getpid()}-{secrets.token_hex(BACK_NAME_BYTES)}"
        self._server.add_insecure_port(f"unix-abstract:{back_name}")
        sample_one_in = self._telemetry.sample_one_in if self._telemetry.is_tracing else 0
        _, message, details = full()
        _, memory_message, memory_details = no_memory()
        self._native = native_loop.NativeServer(
            self._core,
            self._listener,
            back_name.encode(),
            loops,
            sample_one_in,
            full_message=message,
            full_details=details,
            is_health_open=is_loopback(host) or not self._authenticator.has_auth,
            secret=self._forwarded.secret.encode(),
            memory_bytes_max=connection_bytes,
            memory_message=memory_message,
            memory_details=memory_details,
        )
        self._certify(self._native)
        self._observe(self._native)
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Starts the loops; the gRPC server must run by now."""
        assert self._native is not None, "bind comes first"
        self._push(self._native)
        self._health.watch(self._native.set_health)
        for number in range(WORKER_COUNT):
            name = f"native-miss-{number}"
            worker = threading.Thread(
                target=self._native.answer_misses, args=(self._misses.answer,), name=name, daemon=True
            )
            worker.start()
            self._workers.append(worker)
        self._native.start()
        if self._authenticator.has_auth or self._tls is not None:
            self._watch.start()

    def drain(self) -> None:
        """Tells clients to leave, lets running calls end and stops."""
        assert self._native is not None, "bind comes first"
        self._native.drain()
        drain(self._server, self._health, GOODBYE_S)
        self._stop.set()
        if self._watch.is_alive():
            self._watch.join()
        self._await_streams(self._native)
        self._misses.close()
        self._native.stop()
        for worker in self._workers:
            worker.join()
        self._listener.close()

    def _await_streams(self, native: "NativeServer") -> None:
        # The gRPC server behind is gone: what is open now waits for a worker or for its reader.
        end_s = time.monotonic() + DRAIN_GRACE_S
        while native.stream_count() and time.monotonic() < end_s:
            time.sleep(STREAM_CHECK_S)

    def _keep_access(self) -> None:
        assert self._native is not None, "bind comes first"
        while not self._stop.wait(ACCESS_INTERVAL_S):
            if self._authenticator.has_auth:
                self._push(self._native)
            try:
                self._certify(self._native)
            except InvalidArgument as error:
                assert self._tls is not None, "it was told by what it gave"
                self._tls.refuse(error.message)

    def _certify(self, native: "NativeServer") -> None:
        """Gives the loops the certificate of now, where it changed."""
        material = self._tls.current() if self._tls is not None else None
        if material is None or material is self._material:
            return
        self._material = material
        try:
            native.set_tls(material.certificate, material.key, material.client_ca)
        except ValueError as error:
            raise InvalidArgument(
                f"the native transport cannot use {error}; give another", reason="TLS_FILES", field="tls_cert"
            ) from error

    def _push(self, native: "NativeServer") -> None:
        """Tells the loops who holds which permission, where that changed."""
        numbers = {READ_PERMISSION: native_loop.PERMISSION_READ, PEER_PERMISSION: native_loop.PERMISSION_PEER}
        for permission, number in numbers.items():
            digests = self._authenticator.digests(permission)
            if digests is None:
                native.allow_all()
                continue
            held = {
                native_loop.CREDENTIAL_TOKEN: digests,
                native_loop.CREDENTIAL_CERTIFICATE: self._authenticator.identities(permission),
            }
            for credential, good in held.items():
                if good != self._granted.get((permission, credential)):
                    native.allow(number, good, credential)
                    self._granted[permission, credential] = good

    def _observe(self, native: "NativeServer") -> None:
        def calls(method: Literal["features", "rows"]) -> Callable[[], tuple[list[int], float]]:
            def read() -> tuple[list[int], float]:
                counts = native.counts()[method]
                return counts["buckets"], counts["seconds_ns"] / _SECOND_NS

            return read

        def turns() -> Iterable[tuple[float, Mapping[str, str]]]:
            buckets = native.counts()["turns"]["buckets"]
            return [(count, {"at_most_s": bound}) for count, bound in zip(buckets, _TURN_BOUNDS, strict=True)]

        def total(name: _Total) -> Read:
            return lambda: [(native.counts()[name], {})]

        self._telemetry.calls.meter(READ_METHOD, "unary").count_elsewhere(calls("features"))
        self._telemetry.calls.meter(ROWS_METHOD, "unary").count_elsewhere(calls("rows"))
        counter = self._telemetry.counter
        counter("headrace.native.missed", "Reads answered by threads with the interpreter.", total("missed"))
        counter("headrace.native.full", "Reads refused as too many waited.", total("full"))
        counter("headrace.native.turns", "Reads by the time from the loop's wake to their answer in the socket.", turns)
        counter("headrace.native.forwarded", "Streams left to Python.", total("forwarded"))
        counter("headrace.native.refused", "Connections beyond the bound.", total("refused_connections"))
        counter("headrace.native.memory_refused", "Reads refused for want of memory.", total("memory_refused"))
        counter("headrace.native.greedy", "Connections closed as they held most of it.", total("greedy_connections"))
        counter("headrace.native.abusive", "Connections told to calm down.", total("abusive_connections"))
        if self._tls is not None:
            counter("headrace.native.handshakes", "Handshakes that were whole.", total("handshakes"))
            counter("headrace.native.handshakes_failed", "Handshakes that were refused.", total("failed_handshakes"))
            counter("headrace.native.handshakes_evicted", "The oldest of too many.", total("evicted_handshakes"))
        memory = "Bytes of requests and answers that connections hold."
        self._telemetry.gauge("headrace.native.memory", memory, lambda: [(native.memory_bytes(), {})], "By")
        self._telemetry.gauge("headrace.native.connections", "Open now.", lambda: [(native.connection_count(), {})])
