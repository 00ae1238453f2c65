"""Reads the keyed topics of a server's entities in a thread of its own, from where the shards say."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from random import Random
from typing import Final

from arroyo.processing.processor import StreamProcessor
from arroyo.processing.strategies.abstract import ProcessingStrategy, ProcessingStrategyFactory
from arroyo.types import Commit, Message, Partition, Topic
from confluent_kafka import Consumer as KafkaClient
from confluent_kafka import KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from feature_server.domain.catalogue import Catalogue
from feature_server.pipeline import consumer, outbox
from feature_server.pipeline.applying import Applying, KeyedTopic, Poison
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.consumer import Batch, BatchConsumer, lost
from feature_server.pipeline.dead_letters import STAGE_APPLY, DeadLetter
from feature_server.pipeline.meters import Meters
from feature_server.pipeline.outbox import Outbox
from feature_server.pipeline.sources import takes_stream
from feature_server.pipeline.supervision import Supervised
from feature_server.pipeline.topics import ASK_LIMIT_S, check_partitions, make_topics, topic_id, unavailable
from headrace.errors import HeadraceError, Unavailable
from headrace.serving.logging import EventLog
from headrace.serving.priority import BESIDE_READS

GROUP: Final = "apply"
BATCH_MESSAGES: Final = 512  # of up to a thousand events each
DEAD_LETTER_LIMIT_S: Final = 30.0
ALARM_EVERY_S: Final = 60.0
SETTLE_S: Final = 5.0
HOLD_S: Final = 30.0  # before a partition without a good start is tried again

logging.getLogger("arroyo").setLevel(logging.CRITICAL + 1)  # what it reports is raised as well, and logged here


class Ingest:
    """The second stage of a server: one thread over all of its partitions."""

    def __init__(
        self,
        cluster: Cluster,
        store_id: str,
        catalogue: Catalogue,
        applying: Callable[[Callable[[Poison], None]], Applying],
        shard_count: int,
        *,
        meters: Meters,
        log: EventLog,
        clock_s: Callable[[], float],
        random: Random,
        beside_reads: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._beside_reads = beside_reads
        self._cluster = cluster
        self._group = cluster.group(f"{GROUP}.{store_id}")
        self._catalogue = catalogue
        self._applying = applying(self._bury)
        self._shard_count = shard_count
        self._meters = meters
        self._log = log
        self._clock_s = clock_s
        self._admin: AdminClient | None = None
        self._outbox: Outbox | None = None
        self._letter_topics: set[str] = set()
        self._client: KafkaClient | None = None
        self._topics: dict[str, KeyedTopic] = {}
        self._assigned: set[Partition] = set()
        self._parked: set[Partition] = set()
        self._held: dict[Partition, float] = {}
        self._alarms: dict[str, float] = {}
        self._settle_s = 0.0
        self._supervised = Supervised(
            "ingest", self._processor, log, random, clock_s, holds_back=True, niceness=BESIDE_READS
        )

    def start(self) -> None:
        """Begins to read."""
        self._supervised.start()

    def close(self) -> None:
        """Ends reading; what was applied stands, and is not read again."""
        self._supervised.close()

    def partition_counts(self) -> list[tuple[float, dict[str, str]]]:
        """Partitions that are read, and those held back for want of a good start."""
        now_s = self._clock_s()
        held = sum(until_s > now_s for until_s in list(self._held.values()))
        return [(len(self._assigned), {"state": "read"}), (held, {"state": "held"})]

    def _processor(self) -> StreamProcessor[Batch]:
        self._assigned, self._parked, self._topics = set(), set(), {}
        self._client = KafkaClient(consumer.settings(self._cluster, self._group))
        batches = BatchConsumer(self._client, self._clock_s, self, BATCH_MESSAGES)
        self._meters.follow("ingest", batches.lag)
        return StreamProcessor(batches, Topic(GROUP), _Factory(self))

    # Called by the consumer.

    def wanted(self) -> set[Partition]:
        """Every partition of a shard that takes writes now.

        One that was parked is left out once, so that it is assigned anew and begins at the mark of its shard: what was
        read and not applied is then read again.
        """
        now_s = self._clock_s()
        return {
            partition
            for topic in self._keyed_topics()
            for number, partition in enumerate(_partitions(topic))
            if not (partition in self._parked and partition in self._assigned)
            and self._held.get(partition, 0.0) <= now_s
            and self._applying.is_writable(topic, number)
        }

    def starts(self, partitions: set[Partition]) -> dict[Partition, int]:
        """Marks of the shards. A partition without a good one is held back alone; the others go on."""
        found = {}
        for partition in sorted(partitions):
            try:
                found[partition] = self._start(self._topics[partition.topic.name], partition)
            except HeadraceError as error:
                self._held[partition] = self._clock_s() + HOLD_S
                self._alarm(str(partition), error)
        return found

    def _start(self, topic: KeyedTopic, partition: Partition) -> int:
        assert self._client is not None, "the processor has made it"
        place = TopicPartition(topic.name, partition.index)
        try:
            low, high = self._client.get_watermark_offsets(place, timeout=ASK_LIMIT_S)
        except KafkaException as error:
            raise unavailable(f"{topic.name!r} does not tell its offsets", error) from error
        known = self._applying.start(topic, partition.index)
        if known is None:
            return int(low)
        if not low <= known <= high:
            raise lost(topic.name, partition.index, known, low)
        return known

    def _keyed_topics(self) -> list[KeyedTopic]:
        state, views = self._catalogue.layouts
        entities = {view.entity.name for view in views.values() if takes_stream(view, state)}
        if entities - {topic.entity for topic in self._topics.values()}:
            try:
                self._describe(entities)
            except HeadraceError as error:
                self._alarm("topics", error)
        return [topic for topic in self._topics.values() if topic.entity in entities]

    def _describe(self, entities: set[str]) -> None:
        self._admin = self._admin or AdminClient(self._cluster.client)
        by_name = {self._cluster.keyed(entity): entity for entity in entities}
        try:
            known = self._admin.list_topics(timeout=ASK_LIMIT_S).topics
            names = [name for name in by_name if name in known]  # the worker that fills them makes them
            if not names:
                return
            described = self._admin.describe_topics(TopicCollection(names), request_timeout=ASK_LIMIT_S)
            found = {name: future.result() for name, future in described.items()}
        except KafkaException as error:
            raise unavailable("keyed topics cannot be described", error) from error
        for name, one in found.items():
            count = len(one.partitions)
            try:
                check_partitions(name, count, self._shard_count)
            except HeadraceError as error:
                self._alarm(name, error)
                continue
            self._topics[name] = KeyedTopic(name, topic_id(one.topic_id), by_name[name], count)

    def _alarm(self, what: str, error: HeadraceError) -> None:
        if self._clock_s() >= self._alarms.get(what, 0.0):
            self._alarms[what] = self._clock_s() + ALARM_EVERY_S
            level = self._log.warning if isinstance(error, Unavailable) else self._log.error
            level("ingest_stopped", of=what, reason=error.reason, detail=error.message)

    # Called by the strategy.

    def assigned(self, partitions: Mapping[Partition, int]) -> None:
        """These are read from now on."""
        self._parked -= partitions.keys() - self._assigned
        self._assigned = set(partitions)

    def take(self, batch: Batch) -> bool:
        """Applies a batch; False where its shard refuses, whose partition is then read again later."""
        partition = Partition(Topic(batch.topic), batch.partition)
        if partition in self._parked:
            return False
        try:
            with self._beside_reads():
                self._applying.apply(self._topics[batch.topic], batch)
        except HeadraceError as error:
            self._parked.add(partition)
            self._alarm(str(partition), error)
            return False
        except Exception as error:  # noqa: BLE001 - a fault of ours holds up this partition, and no other
            self._parked.add(partition)
            self._log.failure("ingest_failed", error, partition=str(partition))
            return False
        return True

    def settle(self, *, at_once: bool = False) -> None:
        """Keeps how far partitions were read that made no rows."""
        now_s = self._clock_s()
        if at_once or now_s >= self._settle_s:
            self._settle_s = now_s + SETTLE_S
            self._applying.settle()

    def _bury(self, poison: Poison) -> None:
        """Keeps what a view cannot take. It has arrived before the mark moves past it."""
        topic = self._cluster.dead_letters(poison.source)
        origin = self._catalogue.layouts[0].sources.get(poison.source)
        letter = DeadLetter(
            origin.definition.uri if origin is not None else poison.source,
            poison.partition,
            poison.offset,
            poison.reason,
            f"{poison.view}: {poison.detail}",
            poison.payload,
            STAGE_APPLY,
        )
        if self._outbox is None or topic not in self._letter_topics:
            self._admin = self._admin or AdminClient(self._cluster.client)
            make_topics(self._admin, self._cluster, [], [topic])
            self._letter_topics.add(topic)
        if self._outbox is None:
            self._outbox = Outbox(Producer(outbox.settings(self._cluster)))
        try:
            parcel = self._outbox.open(lambda: None)
            self._outbox.send(parcel, topic, 0, letter.value(), letter.headers(poison.source))
            self._outbox.close(parcel)
            if not self._outbox.flush(DEAD_LETTER_LIMIT_S, self._clock_s):
                raise Unavailable(f"a dead letter to {topic!r} did not arrive", reason="KAFKA_UNAVAILABLE")
        except HeadraceError:
            self._outbox = None  # a producer that failed once sends nothing more
            raise


class _Factory(ProcessingStrategyFactory[Batch]):
    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def create_with_partitions(self, commit: Commit, partitions: Mapping[Partition, int]) -> ProcessingStrategy[Batch]:
        self._ingest.assigned(partitions)
        return _Strategy(self._ingest, commit)


class _Strategy(ProcessingStrategy[Batch]):
    """Applies in place: when a batch was taken, its rows stand."""

    def __init__(self, ingest: Ingest, commit: Commit) -> None:
        self._ingest = ingest
        self._commit = commit

    def poll(self) -> None:
        """Keeps how far idle partitions are, every now and then."""
        self._ingest.settle()

    def submit(self, message: Message[Batch]) -> None:
        """Applies one batch. The group is told for those who watch its lag; nothing starts from what it knows."""
        if self._ingest.take(message.payload):
            self._commit(message.committable)

    def close(self) -> None:
        """Nothing is under way."""
        self._ingest.assigned({})

    def terminate(self) -> None:
        """Nothing is under way."""
        self._ingest.assigned({})

    def join(self, timeout: float | None = None) -> None:
        """Nothing is under way."""
        self._ingest.settle(at_once=True)
        self._commit({}, force=True)


def _partitions(topic: KeyedTopic) -> list[Partition]:
    return [Partition(Topic(topic.name), number) for number in range(topic.partition_count)]
