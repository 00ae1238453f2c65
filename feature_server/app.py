"""Feature server: `python -m feature_server.app --data DIR --port N --registry HOST:PORT`."""

import argparse
import gc
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

import grpc

from core_ext.request_core import RequestCore
from core_ext.row_table import RowTable
from core_ext.served_ring import ServedRing
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.explanations import Explanations
from feature_server.domain.imports import Imports
from feature_server.domain.peer_reads import PeerReads
from feature_server.domain.read_counts import COUNTS_NAME, CountsFile, ReadCounts
from feature_server.domain.reads import Reads
from feature_server.domain.reclaim import Reclaim
from feature_server.domain.registry_keeper import RegistryKeeper
from feature_server.domain.replays import Replays
from feature_server.domain.row_checks import check_rows
from feature_server.domain.served_writer import QUEUE_BYTES_MAX, ServedWriter
from feature_server.domain.shard import Shard, ShardState
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.storage_use import StorageUse
from feature_server.domain.writes import Writes
from feature_server.pipeline.applying import Applying
from feature_server.pipeline.clusters import Cluster, read_access
from feature_server.pipeline.ingest import Ingest
from feature_server.pipeline.meters import Meters
from feature_server.ring.shard_copy import ShardCopy, check_new
from feature_server.rpc.feature_servicer import STREAM_COUNT_MAX, FeatureServicer
from feature_server.rpc.inspection_servicer import InspectionServicer
from feature_server.rpc.native_front import (
    CONNECTION_BYTES,
    TRANSPORTS,
    GrpcioTransport,
    NativeTransport,
    default_transport,
)
from feature_server.rpc.peer_channels import PeerChannels
from feature_server.rpc.peer_copies import PeerCopies
from feature_server.rpc.placement_client import PlacementClient, RingCopy
from feature_server.rpc.registry_client import RegistryCopy, RegistryWatch
from feature_server.rpc.ring_parts import RingParts
from feature_server.rpc.services import SERVICE_NAMES, add_services, permissions
from feature_server.rpc.shard_servicer import ShardServicer
from feature_server.storage.files import read_file, write_file
from feature_server.storage.marks import FileMark
from feature_server.storage.packed_rows import read_layout
from feature_server.storage.rocks_options import BLOCK_CACHE_BYTES, WRITE_BUFFER_BYTES, StoreBudget
from feature_server.storage.served_log import ServedSegments
from feature_server.storage.snapshot_folders import ArrivingFolder, SentFolders
from feature_server.storage.store_folder import SHARD_COUNT, StoreFolder
from headrace.client.tls import Tls, client_tls
from headrace.errors import DataLoss, InvalidArgument
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
RING_COPY_NAME: Final = "ring"
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
        _observe(telemetry, shards, table, catalogue, served[0] if served is not None else None)
        ring = _ring(stack, options, folder, shards=shards, catalogue=catalogue, log=log, tls=registry_tls)
        ring_reads = ring.reads if ring is not None else None
        turns = Turns()
        reads = Reads(core, table, shards, catalogue, _now_us, ring_reads)
        writes = Writes(catalogue, shards, _now_us, turns.short, *([ring.held.check_write] if ring else []))
        _observe_writes(telemetry, writes)
        _keep_counts(stack, options.data / COUNTS_NAME, catalogue=catalogue, reads=reads, writes=writes, log=log)
        imports = Imports(options.import_root, writes)
        online = FeatureServicer(reads, writes, imports, authenticator.current_principal)
        peer = ShardServicer(
            PeerReads(reads, shards, folder.identity.store_id, served[1] if served is not None else None, ring_reads),
            Replays(catalogue, shards, _now_us, *([ring.held.check_replay] if ring else [])),
            authenticator.current_principal,
            ring.snapshots if ring is not None else None,
        )
        storage = StorageUse(shards, catalogue, _now_us, served[1] if served is not None else None)
        reclaim = Reclaim(shards, catalogue, storage, log, interval_s=options.reclaim_every_s)
        explanations = Explanations(table, shards, catalogue, reads, _now_us)
        inspection = InspectionServicer(
            explanations, storage, _reclaiming(stack, telemetry, reclaim), authenticator.current_principal
        )
        workers = WORKER_COUNT + STREAM_COUNT_MAX  # streams hold theirs; reads keep as many as ever
        name = options.transport or default_transport(log)
        forwarded = ForwardedIdentities()
        is_grpcio = name == GrpcioTransport.name
        server = build_server(
            authenticator, permissions(), options.host, workers, forwarded=forwarded,
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
        token = bearer_token(options.registry_token, "registry_token") or ""
        watch = RegistryWatch(options.registry, token, keeper, copy, random=Random(), log=log, tls=registry_tls)
        watch.start()
        stack.callback(watch.close)
        _join_ring(stack, options, ring, port, telemetry)
        _read_streams(stack, options, folder.identity.store_id, catalogue, shards, turns, telemetry, log)
        address = f"{options.host}:{port}"
        log.info("listening", address=address, port=port, metrics_port=telemetry.metrics_port, transport=transport.name)
        yield port


def _keep_counts(
    stack: ExitStack, path: Path, *, catalogue: Catalogue, reads: Reads, writes: Writes, log: EventLog
) -> None:
    """Saves what the store is asked for, which decides how its rows should lie: headrace service layout."""

    def counted() -> ReadCounts:
        fetched, written = reads.fetched(), dict(writes.rows_by_view)
        by_text = [{str(view_id): count for view_id, count in counts.items()} for counts in (fetched, written)]
        return ReadCounts(catalogue.rows_read(), *by_text)

    counts = CountsFile(_held_counts(path, log), counted, lambda data: write_file(path, data, sync=False), log)
    counts.start()
    stack.callback(counts.close)


def _held_counts(path: Path, log: EventLog) -> bytes | None:
    try:
        return read_file(path)
    except DataLoss as error:  # it is written without a sync; counting begins anew
        log.error("read_counts_lost", detail=error.message)
        return None


def _reclaiming(stack: ExitStack, telemetry: Telemetry, reclaim: Reclaim) -> Reclaim:
    rows = "Rows of retired versions taken away."
    telemetry.counter("headrace.reclaim.rows", rows, lambda: [(reclaim.row_count, {})])
    telemetry.counter("headrace.reclaim.bytes", "Bytes of these rows.", lambda: [(reclaim.byte_count, {})])
    reclaim.start()
    stack.callback(reclaim.close)
    return reclaim


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


def _ring(
    stack: ExitStack,
    options: argparse.Namespace,
    folder: StoreFolder,
    *,
    shards: ShardSet,
    catalogue: Catalogue,
    log: EventLog,
    tls: Tls | None,
) -> RingParts | None:
    """What a server in a ring has beside the others, where it is to be in one."""
    if not options.ring:
        return None
    if options.row_log_bytes is not None or options.served_log_share:
        raise InvalidArgument(
            "--ring moves shards and reads rows of peers, which --row-log-bytes and --served-log-share do not follow; "
            "start without them",
            reason="RING_WITH_LOGS",
            field="ring",
        )
    if options.kafka:
        raise InvalidArgument(
            "--kafka reads every partition of the keyed topics, and --ring keeps the shards of this server alone; "
            "start without one of them",
            reason="RING_WITH_KAFKA",
            field="kafka",
        )
    if read_layout(folder.path).packings:
        raise InvalidArgument(
            "--ring moves shards as files, and the rows of this folder lie together by `headrace service layout`; "
            "start on a new folder",
            reason="RING_WITH_LAYOUT",
            field="ring",
        )
    path = options.data / RING_COPY_NAME
    ring_copy = RingCopy(partial(read_file, path), partial(write_file, path), log)
    check_new(list(shards.shards), has_ring=path.exists())
    copies = [ShardCopy(shard, FileMark(options.data / f"copy-{shard.number:04}")) for shard in shards.shards]
    token = bearer_token(options.registry_token, "registry_token")
    channels = PeerChannels(token, tls, partial(check_rows, catalogue))
    stack.callback(channels.close)
    placement = PlacementClient(options.registry, token, tls, random=Random(), log=log)
    sinks = [
        partial(ArrivingFolder, options.data, copy.number, begin=copy.begin, install=copy.install) for copy in copies
    ]
    return RingParts(
        folder.identity.store_id, shards, copies, copy=ring_copy, channels=channels, placement=placement,
        folders=SentFolders(options.data), source=lambda held: PeerCopies(held, sinks, token, tls), log=log,
    )  # fmt: skip


def _join_ring(
    stack: ExitStack, options: argparse.Namespace, ring: RingParts | None, port_number: int, telemetry: Telemetry
) -> None:
    if ring is None:
        return
    _observe_ring(telemetry, ring)
    ring.join(stack, options.advertise or f"{options.host}:{port_number}", options.zone, options.weight)


def _observe_writes(telemetry: Telemetry, writes: Writes) -> None:
    telemetry.counter("headrace.write.rows", "Rows accepted.", lambda: [(writes.row_count, {})])
    telemetry.counter("headrace.write.stale", "Rows older than the stored.", lambda: [(writes.stale_count, {})])


def _observe_ring(telemetry: Telemetry, ring: RingParts) -> None:
    telemetry.gauge("headrace.ring.held_epoch", "Epoch of the ring that is held.", lambda: [(ring.held.ring.epoch, {})])
    telemetry.counter("headrace.ring.sent", "Sub-requests to peers.", lambda: [(ring.reads.sent_count, {})])
    telemetry.counter("headrace.ring.hedged", "Sub-requests that were hedges.", lambda: [(ring.reads.hedge_count, {})])
    telemetry.gauge("headrace.ring.ejected", "Peers asked last.", lambda: [(len(ring.outliers.ejected()), {})])


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


def _read_streams(  # noqa: PLR0917 - every one is a different thing
    stack: ExitStack,
    options: argparse.Namespace,
    store_id: str,
    catalogue: Catalogue,
    shards: ShardSet,
    turns: Turns,
    telemetry: Telemetry,
    log: EventLog,
) -> None:
    """Keyed topics into the shards, where a cluster is given; ends with the stack, before the shards close."""
    if not options.kafka:
        return
    meters = Meters()
    meters.observe(telemetry)
    applying = partial(Applying, catalogue, shards, meters, _now_us)
    cluster = Cluster(options.kafka, prefix=options.topic_prefix, access=read_access(options.kafka_access))
    ingest = Ingest(
        cluster, store_id, catalogue, applying, len(shards), meters=meters, log=log, clock_s=time.monotonic,
        random=Random(), beside_reads=turns.short,
    )  # fmt: skip
    telemetry.gauge("headrace.pipeline.partitions", "Keyed partitions by state.", ingest.partition_counts)
    ingest.start()
    stack.callback(ingest.close)


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


def _observe(
    telemetry: Telemetry, shards: ShardSet, table: RowTable, catalogue: Catalogue, served: ServedWriter | None
) -> None:
    if served is not None:
        _observe_served(telemetry, served)

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
    parser.add_argument("--ring", action="store_true", help="join the ring of the control plane; needs a new folder")
    parser.add_argument("--advertise", default="", help="HOST:PORT that peers reach this server by; --host and port")
    parser.add_argument("--zone", default="", help="what fails together, such as a rack: copies lie apart from it")
    parser.add_argument("--weight", type=int, default=1, help="part of the load beside the weights of other servers")
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
        "--reclaim-every-s", type=seconds, default=0.0,
        help="seconds between two walks that take away rows of retired versions; none without it",
    )  # fmt: skip
    parser.add_argument(
        "--served-log-bytes", type=byte_count, default=SERVED_LOG_BYTES, help="disk for logged reads on their way"
    )
    parser.add_argument("--kafka", default="", help="HOST:PORT,... of brokers whose keyed topics are read")
    parser.add_argument("--kafka-access", type=Path, help="file of name=value lines: security.*, sasl.*, ssl.*")
    parser.add_argument("--topic-prefix", default="", help="before the names of the topics, as the pipeline has it")
    parser.add_argument("--metrics-port", type=port, help="port of the Prometheus endpoint; none without it")
    parser.add_argument("--import-root", type=Path, action="append", default=[], help="folder that imports may read")
    parser.add_argument("--direct-reads", action="store_true", help="reads past the page cache, for data beyond memory")
    parser.add_argument("--otlp-endpoint", default="", help="http://HOST:PORT that takes traces and metrics by OTLP")
    return parser.parse_args(arguments)


def seconds(text: str) -> float:
    """A span of 0 or more."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more seconds")
    return number


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
