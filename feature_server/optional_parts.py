"""The parts of a feature server that only some have, each begun here and ended with its stack."""

import argparse
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from core_ext.request_core import RequestCore
from core_ext.served_ring import ServedRing
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.read_counts import CountsFile, ReadCounts
from feature_server.domain.reads import Reads
from feature_server.domain.reclaim import Reclaim
from feature_server.domain.row_checks import check_rows
from feature_server.domain.served_writer import QUEUE_BYTES_MAX, ServedWriter
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.writes import Writes
from feature_server.observed import observe_ring
from feature_server.pipeline.applying import Applying
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.ingest import Ingest
from feature_server.pipeline.meters import Meters
from feature_server.ring.shard_copy import ShardCopy, check_new
from feature_server.ring_log import RingLog
from feature_server.rpc.peer_channels import PeerChannels
from feature_server.rpc.peer_copies import PeerCopies
from feature_server.rpc.placement_client import PlacementClient, RingCopy
from feature_server.rpc.ring_parts import RingParts
from feature_server.storage.files import read_file, write_file
from feature_server.storage.marks import FileMark
from feature_server.storage.packed_rows import read_layout
from feature_server.storage.served_log import ServedSegments
from feature_server.storage.snapshot_folders import ArrivingFolder, SentFolders
from feature_server.storage.store_folder import StoreFolder
from headrace.client.tls import Tls
from headrace.errors import DataLoss, InvalidArgument
from headrace.serving.kafka_access import read_access
from headrace.serving.logging import EventLog
from headrace.serving.process import bearer_token
from headrace.serving.telemetry import Telemetry
from headrace.serving.turns import Turns

RING_COPY_NAME: Final = "ring"
SERVED_LOG_NAME: Final = "served-log"


def now_us() -> int:
    """Unix time in microseconds."""
    return time.time_ns() // 1_000


def keep_counts(
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


def reclaiming(stack: ExitStack, telemetry: Telemetry, reclaim: Reclaim) -> None:
    """Rows of retired versions are taken away by its plan from now on."""
    rows = "Rows of retired versions taken away."
    telemetry.counter("headrace.reclaim.rows", rows, lambda: [(reclaim.row_count, {})])
    telemetry.counter("headrace.reclaim.bytes", "Bytes of these rows.", lambda: [(reclaim.byte_count, {})])
    reclaim.start()
    stack.callback(reclaim.close)


def ring_of(
    stack: ExitStack,
    options: argparse.Namespace,
    folder: StoreFolder,
    *,
    shards: ShardSet,
    catalogue: Catalogue,
    log: EventLog,
    tls: Tls | None,
    ring_log: RingLog | None,
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
    if options.reclaim_every_s:
        raise InvalidArgument(
            "--reclaim-every-s takes rows away outside of the log, and copies of a --ring are compared by their rows; "
            "start without it",
            reason="RING_WITH_RECLAIM",
            field="reclaim_every_s",
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
        folders=SentFolders(options.data), log=log,
        source=lambda held: PeerCopies(held, sinks, token, tls, *([ring_log.topic.range] if ring_log else [])),
    )  # fmt: skip


def join_ring(
    stack: ExitStack, options: argparse.Namespace, ring: RingParts | None, port_number: int, telemetry: Telemetry
) -> None:
    """Begins the membership, where there is a ring."""
    if ring is None:
        return
    observe_ring(telemetry, ring)
    ring.join(stack, options.advertise or f"{options.host}:{port_number}", options.zone, options.weight)


def log_served(
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


def read_streams(  # noqa: PLR0917 - every one is a different thing
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
    if not options.kafka or options.ring:
        return
    meters = Meters()
    meters.observe(telemetry)
    applying = partial(Applying, catalogue, shards, meters, now_us)
    cluster = Cluster(options.kafka, prefix=options.topic_prefix, access=read_access(options.kafka_access))
    ingest = Ingest(
        cluster, store_id, catalogue, applying, len(shards), meters=meters, log=log, clock_s=time.monotonic,
        random=Random(), beside_reads=turns.short,
    )  # fmt: skip
    telemetry.gauge("headrace.pipeline.partitions", "Keyed partitions by state.", ingest.partition_counts)
    ingest.start()
    stack.callback(ingest.close)
