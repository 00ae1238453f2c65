"""Builds, starts and drains a gRPC server."""

import ipaddress
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.serving.auth import Authenticator, AuthInterceptor
from headrace.serving.certificates import ForwardedIdentities
from headrace.serving.priority import lower_priority
from headrace.serving.tls import TlsFiles, server_credentials

MESSAGE_BYTES_MAX: Final = 64 << 20  # the largest bulk write; a read of 10,000 rows and 2,000 f32 is refused by rows
METADATA_BYTES_MAX: Final = 16 << 10
WORKER_COUNT: Final = 8  # threads; more only take the interpreter lock from one another
CONCURRENT_RPC_MAX: Final = 1_024  # beyond it RESOURCE_EXHAUSTED, because grpcio queues without a bound
STREAM_COUNT_MAX: Final = 1_024  # of one connection
PING_INTERVAL_MIN_MS: Final = 10_000  # clients may ping as often as gRPC lets them
KEEPALIVE_INTERVAL_MS: Final = 60_000
KEEPALIVE_TIMEOUT_MS: Final = 20_000
HANDSHAKE_TIMEOUT_MS: Final = 5_000  # HR_TLS_HANDSHAKE_S of core_ext/native/hr_h2.h
LISTEN_BACKLOG: Final = 1_024  # connections that wait to be accepted
DRAIN_NOTICE_S: Final = 0.0  # time for balancers to see NOT_SERVING; embedded clients have none
DRAIN_GRACE_S: Final = 10.0

OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # two servers on one port would share its calls unseen
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.max_concurrent_streams", STREAM_COUNT_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
)


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, has_auth: bool) -> None:
    """Refuses a host that others can reach where callers need not show who they are."""
    if not has_auth and not is_loopback(host):
        raise InvalidArgument(
            f"host {host!r} is beyond loopback and there is no token file; give --tokens FILE or bind 127.0.0.1",
            reason="BIND_WITHOUT_AUTH",
            field="host",
            metadata={"host": host},
        )


class Health:
    """grpc.health.v1 of a server: "" for all of it, and a name such as "shard/3" for a part."""

    def __init__(self) -> None:
        self.servicer = health.HealthServicer()
        self._lock = threading.Lock()
        self._states: dict[str, int] = {}
        self._tell: Callable[[str, int], object] = lambda name, state: None
        self._is_draining = False
        self.set("", is_serving=False)

    def set(self, name: str, is_serving: bool) -> None:
        """Says whether a part serves; ignored once the server drains."""
        state = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        with self._lock:
            self.servicer.set(name, state)
            if not self._is_draining:
                self._note(name, state)

    def drain(self) -> None:
        """Every part answers NOT_SERVING from now on."""
        with self._lock:
            self._is_draining = True
            self.servicer.enter_graceful_shutdown()
            for name in self._states:
                self._note(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    def watch(self, tell: Callable[[str, int], object]) -> None:
        """Tells every state, of now and of later, to one more who answers for it; it must not call back."""
        with self._lock:
            self._tell = tell
            for name, state in self._states.items():
                tell(name, state)

    def _note(self, name: str, state: int) -> None:
        self._states[name] = state
        self._tell(name, state)


def build_server(
    authenticator: Authenticator,
    permissions: Mapping[str, str],
    host: str,
    worker_count: int = WORKER_COUNT,
    concurrent_rpc_max: int = CONCURRENT_RPC_MAX,
    *,
    forwarded: ForwardedIdentities | None = None,
    asks_peer: bool = False,
    niceness: int = 0,
) -> grpc.Server:
    """A server without services and port; callers are checked where the authenticator asks for it.

    Its handlers yield the processor to other threads of the process by `niceness` steps, on Linux.

    Who shows no token is known by a certificate: that which the native loop `forwarded`, or the peer's own.
    """
    check_bind(host, authenticator.has_auth)
    # Without authentication there is no interceptor at all: each costs every call a few microseconds.
    interceptors: list[grpc.ServerInterceptor] = (
        [AuthInterceptor(authenticator, permissions, is_loopback(host), forwarded=forwarded, asks_peer=asks_peer)]
        if authenticator.has_auth
        else []
    )
    return grpc.server(
        ThreadPoolExecutor(worker_count, "rpc", lower_priority, (niceness,)),
        interceptors=interceptors,
        options=OPTIONS,
        maximum_concurrent_rpcs=concurrent_rpc_max,
    )


def add_health_and_reflection(server: grpc.Server, servicer_health: Health, service_names: Sequence[str]) -> None:
    """Adds grpc.health.v1 and reflection of the named services."""
    health_pb2_grpc.add_HealthServicer_to_server(servicer_health.servicer, server)
    reflection.enable_server_reflection((*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)


def bind(server: grpc.Server, host: str, port: int, tls: TlsFiles | None = None) -> int:
    """Takes a port, 0 for a free one, and returns it; raises PORT_IN_USE where it is taken."""
    _check_free(host.strip("[]"), port)
    address = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
    try:
        if tls is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise _not_bound(address, port) from error
    if not bound:
        raise _not_bound(address, port)
    return bound


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on a port, 0 for a free one; raises PORT_IN_USE where it is taken."""
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bare, port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise _not_bound(f"{host}:{port}", port) from error
    return listener


def drain(server: grpc.Server, servicer_health: Health, notice_s: float = DRAIN_NOTICE_S) -> None:
    """Says NOT_SERVING, waits for balancers to see it, lets running calls end and stops."""
    servicer_health.drain()
    if notice_s > 0:
        threading.Event().wait(notice_s)
    server.stop(DRAIN_GRACE_S).wait()


def _check_free(host: str, port: int) -> None:
    # gRPC would write a line of its own about a taken port; asking first leaves ours alone.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _not_bound(f"{host}:{port}", port) from error


def _not_bound(address: str, port: int) -> FailedPrecondition:
    return FailedPrecondition(
        f"{address} cannot be bound; another process may hold the port: stop it or choose another with --port",
        reason="PORT_IN_USE",
        field="port",
        metadata={"port": str(port)},
    )
