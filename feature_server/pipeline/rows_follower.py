"""Reads the log of a ring into the copies of this server: each shard from the offset of its copy, never a group's."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from feature_server.domain.log_messages import Logged
from feature_server.pipeline.consumer import LOST, PASSING, headers_of
from feature_server.pipeline.log_fold import LogFold
from feature_server.pipeline.rows_topic import RowsTopicState
from feature_server.pipeline.topics import ASK_LIMIT_S, unavailable
from feature_server.ring.log import LogRows
from headrace.errors import DataLoss, HeadraceError, Unavailable
from headrace.serving.logging import EventLog
from headrace.serving.priority import BESIDE_READS, lower_priority

BATCH_MESSAGES: Final = 1_024  # taken from librdkafka at once
TURN_MESSAGES: Final = 32  # turned into rows and applied before reads come in between
POLL_S: Final = 0.1  # a copy that begins to follow waits as long
HOLD_S: Final = 1.0  # of a shard that refused
HOLD_LOST_S: Final = 30.0  # of one that a person has to look at; trying it again disturbs the others
FIND_S: Final = 30.0  # between two looks whether the topic is still the same
MEASURE_S: Final = 1.0
BACKOFF_S: Final = 1.0
ALARM_EVERY_S: Final = 60.0
STOP_WAIT_S: Final = 30.0


class Topic(Protocol):
    """Where the log is."""

    def find(self) -> RowsTopicState:
        """Finds it; takes a while."""


class Followed(Protocol):
    """The copies here: those of ring.copies."""

    def followed(self) -> list[int]:
        """Shards to read."""

    def next_offset(self, shard: int) -> int:
        """Where to read a shard from."""

    def follow(self, shard: int, log_rows: LogRows) -> None:
        """Takes what was read from there."""


class RowsFollower:
    """One thread over all shards of this server."""

    def __init__(
        self,
        topic: Topic,
        make: Callable[[], Consumer],
        copies: Followed,
        fold: LogFold,
        *,
        log: EventLog,
        clock_s: Callable[[], float],
        beside_reads: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._topic = topic
        self._make = make
        self._copies = copies
        self._fold = fold
        self._log = log
        self._clock_s = clock_s
        self._beside_reads = beside_reads
        self._expected: dict[int, int] = {}  # shard to the offset that is read next
        self._placed: set[int] = set()  # shards of which nothing came since their place was set
        self._held: dict[int, float] = {}
        self._alarms: dict[int, float] = {}
        self._lags: Mapping[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rows-follower", daemon=True)
        self.applied_count = 0

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def close(self) -> None:
        """Ends reading; what was applied stands."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(STOP_WAIT_S)

    def lags(self) -> Mapping[int, int]:
        """Messages of each followed shard that its copy does not have, as heard a moment ago."""
        return self._lags

    @property
    def held_count(self) -> int:
        """Shards that are not read for a while, as their copy refused."""
        return len(self._held)

    def _run(self) -> None:
        lower_priority(BESIDE_READS)
        while not self._stop.is_set():
            try:
                self._read()
            except HeadraceError as error:
                self._log.warning("rows_not_followed", reason=error.reason, detail=error.message)
            except Exception as error:  # noqa: BLE001 - the outermost loop of a thread
                self._log.failure("rows_follower_failed", error)
            self._stop.wait(BACKOFF_S)

    def _read(self) -> None:
        state = self._topic.find()
        client = self._make()
        self._expected, self._held, self._placed = {}, {}, set()
        find_s, measure_s = self._clock_s() + FIND_S, 0.0
        try:
            while not self._stop.is_set():
                self._place(client, state.name)
                self._take(client, state)
                now_s = self._clock_s()
                if now_s >= measure_s:
                    measure_s = now_s + MEASURE_S
                    self._measure(client, state.name)
                if now_s >= find_s:
                    find_s = now_s + FIND_S
                    if self._topic.find() != state:
                        return  # begin anew with what it is now
        finally:
            client.close()

    def _place(self, client: Consumer, topic: str) -> None:
        """Reads what the ring wants now, and again what was held for long enough."""
        wanted = set(self._copies.followed())
        if wanted != self._expected.keys():
            self._expected = {shard: self._copies.next_offset(shard) for shard in wanted}
            self._placed, self._held = set(wanted), {}
            for shard in wanted:
                self._fold.forget(shard)
            client.assign([TopicPartition(topic, shard, offset) for shard, offset in self._expected.items()])
            client.resume([TopicPartition(topic, shard) for shard in wanted])
        now_s = self._clock_s()
        for shard in [shard for shard, until_s in self._held.items() if until_s <= now_s]:
            self._seek(client, topic, shard)
            client.resume([TopicPartition(topic, shard)])

    def _take(self, client: Consumer, state: RowsTopicState) -> None:
        by_shard: dict[int, list[Logged]] = {}
        for message in client.consume(BATCH_MESSAGES, POLL_S):
            error, shard = message.error(), message.partition() or 0
            if error is not None:
                self._judge(client, state, shard, error)
            elif shard in self._expected and shard not in self._held:
                by_shard.setdefault(shard, []).append(_logged(message))
        for shard, messages in by_shard.items():
            for start in range(0, len(messages), TURN_MESSAGES):
                if not self._apply(client, state, shard, messages[start : start + TURN_MESSAGES]):
                    break

    def _apply(self, client: Consumer, state: RowsTopicState, shard: int, messages: Sequence[Logged]) -> bool:
        """Whether the messages are in the copy; else the shard is read anew from where its copy is."""
        first, next_offset = self._expected.get(shard), messages[-1].offset + 1
        if first is None:
            return False
        # Offsets may be missing in a log, but only a place that was just set tells that they are.
        is_next = messages[0].offset == first or (shard in self._placed and messages[0].offset > first)
        if self._copies.next_offset(shard) != first or not is_next:
            self._seek(client, state.name, shard)
            return False
        try:
            with self._beside_reads():
                writes = self._fold.writes(shard, messages)
                self._copies.follow(shard, LogRows(first, next_offset, writes, state.epoch))
        except HeadraceError as error:
            self._hold(client, state.name, shard, error)
            return False
        except Exception as error:  # noqa: BLE001 - a fault of ours holds up this shard, and no other
            self._log.failure("rows_not_applied", error, shard=shard, offset=first)
            self._hold(client, state.name, shard, None)
            return False
        if self._copies.next_offset(shard) != next_offset:
            self._seek(client, state.name, shard)
            return False
        self._placed.discard(shard)
        self._expected[shard] = next_offset
        self.applied_count += len(messages)
        return True

    def _seek(self, client: Consumer, topic: str, shard: int) -> None:
        offset = self._copies.next_offset(shard)
        self._fold.forget(shard)
        self._held.pop(shard, None)
        try:
            client.seek(TopicPartition(topic, shard, offset))
        except KafkaException:
            self._expected = {}  # all are assigned anew
            return
        self._expected[shard] = offset
        self._placed.add(shard)

    def _hold(self, client: Consumer, topic: str, shard: int, error: HeadraceError | None) -> None:
        self._fold.forget(shard)
        self._held[shard] = self._clock_s() + (HOLD_LOST_S if isinstance(error, DataLoss) else HOLD_S)
        client.pause([TopicPartition(topic, shard)])
        if error is not None and self._clock_s() >= self._alarms.get(shard, 0.0):
            self._alarms[shard] = self._clock_s() + ALARM_EVERY_S
            level = self._log.warning if isinstance(error, Unavailable) else self._log.error
            level("rows_held", shard=shard, reason=error.reason, detail=error.message)

    def _judge(self, client: Consumer, state: RowsTopicState, shard: int, error: KafkaError) -> None:
        if error.code() in LOST:
            if shard in self._expected:
                self._hold(client, state.name, shard, self._lost(client, state, shard))
        elif error.code() not in PASSING and not error.retriable():
            raise unavailable("Kafka refuses", KafkaException(error))

    def _lost(self, client: Consumer, state: RowsTopicState, shard: int) -> HeadraceError | None:
        """What is wrong where the log does not hold the next offset of a copy, which is then no whole copy any more."""
        try:
            low, high = client.get_watermark_offsets(TopicPartition(state.name, shard), timeout=ASK_LIMIT_S)
        except KafkaException as error:
            return unavailable("Kafka does not tell its offsets", error)
        needed = self._copies.next_offset(shard)
        try:
            if needed < low:
                self._copies.follow(shard, LogRows(low, low, (), state.epoch))
        except HeadraceError as error:
            return error
        if needed > high:
            return DataLoss(
                f"the log of shard {shard} ends at {high}, and the copy here has all before {needed}: its brokers have "
                "lost rows that they acknowledged, or the topic was made anew; nothing more is applied to the shard "
                "before a person has decided which of both is right",
                reason="LOG_CUT",
                metadata={"shard": str(shard), "next_offset": str(needed), "end": str(high)},
            )
        return None

    def _measure(self, client: Consumer, topic: str) -> None:
        found = {}
        for shard, offset in self._expected.items():
            _, end = client.get_watermark_offsets(TopicPartition(topic, shard), cached=True)
            found[shard] = max(0, end - offset) if end >= 0 else 0
        self._lags = found


def _logged(message: Message) -> Logged:
    return Logged(message.offset() or 0, message.timestamp()[1] * 1_000, message.value() or b"", headers_of(message))
