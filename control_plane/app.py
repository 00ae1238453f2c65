"""Control plane server: `python -m control_plane.app --data DIR --port N`."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc
from sqlalchemy import Engine

from control_plane.domain.lineage.lineage import Lineage
from control_plane.domain.lineage.mirror import Mirror
from control_plane.domain.registry import Registry
from control_plane.domain.ring.keeper import RingKeeper, RingShape, moving
from control_plane.domain.ring.leases import Leases
from control_plane.domain.ring.ticker import Ticker
from control_plane.domain.watchers import WATCHER_COUNT_MAX, Watchers
from control_plane.rpc import lineage_servicer, placement_servicer
from control_plane.rpc.lineage_servicer import LineageServicer
from control_plane.rpc.placement_servicer import PlacementServicer
from control_plane.rpc.registry_servicer import SERVICE, RegistryServicer, message_bytes
from control_plane.store.engine import open_sqlite
from control_plane.store.lineage_store import SqlLineageStore
from control_plane.store.lock import locked_folder
from control_plane.store.migrate import migrate
from control_plane.store.registry_store import SqlRegistryStore
from control_plane.store.ring_store import SqlRingStore
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

SERVICES: Final = (SERVICE, placement_servicer.SERVICE, lineage_servicer.SERVICE)
SERVICE_NAMES: Final = tuple(service.full_name for service in SERVICES)
Servicers = tuple[RegistryServicer, PlacementServicer, LineageServicer]  # in the order of SERVICES


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
        registry_store = SqlRegistryStore(engine)
        registry = Registry(registry_store, watchers, _now, message_bytes)
        servicer = RegistryServicer(registry, authenticator.current_principal, watchers.wake)
        telemetry.gauge("headrace.registry.watchers", "Watchers of the registry.", lambda: [(watchers.count, {})])
        ring_watchers = Watchers()
        keeper = RingKeeper(SqlRingStore(engine, _now), Leases(time.monotonic), ring_watchers, _shape(options))
        _observe_ring(telemetry, keeper, ring_watchers)
        placement = PlacementServicer(keeper, authenticator.current_principal, ring_watchers.wake)
        lineage = _lineage(engine, registry_store, telemetry)
        servicers = (servicer, placement, LineageServicer(lineage, authenticator.current_principal))
        server, health = _server(options.host, authenticator, servicers, telemetry, log, tls=tls)
        port = bind(server, options.host, options.port, tls)
        observe_tls(telemetry, tls)
        server.start()
        stack.callback(drain, server, health)
        stack.callback(watchers.close)  # before the drain, so that no watch holds it up
        stack.callback(ring_watchers.close)
        stack.enter_context(closing(Ticker(keeper.tick, log)))
        for name in ("", *SERVICE_NAMES):
            health.set(name, is_serving=True)
        log.info("listening", address=_address(options.host, port), port=port, metrics_port=telemetry.metrics_port)
        yield port


def _server(
    host: str,
    authenticator: Authenticator,
    servicers: Servicers,
    telemetry: Telemetry,
    log: EventLog,
    *,
    tls: TlsFiles | None,
) -> tuple[grpc.Server, Health]:
    # A watcher holds a thread as long as it watches; the others are for calls.
    workers = 2 * WATCHER_COUNT_MAX + WORKER_COUNT
    permissions = method_permissions(*(service.file for service in SERVICES))
    server = build_server(authenticator, permissions, host, workers, asks_peer=asks_peer(tls))
    for service, servicer in zip(SERVICES, servicers, strict=True):
        add_service(server, service, servicer, telemetry, log)
    health = Health()
    add_health_and_reflection(server, health, SERVICE_NAMES)
    return server, health


def _lineage(engine: Engine, registry: SqlRegistryStore, telemetry: Telemetry) -> Lineage:
    store = SqlLineageStore(engine)
    mirror = Mirror(store)
    lineage = Lineage(store, registry, mirror, _now)
    lineage.start()
    telemetry.gauge("headrace.lineage.edges", "Edges of the mirror.", lambda: [(mirror.graph.edge_count, {})])
    telemetry.gauge("headrace.lineage.bytes", "Bytes of the mirror.", lambda: [(mirror.graph.memory_bytes, {})])
    return lineage


def _shape(options: argparse.Namespace) -> RingShape:
    return RingShape(options.ring_shards, options.ring_replicas, options.ring_servers)


def _observe_ring(telemetry: Telemetry, keeper: RingKeeper, watchers: Watchers) -> None:
    telemetry.gauge("headrace.ring.watchers", "Watchers of the ring.", lambda: [(watchers.count, {})])
    telemetry.gauge("headrace.ring.epoch", "Newest epoch.", lambda: [(keeper.newest.epoch, {})])
    telemetry.gauge("headrace.ring.moving", "Copies on their way in or out.", lambda: [(moving(keeper.newest), {})])


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _now() -> datetime:
    return datetime.now(UTC)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="control_plane", description="Serves the registry and the ring.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the registry; nothing else is written")
    parser.add_argument("--port", type=port, default=0, help="port to serve; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; beyond loopback needs --tokens")
    parser.add_argument("--tokens", type=Path, help="YAML file of token digests, principals and permissions")
    add_tls_options(parser)
    shape = RingShape()
    parser.add_argument(
        "--ring-shards", type=int, default=shape.shard_count, help="shards of a new ring, a power of two"
    )
    parser.add_argument("--ring-replicas", type=int, default=shape.replica_count, help="copies of each shard")
    parser.add_argument(
        "--ring-servers", type=int, default=shape.server_count_min, help="servers that a new ring waits for"
    )
    parser.add_argument("--metrics-port", type=port, help="port of the Prometheus endpoint; none without it")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
