"""Second stage: events of keyed partitions into the shards of this server, each exactly once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_server.domain.catalogue import Catalogue
from feature_server.domain.input_marks import (
    NOTHING_TAKEN,
    InputMark,
    SourcePartition,
    begin_key,
    decode_mark,
    mark_key,
)
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.shard import Shard
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.shard_writes import Durability
from feature_server.domain.stream_rows import Taken, append_events
from feature_server.pipeline.consumer import Batch
from feature_server.pipeline.keyed import ROW_BITS, KeyedEvents, read_keyed, write_keyed
from feature_server.pipeline.meters import Meters
from feature_server.pipeline.sources import takes_stream, view_batch
from feature_server.pipeline.topics import shard_of_partition
from headrace.definitions.entities import EVENT_TIME
from headrace.definitions.registered import RegistryState
from headrace.definitions.sources import SourceKind
from headrace.errors import DataLoss, HeadraceError, InvalidArgument, ResourceExhausted

ROW_TOO_LARGE: Final = "ROW_TOO_LARGE"
UNIT_EVENTS_MAX: Final = 4_096  # committed at once: what many events of one entity cost is then paid once


@dataclass(frozen=True, slots=True)
class KeyedTopic:
    """A keyed topic as this server reads it. `topic_id` tells it from one of the same name that was made later."""

    name: str
    topic_id: bytes
    entity: str
    partition_count: int


@dataclass(frozen=True, slots=True)
class Poison:
    """Events of one message that a view cannot take, counted in the batch of that message."""

    view: str
    source: str
    partition: int
    offset: int
    reason: str
    detail: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Unit:
    """Events of one source partition that are committed at once, and the offset behind their last message."""

    events: KeyedEvents
    next_offset: int


@dataclass(slots=True)
class _Begin:
    """Before `next_offset` every view has taken all; `saved_offset` is what the shard knows of it."""

    topic: KeyedTopic
    next_offset: int
    saved_offset: int | None = None


class Applying:
    """Knows the marks of this server's shards, and moves them with the rows."""

    def __init__(
        self,
        catalogue: Catalogue,
        shards: ShardSet,
        meters: Meters,
        clock_us: Callable[[], int],
        bury: Callable[[Poison], None],
    ) -> None:
        self._catalogue = catalogue
        self._shards = shards
        self._meters = meters
        self._clock_us = clock_us
        self._bury = bury
        self._marks: dict[tuple[int, int], InputMark] = {}
        self._begins: dict[tuple[str, int], _Begin] = {}

    def start(self, topic: KeyedTopic, partition: int) -> int | None:
        """Where to read a partition from: the store's own mark, never the group's; None where nothing was taken."""
        self._begins.pop((topic.name, partition), None)
        # What was cached of a store may be ahead of one that was opened anew.
        self._marks = {key: mark for key, mark in self._marks.items() if key[1] != partition}
        shard = self._shard(topic, partition)
        mark = self._load(shard, begin_key(self._entity_id(topic), partition), topic, partition)
        return None if mark is None else mark.next_offset

    def settle(self) -> None:
        """Keeps how far partitions were read whose events made no rows, so that a restart does not begin long ago."""
        for (_, partition), begin in self._begins.items():
            if begin.next_offset == begin.saved_offset:
                continue
            shard = self._shard(begin.topic, partition)
            try:
                shard.append([], lambda *_: [], Durability.LOG, records=self._begin_record(begin, partition))
            except HeadraceError:
                begin.saved_offset = None  # the next rows or the next call will

    def is_writable(self, topic: KeyedTopic, partition: int) -> bool:
        """Whether the shard of a partition takes writes now."""
        try:
            self._shard(topic, partition).check_writable()
        except HeadraceError:
            return False
        return True

    def apply(self, topic: KeyedTopic, batch: Batch) -> None:
        """Takes a batch of a keyed partition. What the shard refuses is raised, and may be tried again."""
        shard = self._shard(topic, batch.partition)
        begin = self._begins.setdefault((topic.name, batch.partition), _Begin(topic, batch.events[0].offset))
        for unit in self._units(batch, topic):
            state, views = self._catalogue.layouts
            _check_none_refused(state, views, unit.events.source, topic.entity)
            for view in self._fed(state, views, unit.events.source, topic.entity):
                try:
                    self._apply_view(shard, view, state, topic, batch, unit)
                except BaseException:
                    # Nobody knows whether the rows stand: the store is asked before the next try.
                    self._marks.pop((view.view_id, batch.partition), None)
                    raise
            begin.next_offset = unit.next_offset
        begin.next_offset = batch.next_offset

    def _apply_view(  # noqa: PLR0917 - as the caller has them
        self, shard: Shard, view: ViewLayout, state: RegistryState, topic: KeyedTopic, batch: Batch, unit: _Unit
    ) -> None:
        mark = self._mark(shard, view, topic, batch.partition)
        events = unit.events
        place = events.source_id, events.partition
        meter = self._meters.stage("apply", events.source)
        fresh = np.flatnonzero(events.positions > mark.taken.get(place, NOTHING_TAKEN))
        meter.replayed_count += len(events.positions) - len(fresh)
        if not len(fresh):
            return
        columns = view_batch(events.batch, view, state)
        if columns is None:  # sent before the view was registered
            meter.skipped_count += len(fresh)
            return
        ranges, dead_count = [fresh], 0
        while ranges:
            rows = ranges.pop()
            after = _moved(mark, place, int(events.positions[rows[-1]]), unit.next_offset if not ranges else None)
            try:
                part = columns if len(rows) == columns.num_rows else columns.take(pa.array(rows))
                records = {mark_key(view.view_id, batch.partition): after.encode()}
                begin = self._begins[topic.name, batch.partition]
                if begin.next_offset != begin.saved_offset:
                    records |= self._begin_record(begin, batch.partition)
                taken = Taken(events.write_us[rows], events.source_id, records)
                append_events(shard, view, part, taken, self._clock_us())
            except (InvalidArgument, ResourceExhausted) as error:
                if isinstance(error, ResourceExhausted) and error.reason != ROW_TOO_LARGE:
                    raise
                if len(rows) > 1:
                    # The later half waits below: positions are taken in their order.
                    middle = len(rows) // 2
                    ranges += [rows[middle:], rows[:middle]]
                    continue
                payload = write_keyed(columns.take(pa.array(rows)))
                offset = int(events.positions[rows[0]]) >> ROW_BITS
                self._bury(
                    Poison(view.ref, events.source, events.partition, offset, error.reason, error.message, payload)
                )
                dead_count += 1
            mark = after
            self._marks[view.view_id, batch.partition] = mark
        now_us = self._clock_us()
        times = columns.column(EVENT_TIME).view(pa.int64()).to_numpy()
        meter.took(len(fresh) - dead_count, dead_count, int(times.max()), int(events.write_us[fresh[-1]]), now_us)

    def _fed(
        self, state: RegistryState, views: Mapping[str, ViewLayout], source: str, entity: str
    ) -> Sequence[ViewLayout]:
        return [
            view
            for view in views.values()
            if view.definition.source == source and view.entity.name == entity and takes_stream(view, state)
        ]

    def _mark(self, shard: Shard, view: ViewLayout, topic: KeyedTopic, partition: int) -> InputMark:
        mark = self._marks.get((view.view_id, partition))
        if mark is None:
            found = self._load(shard, mark_key(view.view_id, partition), topic, partition)
            mark = found or InputMark(topic.topic_id)
            self._marks[view.view_id, partition] = mark
        return mark

    def _begin_record(self, begin: "_Begin", partition: int) -> dict[bytes, bytes]:
        # Said to be kept before it is: where the write fails, it is read anew by `start`.
        begin.saved_offset = begin.next_offset
        key = begin_key(self._entity_id(begin.topic), partition)
        return {key: InputMark(begin.topic.topic_id, begin.next_offset).encode()}

    def _entity_id(self, topic: KeyedTopic) -> int:
        return self._catalogue.entity(topic.entity).entity_id

    def _load(self, shard: Shard, key: bytes, topic: KeyedTopic, partition: int) -> InputMark | None:
        data = shard.read([key])[0]
        if data is None:
            return None
        mark = decode_mark(data)
        if mark.topic != topic.topic_id:
            raise DataLoss(
                f"topic {topic.name!r} was made anew: shard {shard.number} has taken {mark.next_offset} messages of "
                "another one; bring its values back from the offline store and start with an empty store",
                reason="KEYED_TOPIC_REPLACED",
                metadata={"topic": topic.name, "partition": str(partition)},
            )
        return mark

    def _units(self, batch: Batch, topic: KeyedTopic) -> Iterator[_Unit]:
        """Messages put together as long as they are of one source partition and one schema."""
        held: list[KeyedEvents] = []
        row_count = next_offset = 0
        for event in batch.events:
            try:
                events = read_keyed(event)
            except DataLoss as error:
                poison = Poison("", topic.name, batch.partition, event.offset, error.reason, error.message, event.value)
                self._bury(poison)
                continue
            if held and (row_count + len(events.positions) > UNIT_EVENTS_MAX or not _continues(held[-1], events)):
                yield _joined(held, next_offset)
                held, row_count = [], 0
            held.append(events)
            row_count += len(events.positions)
            next_offset = event.offset + 1
        if held:
            yield _joined(held, next_offset)

    def _shard(self, topic: KeyedTopic, partition: int) -> Shard:
        return self._shards[shard_of_partition(partition, topic.partition_count, len(self._shards))]


def _check_none_refused(state: RegistryState, views: Mapping[str, ViewLayout], source: str, entity: str) -> None:
    """Raises what is wrong with a view that these events feed: passed over, they would never come to it again."""
    kind = state.sources[source].definition.kind if source in state.sources else None
    for view in views.values():
        is_fed = view.definition.source == source and view.entity.name == entity and kind is SourceKind.STREAM
        if is_fed and view.is_active and view.refusal is not None:
            raise view.refusal


def _moved(mark: InputMark, place: SourcePartition, position: int, next_offset: int | None) -> InputMark:
    taken = {**mark.taken, place: position}
    return InputMark(mark.topic, mark.next_offset if next_offset is None else next_offset, taken)


def _continues(last: KeyedEvents, events: KeyedEvents) -> bool:
    is_same = (last.source_id, last.partition) == (events.source_id, events.partition)
    return is_same and events.positions[0] > last.positions[-1] and last.batch.schema == events.batch.schema


def _joined(held: Sequence[KeyedEvents], next_offset: int) -> _Unit:
    if len(held) == 1:
        return _Unit(held[0], next_offset)
    batch = pa.concat_batches([one.batch for one in held])
    positions: NDArray[np.int64] = np.concatenate([one.positions for one in held])
    write_us: NDArray[np.int64] = np.concatenate([one.write_us for one in held])
    first = held[0]
    return _Unit(KeyedEvents(first.source, first.source_id, first.partition, batch, positions, write_us), next_offset)
