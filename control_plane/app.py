"""Control plane server: `python -m control_plane.app --data DIR --port N`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc

from control_plane.domain.registry import Registry
from control_plane.domain.watchers import WATCHER_COUNT_MAX, Watchers
from control_plane.rpc.registry_servicer import SERVICE, RegistryServicer, message_bytes
from control_plane.store.engine import open_sqlite
from control_plane.store.lock import locked_folder
from control_plane.store.migrate import migrate
from control_plane.store.registry_store import SqlRegistryStore
from headrace.serving.auth import Authenticator
from headrace.serving.calls import add_service
from headrace.serving.logging import EventLog
from headrace.serving.permissions import method_permissions
from headrace.serving.process import authenticator_of, port, serve
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    options = _options(arguments)
    return serve("control_plane", lambda log: running(options, log))


@contextmanager
def running(options: argparse.Namespace, log: EventLog) -> Iterator[int]:
    """A server from its start to its drain; gives the port."""
    authenticator = authenticator_of(options.tokens, log)
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


if __name__ == "__main__":
    sys.exit(main())
