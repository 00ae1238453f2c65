"""One cycle of the sink: what a topic holds beyond its table's positions is appended, each message once.

The append is that of the drain (batch/offline/view_table.py): the position of each partition changes in the commit that
adds the rows. A sink that was killed anywhere begins at the positions of the table, whatever was written and not
committed; two sinks of one topic take turns, and each leaves out what the other took.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from batch.offline.catalogue import Catalogue
from batch.offline.maintenance import expire
from batch.offline.positions import LogRange
from batch.offline.runs import Runs
from batch.sink.decoding import Decoding, Message, Rejected
from batch.sink.streams import EventStream
from batch.sink.topic import FIRST_S, QUIET_S, TopicLog, lost
from headrace.errors import DataLoss

RUN_KIND: Final = "sink"
CYCLE_BYTES: Final = 64 << 20  # of messages that one commit takes; their rows take some times more
CYCLE_MESSAGES: Final = 200_000
APPENDS_PER_EXPIRY: Final = 256
SNAPSHOT_AGE_MAX_US: Final = 24 * 3_600 * 1_000_000
REFRESH_S: Final = 30.0  # a partition that was added is read after as long
_EPOCH: Final = 0  # a topic that was made anew is another log


@dataclass(frozen=True, slots=True)
class Sunk:
    """What a cycle did; `is_all` where nothing more had arrived."""

    row_count: int = 0
    skipped_count: int = 0
    rejected: Sequence[Rejected] = ()
    is_all: bool = True


class Sink:
    """Of one source. Owns nothing that outlives it."""

    def __init__(
        self,
        stream: EventStream,
        topic: TopicLog,
        catalogue: Catalogue,
        runs: Runs,
        *,
        clock_us: Callable[[], int],
        clock_s: Callable[[], float],
    ) -> None:
        self.stream = stream
        self._topic = topic
        self._decoding = Decoding(stream)
        self._catalogue = catalogue
        self._table = catalogue.event_table(stream.columns)
        self._runs = runs
        self._clock_us = clock_us
        self._clock_s = clock_s
        self._log = ""
        self._positions: dict[int, int] = {}
        self._firsts: dict[int, int] = {}  # where a partition began of which the table had nothing
        self._lost: dict[int, int] = {}  # where a partition ended that lost messages: no log that grows makes up for it
        self._refresh_s = 0.0
        self._append_count = 0

    def cycle(self, cycle_bytes: int = CYCLE_BYTES, cycle_messages: int = CYCLE_MESSAGES) -> Sunk:
        """Takes up to so much of what waits; writes a run where there is anything."""
        try:
            self._follow()
            waits = any(self._topic.bounds(number)[1] > offset for number, offset in self._positions.items())
            messages = self._topic.read(cycle_bytes, cycle_messages, FIRST_S if waits else QUIET_S)
            if not messages:
                return Sunk()
            return self._append(messages, is_all=len(messages) < cycle_messages and _bytes(messages) < cycle_bytes)
        except BaseException:
            self._lost |= {number: self._positions[number] for number in self._topic.stopped & self._positions.keys()}
            self._positions = {}  # the next cycle begins where the table says: the reader may have gone on
            raise

    def lag(self) -> int:
        """Messages that wait."""
        return self._topic.lag()

    def close(self) -> None:
        """Lets go of the cluster."""
        self._topic.close()

    def _follow(self) -> None:
        """Begins at the positions of the table: at first, where partitions were added, where the topic is another."""
        now_s = self._clock_s()
        if self._positions and now_s < self._refresh_s:
            return
        self._refresh_s = now_s + REFRESH_S
        count = self._topic.partition_count()
        log = self._topic.identity()
        if log != self._log:
            self._log, self._positions, self._firsts, self._lost = log, {}, {}, {}
        if len(self._positions) == count:
            return
        starts = {number: self._start(number) for number in range(count)}
        self._topic.begin(starts)
        self._positions = starts

    def _start(self, number: int) -> int:
        taken = self._table.position(LogRange(self._log, number, _EPOCH, 0, 0)).next_offset
        low, high = self._topic.bounds(number)
        start = taken or self._firsts.setdefault(number, low)
        if self._lost.get(number) == start or not low <= start <= high:
            self._lost[number] = start
            raise lost(self.stream.topic, number, start)
        self._lost.pop(number, None)
        return start

    def _append(self, messages: Sequence[Message], *, is_all: bool) -> Sunk:
        ends = dict(self._positions)
        for message in messages:
            if message.offset < ends[message.partition]:
                raise DataLoss(
                    f"offset {message.offset} of partition {message.partition} of {self.stream.topic!r} came twice",
                    reason="OFFSET_REPEATED",
                )
            ends[message.partition] = message.offset + 1
        ranges = [
            LogRange(self._log, number, _EPOCH, first, ends[number])
            for number, first in self._positions.items()
            if ends[number] > first
        ]
        decoded = self._decoding.decode(messages)
        inputs = {f"topic/{self.stream.topic}/{part.partition}": part.text for part in ranges}
        with self._runs.run(RUN_KIND, inputs) as run:
            appended = self._table.append(decoded.rows, ranges)
            if appended.snapshot_id is not None:
                run.snapshots[".".join(self.stream.columns.identifier)] = appended.snapshot_id
        self._positions = ends
        self._expire()
        return Sunk(appended.row_count, appended.skipped_count, decoded.rejected, is_all)

    def _expire(self) -> None:
        self._append_count += 1
        if self._append_count >= APPENDS_PER_EXPIRY:
            identifier = self.stream.columns.identifier
            expire(lambda: self._catalogue.load(identifier), self._clock_us() - SNAPSHOT_AGE_MAX_US)
            self._append_count = 0


def _bytes(messages: Sequence[Message]) -> int:
    return sum(len(message.value) for message in messages)
