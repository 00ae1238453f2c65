"""First stage as a process runs it: a thread per source that the registry knows, begun anew where its feed changes."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Partition, Topic
from confluent_kafka import Consumer as KafkaClient
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from feature_server.domain.layouts import view_layouts
from feature_server.pipeline import consumer, outbox
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.consumer import Batch, BatchConsumer
from feature_server.pipeline.decoders import decoder_of
from feature_server.pipeline.meters import Meters
from feature_server.pipeline.outbox import Outbox
from feature_server.pipeline.rekeying import Rekeying, RekeyingStrategy
from feature_server.pipeline.sources import Feed, feeds_of
from feature_server.pipeline.supervision import Supervised
from feature_server.pipeline.topics import check_rows_topic, make_topics
from headrace.definitions.registered import RegistryState
from headrace.errors import HeadraceError, InternalError
from headrace.serving.logging import EventLog

STAGE: Final = "rekey"


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds that only rise, and microseconds since the epoch."""

    monotonic_s: Callable[[], float]
    now_us: Callable[[], int]


class Workers:
    """All sources of a worker. The registry's watch hands it each new registry."""

    def __init__(  # noqa: PLR0917 - every one is a different thing
        self, cluster: Cluster, schemas: Path | None, meters: Meters, log: EventLog, clocks: Clocks, random: Random
    ) -> None:
        self._cluster = cluster
        self._schemas = schemas
        self._meters = meters
        self._log = log
        self._clocks = clocks
        self._random = random
        self._lock = threading.Lock()
        self._revision = 0
        self._threads: dict[str, tuple[Feed, Supervised]] = {}
        self.on_first: Callable[[], None] = lambda: None

    @property
    def revision(self) -> int:
        """Revision of the registry that is followed; 0 before the first."""
        return self._revision

    def accept(self, state: RegistryState) -> None:
        """Reads what the registry names from now on."""
        feeds, refused = feeds_of(state, view_layouts(state))
        for source, error in refused.items():
            self._log.error("source_not_read", source=source, reason=error.reason, detail=error.message)
        with self._lock:
            is_first = not self._revision
            self._revision = state.revision
            changed = [name for name, (feed, _) in self._threads.items() if feeds.get(name) != feed]
            ended = [self._threads.pop(name)[1] for name in changed]
        for one in ended:  # without the lock: what is on its way may take some time to arrive
            one.close()
        with self._lock:
            for source, feed in feeds.items():
                if source not in self._threads:
                    self._begin(source, feed)
        self._log.info("sources_read", revision=state.revision, sources=sorted(feeds))
        if is_first:
            self.on_first()

    def alarms(self) -> Mapping[str, HeadraceError]:
        """Sources that stopped for good, and why."""
        with self._lock:
            stopped = {source: one.alarm for source, (_, one) in self._threads.items()}
        return {source: alarm for source, alarm in stopped.items() if alarm is not None}

    def close(self) -> None:
        """Ends every source; what is on its way arrives and is committed."""
        with self._lock:
            running = [one for _, one in self._threads.values()]
            self._threads.clear()
        for one in running:
            one.close()

    def _begin(self, source: str, feed: Feed) -> None:
        random = Random(self._random.random())
        try:
            decoder_of(feed, self._schemas)  # a schema that cannot be read is no reason to try for ever
        except HeadraceError as error:
            self._log.error("source_not_read", source=source, reason=error.reason, detail=error.message)
            return
        reading = Supervised(source, lambda: self._processor(feed), self._log, random, self._clocks.monotonic_s)
        self._threads[source] = feed, reading
        reading.start()

    def _processor(self, feed: Feed) -> StreamProcessor[Batch]:
        cluster, stream = self._cluster, feed.stream
        admin = AdminClient(cluster.client)
        keyed = [] if cluster.ring_shards else [cluster.keyed(entity.name) for entity in feed.entities]
        make_topics(admin, cluster, keyed, [cluster.dead_letters(stream.source)])
        if cluster.ring_shards:
            check_rows_topic(admin, cluster)
        box = Outbox(Producer(outbox.settings(cluster)))
        client = KafkaClient(consumer.settings(cluster, cluster.group(stream.source)))
        batches = BatchConsumer(client, self._clocks.monotonic_s)
        self._meters.follow(stream.source, batches.lag)
        rekeying = Rekeying(feed, decoder_of(feed, self._schemas), cluster, box, self._clocks.now_us)
        factory = _Factory(rekeying, box, self._meters, stream.source, self._clocks)
        return StreamProcessor(batches, Topic(stream.topic), factory)


class _Factory(ProcessingStrategyFactory[Batch]):
    def __init__(self, rekeying: Rekeying, box: Outbox, meters: Meters, source: str, clocks: Clocks) -> None:
        self._rekeying = rekeying
        self._box = box
        self._meter = meters.stage(STAGE, source)
        self._clocks = clocks

    def create_with_partitions(self, commit: Commit, partitions: Mapping[Partition, int]) -> ProcessingStrategy[Batch]:
        if not partitions:
            raise InternalError("a strategy without partitions", reason="INTERNAL")
        clocks = self._clocks.monotonic_s, self._clocks.now_us
        return RekeyingStrategy(self._rekeying, self._box, commit, self._meter, clocks)
