"""Control plane server: `python -m control_plane.app --data DIR --port N`."""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc

from control_plane.domain.registry import Registry
from control_plane.domain.watchers import WATCHER_COUNT_MAX, Watchers
from control_plane.rpc.registry_servicer import SERVICE, RegistryServicer, message_bytes
from control_plane.store.engine import open_sqlite
from control_plane.store.lock import locked_folder
from control_plane.store.migrate import migrate
from control_plane.store.registry_store import SqlRegistryStore
from headrace.errors import HeadraceError, InvalidArgument
from headrace.serving.auth import Authenticator, OpenAuthenticator, TokenAuthenticator
from headrace.serving.calls import add_service
from headrace.serving.logging import EventLog
from headrace.serving.permissions import method_permissions
from headrace.serving.server import (
    WORKER_COUNT,
    Health,
    add_health_and_reflection,
    bind,
    build_server,
    check_bind,
    drain,
)
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.serving.tls import TlsFiles, add_tls_options, asks_peer, tls_files
from headrace.serving.tls import observe as observe_tls

EXIT_CLEAN: Final = 0
EXIT_REFUSED: Final = 2  # a wrong argument, a folder or port in use
PORT_MAX: Final = 65_535


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    options = _options(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log = EventLog("control_plane", time.time, sys.stdout)
    try:
        with running(options, log):
            stop.wait()
            log.info("stopping")
    except HeadraceError as error:
        sys.stderr.write(f"control_plane: {error.message}\n")
        return EXIT_REFUSED
    log.info("stopped")
    return EXIT_CLEAN


@contextmanager
def running(options: argparse.Namespace, log: EventLog) -> Iterator[int]:
    """A server from its start to its drain; gives the port."""
    authenticator = _authenticator(options.tokens, log)
    tls = tls_files(options, log)
    check_bind(options.host, authenticator.has_auth)
    with ExitStack() as stack:
        stack.enter_context(locked_folder(options.data))
        engine = open_sqlite(options.data)
        stack.callback(engine.dispose)
        migrate(engine)
        telemetry = stack.enter_context(closing(Telemetry(TelemetryConfig("control_plane", options.metrics_port))))
        watchers = Watchers()
        registry = Registry(SqlRegistryStore(engine), watchers, _now, message_bytes)
        servicer = RegistryServicer(registry, authenticator.current_principal, watchers.wake)
        telemetry.gauge("headrace.registry.watchers", "Watchers of the registry.", lambda: [(watchers.count, {})])
        server, health = _server(options.host, authenticator, servicer, telemetry, log, tls=tls)
        port = bind(server, options.host, options.port, tls)
        observe_tls(telemetry, tls)
        server.start()
        stack.callback(drain, server, health)
        stack.callback(watchers.close)  # before the drain, so that no watch holds it up
        health.set("", is_serving=True)
        health.set(SERVICE.full_name, is_serving=True)
        log.info("listening", address=_address(options.host, port), port=port, metrics_port=telemetry.metrics_port)
        yield port


def _server(
    host: str,
    authenticator: Authenticator,
    servicer: RegistryServicer,
    telemetry: Telemetry,
    log: EventLog,
    *,
    tls: TlsFiles | None,
) -> tuple[grpc.Server, Health]:
    # A watcher holds a thread as long as it watches; the others are for calls.
    workers = WATCHER_COUNT_MAX + WORKER_COUNT
    server = build_server(authenticator, method_permissions(SERVICE.file), host, workers, asks_peer=asks_peer(tls))
    add_service(server, SERVICE, servicer, telemetry, log)
    health = Health()
    add_health_and_reflection(server, health, [SERVICE.full_name])
    return server, health


def _authenticator(tokens: Path | None, log: EventLog) -> Authenticator:
    if tokens is None:
        return OpenAuthenticator()
    try:
        return TokenAuthenticator(tokens, time.monotonic, log)
    except OSError as error:
        raise InvalidArgument(
            f"token file {tokens} cannot be read: {error.strerror}", reason="TOKEN_FILE", field="tokens"
        ) from error


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _now() -> datetime:
    return datetime.now(UTC)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="control_plane", description="Serves the registry of definitions.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the registry; nothing else is written")
    parser.add_argument("--port", type=port, default=0, help="port to serve; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; beyond loopback needs --tokens")
    parser.add_argument("--tokens", type=Path, help="YAML file of token digests, principals and permissions")
    add_tls_options(parser)
    parser.add_argument("--metrics-port", type=port, help="port of the Prometheus endpoint; none without it")
    return parser.parse_args(arguments)


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= PORT_MAX:
        raise ValueError(f"{number} is no port")
    return number


if __name__ == "__main__":
    sys.exit(main())
