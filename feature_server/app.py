"""Feature server: `python -m feature_server.app --data DIR --port N --registry HOST:PORT`."""

import argparse
import gc
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from typing import Final

import grpc

from core_ext.request_core import RequestCore
from core_ext.row_table import RowTable
from core_ext.served_ring import ServedRing
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.imports import Imports
from feature_server.domain.peer_reads import PeerReads
from feature_server.domain.reads import Reads
from feature_server.domain.registry_keeper import RegistryKeeper
from feature_server.domain.replays import Replays
from feature_server.domain.served_writer import QUEUE_BYTES_MAX, ServedWriter
from feature_server.domain.shard import Shard, ShardState
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.writes import Writes
from feature_server.rpc.feature_servicer import STREAM_COUNT_MAX, FeatureServicer
from feature_server.rpc.native_front import (
    CONNECTION_BYTES,
    TRANSPORTS,
    GrpcioTransport,
    NativeTransport,
    default_transport,
)
from feature_server.rpc.registry_client import RegistryCopy, RegistryWatch
from feature_server.rpc.services import SERVICE_NAMES, add_services, permissions
from feature_server.rpc.shard_servicer import ShardServicer
from feature_server.storage.files import read_file, write_file
from feature_server.storage.rocks_options import BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES, StoreBudget
from feature_server.storage.served_log import ServedSegments
from feature_server.storage.store_folder import SHARD_COUNT, StoreFolder
from headrace.client.tls import client_tls
from headrace.serving.auth import Authenticator
from headrace.serving.certificates import ForwardedIdentities
from headrace.serving.logging import EventLog
from headrace.serving.priority import BESIDE_READS
from headrace.serving.process import EXIT_REFUSED, authenticator_of, bearer_token, port, serve
from headrace.serving.server import (
    WORKER_COUNT,
    Health,
    add_health_and_reflection,
    bind,
    build_server,
    check_bind,
)
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.serving.tls import TlsFiles, add_tls_options, asks_peer, tls_files
from headrace.serving.tls import observe as observe_tls
from headrace.serving.turns import Turns

TABLE_BYTES: Final = 256 << 20  # rows of a demo or a small model; a server of its own is given more
DESCRIPTOR_COUNT_MAX: Final = 16_384
REGISTRY_COPY_NAME: Final = "registry"
SERVED_LOG_NAME: Final = "served-log"
SERVED_LOG_BYTES: Final = 256 << 20


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
        health = Health()
        table = RowTable(options.table_bytes)
        shards = _open_shards(folder, table, options, health, log)
        stack.callback(shards.close)
        core = RequestCore(table, len(shards))
        catalogue = Catalogue(core, log, options.function_module)
        served = _log_served(stack, options, core=core, catalogue=catalogue, shards=shards, log=log)
        keeper = RegistryKeeper(catalogue, shards, log)
        keeper.on_first = lambda: _set_serving(health)
        _observe(telemetry, shards, table, catalogue)
        if served is not None:
            _observe_served(telemetry, served[0])
        reads = Reads(core, table, shards, catalogue, _now_us)
        writes = Writes(catalogue, shards, _now_us, Turns().short)
        telemetry.counter("headrace.write.rows", "Rows accepted.", lambda: [(writes.row_count, {})])
        telemetry.counter("headrace.write.stale", "Rows older than the stored.", lambda: [(writes.stale_count, {})])
        imports = Imports(options.import_root, writes)
        online = FeatureServicer(reads, writes, imports, authenticator.current_principal)
        peer = ShardServicer(
            PeerReads(reads, shards, folder.identity.store_id, served[1] if served is not None else None),
            Replays(catalogue, shards, _now_us),
            authenticator.current_principal,
        )
        workers = WORKER_COUNT + STREAM_COUNT_MAX  # streams hold theirs; reads keep as many as ever
        name = options.transport or default_transport(log)
        forwarded = ForwardedIdentities()
        is_grpcio = name == GrpcioTransport.name
        server = build_server(
            authenticator, permissions(), options.host, workers, forwarded=forwarded,
            asks_peer=is_grpcio and asks_peer(tls), niceness=0 if is_grpcio else BESIDE_READS,
        )  # fmt: skip
        add_services(server, online, peer, telemetry, log)
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
        token = bearer_token(options.registry_token, "registry_token") or ""
        watch = RegistryWatch(options.registry, token, keeper, copy, random=Random(), log=log, tls=registry_tls)
        watch.start()
        stack.callback(watch.close)
        address = f"{options.host}:{port}"
        log.info("listening", address=address, port=port, metrics_port=telemetry.metrics_port, transport=transport.name)
        yield port


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
    shards = ShardSet(folder.shards(table, budget, _now_us, log, options.row_log_bytes), log)

    def tell_health(shard: Shard) -> None:
        health.set(f"shard/{shard.number}", shard.state is ShardState.SERVING)

    for shard in shards.shards:
        shard.on_state = tell_health
    shards.open()
    shards.start()
    return shards


def _log_served(
    stack: ExitStack,
    options: argparse.Namespace,
    *,
    core: RequestCore,
    catalogue: Catalogue,
    shards: ShardSet,
    log: EventLog,
) -> tuple[ServedWriter, ServedSegments] | None:
    """The log of served answers, where a share of them is asked for; it ends with the stack."""
    if not options.served_log_share:
        return None
    ring = ServedRing(options.served_log_share, QUEUE_BYTES_MAX, len(shards))
    core.log_reads(ring)
    for shard in shards.shards:
        shard.on_applied = ring.mark
        status = shard.status()
        ring.mark(status.shard, status.epoch, status.offset)
    store = ServedSegments(options.data / SERVED_LOG_NAME, options.served_log_bytes, log)
    stack.callback(store.close)
    writer = ServedWriter(ring, catalogue, store, log)
    writer.start()
    stack.callback(writer.close)
    return writer, store


def _observe_served(telemetry: Telemetry, writer: ServedWriter) -> None:
    telemetry.counter("headrace.served.sampled", "Reads to log.", lambda: [(writer.sampled_count, {})])
    telemetry.counter("headrace.served.written", "Answers logged.", lambda: [(writer.written_count, {})])
    telemetry.counter(
        "headrace.served.dropped",
        "Reads to log that were not, by reason.",
        lambda: [(count, {"reason": reason}) for reason, count in writer.dropped().items()],
    )


def _set_serving(health: Health) -> None:
    for name in ("", *SERVICE_NAMES):
        health.set(name, is_serving=True)


def _observe(telemetry: Telemetry, shards: ShardSet, table: RowTable, catalogue: Catalogue) -> None:
    def each(field: str) -> Iterable[tuple[float, Mapping[str, str]]]:
        return [(getattr(status, field), {"shard": str(status.shard)}) for status in shards.statuses()]

    def logs(field: str) -> Iterable[tuple[float, Mapping[str, str]]]:
        kept = [(shard, shard.row_log.status()) for shard in shards.shards if shard.row_log is not None]
        return [(getattr(status, field), {"shard": str(shard.number)}) for shard, status in kept]

    def stat(name: str) -> Iterable[tuple[float, Mapping[str, str]]]:
        return [(table.stats()[name], {})]

    telemetry.gauge("headrace.shard.state", "1 serving, 2 read-only, 3 quarantined.", lambda: each("state"))
    telemetry.counter("headrace.shard.offset", "Rows written to a shard.", lambda: each("offset"))
    telemetry.gauge(
        "headrace.row_log.stored", "Rows on disk that wait to be drained.", lambda: logs("stored_bytes"), "By"
    )
    telemetry.gauge("headrace.row_log.max", "From here on writes are refused.", lambda: logs("bytes_max"), "By")
    telemetry.gauge("headrace.registry.revision", "Registry served.", lambda: [(catalogue.revision, {})])
    telemetry.gauge("headrace.table.used", "Memory of the row table.", lambda: stat("used_bytes"), "By")
    telemetry.gauge("headrace.table.rows", "Rows in the table.", lambda: stat("row_count"))
    telemetry.counter("headrace.table.evictions", "Entities put out of the table.", lambda: stat("eviction_count"))


def _raised_descriptor_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTOR_COUNT_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTOR_COUNT_MAX)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return DESCRIPTOR_COUNT_MAX if soft == resource.RLIM_INFINITY else soft


def _now_us() -> int:
    return time.time_ns() // 1_000


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line as options."""
    parser = argparse.ArgumentParser(prog="feature_server", description="Serves feature values online.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the store; nothing else is written")
    parser.add_argument("--port", type=port, default=0, help="port to serve; 0 takes a free one")
    parser.add_argument("--registry", required=True, help="HOST:PORT of the control plane")
    parser.add_argument("--registry-token", type=Path, help="file that holds the bearer token for the control plane")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; beyond loopback needs --tokens")
    parser.add_argument("--tokens", type=Path, help="YAML file of token digests, principals and permissions")
    add_tls_options(parser)
    parser.add_argument(
        "--registry-ca", type=Path, help="PEM file of the authority of the control plane; plain without"
    )
    parser.add_argument("--registry-cert", type=Path, help="PEM file of the certificate to show to the control plane")
    parser.add_argument("--registry-key", type=Path, help="PEM file of that certificate's key")
    parser.add_argument("--transport", choices=TRANSPORTS, help="native where it was compiled in, else grpcio")
    parser.add_argument("--loops", type=int, default=0, help="threads of the native transport; one per core without it")
    parser.add_argument(
        "--connection-bytes", type=byte_count, default=CONNECTION_BYTES,
        help="memory of requests and unread answers of all connections of the native transport",
    )  # fmt: skip
    parser.add_argument("--shards", type=int, help=f"shards of a new store, {SHARD_COUNT} without it")
    parser.add_argument("--table-bytes", type=byte_count, default=TABLE_BYTES, help="memory of the row table")
    parser.add_argument("--block-cache-bytes", type=byte_count, default=BLOCK_CACHE_BYTES, help="memory of disk blocks")
    parser.add_argument("--write-buffer-bytes", type=byte_count, default=WRITE_BUFFER_BYTES, help="memory of writes")
    parser.add_argument("--row-log-bytes", type=byte_count, help="disk for rows on their way offline; none without it")
    parser.add_argument(
        "--function-module",
        action="append",
        default=[],
        metavar="MODULE",
        help="module, with those below it, that functions of views may be imported from; may stand more than once",
    )
    parser.add_argument(
        "--served-log-share", type=share, default=0.0, help="part of the reads to log for the offline store, 0 to 1"
    )
    parser.add_argument(
        "--served-log-bytes", type=byte_count, default=SERVED_LOG_BYTES, help="disk for logged reads on their way"
    )
    parser.add_argument("--metrics-port", type=port, help="port of the Prometheus endpoint; none without it")
    parser.add_argument("--import-root", type=Path, action="append", default=[], help="folder that imports may read")
    parser.add_argument("--direct-reads", action="store_true", help="reads past the page cache, for data beyond memory")
    parser.add_argument("--otlp-endpoint", default="", help="http://HOST:PORT that takes traces and metrics by OTLP")
    return parser.parse_args(arguments)


def share(text: str) -> float:
    """A part of a whole."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError("0 to 1")
    return number


def byte_count(text: str) -> int:
    """A positive number of bytes."""
    number = int(text)
    if number < 1 << 20:
        raise ValueError("at least 1 MiB")
    return number


if __name__ == "__main__":
    sys.exit(main())
