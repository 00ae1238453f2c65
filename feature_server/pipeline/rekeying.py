"""First stage: events of a source, decoded, checked and sent on to the keyed topic of each entity that they feed."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from arroyo.processing.strategies.abstract import MessageRejected, ProcessingStrategy
from arroyo.types import Commit, Message, Partition, Topic
from numpy.typing import NDArray

from core_ext.arrow import arrow_column
from core_ext.keys import KEY_BYTES_MAX, encode_keys
from feature_server.domain.layouts import EntityLayout
from feature_server.domain.log_messages import Kind, Origin, log_headers
from feature_server.domain.write_columns import FUTURE_MAX_US
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.consumer import Batch
from feature_server.pipeline.dead_letters import DeadLetter
from feature_server.pipeline.decoding import Decoded, Decoder
from feature_server.pipeline.keyed import POSITION, ROWS_MAX, WRITE_TIME, headers_of, positions_of, write_keyed
from feature_server.pipeline.meters import StageMeter
from feature_server.pipeline.outbox import DELIVERY_MS, Headers, Outbox, Parcel
from feature_server.pipeline.sources import Feed
from feature_server.pipeline.topics import partitions_of
from headrace.types import Scalar

# Of one part of an encoded key: docs/decisions/0001-key-bytes.md.
NUMBER_BYTES: Final = 9
TEXT_HEAD_BYTES: Final = 3
ROWS_NAMED: Final = 20  # in the detail of a dead letter
DELIVERY_LIMIT_S: Final = DELIVERY_MS / 1_000
EVENT_US_MAX: Final = 1 << 60  # what windows take, 36,000 years either way

Rows = NDArray[np.int64]


class Rekeying:
    """Turns one batch of a source partition into messages."""

    def __init__(
        self, feed: Feed, decoder: Decoder, cluster: Cluster, outbox: Outbox, clock_us: Callable[[], int]
    ) -> None:
        self._feed = feed
        self._decoder = decoder
        self._cluster = cluster
        self._outbox = outbox
        self._clock_us = clock_us
        self._dead_letters = cluster.dead_letters(feed.stream.source)

    def send(self, batch: Batch, parcel: Parcel) -> tuple[int, int, int]:
        """Sends what a batch becomes; gives counts of events and dead letters, and the newest event time in us."""
        decoded = self._decoder.decode([event.value for event in batch.events])
        work = _Work(parcel, batch, decoded)
        for one in decoded.rejected:
            self._bury(work, one.message, one.reason, one.detail, batch.events[one.message].value)
        offsets = np.fromiter((event.offset for event in batch.events), np.int64, len(batch.events))
        write_us = np.fromiter((event.write_us for event in batch.events), np.int64, len(batch.events))
        positions = positions_of(offsets[decoded.messages], decoded.rows)
        system = {POSITION: pa.array(positions), WRITE_TIME: pa.array(write_us[decoded.messages])}
        table = pa.RecordBatch.from_pydict({**decoded.columns, **system})
        dead_count = len(decoded.rejected)
        (has_time, is_timely), times = self._timed(table)
        dead_count += self._bury_rows(work, ~has_time, "EVENT_TIME_REQUIRED")
        dead_count += self._bury_rows(work, ~is_timely, "EVENT_TIME_OUT_OF_RANGE")
        usable = has_time & is_timely
        for entity in self._feed.entities:
            has_key = _has_keys(table, entity)
            dead_count += self._bury_rows(work, usable & ~has_key, "BAD_ENTITY_KEY", entity.name)
            self._send_entity(work, table, np.flatnonzero(usable & has_key), entity)
        newest_us = int(times[usable].max()) if usable.any() else 0
        return len(decoded.messages), dead_count, newest_us

    def _timed(self, table: pa.RecordBatch) -> tuple[tuple[NDArray[np.bool_], NDArray[np.bool_]], Rows]:
        column = table.column(self._feed.stream.event_time)
        times: Rows = pc.fill_null(column.view(pa.int64()), 0).to_numpy()
        has_time = column.is_valid().to_numpy(zero_copy_only=False)
        is_timely = (times <= self._clock_us() + FUTURE_MAX_US) & (times >= -EVENT_US_MAX)
        return (has_time, is_timely), times

    def _send_entity(self, work: "_Work", table: pa.RecordBatch, chosen: Rows, entity: EntityLayout) -> None:
        if not len(chosen):
            return
        topic, partition_count, headers = self._way(entity, work.batch.partition)
        if len(chosen) < table.num_rows:
            table = table.take(pa.array(chosen))
        keys = encode_keys(entity.key_types, [arrow_column(table.column(name)) for name in entity.key_names])
        partitions = partitions_of(keys.slots, partition_count)
        order = np.argsort(partitions, kind="stable")  # positions go on rising within a partition
        numbers, starts = np.unique(partitions[order], return_index=True)
        table = table.take(pa.array(order))
        for number, start, end in zip(numbers.tolist(), starts, [*starts[1:], len(order)], strict=True):
            for at in range(int(start), int(end), ROWS_MAX):
                part = table.slice(at, min(ROWS_MAX, int(end) - at))
                self._outbox.send(work.parcel, topic, number, write_keyed(part), headers)

    def _way(self, entity: EntityLayout, partition: int) -> tuple[str, int, Headers]:
        """Topic of the events of an entity, how many partitions it has, and what their messages say of them."""
        stream, cluster = self._feed.stream, self._cluster
        if not cluster.ring_shards:
            headers = headers_of(stream.source, stream.source_id, partition)
            return cluster.keyed(entity.name), cluster.partition_count, headers
        origin = Origin(stream.source, stream.source_id, partition)
        headers = log_headers(Kind.EVENTS, self._feed.views[entity.name], self._feed.revision, origin)
        return cluster.rows, cluster.ring_shards, headers

    def _bury_rows(self, work: "_Work", is_bad: NDArray[np.bool_], reason: str, entity: str = "") -> int:
        """One dead letter per message: of a single event the message itself, else the rows of it that are wrong."""
        rows = np.flatnonzero(is_bad)
        if not len(rows):
            return 0
        decoded, events = work.decoded, work.batch.events
        messages = decoded.messages[rows]
        counts = np.bincount(decoded.messages, minlength=len(events))
        found = np.unique(messages).tolist()
        for message in found:
            own = rows[messages == message]
            detail = _DETAILS[reason].format(entity=entity)
            payload = events[message].value
            if counts[message] > 1:
                table = pa.RecordBatch.from_pydict({n: one.take(pa.array(own)) for n, one in decoded.columns.items()})
                payload, detail = write_keyed(table), f"{detail}; rows {decoded.rows[own][:ROWS_NAMED].tolist()}"
            self._bury(work, message, reason, detail, payload)
        return len(found)

    def _bury(self, work: "_Work", message: int, reason: str, detail: str, payload: bytes) -> None:
        batch = work.batch
        letter = DeadLetter(batch.topic, batch.partition, batch.events[message].offset, reason, detail, payload)
        headers = letter.headers(self._feed.stream.source)
        self._outbox.send(work.parcel, self._dead_letters, 0, letter.value(), headers)


class _Work(NamedTuple):
    """A batch under way."""

    parcel: Parcel
    batch: Batch
    decoded: Decoded


_DETAILS: Final[Mapping[str, str]] = {
    "EVENT_TIME_REQUIRED": "the event has no event time",
    "EVENT_TIME_OUT_OF_RANGE": f"the event lies over {FUTURE_MAX_US // 60_000_000} minutes ahead, or before all time",
    "BAD_ENTITY_KEY": "a join key of {entity} is missing, empty or too long",
}


def _has_keys(table: pa.RecordBatch, entity: EntityLayout) -> NDArray[np.bool_]:
    """Rows whose key can be encoded."""
    good = np.ones(table.num_rows, bool)
    lengths = np.zeros(table.num_rows, np.int64)
    for name, scalar in zip(entity.key_names, entity.key_scalars, strict=True):
        column = table.column(name)
        good &= column.is_valid().to_numpy(zero_copy_only=False)
        if scalar is Scalar.I64:
            lengths += NUMBER_BYTES
        else:
            sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy().astype(np.int64)
            good &= sizes > 0
            lengths += TEXT_HEAD_BYTES + sizes
    return good & (lengths <= KEY_BYTES_MAX)


class RekeyingStrategy(ProcessingStrategy[Batch]):
    """Holds back while too much is on its way, and commits what has arrived."""

    def __init__(
        self,
        rekeying: Rekeying,
        outbox: Outbox,
        commit: Commit,
        meter: StageMeter,
        clocks: tuple[Callable[[], float], Callable[[], int]],
    ) -> None:
        self._rekeying = rekeying
        self._outbox = outbox
        self._commit = commit
        self._meter = meter
        self._clock_s, self._clock_us = clocks
        self._is_closed = False

    def poll(self) -> None:
        """Takes in what has arrived."""
        self._outbox.poll()

    def submit(self, message: Message[Batch]) -> None:
        """Sends one batch on."""
        assert not self._is_closed, "closed strategies take nothing"
        if self._outbox.is_full:
            raise MessageRejected
        batch = message.payload
        partition = Partition(Topic(batch.topic), batch.partition)

        def done() -> None:
            self._commit({partition: batch.next_offset})

        parcel = self._outbox.open(done)
        event_count, dead_count, newest_us = self._rekeying.send(batch, parcel)
        self._outbox.close(parcel)
        self._meter.took(event_count, dead_count, newest_us, batch.events[-1].write_us, self._clock_us())

    def close(self) -> None:
        """Takes no more."""
        self._is_closed = True

    def terminate(self) -> None:
        """Gives up what is on its way; it is read again."""
        self._is_closed = True
        self._outbox.drop()

    def join(self, timeout: float | None = None) -> None:
        """Waits for what is on its way, and commits it."""
        if not self._outbox.flush(DELIVERY_LIMIT_S if timeout is None else timeout, self._clock_s):
            self._outbox.drop()
        self._commit({}, force=True)
