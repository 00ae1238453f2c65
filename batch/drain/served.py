"""One cycle of the drain of served answers: what a feature server logged goes into the table `served`, each once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import pyarrow as pa

from batch.offline.catalogue import Catalogue
from batch.offline.maintenance import expire
from batch.offline.positions import LogRange
from batch.offline.runs import Runs
from batch.skew.served_log import IDENTIFIER, ServedLog
from headrace.client.shards import LogPosition, ShardClient
from headrace.served import decode_rows, frames_of

RUN_KIND: Final = "drain-served"
CYCLE_BYTES: Final = 16 << 20  # of frames that one cycle takes; their rows take some times more
CHUNK_BYTES: Final = 4 << 20
APPENDS_PER_EXPIRY: Final = 256
SNAPSHOT_AGE_MAX_US: Final = 24 * 3_600 * 1_000_000
_LOG: Final = "served"  # of the log's name, after the identity of the store
_PARTITION: Final = 0


class DrainedAnswers(NamedTuple):
    """What a cycle did; `is_all` where nothing was left of what it had seen."""

    row_count: int = 0
    skipped_count: int = 0
    is_all: bool = True


@dataclass(slots=True)
class _Taken:
    """Answers [first, next) of an epoch, one frame after the other."""

    epoch: int
    first: int
    next: int
    tables: list[pa.Table] = field(default_factory=list)


class ServedDrain:
    """Keeps only a count of commits between cycles: the position in the table's properties is what was taken."""

    def __init__(self, shards: ShardClient, catalogue: Catalogue, runs: Runs, clock_us: Callable[[], int]) -> None:
        self._shards = shards
        self._catalogue = catalogue
        self._runs = runs
        self._clock_us = clock_us
        self._append_count = 0

    def waiting(self) -> LogPosition | None:
        """Where the log ends, if answers wait in it."""
        _, state = self._shards.served_log()
        return state.end if state is not None and state.acknowledged < state.end else None

    def cycle(self, until: LogPosition, cycle_bytes: int = CYCLE_BYTES) -> DrainedAnswers:
        """Takes up to `cycle_bytes` of what waits before a position that `waiting` gave, all of one epoch."""
        store_id, state = self._shards.served_log()
        if state is None or state.acknowledged >= until:
            return DrainedAnswers()
        taken = self._read(state.acknowledged, until, cycle_bytes)
        if taken is None:  # an epoch began, or a segment is gone, and nothing is left before the position
            self._shards.acknowledge_served_log(until)
            return DrainedAnswers()
        part = LogRange(f"{store_id}-{_LOG}", _PARTITION, taken.epoch, taken.first, taken.next)
        rows = pa.concat_tables(taken.tables)
        with self._runs.run(RUN_KIND, {f"log/{_LOG}": part.text}) as run:
            added = ServedLog(self._catalogue).append(rows, part)
            snapshot = self._catalogue.load(IDENTIFIER).current_snapshot()
            if added and snapshot is not None:
                run.snapshots[".".join(IDENTIFIER)] = snapshot.snapshot_id
        self._expire()
        reached = LogPosition(part.epoch, part.next_offset)
        self._shards.acknowledge_served_log(reached)
        return DrainedAnswers(added, rows.num_rows - added, reached >= until)

    def _read(self, start: LogPosition, until: LogPosition, cycle_bytes: int) -> "_Taken | None":
        taken: _Taken | None = None
        held_bytes = 0
        chunks = self._shards.read_served_log(start, min(cycle_bytes, CHUNK_BYTES))
        for chunk in chunks:
            for frame in frames_of(chunk.frames):
                place = (chunk.epoch, frame.first)
                if place >= until or (taken is not None and place != (taken.epoch, taken.next)):
                    chunks.close()  # type: ignore[attr-defined]  # a generator
                    return taken
                if taken is None:
                    taken = _Taken(chunk.epoch, frame.first, frame.first)
                taken.tables.append(decode_rows(frame.stream))
                taken.next = frame.first + frame.row_count
            held_bytes += len(chunk.frames)
            if held_bytes >= cycle_bytes:
                chunks.close()  # type: ignore[attr-defined]  # as above
                return taken
        return taken

    def _expire(self) -> None:
        self._append_count += 1
        if self._append_count >= APPENDS_PER_EXPIRY:
            expire(lambda: self._catalogue.load(IDENTIFIER), self._clock_us() - SNAPSHOT_AGE_MAX_US)
            self._append_count = 0
