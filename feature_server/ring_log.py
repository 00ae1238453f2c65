"""The log that the copies of a ring share, where a server is given a Kafka cluster: it ends with its stack."""

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from confluent_kafka import Consumer, Producer

from feature_server.domain.catalogue import Catalogue
from feature_server.domain.logged_replays import LoggedReplays
from feature_server.domain.logged_writes import LoggedWrites
from feature_server.domain.replays import Replays
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.writes import Writes
from feature_server.pipeline import consumer, rows_outbox
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.log_fold import LogFold
from feature_server.pipeline.rows_follower import RowsFollower
from feature_server.pipeline.rows_outbox import RowsOutbox
from feature_server.pipeline.rows_topic import RowsTopic
from feature_server.rpc.ring_parts import RingParts
from headrace.serving.kafka_access import read_access
from headrace.serving.logging import EventLog
from headrace.serving.telemetry import Telemetry
from headrace.serving.turns import Turns


@dataclass(frozen=True, slots=True)
class RingLog:
    """Where the log is, and the way into it."""

    cluster: Cluster
    topic: RowsTopic
    outbox: RowsOutbox


def ring_log_of(stack: ExitStack, options: argparse.Namespace, shard_count: int) -> RingLog | None:
    """The log of a ring, where there are both."""
    if not (options.ring and options.kafka):
        return None
    cluster = Cluster(options.kafka, prefix=options.topic_prefix, access=read_access(options.kafka_access))
    topic = RowsTopic(cluster, shard_count, options.rows_replicas, options.rows_retention_s)
    stack.callback(topic.close)
    outbox = RowsOutbox(lambda: Producer(rows_outbox.settings(cluster)), topic.state)
    outbox.start()
    stack.callback(outbox.close)
    return RingLog(cluster, topic, outbox)


def writes_of(
    catalogue: Catalogue,
    shards: ShardSet,
    clock_us: Callable[[], int],
    turns: Turns,
    *,
    ring: RingParts | None,
    ring_log: RingLog | None,
) -> Writes:
    """Online writes: into the log where there is one, else into the shards."""
    if ring_log is not None:
        return LoggedWrites(catalogue, shards, clock_us, ring_log.outbox, turns.short)
    return Writes(catalogue, shards, clock_us, turns.short, *([ring.held.check_write] if ring is not None else []))


def replays_of(
    catalogue: Catalogue,
    shards: ShardSet,
    clock_us: Callable[[], int],
    *,
    ring: RingParts | None,
    ring_log: RingLog | None,
) -> Replays:
    """Rows of the offline store: into the log where there is one, else into the shards."""
    if ring_log is not None:
        return LoggedReplays(catalogue, shards, clock_us, ring_log.outbox)
    return Replays(catalogue, shards, clock_us, *([ring.held.check_replay] if ring is not None else []))


def follow_log(
    stack: ExitStack,
    ring: RingParts | None,
    ring_log: RingLog | None,
    *,
    catalogue: Catalogue,
    shards: ShardSet,
    turns: Turns,
    telemetry: Telemetry,
    log: EventLog,
) -> None:
    """Begins to read the log into the copies."""
    if ring is None or ring_log is None:
        return
    fold = LogFold(catalogue, shards, log)
    cluster = ring_log.cluster
    follower = RowsFollower(
        ring_log.topic, lambda: Consumer(consumer.settings(cluster, cluster.group("rows"))), ring.copies, fold,
        log=log, clock_s=time.monotonic, beside_reads=turns.short,
    )  # fmt: skip
    _observe(telemetry, follower, fold, ring_log.outbox)
    follower.start()
    stack.callback(follower.close)


def _observe(telemetry: Telemetry, follower: RowsFollower, fold: LogFold, outbox: RowsOutbox) -> None:
    lag = "Messages of the log that the copies here do not have, of all shards and of the worst."

    def lags() -> list[tuple[float, dict[str, str]]]:
        known = follower.lags().values()
        return [(sum(known), {"of": "all"}), (max(known, default=0), {"of": "worst"})]

    telemetry.gauge("headrace.rows.lag", lag, lags)
    telemetry.gauge("headrace.rows.held", "Shards whose copy refuses its log.", lambda: [(follower.held_count, {})])
    telemetry.counter(
        "headrace.rows.applied", "Messages of the log that copies took.", lambda: [(follower.applied_count, {})]
    )
    telemetry.counter(
        "headrace.rows.dropped",
        "What the log held and no copy takes: damaged messages, repeated events, entities that outgrew their rows.",
        lambda: [
            (fold.damaged_count, {"reason": "damaged"}),
            (fold.unusable_count, {"reason": "unusable"}),
            (fold.repeated_count, {"reason": "repeated"}),
            (fold.outgrown_count, {"reason": "outgrown"}),
        ],
    )
    telemetry.counter(
        "headrace.rows.sent",
        "Messages of writes to the log.",
        lambda: [(outbox.message_count, {"outcome": "sent"}), (outbox.failed_count, {"outcome": "failed"})],
    )
