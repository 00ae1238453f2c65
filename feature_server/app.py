"""Feature server: `python -m feature_server.app --data DIR --port N --registry HOST:PORT`."""

import argparse
import gc
import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from random import Random
from typing import Final

import grpc

from core_ext.request_core import RequestCore
from core_ext.row_table import RowTable
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.explanations import Explanations
from feature_server.domain.imports import Imports
from feature_server.domain.peer_reads import PeerReads
from feature_server.domain.read_counts import COUNTS_NAME
from feature_server.domain.reads import Reads
from feature_server.domain.reclaim import Reclaim
from feature_server.domain.registry_keeper import RegistryKeeper
from feature_server.domain.shard import Shard, ShardState
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.storage_use import StorageUse
from feature_server.observed import observe_store, observe_writes
from feature_server.optional_parts import (
    join_ring,
    keep_counts,
    log_served,
    now_us,
    read_streams,
    reclaiming,
    ring_of,
)
from feature_server.options import parse_options
from feature_server.ring_log import follow_log, replays_of, ring_log_of, writes_of
from feature_server.rpc.feature_servicer import STREAM_COUNT_MAX, FeatureServicer
from feature_server.rpc.inspection_servicer import InspectionServicer
from feature_server.rpc.native_front import (
    GrpcioTransport,
    NativeTransport,
    default_transport,
)
from feature_server.rpc.registry_client import RegistryCopy, RegistryWatch
from feature_server.rpc.services import SERVICE_NAMES, add_services, permissions
from feature_server.rpc.shard_servicer import ShardServicer
from feature_server.storage.files import read_file, write_file
from feature_server.storage.rocks_options import StoreBudget
from feature_server.storage.store_folder import StoreFolder
from headrace.client.tls import Tls, client_tls
from headrace.serving.auth import Authenticator
from headrace.serving.certificates import ForwardedIdentities
from headrace.serving.logging import EventLog
from headrace.serving.priority import BESIDE_READS
from headrace.serving.process import EXIT_REFUSED, authenticator_of, bearer_token, serve
from headrace.serving.server import (
    WORKER_COUNT,
    Health,
    add_health_and_reflection,
    bind,
    build_server,
    check_bind,
)
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.serving.tls import TlsFiles, asks_peer, tls_files
from headrace.serving.tls import observe as observe_tls
from headrace.serving.turns import Turns

DESCRIPTOR_COUNT_MAX: Final = 16_384
WORKERS: Final = WORKER_COUNT + STREAM_COUNT_MAX  # streams hold theirs; reads keep as many as ever
REGISTRY_COPY_NAME: Final = "registry"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    options = parse_options(arguments)
    try:
        return serve("feature_server", lambda log: _settled(options, log))
    except OSError as error:
        sys.stderr.write(f"feature_server: the machine refuses: {error.strerror}; look at its limits (ulimit -a)\n")
        return EXIT_REFUSED


@contextmanager
def _settled(options: argparse.Namespace, log: EventLog) -> Iterator[int]:
    with running(options, log) as port_number:
        # What lives now lives to the end: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        yield port_number


@contextmanager
def running(options: argparse.Namespace, log: EventLog) -> Iterator[int]:
    """A server from its start to its drain; gives the port."""
    authenticator = authenticator_of(options.tokens, log)
    tls = tls_files(options, log)
    registry_tls = client_tls(options.registry_ca, options.registry_cert, options.registry_key)
    check_bind(options.host, authenticator.has_auth)
    with ExitStack() as stack:
        folder = stack.enter_context(closing(StoreFolder(options.data, options.shards)))
        config = TelemetryConfig("feature_server", options.metrics_port, options.otlp_endpoint)
        telemetry = stack.enter_context(closing(Telemetry(config)))
        health, table = Health(), RowTable(options.table_bytes)
        shards = _open_shards(folder, table, options, health, log)
        stack.callback(shards.close)
        core = RequestCore(table, len(shards))
        catalogue = Catalogue(core, log, options.function_module)
        served = log_served(stack, options, core=core, catalogue=catalogue, shards=shards, log=log)
        keeper = RegistryKeeper(catalogue, shards, log)
        keeper.on_first = lambda: _set_serving(health)
        observe_store(telemetry, shards, table, catalogue, served[0] if served is not None else None)
        ring_log = ring_log_of(stack, options, len(shards))
        ring = ring_of(
            stack, options, folder, shards=shards, catalogue=catalogue, log=log, tls=registry_tls, ring_log=ring_log
        )
        ring_reads = ring.reads if ring is not None else None
        turns = Turns()
        reads = Reads(core, table, shards, catalogue, now_us, ring_reads)
        writes = writes_of(catalogue, shards, now_us, turns, ring=ring, ring_log=ring_log)
        observe_writes(telemetry, writes)
        keep_counts(stack, options.data / COUNTS_NAME, catalogue=catalogue, reads=reads, writes=writes, log=log)
        online = FeatureServicer(reads, writes, Imports(options.import_root, writes), authenticator.current_principal)
        peer = ShardServicer(
            PeerReads(reads, shards, folder.identity.store_id, served[1] if served is not None else None, ring_reads),
            replays_of(catalogue, shards, now_us, ring=ring, ring_log=ring_log),
            authenticator.current_principal,
            ring.snapshots if ring is not None else None,
        )
        storage = StorageUse(shards, catalogue, now_us, served[1] if served is not None else None)
        reclaim = Reclaim(shards, catalogue, storage, log, options.reclaim_every_s, is_alone=not options.ring)
        reclaiming(stack, telemetry, reclaim)
        inspection = InspectionServicer(
            Explanations(table, shards, catalogue, reads, now_us), storage, reclaim, authenticator.current_principal
        )
        name = options.transport or default_transport(log)
        forwarded, is_grpcio = ForwardedIdentities(), name == GrpcioTransport.name
        server = build_server(
            authenticator, permissions(), options.host, WORKERS, forwarded=forwarded,
            asks_peer=is_grpcio and asks_peer(tls), niceness=0 if is_grpcio else BESIDE_READS,
        )  # fmt: skip
        add_services(server, online, peer, telemetry, log, inspection=inspection)
        add_health_and_reflection(server, health, SERVICE_NAMES)
        transport, port = _transport(
            options, server, health, name=name, core=core, reads=reads, authenticator=authenticator,
            telemetry=telemetry, log=log, forwarded=forwarded, tls=tls,
        )  # fmt: skip
        copy = RegistryCopy(options.data / REGISTRY_COPY_NAME, read_file, write_file, log)
        copy.load(keeper)
        server.start()
        stack.callback(transport.drain)
        transport.start()
        _watch_registry(stack, options, keeper, copy, log, registry_tls)
        follow_log(stack, ring, ring_log, catalogue=catalogue, shards=shards, turns=turns, telemetry=telemetry, log=log)
        join_ring(stack, options, ring, port, telemetry)
        read_streams(stack, options, folder.identity.store_id, catalogue, shards, turns, telemetry, log)
        address = f"{options.host}:{port}"
        log.info("listening", address=address, port=port, metrics_port=telemetry.metrics_port, transport=transport.name)
        yield port


def _watch_registry(  # noqa: PLR0917 - every one is a different thing
    stack: ExitStack,
    options: argparse.Namespace,
    keeper: RegistryKeeper,
    copy: RegistryCopy,
    log: EventLog,
    tls: Tls | None,
) -> None:
    token = bearer_token(options.registry_token, "registry_token") or ""
    watch = RegistryWatch(options.registry, token, keeper, copy, random=Random(), log=log, tls=tls)
    watch.start()
    stack.callback(watch.close)


def _transport(
    options: argparse.Namespace,
    server: grpc.Server,
    health: Health,
    *,
    name: str,
    core: RequestCore,
    reads: Reads,
    authenticator: Authenticator,
    telemetry: Telemetry,
    log: EventLog,
    forwarded: ForwardedIdentities,
    tls: TlsFiles | None,
) -> tuple[GrpcioTransport | NativeTransport, int]:
    """What listens on the port: the native loop before the gRPC server, or that server itself."""
    observe_tls(telemetry, tls)
    if name == GrpcioTransport.name:
        return GrpcioTransport(server, health), bind(server, options.host, options.port, tls)
    native = NativeTransport(
        server, health, core=core, reads=reads, authenticator=authenticator, telemetry=telemetry, log=log,
        forwarded=forwarded, tls=tls,
    )  # fmt: skip
    return native, native.bind(options.host, options.port, options.loops, options.connection_bytes)


def _open_shards(
    folder: StoreFolder, table: RowTable, options: argparse.Namespace, health: Health, log: EventLog
) -> ShardSet:
    budget = StoreBudget(
        options.block_cache_bytes, options.write_buffer_bytes, _raised_descriptor_limit(), options.direct_reads
    )
    shards = ShardSet(folder.shards(table, budget, now_us, log, options.row_log_bytes), log)

    def tell_health(shard: Shard) -> None:
        health.set(f"shard/{shard.number}", shard.state is ShardState.SERVING)

    for shard in shards.shards:
        shard.on_state = tell_health
        shard.follows_log = options.ring and bool(options.kafka)
    shards.open()
    shards.start()
    return shards


def _set_serving(health: Health) -> None:
    for name in ("", *SERVICE_NAMES):
        health.set(name, is_serving=True)


def _raised_descriptor_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTOR_COUNT_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTOR_COUNT_MAX)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return DESCRIPTOR_COUNT_MAX if soft == resource.RLIM_INFINITY else soft


if __name__ == "__main__":
    sys.exit(main())
