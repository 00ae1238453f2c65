"""Online writes of a ring whose copies share a log: a write is acknowledged once the log has it, on any server."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_server.domain.catalogue import Catalogue
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.log_messages import KEY, ROWS_MAX, Kind, LogMessage
from feature_server.domain.logged_rows import Outgrown, Place, check_logged, view_rows
from feature_server.domain.shard import Position
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.shard_writes import Durability
from feature_server.domain.write_columns import EncodedRows
from feature_server.domain.write_events import EncodedEvents
from feature_server.domain.writes import DIRECT_SOURCE_ID, WriteAck, Writes, rows_by_shard

MESSAGE_BYTES_MAX: Final = 8 << 20  # of one message, far below what a broker is told to take


class ToShard(NamedTuple):
    """A message on its way to the log of a shard."""

    shard: int
    message: LogMessage


class RowsLog(Protocol):
    """The log of every shard. Raises Unavailable where it cannot be reached, or has not told in time what became of a
    message: then it may stand in the log all the same.
    """

    def check(self, durability: Durability) -> None:
        """Raises FailedPrecondition where the log does not keep what a durability promises."""

    def append(self, messages: Sequence[ToShard]) -> list[Position]:
        """Returns once all are as safe as the log makes them, with their places."""


class LoggedWrites(Writes):
    """Satisfies what the servicers ask of Writes."""

    def __init__(
        self,
        catalogue: Catalogue,
        shards: ShardSet,
        clock_us: Callable[[], int],
        log: RowsLog,
        beside_reads: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        super().__init__(catalogue, shards, clock_us, beside_reads)
        self._rows_log = log

    def _commit(self, batches: Iterable[pa.RecordBatch], target: ViewLayout, durability: Durability) -> WriteAck:
        check_logged(target)
        self._rows_log.check(durability)
        now_us = self._clock_us()
        messages: list[ToShard] = []
        row_count = 0
        with self._beside_reads():
            for batch in batches:
                first = 0
                for part in self._encoded(batch, target, now_us):
                    messages += self._messages(batch, part, first, target)
                    first += part.row_count
                row_count += batch.num_rows
        return self._counted(self._rows_log.append(messages) if messages else [], target, row_count, 0)

    def _messages(
        self, batch: pa.RecordBatch, part: EncodedRows | EncodedEvents, first: int, target: ViewLayout
    ) -> Iterator[ToShard]:
        for shard, indexes in rows_by_shard(part, len(self._shards)):
            rows = indexes + first if isinstance(part, EncodedRows) else part.places[indexes]
            for chosen in small_batches(batch, rows):
                if target.computed is not None:
                    _check_size(target, chosen, shard)
                yield ToShard(shard, LogMessage(Kind.ROWS, [target.view_id], self._catalogue.revision, chosen))

    def _erase(
        self, by_shard: Mapping[int, Sequence[bytes]], entity_id: int, views: Sequence[ViewLayout],
        durability: Durability,
    ) -> list[Position]:  # fmt: skip
        self._rows_log.check(durability)
        if not views:
            return []
        numbers = [view.view_id for view in views]
        count = max(1, ROWS_MAX // len(numbers))
        messages = [
            ToShard(shard, LogMessage(Kind.ERASE, numbers, self._catalogue.revision, _key_batch(keys[at : at + count])))
            for shard, keys in by_shard.items()
            for at in range(0, len(keys), count)
        ]
        return self._rows_log.append(messages)


def small_batches(batch: pa.RecordBatch, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """Rows of a batch in parts that a message may hold, without what a caller has written beside its columns."""
    batch = batch.replace_schema_metadata(None)
    for start in range(0, len(rows), ROWS_MAX):
        yield from _small_enough(batch.take(pa.array(rows[start : start + ROWS_MAX])))


def _small_enough(part: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if part.num_rows == 1 or part.nbytes <= MESSAGE_BYTES_MAX:
        yield part
        return
    middle = part.num_rows // 2
    yield from _small_enough(part.slice(0, middle))
    yield from _small_enough(part.slice(middle))


def _check_size(target: ViewLayout, batch: pa.RecordBatch, shard: int) -> None:
    """Raises what every copy would refuse alike: here somebody hears of it."""
    view_rows(target, batch, Place(np.zeros(batch.num_rows, np.int64), DIRECT_SOURCE_ID, shard, 0), Outgrown())


def _key_batch(keys: Sequence[bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(keys, pa.binary())], names=[KEY])
